"""Stalls of a real worker's event loop while the PPO trader's runs are under way, and what in the loop took long.

    python -m benchmarks.worker_stalls --seconds 60

An embedded Apache Kafka of its own, the full roster in one worker in this process, made symbols. Their bars come fast
until the trader's window is full, while the schedule is off; then at a steady rate, first with the schedule off, then
with a slot at every bar: so runs of the trader's full size follow each other in a trainer process, each with a request,
a result, a version and a state of the size that they have live. A callback due every two milliseconds tells how late
the loop is (`fit_stalls` has the same for the trainer's process alone); every callback of the loop is timed, too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import tempfile
import threading
import time
from asyncio.events import Handle
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from agents.algorithms.market import generate
from agents.ppo_trader import PpoTraderConfig
from agents.roster import ROSTER
from benchmarks.fit_stalls import Watch
from schemas.codec import Codec
from schemas.events import Candle, Event, PolicyConfig
from streams import broker as embedded
from streams import topics
from streams.ingest.publish import candle_id
from streams.records import encode_event
from streams.settings import Settings
from streams.transport.logs import LIBRDKAFKA
from streams.worker import Worker, run_agents

BAR_MS = 30 * 60_000
WARM_BARS = 240  # features are ready after 232
SETTLE_S = 1.0
PATIENCE_S = 300.0
SHOWN = 5
Config = dict[str, Any]


class Feed:
    """Sends candles of a made market, and configurations of the trader."""

    def __init__(self, settings: Settings, bars: int, symbols: int) -> None:
        self._settings = settings
        self._codec = Codec()
        self._producer = Producer({**settings.producer(), "linger.ms": 0}, logger=LIBRDKAFKA)
        self._markets = {f"MADE{i}": generate(i, bars) for i in range(symbols)}
        self._bars = bars
        self.at = 0

    def _send(self, topic: str, event: Event, name: str) -> None:
        r = encode_event(self._codec, topic, event, name, "synthetic:1")
        self._producer.produce(self._settings.topic(topic), r.value, r.key, headers=list(r.headers))
        self._producer.poll(0)

    def candles(self, n: int, rate: float | None = None, stop: threading.Event | None = None) -> None:
        """The next candles of every symbol, evenly; without a rate as fast as it goes."""
        began = time.monotonic()
        for i in range(min(n, self._bars - self.at)):
            if stop is not None and stop.wait(max(0.0, began + i / (rate or 1.0) - time.monotonic())):
                break
            t, self.at = self.at, self.at + 1
            for symbol, m in self._markets.items():
                candle = Candle(
                    symbol=symbol, interval_ms=BAR_MS, open_time_ms=t * BAR_MS, ts_ms=(t + 1) * BAR_MS,
                    open=float(m.open[t]), high=float(m.high[t]), low=float(m.low[t]), close=float(m.close[t]),
                    source="synthetic:1", origin="SYNTHETIC")
                self._send("market.candles", candle, candle_id(candle))
        self._producer.flush(30)

    def configure(self, enabled: bool) -> None:
        """Let the schedule run, or not, from the next bar on."""
        values = json.dumps({"rl_v3.training.enabled": enabled})
        self._send("policy.config", PolicyConfig(
            config_id=f"c{self.at}", agent="ppo_trader", ts_ms=self.at * BAR_MS + 1, values=values, actor="benchmark",
            reason="measured"), f"config:{self.at}")
        self._producer.flush(30)


class Callbacks:
    """Times every callback of the event loop: the longest, by what ran."""

    def __init__(self) -> None:
        self.longest: dict[str, tuple[float, float]] = {}

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Time callbacks in the block."""
        run = Handle._run

        def timed(handle: Handle) -> None:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                run(handle)
            finally:
                took = (time.perf_counter() - wall) * 1000
                if took > 2.0:
                    name, own = _name(handle), (time.thread_time() - cpu) * 1000
                    self.longest[name] = max(self.longest.get(name, (0.0, 0.0)), (own, took))

        Handle._run = timed  # type: ignore[method-assign]
        try:
            yield
        finally:
            Handle._run = run  # type: ignore[method-assign]

    def figures(self) -> dict[str, str]:
        """Processor time and wall time of the longest callbacks, milliseconds."""
        worst = sorted(self.longest.items(), key=lambda item: item[1], reverse=True)[:SHOWN]
        return {name: f"{own:.1f} of {took:.1f}" for name, (own, took) in worst}


