"""What was read, and in which order: commits, then state, then what was published, then input.

A running agent publishes, then stores its state, then commits. Read the other way round, whatever a commit or a state
speaks of is on the log by the time it is looked for, so nothing that runs on can look like a lie. Among the published
topics the same is had by a horizon: claims count up to the end offsets of one moment, and what must stand behind them
is read after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from agents.contract import Agent
from schemas.catalogue import AGENTS, AgentIO
from schemas.codec import Codec
from schemas.events import Event, PartitionHead, ScopeState
from schemas.refused import Refused
from streams.blobs import TOPIC as BLOBS
from streams.blobs import Blobs
from streams.held import Held
from streams.identity import Identity, identity_of
from streams.log import Record
from streams.records import CE_ID, HEAD_KEY, SCOPE_PREFIX, SOURCE_TOPIC, header, output_id
from streams.verify.kept import Kept
from streams.verify.view import Log, Place, Spot

INBOX = ".inbox"
REMEMBERED = 60_000  # decoded events of records that are kept
TAIL = 256  # newest offsets of an output topic's partition among which an agent's newest record is looked for


@dataclass(frozen=True)
class Since:
    """Where evidence may begin: at an append time, or at offsets. State is always folded from its beginning."""

    text: str
    time_ms: int = 0
    offsets: Mapping[Place, int] = field(default_factory=dict)

    def covers(self, record: Record) -> bool:
        """Whether a record counts as evidence."""
        if (record.timestamp_ms or 0) < self.time_ms:
            return False
        return record.offset >= self.offsets.get((record.topic, record.partition), 0)

    @classmethod
    def parse(cls, text: str) -> Since:
        """An ISO time with zone, `TOPIC-PARTITION@OFFSET` with commas between.

        >>> Since.parse("policy.ledger-0@12").offsets
        {('policy.ledger', 0): 12}

        Raises:
            ValueError: neither.
        """
        if "@" in text:
            offsets = {}
            for part in text.split(","):
                place, _, offset = part.strip().rpartition("@")
                topic, _, partition = place.rpartition("-")
                if not topic:
                    raise ValueError(f"{part!r} is not TOPIC-PARTITION@OFFSET")
                offsets[topic, int(partition)] = int(offset)
            return cls(text, offsets=offsets)
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            raise ValueError(f"{text!r} has no time zone; write e.g. {text}Z")
        return cls(text, time_ms=int(when.timestamp() * 1000))


class Stored:
    """What a changelog partition holds."""

    def __init__(self) -> None:
        self.held: Held[Record] = Held(place=lambda record: record.place)

    def take(self, codec: Codec, record: Record) -> None:
        """One changelog record."""
        self.held.take(codec, record, record.key or b"", record.value, record.headers)

    @property
    def scopes(self) -> dict[str, ScopeState]:
        """The newest state of every scope."""
        return self.held.newest()

    @property
    def scope_records(self) -> dict[str, Record]:
        """Where it stands."""
        return {s: self.held.where[(SCOPE_PREFIX + s).encode()] for s in self.scopes}

    @property
    def head(self) -> PartitionHead | None:
        """The newest head."""
        return self.held.head

    @property
    def head_record(self) -> Record | None:
        """Where it stands."""
        return self.held.where.get(HEAD_KEY)

    @property
    def unreadable(self) -> list[str]:
        """Records that were refused, in words."""
        return list(self.held.refused.values())


def written_to(record: Record) -> str:
    """The topic that a record was written to first: of a copy in an inbox its source."""
    copied = header(record.headers, SOURCE_TOPIC) if record.topic.endswith(INBOX) else None
    return copied or record.topic


class Evidence:
    """Commits and state of every agent, read at once; the rest when it is asked for.

    Args:
        log: what is judged.
        roster: agents, as the worker runs them (seed and configuration included).
        codec: Avro codec.
        since: where evidence may begin; None: at the beginning.
        identities: what the agents stamp on policies; None: what the roster's would.
    """

    def __init__(self, log: Log, roster: Mapping[str, Agent[Any]], codec: Codec, since: Since | None = None,
                 identities: Mapping[str, Identity] | None = None) -> None:
        self.log, self.roster, self.codec, self.since = Kept(log), roster, codec, since
        self.now_ms = log.now_ms
        self.topics = log.topics()
        self.identities: Mapping[str, Identity] = \
            {name: identity_of(agent) for name, agent in roster.items()} if identities is None else identities
        self.committed = {name: log.committed(name) for name in roster}
        self.stored = {name: self._stored(AGENTS[name]) for name in roster}
        self._horizon = {(t, p): log.bounds(t, p)[1] for name in roster for t in AGENTS[name].writes
                         for p in self.topics.get(t, ())}
        self._ends: dict[Place, int] = {}
        self._published: dict[str, dict[str, tuple[bytes, str]]] = {}
        self._events: dict[str, list[tuple[Record, Event]]] = {}
        self._decoded: dict[int, tuple[Record, Event]] = {}  # by id of the record, which is held with it
        self.conflicts: list[str] = []

    def _stored(self, io: AgentIO) -> dict[int, Stored]:
        stored = {p: Stored() for p in self.topics.get(io.changelog, ())}
        if stored:
            for record in self.log.read(io.changelog):
                stored[record.partition].take(self.codec, record)
        return stored

    def blobs(self, name: str, partition: int) -> Blobs | None:
        """Heavy state of an agent's partition; None where it keeps none."""
        if not self.roster[name].heavy:
            return None
        found = Blobs(name)
        for record in self.records(BLOBS, {partition: 0}):
            if record.value is not None or (record.timestamp_ms or 0) <= self.now_ms:
                found.take(record.key, record.value)  # what was deleted since the state was read, the state still names
        return found

    def covers(self, record: Record) -> bool:
        """Whether a record is a claim to be judged: within `since`, and there when the reading began."""
        return self.reached(record) and (self.since is None or self.since.covers(record))

    def reached(self, record: Record) -> bool:
        """Whether an output was there when the reading began."""
        return record.offset < self._horizon.get((record.topic, record.partition), 0)

    def reaches(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a partition has come to an offset; the broker is asked only where it had not when last asked."""
        if self._ends.get((topic, partition), 0) <= offset:
            self._ends[topic, partition] = self.log.bounds(topic, partition)[1]
        return offset < self._ends[topic, partition]

    def records(self, topic: str, start: Mapping[int, int] | None = None,
                until: Mapping[int, int] | None = None) -> Iterator[Record]:
        """Records of a topic, as `Log.read` has them; none where the topic is not there."""
        if topic in self.topics:
            yield from self.log.read(topic, start, until)

    def fetch(self, spots: Iterable[Spot]) -> Mapping[Spot, Record]:
        """Single records by their offsets; what is not there is left out."""
        bounds: dict[Place, tuple[int, int]] = {}
        there = []
        for topic, partition, offset in spots:
            if partition not in self.topics.get(topic, ()):
                continue
            if (topic, partition) not in bounds:
                bounds[topic, partition] = self.log.bounds(topic, partition)
            low, end = bounds[topic, partition]
            if low <= offset < end:
                there.append((topic, partition, offset))
        return self.log.fetch(there)

    def stream(self, topic: str) -> Iterator[tuple[Record, Event]]:
        """Decoded records; what cannot be decoded is left out, since no agent took it either."""
        for record in self.records(topic):
            event = self.decoded(record)
            if event is not None:
                yield record, event

    def decoded(self, record: Record) -> Event | None:
        """The event of a record, of an inbox's by its source; None where it cannot be decoded."""
        found = self._decoded.get(id(record))
        if found is not None:
            return found[1]
        try:
            event = self.codec.decode(written_to(record), record.value)
        except Refused:
            return None
        if len(self._decoded) < REMEMBERED and self.log.holds(record):
            self._decoded[id(record)] = record, event
        return event

    def events(self, topic: str) -> list[tuple[Record, Event]]:
        """As `stream`, kept; an output id that comes again counts once, as every reader has it."""
        if topic not in self._events:
            kept: list[tuple[Record, Event]] = []
            seen: dict[str, bytes | None] = {}
            for record, event in self.stream(topic):
                value = self.codec.canonical(record.value)
                ce_id = header(record.headers, CE_ID)
                if output_id(ce_id) is not None:
                    assert ce_id is not None
                    if ce_id in seen:
                        if seen[ce_id] != value:
                            self.conflicts.append(record.place)
                        continue
                    seen[ce_id] = value
                kept.append((record, event))
            self._events[topic] = kept
        return self._events[topic]

    def published(self, topic: str) -> dict[str, tuple[bytes, str]]:
        """SHA-256 of the canonical value and place of every output of ours on a topic, by output id; of repeats the
        first."""
        if topic not in self._published:
            found: dict[str, tuple[bytes, str]] = {}
            for record in self.records(topic):
                ce_id = header(record.headers, CE_ID)
                if ce_id is not None and output_id(ce_id) is not None and ce_id not in found:
                    found[ce_id] = (sha256(self.codec.canonical(record.value) or b"").digest(), record.place)
            self._published[topic] = found
        return self._published[topic]

    def last(self, topic: str, n: int = 1) -> list[Record]:
        """The last n offsets of every partition, where they hold records."""
        start = {}
        for p in self.topics.get(topic, ()):
            low, end = self.log.bounds(topic, p)
            if end > low:
                start[p] = max(low, end - n)
        return list(self.records(topic, start)) if start else []

    def newest_work(self, io: AgentIO) -> Record | None:
        """The newest record that the agent wrote: state, or an output that bears its name."""
        found = self.last(io.changelog)
        for topic in io.writes:
            for record in self.last(topic, TAIL):
                written = output_id(header(record.headers, CE_ID))
                if written is not None and written[0] == io.name:
                    found.append(record)
        return max(found, key=lambda r: r.timestamp_ms or 0, default=None)
