"""The host's trainers: each open job of the partitions held here is performed once, and its result published.

A job is started when the state that has it open is durable, never before: a crash then loses at most the work, not the
question. It is killed when the state no longer has it open, and when its partition goes to another worker, which starts
it again. Two workers may so perform one job; results are equal, and the first one in the log wins.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any

from faust.types import TP

from agents.contract import Agent, Refused
from schemas.codec import Codec
from streams.alerts import Alerts
from streams.records import Outgoing
from streams.stats import AgentStats
from streams.trainers.jobs import (
    JOB_DURATION,
    JOB_SEED,
    JOB_WORKER,
    MAX_REASON,
    Asked,
    failure,
    returning,
    with_headers,
)
from streams.trainers.process import TrainerFailed, order_of, performed

log = logging.getLogger(__name__)

Publish = Callable[[Outgoing], Awaitable[None]]
Place = tuple[TP, str]
"""Input partition and job id."""


class Trainers:
    """The trainer processes of one agent in one worker.

    Args:
        agent: performs the jobs.
        codec: frames results and encodes failures.
        slots: held while a process runs; shared by the agents of a worker.
        alerts: says DEGRADED when a job fails, HEALTHY when one succeeds.
        stats: counters of the agent.
        publish: publishes a record and waits until it is acknowledged.
        fail: called once with what went wrong in publishing.
    """

    def __init__(self, agent: Agent[Any], codec: Codec, *, slots: asyncio.Semaphore, alerts: Alerts, stats: AgentStats,
                 publish: Publish, fail: Callable[[BaseException], None]) -> None:
        self.component = f"{agent.name}.trainer"
        self._agent = agent
        self._codec = codec
        self._slots = slots
        self._alerts = alerts
        self._stats = stats
        self._publish = publish
        self._fail = fail
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._running: dict[Place, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._answered: dict[Place, None] = {}
        self._event_ms: dict[TP, int] = {}
        self._told_well = False

    def offer(self, tp: TP, asked: Mapping[str, Asked], event_ms: int) -> None:
        """The open jobs of a partition, as its durable state has them.

        Args:
            tp: input partition.
            asked: all of its open jobs, by id.
            event_ms: newest event time in that state, 0 if none was seen.
        """
        self._event_ms[tp] = event_ms
        for key in [k for k in self._running if k[0] == tp and k[1] not in asked]:
            log.info("%s: %s is no longer asked for; its trainer is stopped", self._agent.name, key[1])
            self._end(key)
        self._answered = {k: None for k in self._answered if k[0] != tp or k[1] in asked}
        for job_id, found in asked.items():
            key = (tp, job_id)
            if key not in self._running and key not in self._answered:
                task = asyncio.get_running_loop().create_task(self._see_to(tp, found))
                self._running[key] = task
                task.add_done_callback(partial(self._ended, key))

    def keep(self, tps: Collection[TP]) -> None:
        """Stop the trainers of all other partitions: they belong to another worker now."""
        for key in [k for k in self._running if k[0] not in tps]:
            self._end(key)
        self._answered = {k: None for k in self._answered if k[0] in tps}

    def abandon(self) -> None:
        """Stop all trainers without waiting."""
        self.keep(())

    async def stop(self) -> None:
        """Stop all trainers; returns when their processes have ended."""
        self.abandon()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _end(self, key: Place) -> None:
        task = self._running.pop(key)
        self._ending.add(task)
        task.cancel()

    def _ended(self, key: Place, done: asyncio.Task[None]) -> None:
        self._ending.discard(done)
        if self._running.get(key) is done:
            del self._running[key]
        if not done.cancelled() and (exc := done.exception()) is not None:
            self._fail(exc)

    # ------------------------------------------------------------------ one job
    async def _see_to(self, tp: TP, asked: Asked) -> None:
        """Perform a job and publish what comes of it."""
        agent, job = self._agent, asked.job
        async with self._slots:
            began = time.monotonic()
            try:
                done = await performed(
                    order_of(agent, job), agent.fit_timeout_s,
                    lambda pid: log.info("%s: %s of %s runs in trainer %d", agent.name, job.job_id, asked.scope, pid))
                record = returning(agent, asked, Outgoing(
                    done.topic, done.key, self._codec.framed(done.topic, done.value), done.headers))
                why = None
            except (TrainerFailed, Refused, OSError) as exc:
                why, record = str(exc), None
        took_s = time.monotonic() - began
        if record is None:
            record = self._failed(tp, asked, why or "", took_s)
        about = {JOB_SEED: str(agent.config.seed), JOB_DURATION: str(round(took_s * 1000)), JOB_WORKER: self._worker}
        if record is not None:
            await self._publish(with_headers(record, about))
        self._answered[tp, job.job_id] = None
        if why is None:
            self._succeeded(asked, took_s)

    def _failed(self, tp: TP, asked: Asked, why: str, took_s: float) -> Outgoing | None:
        """Tell of a failure; what to publish of it, None where the agent cannot say."""
        agent, name = self._agent, f"{asked.job.job_id} of {asked.scope}"
        self._stats.jobs_failed += 1
        log.error("%s: %s failed after %.1f s: %s", agent.name, name, took_s, why)
        self._alerts.degraded(self.component, f"{name} failed: {why}")
        try:
            return failure(self._codec, agent, asked, why[:MAX_REASON] or "no reason", self._event_ms.get(tp, 0))
        except Exception as exc:  # a defect of the agent: the job stays open until the state is taken up again
            log.exception("%s does not say what the failure of %s means", agent.name, name)
            self._alerts.degraded(self.component, f"{name} failed ({why}), and its agent does not say what that means: "
                                                  f"{type(exc).__name__}: {exc}")
            return None

    def _succeeded(self, asked: Asked, took_s: float) -> None:
        self._stats.jobs_done += 1
        log.info("%s: %s of %s is done after %.1f s", self._agent.name, asked.job.job_id, asked.scope, took_s)
        said = f"{asked.job.job_id} of {asked.scope} is done"
        if not self._told_well:  # another process may have said that it is not well
            self._told_well = True
            asyncio.get_running_loop().run_in_executor(None, self._alerts.recovered, self.component.__eq__, said)
        else:
            self._alerts.healthy(self.component, said)
