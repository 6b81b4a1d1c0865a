"""Ticks through the agent of the roster that takes its inbox in columns: relayed, killed, frozen, and exact."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agents.bars import Bars, BarsConfig
from agents.contract import Batch
from benchmarks.bars_throughput import TOPICS, wrong
from benchmarks.engines.task import WINDOW_MS
from benchmarks.engines.trades import Trades
from streams.host import AgentHost
from streams.settings import Settings
from streams.transport import raw
from streams.worker import Worker
from tests.streams.hosting import CODEC, in_loop, send, until
from tests.streams.rostered import same_as_its_log, until_done, worker

CONFIG = BarsConfig(interval_ms=WINDOW_MS, lateness_ms=0)
GIVEN = f'bars={{"interval_ms": {CONFIG.interval_ms}, "lateness_ms": {CONFIG.lateness_ms}}}'


def _published(settings: Settings, trades: Trades, part: slice, rng: random.Random) -> None:
    """Trades, some with headers of their own; now and then one that is damaged or came before."""
    rows = []
    for event in list(trades.events())[part]:
        value, key = CODEC.encode("market.trades", event), event.symbol.encode()
        rows.append(("market.trades", key, value, [("feed", b"x")] if rng.random() < .3 else []))
        if rng.random() < .002:
            rows.append(("market.trades", key, value[:rng.randrange(len(value))], []))
            rows.append(rows[-2])
    send(settings, rows)


@pytest.mark.topics(*TOPICS)
@pytest.mark.parametrize("way", ["raw", "as objects"])
@in_loop
async def test_nearly_all_trades_are_taken_in_columns(prefix: Settings, way: str,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a confluent-kafka whose objects cannot be looked into."""
    if way == "as objects":
        monkeypatch.setattr(raw, "available", lambda: False)
    trades, many, single = Trades.drawn(160_000), 0, 0
    step, step_many = Bars.step, Bars.step_many

    def counted(self: Bars, state: Any, event: Any) -> Any:
        nonlocal single
        single += 1
        return step(self, state, event)

    def counted_many(self: Bars, batch: Batch[Any]) -> Any:
        nonlocal many
        done = step_many(self, batch)
        many += len(batch.scope_N) if done is not None else 0
        return done

    monkeypatch.setattr(Bars, "step", counted)
    monkeypatch.setattr(Bars, "step_many", counted_many)
    await asyncio.to_thread(_published, prefix, trades, slice(None), random.Random(1))
    host = AgentHost(Bars(CONFIG), prefix, CODEC)
    running = Worker([host])
    await running.start()
    try:
        await until(lambda: sum(lane.fold.counters.applied for lane in host.lanes.values()) >= 160_000, "all trades")
        await until(lambda: all(host.stats.flushed_offset.get(tp.partition, -1) == lane.fold.offset
                                for tp, lane in host.lanes.items()), "their state")
    finally:
        await running.stop()
    assert many > 140_000
    assert single < 20_000
    assert wrong(prefix, trades) == ""


@pytest.mark.topics(*TOPICS)
def test_bars_are_exact_after_kills_and_a_freeze(prefix: Settings, tmp_path: Path) -> None:
    """Workers that are killed in the middle, one that sleeps beyond its session beside another, and wakes up again."""
    trades, rng, share, log = Trades.drawn(165_000), random.Random(2), 33_000, tmp_path / "log"
    with ExitStack() as stack:
        process = None
        for part in range(4):
            process = stack.enter_context(worker(prefix, log, "bars", GIVEN))
            _published(prefix, trades, slice(part * share, (part + 1) * share), rng)
            time.sleep(1 + rng.random())  # anywhere in its work
            if part < 3:
                process.kill()
                process.wait()
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        other = stack.enter_context(worker(prefix, log, "bars", GIVEN))
        until_done(prefix, other, log, ("bars",))
        os.kill(process.pid, signal.SIGCONT)
        _published(prefix, trades, slice(4 * share, None), rng)
        until_done(prefix, other, log, ("bars",))
    assert wrong(prefix, trades) == ""
    assert same_as_its_log(prefix, {"bars": Bars(CONFIG)})["bars"] > 160_000
