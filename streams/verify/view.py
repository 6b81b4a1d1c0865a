"""The log as the judge sees it, and one in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Protocol

from streams.log import Record
from streams.records import Headers

_OFFSET = attrgetter("offset")
Place = tuple[str, int]
Spot = tuple[str, int, int]
"""Topic, partition and offset of one record."""


class Log(Protocol):
    """Records by topic, partition and offset; topics as the catalogue names them."""

    @property
    def now_ms(self) -> int:
        """Now, on the clock of the records' timestamps."""

    @property
    def cluster_id(self) -> str:
        """What the cluster calls itself; Kafka gives every cluster another id."""

    def topics(self) -> Mapping[str, Sequence[int]]:
        """Partitions of every topic."""

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset kept, and one past the last."""

    def read(self, topic: str, start: Mapping[int, int] | None = None,
             until: Mapping[int, int] | None = None) -> Iterator[Record]:
        """Records to the end, in order within a partition.

        Args:
            topic: a topic that is there.
            start: offset to begin at, for each partition to be read; None: all partitions from their beginning.
            until: one past the last offset to read of a partition; those without one to their end.
        """

    def fetch(self, spots: Collection[Spot]) -> Mapping[Spot, Record]:
        """Single records by their offsets; what is no longer there is left out.

        Args:
            spots: within the `bounds` of partitions that are there.
        """

    def committed(self, agent: str) -> Mapping[Place, int]:
        """Next offset that the agent's consumer group will take; partitions without a commit are left out."""


class MemoryLog:
    """A log in memory: what tests and the planted cheats are judged on.

    Attributes:
        now_ms: the judge's clock.
        cluster_id: of the cluster that it stands for.
        records: by topic and partition.
        commits: next offsets, by agent.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        self.cluster_id = "memory"
        self.records: dict[str, dict[int, list[Record]]] = defaultdict(dict)
        self.commits: dict[str, dict[Place, int]] = defaultdict(dict)

    def create(self, topic: str, partitions: int) -> None:
        """Make a topic."""
        self.records[topic] = {p: [] for p in range(partitions)}

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers = (),
               timestamp_ms: int | None = None) -> Record:
        """Append a record."""
        rows = self.records[topic][partition]
        record = Record(topic, partition, len(rows), key, value, headers, timestamp_ms)
        rows.append(record)
        return record

    def topics(self) -> Mapping[str, Sequence[int]]:
        """Partitions of every topic."""
        return {topic: sorted(partitions) for topic, partitions in self.records.items()}

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset kept, and one past the last; a record that is dropped leaves the offsets of the others."""
        rows = self.records[topic][partition]
        return (rows[0].offset, rows[-1].offset + 1) if rows else (0, 0)

    def read(self, topic: str, start: Mapping[int, int] | None = None,
             until: Mapping[int, int] | None = None) -> Iterator[Record]:
        """Records, partition by partition."""
        for partition, rows in sorted(self.records[topic].items()):
            if start is None or partition in start:
                first = 0 if start is None else bisect_left(rows, start[partition], key=_OFFSET)
                end = (until or {}).get(partition)
                yield from rows[first:None if end is None else bisect_left(rows, end, key=_OFFSET)]

    def fetch(self, spots: Collection[Spot]) -> Mapping[Spot, Record]:
        """Single records by their offsets."""
        found: dict[Spot, Record] = {}
        for topic, partition, offset in spots:
            rows = self.records[topic][partition]
            at = bisect_left(rows, offset, key=_OFFSET)
            if at < len(rows) and rows[at].offset == offset:
                found[topic, partition, offset] = rows[at]
        return found

    def committed(self, agent: str) -> Mapping[Place, int]:
        """Committed offsets of an agent."""
        return dict(self.commits[agent])
