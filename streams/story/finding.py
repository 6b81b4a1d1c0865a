"""Finding records: by text in their bytes, near a moment, by the output id that names an input.

Nothing is decoded that does not hold the needle. A needle is text (ids stand in Avro as they are, in UTF-8) or a
number as Avro writes a long, so it is found whatever release of a schema, or whatever registry's framing, wrote the
record. Partitions are never guessed from a key: producers outside of this project may use any partitioner.

The end offset of a partition is fetched once, so everything that is found is of one moment; a read ends there although
producers go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from schemas.catalogue import AGENTS
from schemas.codec import Codec
from schemas.events import Event
from schemas.refused import Refused
from streams.inspecting.shown import DLQ, decoded, source_of
from streams.log import LogReader, Place, Record
from streams.records import CE_ID, header, output_id

WINDOWS = (512, 4096, 32_768)  # offsets of each partition looked through around a moment; then all that is left
SLACK_MS = 60_000  # append times of two partitions may come from two brokers, whose clocks differ


class Hit(NamedTuple):
    """A record and its event; `event` is None where it cannot be decoded, and `refused` says why."""

    record: Record
    event: Event | None
    refused: Refused | None = None

    @property
    def place(self) -> str:
        """`topic-partition@offset`."""
        return self.record.place

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts by time of arrival; within a partition by offset."""
        return self.record.timestamp_ms or 0, self.record.partition, self.record.offset


class Want(NamedTuple):
    """A record that is looked for: what its bytes hold, and what its event must be."""

    needles: tuple[bytes, ...]
    accept: Callable[[Event], bool]


def long_bytes(value: int) -> bytes:
    """A number as Avro writes an int or a long: zigzag, seven bits a byte.

    >>> long_bytes(0), long_bytes(-1), long_bytes(64)
    (b'\\x00', b'\\x01', b'\\x80\\x01')
    """
    n = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes((*out, n))


