"""A worker: several agents' apps in one process and one event loop, until told to stop.

    async with run_agents(settings, {"features": Features()}) as worker:
        ...

A worker that is told to stop drains: what was folded is flushed and committed, within `STOP_S`. A failed app ends the
worker; nothing that was not applied is acknowledged, and the next worker goes on from the last flush.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agents.contract import Agent
from schemas import catalogue
from schemas.events import Tick
from streams import denied
from streams.host import AgentHost
from streams.identity import identity_of
from streams.metrics.health import Pulse
from streams.records import encode_event
from streams.settings import Settings
from streams.subjects import codec_for
from streams.transport.produce import Row
from streams.transport.timeouts import ALERT_S, STOP_S
from streams.watch import Watch

log = logging.getLogger(__name__)

ALWAYS = ("policy.current", "state.scope", "state.head")  # what a host writes beside what its agent does
TICK_S = 1.0
STATS_S = 1.0
GC_THRESHOLDS = (50_000, 20, 20)  # records make garbage that reference counts free; the default 700 costs throughput
SWITCH_INTERVAL_S = 0.001  # the poll threads hand over within a millisecond; the default is 5 ms


class Worker:
    """Agents' hosts that run together.

    Args:
        hosts: one for each agent.
        clock: whether this worker owns `system.clock` and writes a tick a second.
        stats: file that gets a JSON line a second.
    """

    def __init__(self, hosts: Iterable[AgentHost], *, clock: bool = False, stats: Path | None = None) -> None:
        self.hosts = list(hosts)
        self._clock = clock
        self._stats = stats
        self._tasks: list[asyncio.Task[None]] = []
        self._beside: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def beside(self, *runs: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have these run beside the apps, from the start to the stop."""
        self._beside += runs

    @property
    def failed(self) -> list[AgentHost]:
        """Hosts whose app went down."""
        return [host for host in self.hosts if host.app.failed.is_set()]

    async def start(self) -> None:
        """Start every app; returns once each has its first assignment, or one has failed."""
        self._tasks += [asyncio.create_task(run()) for run in self._beside]
        if self.hosts:
            settings = self.hosts[0].settings
            self._tasks.append(asyncio.create_task(Watch(settings.broker, settings.client(), self.hosts).run()))
        started = asyncio.gather(*(host.app.start() for host in self.hosts))
        failure = asyncio.ensure_future(self.wait_failed())
        try:
            await asyncio.wait((started, failure), return_when=asyncio.FIRST_COMPLETED)
            if started.done():
                started.result()
        finally:
            failure.cancel()
        if self._clock:
            self._tasks.append(asyncio.create_task(self._tick()))
        if self._stats is not None:
            self._tasks.append(asyncio.create_task(self._write_stats(self._stats)))

    async def wait_failed(self) -> None:
        """Until an app goes down."""
        waits = [asyncio.ensure_future(host.app.failed.wait()) for host in self.hosts]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self) -> bool:
        """Drain and stop every app; whether all came to their end in time."""
        for task in self._tasks:
            task.cancel()
        loop = asyncio.get_running_loop()
        told: list[asyncio.Future[Any]] = [
            loop.run_in_executor(None, host.alerts.deliver, ALERT_S) for host in self.hosts if host.alerts.said]
        stops: list[asyncio.Future[Any]] = [asyncio.ensure_future(host.app.stop()) for host in self.hosts]
        _, late = await asyncio.wait([*stops, *told], timeout=STOP_S)
        for host, stop in zip(self.hosts, stops, strict=True):
            if stop in late:
                log.error("%s did not stop within %.0f s and is left behind", host.agent.name, STOP_S)
                stop.cancel()
            elif stop.exception() is not None:
                log.error("%s stopped with %r", host.agent.name, stop.exception())
        return not late & set(stops)

    async def measure(self) -> list[dict[str, Any]]:
        """Counters of every agent."""
        return [await host.measure() for host in self.hosts]

    async def _tick(self) -> None:
        """Write event time, once a second, at whole seconds."""
        host = self.hosts[0]
        while True:
            await asyncio.sleep(TICK_S - time.time() % TICK_S)
            now_ms = int(time.time() * 1000)
            tick = encode_event(host.codec, "system.clock", Tick(ts_ms=now_ms, writer="live"), f"live:{now_ms}", "live")
            row = Row(host.settings.topic(tick.topic), tick.key, tick.value, tick.headers)
            try:
                await host.app.sender.send_rows([row])
            except Exception as exc:
                host.fail(exc)
                return

    async def watch_lag(self) -> None:
        """Ask for the lags, once a second."""
        while True:
            await asyncio.sleep(STATS_S)
            await self.measure()

    async def _write_stats(self, path: Path) -> None:
        with path.open("a") as file:
            while True:
                await asyncio.sleep(STATS_S)
                line = {"at_ms": int(time.time() * 1000), "agents": await self.measure()}
                file.write(json.dumps(line) + "\n")
                file.flush()


