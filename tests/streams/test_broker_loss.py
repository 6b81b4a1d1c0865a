"""A broker that is killed or frozen under a running worker: nothing is lost, and the worker needs no restart."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from streams import broker as embedded
from streams import topics
from streams.settings import Settings
from streams.transport.timeouts import PROMISE_S, SESSION_MS
from tests.patience import PATIENCE_S
from tests.streams.counting import SYMBOLS, CountingFeatures, candle
from tests.streams.hosting import FEATURES, WorkerProcess, counts, expected, firsts, in_loop, produce, read, until

T0 = 1_600_000_000_000
TOPICS = (*FEATURES, "system.health.alert")
SAYS_GONE, SAYS_BACK = "does not answer", "answers again"


class Broker:
    """An embedded broker of the test's own, to be killed."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._home = Settings(data_dir=folder, cache_dir=cache)
        self.folder = folder
        self.up()
        self.settings = self._home.replace(broker=self._running.address, app_id="loss")

    def up(self) -> None:
        """Start it, at the address that it had."""
        self._running = embedded.up(self._home, ephemeral_dir=self.folder)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        process = psutil.Process(self._running.pid)
        process.send_signal(signal.SIGKILL)
        psutil.wait_procs([process], timeout=PATIENCE_S)

    def freeze(self, frozen: bool) -> None:
        """SIGSTOP or SIGCONT."""
        os.kill(self._running.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def end(self) -> None:
        """Stop it for good."""
        if psutil.pid_exists(self._running.pid):
            self.freeze(False)
        embedded.down(self._home, ephemeral_dir=self.folder)


@pytest.fixture
def own(broker: Settings, tmp_path: Path) -> Iterator[Broker]:
    """A broker of the test's own with the topics of `features`; the shared one only shows that there can be one."""
    running = Broker(tmp_path / "broker", broker.cache_dir)
    try:
        topics.apply(running.settings, only=TOPICS)
        yield running
    finally:
        running.end()


def _candles(n: int, since: int = 0) -> list[Any]:
    return [candle(SYMBOLS[i % len(SYMBOLS)], T0 + i * 1000) for i in range(since, since + n)]


async def _goes_on(own: Broker, gone_s: float, how: str, tmp_path: Path) -> str:
    """Take the broker away in the middle of the work and give it back; returns what the worker said."""
    log, settings = tmp_path / "worker.log", own.settings
    events = _candles(3_000)
    worker = WorkerProcess(settings, "features", log)
    await asyncio.to_thread(produce, settings, "market.candles", events[:1_500])
    await until(lambda: len(read(settings, "market.regime.changed")) > 0, "outputs")
    if how == "kill":
        await asyncio.to_thread(own.kill)
    else:
        own.freeze(True)
    await until(lambda: worker.says(SAYS_GONE), "the worker to say so")
    await asyncio.sleep(gone_s)
    if how == "kill":
        await asyncio.to_thread(own.up)
    else:
        own.freeze(False)
    await until(lambda: worker.says(SAYS_BACK), "the worker to say that it is back")
    await asyncio.to_thread(produce, settings, "market.candles", events[1_500:])
    await until(lambda: len(firsts(read(settings, "market.regime.changed"))) >= len(events), "outputs of everything")
    assert await asyncio.to_thread(worker.terminate) == 0, "the process that saw the loss is the one that ends it"
    assert counts(settings, CountingFeatures()) == expected(events)
    assert read(settings, "system.health.alert") == [], "nothing was lost, and nobody is alarmed"
    said = log.read_text()
    assert said.count(SAYS_GONE) == said.count(SAYS_BACK) == 1, said
    return said


@in_loop
async def test_a_killed_broker_costs_nothing(own: Broker, tmp_path: Path) -> None:
    said = await _goes_on(own, 2.0, "kill", tmp_path)
    assert said.count("\n") < 25, f"said once, not once a second:\n{said}"


@in_loop
async def test_a_broker_that_is_frozen_beyond_the_session_costs_nothing(own: Broker, tmp_path: Path) -> None:
    await _goes_on(own, SESSION_MS / 1000 + 2, "freeze", tmp_path)


@pytest.mark.soak
@in_loop
async def test_a_minute_without_a_broker_costs_nothing(own: Broker, tmp_path: Path) -> None:
    said = await _goes_on(own, 60.0, "kill", tmp_path)
    assert said.count("\n") < 25, f"said once, not once a second:\n{said}"


@in_loop
async def test_a_worker_stops_by_itself_while_the_broker_is_away(own: Broker, tmp_path: Path) -> None:
    log, events = tmp_path / "worker.log", _candles(1_500)
    worker = WorkerProcess(own.settings, "features", log)
    await asyncio.to_thread(produce, own.settings, "market.candles", events)
    await until(lambda: len(read(own.settings, "market.regime.changed")) > 0, "outputs")
    await asyncio.to_thread(own.kill)
    await until(lambda: worker.says(SAYS_GONE), "the worker to say so")
    code = await asyncio.to_thread(worker.terminate)  # SIGTERM alone: the process ends within PROMISE_S
    assert code in (0, 1), f"by itself, within {PROMISE_S} s:\n{log.read_text()}"
    await asyncio.to_thread(own.up)
    events += _candles(700, since=len(events))
    await asyncio.to_thread(produce, own.settings, "market.candles", events[-700:])
    other = WorkerProcess(own.settings, "features", tmp_path / "other.log")
    await until(lambda: len(firsts(read(own.settings, "market.regime.changed"))) >= len(events), "the rest")
    assert await asyncio.to_thread(other.terminate) == 0
    assert counts(own.settings, CountingFeatures()) == expected(events), "what was not applied was not acknowledged"
