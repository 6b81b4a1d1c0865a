"""The log as the judge sees it, and one in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from streams.log import Record
from streams.records import Headers

Place = tuple[str, int]


class Log(Protocol):
    """Records by topic, partition and offset; topics as the catalogue names them."""

    @property
    def now_ms(self) -> int:
        """Now, on the clock of the records' timestamps."""

    def topics(self) -> Mapping[str, Sequence[int]]:
        """Partitions of every topic."""

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset kept, and one past the last."""

    def read(self, topic: str, start: Mapping[int, int] | None = None) -> Iterator[Record]:
        """Records to the end, in order within a partition.

        Args:
            topic: a topic that is there.
            start: offset to begin at, for each partition to be read; None: all partitions from their beginning.
        """

    def committed(self, agent: str) -> Mapping[Place, int]:
        """Next offset that the agent's consumer group will take; partitions without a commit are left out."""


class MemoryLog:
    """A log in memory: what tests and the planted cheats are judged on.

    Attributes:
        now_ms: the judge's clock.
        records: by topic and partition.
        commits: next offsets, by agent.
    """

    def __init__(self) -> None:
        self.now_ms = 0
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

    def read(self, topic: str, start: Mapping[int, int] | None = None) -> Iterator[Record]:
        """Records, partition by partition."""
        for partition, rows in sorted(self.records[topic].items()):
            if start is None or partition in start:
                first = 0 if start is None else start[partition]
                yield from (r for r in list(rows) if r.offset >= first)

    def committed(self, agent: str) -> Mapping[Place, int]:
        """Committed offsets of an agent."""
        return dict(self.commits[agent])
