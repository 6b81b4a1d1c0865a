"""A log in memory, and the real fold, lane and relay at work on it: for tests that take one protection away.

Nothing here depends on luck: a producer that is told which records to hold back never acknowledges these, and dropping
it is what a SIGKILL does to a worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

from faust.types import TP

from agents.contract import Agent
from schemas.catalogue import AGENTS, TOPICS
from streams.fold import PartitionFold
from streams.held import Held
from streams.lane import FoldLane
from streams.log import Record
from streams.records import Headers, encode_event
from streams.relay import Relay
from streams.restore import chosen
from streams.stats import AgentStats
from streams.transport.commit import Committer
from streams.transport.murmur2 import partition_of
from tests.faults.judge import CODEC
from tests.streams.counting import candle

SOURCE = "market.candles"


class MemoryLog:
    """Records by topic and partition, as a broker keeps them."""

    def __init__(self) -> None:
        self.written: dict[str, dict[int, list[Record]]] = {
            name: {p: [] for p in range(topic.partitions)} for name, topic in TOPICS.items()}
        self.committed: dict[TP, int] = {}

    def append(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int = -1) -> None:
        """One record, at the end of its partition."""
        if partition < 0:
            partition = partition_of(key or b"", len(self.written[topic]))
        records = self.written[topic][partition]
        offset = records[-1].offset + 1 if records else 0
        records.append(Record(topic, partition, offset, key, value, tuple(headers), None))

    def candles(self, symbols: Sequence[str], times: Sequence[int]) -> None:
        """Candles of a feed, in one source partition."""
        for ts_ms in times:
            for symbol in symbols:
                record = encode_event(CODEC, SOURCE, candle(symbol, ts_ms), "", "synthetic:1")
                self.append(SOURCE, record.key, record.value, record.headers, 0)


    def compact(self, topic: str) -> None:
        """Keep the last record of each key."""
        for partition, records in self.written[topic].items():
            last = {r.key: r for r in records}
            self.written[topic][partition] = [r for r in records if last[r.key] is r]


class MemoryProducer:
    """Writes to a log; what `holds` accepts is neither written nor acknowledged, nor anything behind it."""

    def __init__(self, log: MemoryLog, holds: Callable[[Any], bool] = lambda row: False) -> None:
        self._log, self._holds = log, holds

    async def send_rows(self, rows: Sequence[Any]) -> asyncio.Future[Any]:
        """Write rows in order; returns the future of their acknowledgement."""
        done = asyncio.get_running_loop().create_future()
        for row in rows:
            if self._holds(row):
                return done
            self._log.append(row.topic, row.key, row.value, row.headers, row.partition)
        done.set_result(None)
        return done


class Message:
    """A record as librdkafka hands it over."""

    def __init__(self, record: Record) -> None:
        self.offset, self.key, self.value, self.headers = (
            lambda: record.offset), (lambda: record.key), (lambda: record.value), (lambda: record.headers)


def restored(log: MemoryLog, agent: Agent[Any], partition: int) -> PartitionFold:
    """The fold that the next worker goes on with; folded again from the beginning where its state is damaged."""
    io, held = AGENTS[agent.name], Held[str](place=str)
    for record in log.written[io.changelog][partition]:
        held.take(CODEC, f"{io.changelog}-{partition}@{record.offset}", record.key or b"", record.value, record.headers)
    tp = TP(io.input_topic, partition)
    return chosen(lambda p: PartitionFold(agent, p, CODEC), tp, held, None, (0, 1 << 60)).fold


async def folded(log: MemoryLog, agent: Agent[Any], partition: int, *, holds: Callable[[Any], bool] = lambda row: False,
                 upto: int = 1 << 60, producer: MemoryProducer | None = None, ours: Callable[[], bool] = lambda: True,
                 asleep: Coroutine[Any, Any, None] | None = None) -> None:
    """A worker takes what waits in an input partition, and is killed where its producer holds something back.

    Args:
        holds: what its producer holds back.
        upto: takes no record above this offset.
        producer: its producer, if another one than `holds` makes.
        ours: whether it may write state.
        asleep: what happens before it flushes: it was stopped, and wakes up.
    """
    fold = restored(log, agent, partition)
    topic = AGENTS[agent.name].input_topic
    lane = FoldLane(
        TP(topic, partition), fold, producer=producer or MemoryProducer(log, holds),  # type: ignore[arg-type]
        committer=Committer(_nobody), wire=str, stats=AgentStats(agent.name), fail=_raise, ours=ours)
    waiting = [Message(r) for r in log.written[topic][partition] if fold.offset < r.offset <= upto]
    await lane.take(waiting)
    if asleep is not None:
        await asleep
    try:
        async with asyncio.timeout(0.05):
            await lane.flush()
    except TimeoutError:
        pass
    lane.abandon()


async def relayed(log: MemoryLog, agent: str, *, holds: Callable[[Any], bool] = lambda row: False,
                  again: Collection[int] = (), producer: MemoryProducer | None = None) -> None:
    """A relay takes over, fences, copies what is not committed, commits what is acknowledged, and is killed.

    Args:
        again: source offsets that a relay which had been frozen copies once more at the end.
    """
    async def commit(offsets: Any, _: bool) -> None:
        log.committed |= offsets

    io, source, committer = AGENTS[agent], TP(SOURCE, 0), Committer(commit)
    relay = Relay(io, wire=str, producer=producer or MemoryProducer(log, holds),  # type: ignore[arg-type]
                  committer=committer, stats=AgentStats(agent), fail=_raise)
    await relay.take_up({source: SOURCE}, len(log.written[io.input_topic]), {})
    start = log.committed.get(source, 0)
    records = log.written[SOURCE][0]
    await relay.lanes[source].take([Message(r) for r in records if r.offset >= start])
    await asyncio.sleep(0)
    if again:
        await relay.lanes[source].take([Message(r) for r in records if r.offset in again])
    else:
        await committer.finish()
    relay.abandon()


async def _nobody(offsets: Any, wait: bool) -> None:
    """A group that hears no commits."""


def _raise(reason: BaseException) -> None:
    raise reason