def _name(handle: Handle) -> str:
    callback: Any = handle._callback
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return str(getattr(owner.get_coro(), "__qualname__", owner))
    return str(getattr(callback, "__qualname__", callback))


async def _until(condition: Any, what: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up:
            raise SystemExit(f"waited {PATIENCE_S:g} s for {what}")
        await asyncio.sleep(0.05)


async def _watched(worker: Worker, feed: Feed, seconds: float, rate: float) -> dict[str, Any]:
    """Figures of the loop while candles come."""
    host = next(h for h in worker.hosts if h.agent.name == "ppo_trader")
    watch, callbacks, stop = Watch(), Callbacks(), threading.Event()
    before = host.stats.jobs_done
    sending = threading.Thread(target=feed.candles, args=(int(seconds * rate) + 1, rate, stop))
    sending.start()
    task = asyncio.create_task(watch.run())
    try:
        with callbacks.timed():
            await asyncio.sleep(seconds)
    finally:
        task.cancel()
        stop.set()
        await asyncio.to_thread(sending.join)
    if worker.failed:
        raise SystemExit("the worker went down")
    return watch.figures() | {"runs": host.stats.jobs_done - before, "longest": callbacks.figures()}


async def stalls(settings: Settings, config: PpoTraderConfig, seconds: float, rate: float, symbols: int = 1,
                 agents: Collection[str] = tuple(ROSTER)) -> dict[str, Any]:
    """Figures of a worker's loop without runs and with them, on a broker whose topics are empty.

    Args:
        seconds: of each.
        rate: candles a second of each symbol.
        agents: that run in the worker; the features and the trader among them.
    """
    bars = WARM_BARS + config.window_rows
    feed = Feed(settings, bars + int(2 * seconds * rate) + 64, symbols)
    feed.configure(enabled=False)
    roster = {name: ROSTER[name](config if name == "ppo_trader" else None) for name in agents}
    async with run_agents(settings, roster) as worker:
        trader = next(h for h in worker.hosts if h.agent.name == "ppo_trader")
        await _until(lambda: trader.lanes and all(lane.fold.sticky for lane in trader.lanes.values()),
                     "the configuration")  # else a candle overtakes it, and a run begins
        await asyncio.to_thread(feed.candles, bars)
        await _until(lambda: sum(lane.fold.counters.applied for lane in trader.lanes.values())
                     >= bars * symbols, "the window")
        gc.collect()
        gc.freeze()  # as `quantum worker` does
        try:
            await asyncio.sleep(SETTLE_S)
            rows = {"nothing": await _watched(worker, feed, seconds, rate)}
            feed.configure(enabled=True)
            await asyncio.to_thread(feed.candles, 2)  # a slot that ends
            await _until(lambda: trader.stats.jobs_done > 0, "the first run")
            return rows | {"runs": await _watched(worker, feed, seconds, rate)}
        finally:
            gc.unfreeze()


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=2.0, help="candles a second of each symbol")
    parser.add_argument("--symbols", type=int, default=1)
    parser.add_argument("--agents", default=",".join(ROSTER), help="in the worker; features and ppo_trader among them")
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="quantum-stalls-") as name:
        folder, settings = Path(name), Settings(data_dir=Path(name))
        running = embedded.up(settings, ephemeral_dir=folder)
        try:
            settings = settings.replace(broker=running.address, app_id="stalls")
            topics.apply(settings)
            found = asyncio.run(stalls(settings, PpoTraderConfig(synthetic=True), given.seconds, given.rate,
                                       given.symbols, given.agents.split(",")))
        finally:
            embedded.down(settings, ephemeral_dir=folder)
    print(json.dumps({"load": os.getloadavg()[0], "seconds": round(time.perf_counter() - began), **found}, indent=2))


if __name__ == "__main__":
    main()
