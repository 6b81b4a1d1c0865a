"""When a lane flushes: a fold that waits for room has its flush at once, and columns have theirs by what was folded."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from faust.types import TP

from benchmarks.engines.trades import Trades
from benchmarks.engines.window import WindowAgent, installed
from schemas.catalogue import AgentIO
from streams import lane as lanes
from streams.fold import PartitionFold
from streams.lane import FoldLane
from streams.records import Incoming
from streams.stats import AgentStats
from streams.transport.commit import Committer
from tests.patience import PATIENCE_S
from tests.streams.hosting import CODEC, in_loop

TP0 = TP("market.trades", 0)
NEVER_S = 3600.0


class Message:
    """What a client of Kafka hands out."""

    def __init__(self, record: Incoming) -> None:
        self._record = record

    def offset(self) -> int:
        return self._record.offset

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def headers(self) -> None:
        return None


class Taken:
    """A producer that acknowledges at once."""

    async def send_rows(self, rows: Sequence[Any]) -> asyncio.Future[None]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@pytest.fixture
def window() -> Iterator[AgentIO]:
    with installed(f"w{uuid.uuid4().hex[:8]}") as io:
        yield io


def _lane(stats: AgentStats) -> FoldLane:
    async def commit(offsets: Mapping[TP, int], wait: bool) -> None:
        return

    def fail(reason: BaseException) -> None:
        raise reason

    producer: Any = Taken()
    return FoldLane(TP0, PartitionFold(WindowAgent(), 0, CODEC), producer=producer, committer=Committer(commit),
                    wire=str, stats=stats, fail=fail)


def _messages(first: int, count: int) -> list[Message]:
    events = list(Trades.drawn(first + count).events())[first:]
    return [Message(Incoming(first + i, event.symbol.encode(), CODEC.encode("market.trades", event), ()))
            for i, event in enumerate(events)]


@pytest.mark.parametrize("columns", [True, False])
@in_loop
async def test_who_waits_for_room_does_not_wait_for_the_next_flush(
        monkeypatch: pytest.MonkeyPatch, window: AgentIO, columns: bool) -> None:
    monkeypatch.setattr(lanes, "FLUSH_INTERVAL_S", NEVER_S)
    monkeypatch.setattr(lanes, "FLUSH_INTERVAL_MAX_S", NEVER_S)
    monkeypatch.setattr(lanes, "UNFLUSHED_RECORDS", 100)
    monkeypatch.setattr(lanes, "UNFLUSHED_IN_COLUMNS", 100)
    monkeypatch.setattr(WindowAgent, "in_columns", WindowAgent.in_columns if columns else frozenset())
    stats = AgentStats("window")
    lane = _lane(stats)
    for at in range(0, 2_000, 200):
        await asyncio.wait_for(lane.take(_messages(at, 200)), PATIENCE_S)
    assert stats.flushes >= 9
    await lane.close()
    assert stats.flushed_offset == {0: 1_999}


@in_loop
async def test_columns_flush_once_the_fold_has_taken_many_times_as_long(
        monkeypatch: pytest.MonkeyPatch, window: AgentIO) -> None:
    """The least interval is over at once and the longest never, so nothing but the share can bring the second flush."""
    monkeypatch.setattr(lanes, "FLUSH_INTERVAL_S", 0.0)
    monkeypatch.setattr(lanes, "FLUSH_INTERVAL_MAX_S", NEVER_S)
    monkeypatch.setattr(lanes, "FLUSH_SHARE", 1e-12)
    monkeypatch.setattr(lanes, "FOLD_SHARE", 1e6)
    stats = AgentStats("window")
    lane = _lane(stats)
    await lane.take(_messages(0, 200))
    async with asyncio.timeout(PATIENCE_S):
        for n in range(1, 4):
            while stats.flushes < n:
                await asyncio.sleep(0)
            await lane.take(_messages(200 * n, 200))
    assert stats.flushes >= 3
    await lane.close()
