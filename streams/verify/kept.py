"""A log of which what fits is read once: several cells ask for the same topics, each from its beginning.

What was read is kept, and every later reading takes it from here and reads on behind it. A reading may then hold
records that were deleted since; it never lacks one that a reading of the broker's would have had. Where there is no
more room, the topic that was not asked for longest is dropped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import inf
from operator import attrgetter

from streams.log import Record
from streams.verify.view import Log, Place, Spot

MOST = 128 << 20  # bytes of records kept, about
A_RECORD = 500  # bytes that a record takes beside its key and value, about
_OFFSET = attrgetter("offset")


class Kept:
    """Another log, topics that were read in whole kept.

    Args:
        log: the log.
        most: bytes to keep, about.
    """

    def __init__(self, log: Log, most: int = MOST) -> None:
        self._log, self._most = log, most
        self._rows: dict[str, dict[int, list[Record]]] = {}  # what was asked for last, last
        self._size: dict[str, int] = {}
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
        if topic not in self._rows:
            if start is not None or until is not None or topic in self._too_long:
                yield from self._log.read(topic, start, until)
            else:
                yield from self._first(topic)
            return
        self._rows[topic] = self._rows.pop(topic)
        self._read_on(topic, start, until or {})
        for partition, rows in sorted(self._rows[topic].items()):
            if start is None or partition in start:
                first = 0 if start is None else bisect_left(rows, start[partition], key=_OFFSET)
                end = (until or {}).get(partition)
                yield from rows[first:None if end is None else bisect_left(rows, end, key=_OFFSET)]

    def holds(self, record: Record) -> bool:
        """Whether a record that was read is of a topic that is kept: the next reading has the same object."""
        return record.topic in self._rows

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
        for oldest in list(self._rows):
            if sum(self._size.values()) + size > self._most:
                del self._rows[oldest], self._size[oldest]
        self._size[topic] = size
        self._next |= {(topic, p): end for p, (_, end) in bounds.items()}
        rows = self._rows[topic] = {p: [] for p in bounds}
        self._append(taken)
        yield from (record for of in [list(of) for of in rows.values()] for record in of)

    def _append(self, records: list[Record]) -> None:
        by_place: dict[Place, list[Record]] = defaultdict(list)
        for record in records:
            by_place[record[:2]].append(record)
        for (topic, partition), rows in by_place.items():
            self._rows[topic][partition] += rows
            self._next[topic, partition] = max(self._next[topic, partition], rows[-1].offset + 1)

    def _read_on(self, topic: str, start: Mapping[int, int] | None, until: Mapping[int, int]) -> None:
        """What came since, as far as it is asked for; it is kept whether there is room or not: records that came
        while the judge was at work are few."""
        behind: dict[int, int] = {}
        for partition in self._rows[topic]:
            at = self._next[topic, partition]
            if (start is None or partition in start) and until.get(partition, inf) > at \
                    and self._log.bounds(topic, partition)[1] > at:
                behind[partition] = at
        if behind:
            self._append(list(self._log.read(topic, behind)))

    def fetch(self, spots: Collection[Spot]) -> Mapping[Spot, Record]:
        """See `Log`."""
        found: dict[Spot, Record] = {}
        elsewhere: list[Spot] = []
        for spot in spots:
            topic, partition, offset = spot
            if topic not in self._rows or offset >= self._next[topic, partition]:
                elsewhere.append(spot)
                continue
            rows = self._rows[topic][partition]
            at = bisect_left(rows, offset, key=_OFFSET)
            if at < len(rows) and rows[at].offset == offset:
                found[spot] = rows[at]
        return {**found, **self._log.fetch(elsewhere)} if elsewhere else found
