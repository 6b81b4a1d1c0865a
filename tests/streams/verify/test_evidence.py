"""Since, the log in memory, and the tape that writes it."""

from __future__ import annotations

import pytest

from schemas.catalogue import AGENTS
from streams.fold import PartitionFold
from streams.log import Record
from streams.verify.evidence import Since
from streams.verify.planted.stage import CODEC, honest, stage
from streams.verify.refold import incoming
from streams.verify.view import MemoryLog


def record(topic: str = "a", partition: int = 0, offset: int = 5, timestamp_ms: int | None = 1000) -> Record:
    return Record(topic, partition, offset, None, b"", (), timestamp_ms)


def test_since_a_time() -> None:
    since = Since.parse("1970-01-01T00:00:01Z")
    assert since.covers(record())
    assert not since.covers(record(timestamp_ms=999))
    assert not since.covers(record(timestamp_ms=None))


def test_since_offsets_counts_only_where_it_names_a_place() -> None:
    since = Since.parse("a-0@6, b.c-d-1@2")
    assert since.offsets == {("a", 0): 6, ("b.c-d", 1): 2}
    assert not since.covers(record())
    assert since.covers(record(partition=1))
    assert since.covers(record(offset=6))


@pytest.mark.parametrize("text", ["", "noon", "2026-01-01T00:00:00", "a@1", "a-x@1", "a-1@x"])
def test_since_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Since.parse(text)


def test_a_log_in_memory_keeps_offsets_when_its_beginning_is_dropped() -> None:
    log = MemoryLog()
    log.create("t", 2)
    for n in range(4):
        log.append("t", 1, None, bytes([n]))
    del log.records["t"][1][:2]
    assert (log.bounds("t", 0), log.bounds("t", 1)) == ((0, 0), (2, 4))
    assert [r.place for r in log.read("t", {1: 3})] == ["t-1@3"]


def test_the_tape_is_what_a_host_would_have_left() -> None:
    """Folding each inbox by headers alone, as the host does, ends in the very states of the driver."""
    run = stage(partitions=8, symbols=("ALPHA", "BETA"), bars=500)
    for name, agent in honest().items():
        for fold in run.driver.folds[name]:
            again = PartitionFold(agent, fold.partition, CODEC)
            for r in run.log.read(AGENTS[name].input_topic, {fold.partition: 0}):
                again.apply(incoming(r))
            assert again.digest() == fold.digest(), name
            assert again.offset == fold.offset
            assert again.counters.repeated == again.counters.refused == 0
