"""A log of which what fits is read once: several cells ask for the same topics, each from its beginning.

What was read is kept, and every later reading takes it from here and reads on behind it. A reading may then hold
records that were deleted since; it never lacks one that a reading of the broker's would have had. Where there is no
more room, the topic that was not asked for longest is dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import inf

from streams.log import Record
from streams.verify.view import Log, MemoryLog, Place, Spot

MOST = 128 << 20  # bytes of records kept, about
A_RECORD = 500  # bytes that a record takes beside its key and value, about


class Kept:
    """Another log, topics that were read in whole kept.

    Args:
        log: the log.
        most: bytes to keep, about.
    """

    def __init__(self, log: Log, most: int = MOST) -> None:
        self._log, self._most = log, most
        self._held = MemoryLog()
        self._size: dict[str, int] = {}  # by topic held; what was asked for last, last
        self._next: dict[Place, int] = {}
        self._too_long: set[str] = set()

    @property
    def now_ms(self) -> int:
        """See `Log`."""
        return self._log.now_ms

    @property
    def cluster_id(self) -> str:
        """See `Log`."""
        return self._log.cluster_id

    def topics(self) -> Mapping[str, Sequence[int]]:
        """See `Log`."""
        return self._log.topics()

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """See `Log`."""
        return self._log.bounds(topic, partition)

    def committed(self, agent: str) -> Mapping[Place, int]:
        """See `Log`."""
        return self._log.committed(agent)

    def read(self, topic: str, start: Mapping[int, int] | None = None,
             until: Mapping[int, int] | None = None) -> Iterator[Record]:
        """See `Log`; of what is kept one partition after the other."""
        if topic in self._size:
            self._size[topic] = self._size.pop(topic)
            self._read_on(topic, start, until or {})
            yield from self._held.read(topic, start, until)
        elif start is not None or until is not None or topic in self._too_long:
            yield from self._log.read(topic, start, until)
        else:
            yield from self._first(topic)

    def holds(self, record: Record) -> bool:
        """Whether a record that was read is of a topic that is kept: the next reading has the same object."""
        return record.topic in self._size

    def _first(self, topic: str) -> Iterator[Record]:
        bounds = {p: self._log.bounds(topic, p) for p in self._log.topics()[topic]}
        size = sum(end - low for low, end in bounds.values()) * A_RECORD
        records, taken = self._log.read(topic), list[Record]()
        for record in records if size <= self._most else ():
            taken.append(record)
            size += len(record.key or b"") + len(record.value or b"")
            if size > self._most:
                break
        if size > self._most:
            self._too_long.add(topic)
            yield from taken
            yield from records
            return
        for oldest in list(self._size):
            if sum(self._size.values()) + size > self._most:
                del self._held.records[oldest], self._size[oldest]
        self._size[topic] = size
        self._next |= {(topic, p): end for p, (_, end) in bounds.items()}
        self._held.records[topic] = {p: [] for p in bounds}
        self._append(topic, taken)
        yield from self._held.read(topic)

    def _append(self, topic: str, records: Iterable[Record]) -> None:
        held = self._held.records[topic]
        for record in records:
            held[record.partition].append(record)
        for partition, rows in held.items():
            if rows:  # what a broker's end was is ahead of them where the last offsets hold no record
                self._next[topic, partition] = max(self._next[topic, partition], rows[-1].offset + 1)

    def _read_on(self, topic: str, start: Mapping[int, int] | None, until: Mapping[int, int]) -> None:
        """What came since, as far as it is asked for; it is kept whether there is room or not: records that came
        while the judge was at work are few."""
        behind: dict[int, int] = {}
        for partition in self._held.records[topic]:
            at = self._next[topic, partition]
            if (start is None or partition in start) and until.get(partition, inf) > at \
                    and self._log.bounds(topic, partition)[1] > at:
                behind[partition] = at
        if behind:
            self._append(topic, self._log.read(topic, behind))

    def fetch(self, spots: Collection[Spot]) -> Mapping[Spot, Record]:
        """See `Log`."""
        here = {s for s in spots if s[0] in self._size and s[2] < self._next[s[:2]]}
        elsewhere = [s for s in spots if s not in here]
        return {**self._held.fetch(here), **(self._log.fetch(elsewhere) if elsewhere else {})}
