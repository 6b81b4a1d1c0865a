"""Keeps the publisher close to the agents, so that what they learn reaches the decisions that follow.

A symbol's next bar waits while `bars` of its bars are in flight, as `inflight` counts them from what the agents have
written: marks, features, decisions, experiences, updates. These topics are followed with a consumer, as they grow, so
that a round trip costs no poll interval.

Committed offsets come second, being late by nature. Where nothing moves for a moment, all groups are asked: once they
have committed everything, twice in a row, bars that left no trace are done too (repeats that the agents ignore).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from schemas.catalogue import built_agents
from schemas.codec import Codec
from schemas.events import PolicyRecord
from schemas.refused import Refused
from streams.commits import Commits
from streams.ends import offsets
from streams.ingest.inflight import FOLLOWED, LEARNING_BOOKS, NEWEST_IS_ENOUGH, InFlight
from streams.transport.logs import LIBRDKAFKA

if TYPE_CHECKING:
    from streams.settings import Settings

POLL_S = 0.05
QUIET_S = 0.15
TIMEOUT_S = 60.0
Place = tuple[str, int]


class Stalled(Exception):
    """The agents do not come along; the message names the one that is behind and what to do."""


class Lead:
    """Counts the bars in flight. A context manager; its threads end with it.

    Args:
        settings: broker and names.
        bars: bars of event time that a symbol may be ahead, at least 1.
        timeout_s: time without any progress after which `ready` gives up.
        codec: Avro codec; None: one that knows no registry.
    """

    def __init__(self, settings: Settings, bars: int, timeout_s: float = TIMEOUT_S,
                 codec: Codec | None = None) -> None:
        self._settings = settings
        self._bars = bars
        self._timeout_s = timeout_s
        self._codec = codec or Codec()
        self._admin = AdminClient(dict(settings.client()), logger=LIBRDKAFKA)
        self._group_commits = Commits(settings)
        self._agents = {a.name: {settings.topic(t) for t in (a.input_topic, *a.reads)} for a in built_agents()
                        if "market.candles" not in a.writes}  # who makes candles is before them, not behind
        self._symbols: dict[str, InFlight] = {}
        self._keys: set[bytes] = set()  # of what is written about our symbols; other records are not decoded
        self._sent = self._acknowledged = 0
        self._changed = threading.Condition()
        self._done = threading.Event()
        self._progress_at = time.monotonic()
        self._lags: dict[str, int] = {}
        self._places: list[Place] = []
        self._begin: dict[Place, int] = {}
        self._failure: Exception | None = None
        self._threads = [
            threading.Thread(target=self._guard, args=(run,), name=name, daemon=True)
            for name, run in (("ingest-follow", self._follow), ("ingest-lags", self._watch_lags))
        ]

    def __enter__(self) -> Lead:
        names = set(map(self._settings.topic, FOLLOWED)).union(*self._agents.values())
        there = self._admin.list_topics(timeout=10).topics
        self._places = [(t, p) for t in sorted(names) if t in there for p in there[t].partitions]
        self._begin = self._ends()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(timeout=10)
        self._group_commits.close()

    # ------------------------------------------------------------------ the publisher's side
    def sent(self, symbol: str, interval_ms: int, ts_ms: int) -> None:
        """A bar was handed to the producer."""
        with self._changed:
            self._sent += 1
            flight = self._symbols.setdefault(symbol, InFlight(interval_ms))
            self._keys |= {symbol.encode(), *(f"{learner}/{symbol}".encode() for learner in LEARNING_BOOKS)}
            if flight.interval_ms == interval_ms:
                flight.sent(ts_ms)

    def acknowledged(self) -> None:
        """The broker has a bar that was sent."""
        self._acknowledged += 1

    def ready(self, symbol: str) -> bool:
        """Whether the next bar of a symbol may go out.

        Raises:
            Stalled: nothing came along for `timeout_s`.
        """
        if self._failure is not None:
            raise self._failure
        with self._changed:
            flight = self._symbols.get(symbol)
            behind = 0 if flight is None else flight.behind()
        if behind < self._bars:
            self._progress_at = time.monotonic()
            return True
        if time.monotonic() - self._progress_at > self._timeout_s:
            raise Stalled(self._why(symbol, behind))
        return False

    def learned(self, symbol: str) -> int:
        """Updates that the learner has made of a symbol since this began."""
        flight = self._symbols.get(symbol)
        return 0 if flight is None else flight.learned

    def wait(self, seconds: float) -> None:
        """Until something changed, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def _why(self, symbol: str, behind: int) -> str:
        silent = [name for name in self._agents if not self._commits(name)]
        lags = ", ".join(f"{name} {lag}" for name, lag in self._lags.items() if lag and name not in silent)
        said = f"no progress for {self._timeout_s:.0f} s with {behind} bars of {symbol} in flight"
        if lags or not silent:
            said += f"; records that agents have not taken yet: {lags or 'none'}, see 'quantum status'"
        if silent:
            said += (f"; agent(s) {', '.join(silent)} have committed nothing (consumer group "
                     f"{self._settings.group(silent[0])}): start them with 'quantum worker', or publish without "
                     f"waiting for any with --lead none")
        return said

    # ------------------------------------------------------------------ the agents' side
    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as exc:  # the publisher raises it
            self._failure = exc
            with self._changed:
                self._changed.notify_all()

    def _follow(self) -> None:
        """Take what the agents write."""
        topics = {self._settings.topic(name): name for name in FOLLOWED}
        consumer = Consumer({
            **self._settings.client(), "group.id": f"{self._settings.app_id}.ingest", "enable.auto.commit": False,
            "fetch.wait.max.ms": min(50, max(10, self._bars // 3)), "auto.offset.reset": "latest",
            "fetch.min.bytes": 500_000,  # the wait is the pace: a request a record would cost more than it brings
        }, logger=LIBRDKAFKA)
        consumer.assign([TopicPartition(*place, end) for place, end in self._begin.items() if place[0] in topics])
        try:
            while not self._done.is_set():
                batch: dict[object, tuple[str, bytes]] = {}
                for message in consumer.consume(500, timeout=0.002) or consumer.consume(1, timeout=0.1):
                    value = message.value()
                    if message.error() is None and isinstance(value, bytes) and message.key() in self._keys:
                        topic = topics[str(message.topic())]
                        place = (topic, message.partition(), message.offset())
                        batch[(topic, message.key()) if topic in NEWEST_IS_ENOUGH else place] = (topic, value)
                if batch:
                    self._arrived(batch.values())
        finally:
            consumer.close()

    def _arrived(self, records: Iterable[tuple[str, bytes]]) -> None:
        with self._changed:
            for topic, value in records:
                try:
                    event = self._codec.decode(topic, value)
                except Refused:  # somebody else wrote there; it says nothing about progress
                    continue
                flight = self._symbols.get(event.scope if isinstance(event, PolicyRecord) else
                                           getattr(event, "symbol", ""))
                if flight is not None:
                    flight.saw(event)
            self._progress_at = time.monotonic()
            self._changed.notify_all()

    def _watch_lags(self) -> None:
        """Where nothing moves, see whether all groups have taken everything."""
        quiet: int | None = None
        while not self._done.wait(POLL_S):
            sent = self._sent
            if time.monotonic() - self._progress_at < QUIET_S:
                quiet = None
                continue
            try:
                lags = self._measure()
            except (KafkaException, TimeoutError):  # the broker is away; `ready` gives up where it does not come back
                continue
            with self._changed:
                if lags != self._lags:
                    self._lags, self._progress_at = lags, time.monotonic()
                if any(lags.values()) or sent != self._sent or self._acknowledged < sent:
                    quiet = None
                elif quiet == sent:
                    for flight in self._symbols.values():
                        flight.settle()
                    self._changed.notify_all()
                else:
                    quiet = sent

    def _measure(self) -> dict[str, int]:
        """Records that each agent's group has not committed.

        What an agent that has not begun yet has not committed counts from our own beginning.
        """
        commits = {name: self._commits(name) for name in self._agents}
        ends = self._ends()
        return {
            name: sum(max(0, end - commits[name].get(place, self._begin.get(place, 0)))
                      for place, end in ends.items() if place[0] in topics)
            for name, topics in self._agents.items()
        }

    def _commits(self, agent: str) -> dict[Place, int]:
        """Committed offsets of an agent's group."""
        places = [place for place in self._places if place[0] in self._agents[agent]]
        return self._group_commits.of(self._settings.group(agent), places)

    def _ends(self) -> dict[Place, int]:
        return offsets(self._admin, self._places, OffsetSpec.latest())