def make_hosts(settings: Settings, agents: Mapping[str, Agent[Any]]) -> list[AgentHost]:
    """Hosts of agents, by their names in the catalogue; one codec for all.

    The codec's functions are generated here: the first result of a fit would else stop the event loop for 30 ms.

    Raises:
        ValueError: an agent is not in the catalogue, or is not built.
        RegistryUnreachable, RegistryRefused: a registry is set, and gives no writer schemas.
    """
    for name in agents:
        if name not in catalogue.AGENTS or not catalogue.AGENTS[name].built:
            known = ", ".join(a.name for a in catalogue.built_agents())
            raise ValueError(f"{name} is not an agent that runs; these do: {known}")
    codec, slots = codec_for(settings, writes=True), asyncio.Semaphore(settings.trainers)
    ios = [catalogue.AGENTS[name] for name in agents]
    codec.prepare({topic for io in ios for topic in (*io.reads, *io.writes, *ALWAYS)},
                  [agent.state_type for agent in agents.values()])
    return [AgentHost(agent, settings, codec, identity_of(agent), slots) for agent in agents.values()]


@contextlib.asynccontextmanager
async def run_agents(
    settings: Settings, agents: Mapping[str, Agent[Any]], *, clock: bool = False, stats: Path | None = None,
) -> AsyncIterator[Worker]:
    """Run agents in this event loop for as long as the block lasts."""
    worker = Worker(make_hosts(settings, agents), clock=clock, stats=stats)
    quiet_libraries()
    try:
        await worker.start()
        yield worker
    finally:
        await worker.stop()


def quiet_libraries() -> None:
    """Set the levels of libraries that make debug records which nobody prints: 15 % of the time, measured."""
    for name in ("faust", "mode", "asyncio", "streams.transport"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _serve(worker: Worker, stop: asyncio.Event) -> bool:
    """Run until told to stop or a failure; true if it was told to and everything stopped in time."""
    told = asyncio.ensure_future(stop.wait())
    starting = asyncio.ensure_future(worker.start())
    await asyncio.wait((told, starting), return_when=asyncio.FIRST_COMPLETED)
    failed = asyncio.ensure_future(worker.wait_failed())
    if not stop.is_set():
        starting.result()
        log.info("running: %s", ", ".join(host.agent.name for host in worker.hosts))
        gc.collect()
        gc.freeze()
        await asyncio.wait((told, failed), return_when=asyncio.FIRST_COMPLETED)
    clean = not worker.failed
    for task in (told, starting, failed):
        task.cancel()
    for host in worker.failed:
        log.error("%s went down: %s", host.agent.name, host.app.crash_reason)
    in_time = await worker.stop()
    return clean and in_time


@contextlib.contextmanager
def _metrics(settings: Settings, worker: Worker) -> Iterator[None]:
    """Serve what the worker says of itself, for as long as the block lasts."""
    from streams.metrics.serve import served  # a sixth of a second, for those who want it

    pulse = Pulse()
    with served(settings, worker.hosts, pulse) as address:
        log.info("metrics at http://%s/metrics", address)
        worker.beside(pulse.run, worker.watch_lag)
        yield


def serve(settings: Settings, agents: Mapping[str, Agent[Any]], *, clock: bool = False,
          stats: Path | None = None, ready: Callable[[], None] = lambda: None) -> bool:
    """Run agents in this process until SIGTERM or SIGINT; true if they stopped clean and in time.

    Args:
        ready: called once signals are obeyed, before anything is started.

    Raises:
        Denied: the broker refused a right, or the login, while it ran.
        PortTaken: `metrics_port` cannot be listened on.
        RegistryUnreachable, RegistryRefused: a registry is set, and gives no writer schemas.
    """
    quiet_libraries()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    asyncio.set_event_loop(loop)  # mode looks the loop up where services are made
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        ready()
        worker = Worker(make_hosts(settings, agents), clock=clock, stats=stats)
        with _metrics(settings, worker) if settings.metrics_port else contextlib.nullcontext():
            good = loop.run_until_complete(_serve(worker, stop))
        for host in worker.failed:
            if (refusal := denied.after(settings, host.agent.name, host.app.crash_reason)) is not None:
                raise denied.Denied(refusal)
        return good
    finally:
        loop.close()
