"""Follows the log while somebody watches: how agents stand, new policies, updates and trades.

A thread of its own, with a reader of its own, since reading waits. Every interval it asks for offsets, as `quantum
status --watch` does, and reads what they say is new. Of a topic that grew by more than `NEWEST` records a partition in
an interval only those are shown; how many there were is counted from the offsets. While nobody watches nothing is
asked.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Any

from confluent_kafka import KafkaException

from schemas.codec import Codec
from streams.inspecting.standing import Place, Watcher
from streams.log import LogReader, NoBroker, NoTopic, Record
from streams.settings import Settings
from streams.ui.feed import CURRENT, FOLLOWED, TRADES, Row, policies, row_of

INTERVAL_S = 1.0
RETRY_S = 2.0
NEWEST = 40  # records of a partition that are decoded in an interval
ROWS = 60  # that a page shows

Tell = Callable[[str, Any], None]


class Looker:
    """Looks at the log in a thread.

    Args:
        settings: broker and names.
        codec: Avro codec.
        tell: takes an event's name and data; called in the thread.

    Attributes:
        watched: set while somebody watches.
    """

    def __init__(self, settings: Settings, codec: Codec, tell: Tell) -> None:
        self.watched = threading.Event()
        self._settings, self._codec, self._tell = settings, codec, tell
        self._stopped = threading.Event()
        self._lock = threading.Lock()  # of what `snapshot` reads
        self._ends: dict[Place, int] | None = None
        self._rows: dict[bool, deque[Row]] = {True: deque(maxlen=ROWS), False: deque(maxlen=ROWS)}
        self._policies: dict[str, Row] = {}
        self._seen: Counter[str] = Counter()
        self._overview: dict[str, Any] | None = None
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="looking", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, at the latest when the broker has answered."""
        self._stopped.set()
        self.watched.set()
        self._thread.join()

    def snapshot(self) -> dict[str, Any]:
        """All that is known, for a page that was just opened."""
        with self._lock:
            return {"overview": self._overview, "trouble": self._trouble, "feed": list(self._rows[False]),
                    "trades": list(self._rows[True]), "policies": list(self._policies.values()),
                    "seen": dict(self._seen)}

    # ------------------------------------------------------------------ the thread
    def _run(self) -> None:
        while self.watched.wait() and not self._stopped.is_set():
            try:
                with LogReader(self._settings) as log, closing(Watcher(self._settings, log)) as watcher:
                    self._look(log, watcher)
            except (NoBroker, NoTopic, KafkaException) as exc:
                self._troubled(str(exc))
                self._stopped.wait(RETRY_S)

    def _look(self, log: LogReader, watcher: Watcher) -> None:
        before = watcher.sample()
        self._read(log, before.bounds)
        while not self._stopped.wait(INTERVAL_S) and self.watched.is_set():
            now = watcher.sample()
            self._read(log, now.bounds)
            self._stands(asdict(watcher.overview(before, now)))
            before = now

    def _stands(self, overview: dict[str, Any]) -> None:
        with self._lock:
            self._overview, self._trouble = overview, None
        self._tell("overview", overview)

    def _troubled(self, why: str) -> None:
        with self._lock:
            self._trouble = why
        self._tell("trouble", {"why": why, "at_ms": int(time.time() * 1000)})

    def _read(self, log: LogReader, bounds: Mapping[Place, tuple[int, int]]) -> None:
        """What came since the last look; at the first one the newest, and all of `policy.current`."""
        known, first = self._ends, self._ends is None
        places = {place: b for place, b in bounds.items() if place[0] in FOLLOWED}
        new = {place: (max(low, (known or {}).get(place, low)), end) for place, (low, end) in places.items()}
        new = {place: (begin, end) for place, (begin, end) in new.items() if begin < end}
        if new or first:
            self._new(log, new, first)
        self._ends = {place: end for place, (_, end) in places.items()}

    def _new(self, log: LogReader, new: Mapping[Place, tuple[int, int]], first: bool) -> None:
        newest: list[Record] = []
        held = dict(self._policies)
        policies(self._codec, self._scanned(log, new, newest), held)
        rows = [row for row in (row_of(self._codec, r) for r in sorted(newest, key=_order)) if row is not None]
        changed = [row for policy_id, row in held.items() if self._policies.get(policy_id) is not row]
        gone = sorted(self._policies.keys() - held.keys())
        with self._lock:
            self._policies = held
            for row in rows:
                self._rows[row["topic"] == TRADES].appendleft(row)
            if not first:
                for (topic, _), (begin, end) in new.items():
                    self._seen[topic] += end - begin
            seen = dict(self._seen)
        kept = {kind: [r for r in rows if (r["topic"] == TRADES) is kind][-ROWS:] for kind in (True, False)}
        self._tell("news", {"feed": kept[False], "trades": kept[True], "policies": changed, "gone": gone, "seen": seen})

    def _scanned(self, log: LogReader, new: Mapping[Place, tuple[int, int]], newest: list[Record]) -> Iterator[Record]:
        """What is new on `policy.current`; meanwhile the newest of every topic are collected."""
        wanted = {place: (begin if place[0] == CURRENT else max(begin, end - NEWEST), end)
                  for place, (begin, end) in new.items()}
        for record in log.scan(wanted):
            if record.value is not None and record.offset >= new[record.topic, record.partition][1] - NEWEST:
                newest.append(record)
            if record.topic == CURRENT:
                yield record


def _order(record: Record) -> tuple[int, int, int]:
    """By time of arrival."""
    return record.timestamp_ms or 0, record.partition, record.offset
