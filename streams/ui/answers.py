"""What a page asks for once: a story, the course of a policy, a difference, dead letters, sending them again.

Each answer is what a command prints with --json, made by the same functions; `Answers` is called in threads.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from schemas.codec import Codec
from streams import story
from streams.inspecting.deadletters import (
    Letter,
    dead_letter_topics,
    letters,
    plan,
    redrive,
    tally,
)
from streams.inspecting.shown import DLQ, hexdump, show
from streams.log import LogReader
from streams.policies.ledger import LEDGER, Asked, Ledger, read_ledger
from streams.settings import Settings

COLUMNS = 240  # points of a curve at most: more than that are not to be told apart on a screen
LETTERS = 100  # newest dead letters of a topic that are listed
HEX_BYTES = 512
KEPT = 4  # ledgers of a policy that are kept until the topic grows
LIMIT = 12  # outcomes that a story shows of the policy's lineage

Answer = dict[str, Any]
Spot = tuple[int, int]


class NotThere(LookupError):
    """What was asked for is not on the log; `near`: names that resemble it."""

    def __init__(self, text: str, near: Collection[str] = ()) -> None:
        self.near = list(near)
        super().__init__(text)


class Answers:
    """Reads the log for one question at a time; from any thread.

    Args:
        settings: broker and names.
        codec: Avro codec.
    """

    def __init__(self, settings: Settings, codec: Codec) -> None:
        self._settings, self._codec = settings, codec
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._ledgers: OrderedDict[str, tuple[object, Ledger]] = OrderedDict()

    # ------------------------------------------------------------------ one trade
    def why(self, name: str) -> Answer:
        """The story of a trade, a decision or a policy version, as `quantum why --json`.

        Raises:
            NotThere: no record names it.
        """
        reach = story.Reach(1, LIMIT)
        with LogReader(self._settings) as log:
            try:
                return story.plain(name, story.trace_name(log, self._codec, name, reach))
            except story.Unknown as unknown:
                raise NotThere(str(unknown), unknown.near) from None

    # ------------------------------------------------------------------ policies
    def course(self, policy_id: str) -> Answer:
        """What `quantum policy plot` draws, thinned to `COLUMNS` points.

        Raises:
            NotThere: the ledger has no such policy.
        """
        from streams.policies.beside import beside  # these load the networks' libraries: not before somebody asks
        from streams.policies.course import course, thinned
        from streams.policies.panels import panels

        with LogReader(self._settings) as log:
            versions = self._ledger(log, policy_id).versions.get(policy_id)
            if not versions:
                raise NotThere(f"{LEDGER} holds no policy {policy_id}")
            more = beside(log, self._codec, versions)
        points = course(versions, more.training, more.gain)
        some = thinned(points, COLUMNS)
        return {
            "policy_id": policy_id, "versions": len(points), "first": points[0].version, "last": points[-1].version,
            "points": [{"version": p.version, "ts_ms": p.ts_ms, "status": p.status, "reason": p.reason,
                        "outcomes": p.outcomes, "place": p.place} for p in some],
            "panels": [asdict(panel) for panel in panels(some)],
        }

    def diff(self, policy_id: str, before: int, after: int) -> Answer:
        """What changed between two versions, as `quantum policy diff --json`.

        Raises:
            NotThere: the ledger lacks one of them.
        """
        from streams.policies.told import compared

        with LogReader(self._settings) as log:
            ledger = self._ledger(log, policy_id)
        try:
            old, new = (ledger.of(Asked(policy_id, v, v))[0] for v in (before, after))
        except LookupError as exc:
            raise NotThere(str(exc.args[0])) from None
        return compared(old, new)

    def _ledger(self, log: LogReader, policy_id: str) -> Ledger:
        """The ledger of a policy, read again when the topic has grown."""
        ends = tuple(log.bounds(LEDGER, p) for p in log.partitions(LEDGER))
        with self._lock:
            kept = self._ledgers.get(policy_id)
        if kept is None or kept[0] != ends:
            kept = ends, read_ledger(log.read(LEDGER), self._codec, [policy_id])
            with self._lock:
                self._ledgers[policy_id] = kept
                while len(self._ledgers) > KEPT:
                    self._ledgers.popitem(last=False)
        return kept[1]

    # ------------------------------------------------------------------ dead letters
    def dead(self) -> Answer:
        """Dead letters of every topic by reason, as `quantum dlq list --json`, and how many topics were looked at."""
        with LogReader(self._settings) as log:
            found = {topic: letters(log, topic) for topic in dead_letter_topics(log)}
        return {"looked_at": len(found), "topics": [
            {"topic": topic, "records": len(some), "reasons": [row.as_dict() for row in tally(some)]}
            for topic, some in found.items() if some]}

    def letters(self, topic: str) -> Answer:
        """The newest letters of a dead-letter topic, as `quantum dlq show`, with the beginning of their bytes.

        Raises:
            NotThere: the broker has no such dead-letter topic.
        """
        with LogReader(self._settings) as log:
            some = letters(log, _dlq(log, topic))
        return {"topic": topic, "records": len(some), "letters": [self._shown(x) for x in reversed(some[-LETTERS:])]}

    def _shown(self, letter: Letter) -> Answer:
        value = letter.record.value
        shown = show(self._codec, letter.record) | {"hex": None}
        return shown | {"place": letter.record.place, "bytes": None if value is None else len(value),
                        "dump": [] if value is None else hexdump(value, HEX_BYTES)}

    def redrive(self, topic: str, spots: Collection[Spot], dry_run: bool) -> Answer:
        """Send letters to their source topic again, or say what would be sent; as `quantum dlq redrive --json`.

        Args:
            topic: dead-letter topic.
            spots: partition and offset of each letter.

        Raises:
            NotThere: the topic has no letter at one of the places; nothing was sent.
            TimeoutError, KafkaException: the broker did not acknowledge them all; what it took is skipped next time.
        """
        chosen = set(spots)
        with LogReader(self._settings) as log:
            source = _dlq(log, topic).removesuffix(DLQ)
            found = letters(log, topic)
            missing = chosen - {letter.record[1:3] for letter in found}
            if missing:
                places = ", ".join(f"{topic}-{p}@{o}" for p, o in sorted(missing))
                raise NotThere(f"there is no dead letter at {places}; nothing was sent")
            with self._sending:  # of two that ask at once, the second finds what the first one sent
                todo = plan(log, source, found, lambda letter: letter.record[1:3] in chosen, again=False)
                done = [] if dry_run else redrive(self._settings, source, todo)
        places_of = {letter.record.place: None for letter, _ in todo.send} | {
            letter.record.place: place for letter, place in done}
        return {"topic": source, "dry_run": dry_run, **todo.as_dict(places_of)}


def _dlq(log: LogReader, topic: str) -> str:
    """A dead-letter topic that the broker has."""
    if topic not in dead_letter_topics(log):
        raise NotThere(f"the broker has no dead-letter topic {topic}")
    return topic
