"""Topics that are kept: every reading is the one that the log itself would give, and most are not asked of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from random import Random
from typing import Any

import pytest

from schemas.codec import Codec
from streams.log import Record
from streams.verify.evidence import Evidence
from streams.verify.kept import A_RECORD, Kept
from streams.verify.planted.stage import CODEC, honest, stage
from streams.verify.view import MemoryLog, Spot


class Asked(MemoryLog):
    """Counts the records that were read, by topic, and hands out new objects, as a broker's log does."""

    def __init__(self) -> None:
        super().__init__()
        self.read_of: Counter[str] = Counter()

    def read(self, topic: str, start: Mapping[int, int] | None = None,
             until: Mapping[int, int] | None = None) -> Iterator[Record]:
        for record in super().read(topic, start, until):
            self.read_of[topic] += 1
            yield Record(*record)


class Plain(MemoryLog):
    """Looks at every record."""

    def read(self, topic: str, start: Mapping[int, int] | None = None,
             until: Mapping[int, int] | None = None) -> Iterator[Record]:
        for partition, rows in self.records[topic].items():
            if start is None or partition in start:
                first, end = (start or {}).get(partition, 0), (until or {}).get(partition, 2**62)
                yield from [r for r in rows if first <= r.offset < end]

    def fetch(self, spots: Collection[Spot]) -> Mapping[Spot, Record]:
        return {s: r for s in spots for r in self.records[s[0]][s[1]] if r.offset == s[2]}


def grown(log: MemoryLog, rng: Random, n: int) -> None:
    for _ in range(n):
        topic = rng.choice(sorted(log.records))
        partition = rng.choice(sorted(log.records[topic]))
        if rng.random() < .1 and log.records[topic][partition]:  # compaction: an offset without a record
            rows = log.records[topic][partition]
            if len(rows) > 2:
                del rows[rng.randrange(1, len(rows) - 1)]
        rows = log.records[topic][partition]
        offset = rows[-1].offset + rng.choice((1, 1, 1, 2)) if rows else 0
        key, value = rng.choice((None, b"k")), rng.choice((None, rng.randbytes(300)))
        rows.append(Record(topic, partition, offset, key, value, (), 0))


def of_each(records: Iterator[Record]) -> dict[int, list[Record]]:
    out: dict[int, list[Record]] = {}
    for record in records:
        out.setdefault(record.partition, []).append(record)
    return out


@pytest.mark.parametrize("most", [0, 6_000, 20_000, 1 << 30])
@pytest.mark.parametrize("seed", range(12))
def test_readings_are_those_of_the_log(seed: int, most: int) -> None:
    """But for records that were deleted after they were read, of which there may be more."""
    rng, log = Random(seed), Plain()
    for topic, partitions in (("a", 1), ("b", 3), ("c", 2)):
        log.create(topic, partitions)
    kept, gone = Kept(log, most), set[Record]()
    for _ in range(60):
        before = {r for of in log.records.values() for rows in of.values() for r in rows}
        grown(log, rng, rng.randrange(12))
        gone |= before - {r for of in log.records.values() for rows in of.values() for r in rows}
        topic = rng.choice("abc")
        places = [p for p in log.records[topic] if rng.random() < .8]
        start = {p: rng.randrange(20) for p in places} if rng.random() < .5 else None
        until = {p: rng.randrange(25) for p in places} if rng.random() < .3 else None
        found, expected = of_each(kept.read(topic, start, until)), of_each(log.read(topic, start, until))
        assert {p: rows for p, of in found.items() if (rows := [r for r in of if r not in gone])} == expected
        assert all([r.offset for r in of] == sorted({r.offset for r in of}) for of in found.values())
        spots = [(t, p, rng.randrange(25)) for t in "abc" for p in log.records[t]]
        fetched = kept.fetch(spots)
        assert {s: r for s, r in fetched.items() if r not in gone} == dict(log.fetch(spots))
        assert all((r.topic, r.partition, r.offset) == s for s, r in fetched.items())


def test_a_topic_is_read_once_and_on_from_there() -> None:
    log, rng = Asked(), Random(1)
    log.create("a", 2)
    for i in range(100):
        log.append("a", i % 2, b"k", b"v")
    kept = Kept(log)
    first = list(kept.read("a"))
    assert list(kept.read("a", {1: 30}, {1: 40})) == [r for r in first if r.partition == 1 and 30 <= r.offset < 40]
    assert kept.fetch([("a", 0, 7)])["a", 0, 7] is next(r for r in first if r[:3] == ("a", 0, 7))
    assert log.read_of == {"a": 100}
    later = log.append("a", 0, b"k", rng.randbytes(9))
    assert set(kept.read("a")) == {*first, later}
    assert log.read_of == {"a": 101}
    assert list(kept.read("a", {0: 0}, {0: 50})) == [r for r in first if r.partition == 0]


def test_what_was_not_asked_for_longest_makes_room() -> None:
    log = Asked()
    for topic in "abc":
        log.create(topic, 1)
        for _ in range(10):
            log.append(topic, 0, b"k", b"v")
    kept = Kept(log, 25 * A_RECORD)
    for topic in "abacacb":
        assert len(list(kept.read(topic))) == 10
    assert log.read_of == {"a": 10, "b": 20, "c": 10}, "b gave room to c, and a to b"
    log.create("long", 1)
    for _ in range(40):
        log.append("long", 0, b"k", b"v")
    rows = kept.read("long")
    assert next(rows).offset == 0
    assert log.read_of["long"] == 1, "what does not fit is read as it comes"
    assert len(list(rows)) == 39


def test_an_event_that_is_asked_for_again_is_not_decoded_again() -> None:
    class Counting(Codec):
        """Counts."""

        decoded = 0

        def decode(self, topic: str, data: bytes | None) -> Any:
            Counting.decoded += 1
            return super().decode(topic, data)

    run, log = stage(bars=120, without={"meta_strategy", "ppo_trader"}), Asked()
    log.records, log.commits = run.log.records, run.log.commits
    evidence = Evidence(log, honest(), Counting())
    before = Counting.decoded
    expected = [CODEC.decode("market.candles", r.value) for r in run.log.read("market.candles")]
    for _ in range(3):
        assert [event for _, event in evidence.stream("market.candles")] == expected
    assert Counting.decoded - before == len(expected) == 120