class Finder:
    """Looks for records on one log, and counts what it looked at.

    Args:
        log: reader of the log.
        codec: Avro codec.

    Attributes:
        looked: records read, by topic; most of them only searched for a needle.
    """

    def __init__(self, log: LogReader, codec: Codec) -> None:
        self.looked: Counter[str] = Counter()
        self.codec = codec
        self._log = log
        self._there = log.topics()
        self._bounds: dict[Place, tuple[int, int]] = {}

    def has(self, topic: str) -> bool:
        """Whether the broker has the topic."""
        return topic in self._there

    @property
    def dead_letter_topics(self) -> list[str]:
        """Dead-letter topics that the broker has."""
        return [t for t in self._there if t.endswith(DLQ)]

    # ------------------------------------------------------------------ ways to look
    def holding(self, topics: Iterable[str], needle: bytes, since_ms: int | None = None) -> list[Hit]:
        """Every record of the topics that holds the needle, in order of arrival.

        Args:
            since_ms: leave out what was appended before this time, less the slack.
        """
        ranges = self._whole(topics)
        if since_ms is not None:
            ranges = self._from(ranges, since_ms - SLACK_MS)
        return sorted((self._hit(r) for r in self._scan(ranges, [(needle,)])), key=lambda hit: hit.order)

    def near(self, topic: str, wanted: Mapping[str, Want], at_ms: int | None) -> dict[str, Hit]:
        """The records wanted, looked for backwards from a moment in growing windows, and then after it.

        Args:
            wanted: by a name of the caller's.
            at_ms: append time of a record that rests on those; None looks through everything.
        """
        whole, found = self._whole([topic]), dict[str, Hit]()
        if at_ms is None:
            windows = iter([whole])
        else:
            windows = self._backwards(whole, self._from(whole, at_ms + SLACK_MS))
        for ranges in windows:
            self._collect(ranges, wanted, found)
            if len(found) == len(wanted):
                break
        return found

    def first_after(self, topic: str, want: Want, at_ms: int | None) -> Hit | None:
        """The first record wanted that was appended at or after a moment, less the slack."""
        left = self._whole([topic])
        if at_ms is not None:
            left = self._from(left, at_ms - SLACK_MS)
        for size in (*WINDOWS, None):
            ranges = {p: (lo, hi if size is None else min(hi, lo + size)) for p, (lo, hi) in left.items()}
            left = {p: (ranges[p][1], hi) for p, (_, hi) in left.items()}
            found: dict[str, Hit] = {}
            self._collect(ranges, {"it": want}, found)
            if found:
                return found["it"]
        return None

    def at(self, topic: str, partition: int, offset: int) -> Hit | None:
        """The record at a place; None where the log does not hold it (any more)."""
        if partition not in self._there.get(topic, ()):
            return None
        low, end = self._log.bounds(topic, partition)
        if not low <= offset < end:
            return None
        hits = [self._hit(r) for r in self._scan({(topic, partition): (offset, offset + 1)}, [()])]
        return hits[0] if hits else None

    def between(self, topic: str, partition: int, first: int, last: int) -> list[Hit]:
        """Records of a range of offsets, both ends inclusive; what the log does not hold (any more) is left out."""
        if partition not in self._there.get(topic, ()):
            return []
        low, end = self._log.bounds(topic, partition)
        begin, stop = max(low, first), min(end, last + 1)
        if begin >= stop:
            return []
        return [self._hit(r) for r in self._scan({(topic, partition): (begin, stop)}, [()])]

    def first_kept(self, topic: str, partition: int) -> int | None:
        """First offset that a partition holds; None where there is no such partition."""
        return self._log.bounds(topic, partition)[0] if partition in self._there.get(topic, ()) else None

    def input_of(self, hit: Hit) -> Hit | None:
        """The record that made an agent write this one: by its output id, and through the copy in the agent's inbox.

        None where it was not written by an agent of ours, or where retention has deleted the way.
        """
        written = output_id(header(hit.record.headers, CE_ID))
        if written is None:
            return None
        agent, partition, offset, _ = written
        taken = self.at(AGENTS[agent].input_topic, partition, offset)
        if taken is None or AGENTS[agent].direct:
            return taken
        source = source_of(taken.record)
        if source is None or source["partition"] is None or source["offset"] is None:
            return None
        return self.at(source["topic"], source["partition"], source["offset"])

    def newest(self, topics: Iterable[str], n: int) -> list[Hit]:
        """The last n records of each partition, decoded."""
        ranges = {place: (max(lo, hi - n), hi) for place, (lo, hi) in self._whole(topics).items()}
        return [self._hit(r) for r in self._scan(ranges, [()])]

    # ------------------------------------------------------------------ how
    def _hit(self, record: Record) -> Hit:
        try:
            return Hit(record, decoded(self.codec, record))
        except Refused as refused:
            return Hit(record, None, refused)

    def _collect(self, ranges: Mapping[Place, tuple[int, int]], wanted: Mapping[str, Want],
                 found: dict[str, Hit]) -> None:
        """Add the first record of the ranges for each want that has none yet."""
        missing = {name: want for name, want in wanted.items() if name not in found}
        hits = [self._hit(r) for r in self._scan(ranges, [want.needles for want in missing.values()])]
        for hit in sorted(hits, key=lambda h: h.order):
            for name, want in missing.items():
                if name not in found and hit.event is not None and want.accept(hit.event):
                    found[name] = hit

    def _scan(self, ranges: Mapping[Place, tuple[int, int]],
              needles: Collection[tuple[bytes, ...]]) -> Iterator[Record]:
        """Records in which all needles of one of the groups stand."""
        looked = self.looked

        def keep(topic: str, value: bytes | None) -> bool:
            looked[topic] += 1
            return value is not None and any(all(n in value for n in group) for group in needles)

        return self._log.scan(ranges, keep)

    def _whole(self, topics: Iterable[str]) -> dict[Place, tuple[int, int]]:
        places = [(topic, p) for topic in topics for p in self._there.get(topic, ())]
        for place in places:
            if place not in self._bounds:
                self._bounds[place] = self._log.bounds(*place)
        return {place: self._bounds[place] for place in places}

    def _from(self, ranges: Mapping[Place, tuple[int, int]], time_ms: int) -> dict[Place, tuple[int, int]]:
        """Ranges cut to what was appended at or after a time."""
        filled = [place for place, (lo, hi) in ranges.items() if lo < hi]
        begins = self._log.offsets_at(filled, max(0, time_ms))
        out = {}
        for place, (lo, hi) in ranges.items():
            begin = begins.get(place)
            out[place] = (hi if begin is None else min(max(lo, begin), hi), hi)
        return out

    def _backwards(self, whole: Mapping[Place, tuple[int, int]],
                   after: Mapping[Place, tuple[int, int]]) -> Iterator[dict[Place, tuple[int, int]]]:
        """Windows that grow backwards from where `after` begins; the last one is `after` itself."""
        left = {p: (whole[p][0], begin) for p, (begin, _) in after.items()}
        for size in (*WINDOWS, None):
            window = {p: (lo if size is None else max(lo, hi - size), hi) for p, (lo, hi) in left.items()}
            yield window
            left = {p: (lo, window[p][0]) for p, (lo, _) in left.items()}
        yield dict(after)
