"""A small agent with long work: some experiences ask for a fit, whose result comes back as a drift record.

It stands in for `q_learning`, with a catalogue in which that one also reads what it writes (fixture `fitter` in
`test_trainers`). What a fit is to do stands in the experience's id: `<how>-<seconds>-<number>`.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from typing import Any, ClassVar

import numpy as np

from agents.contract import Agent, Job, Output, State
from schemas import catalogue
from schemas.catalogue import AgentIO
from schemas.events import DriftDetected, Event, Experience, PolicyRecord, RegimeChanged

NAME, ASKS, RESULTS = "q_learning", "learning.experience", "learning.drift.detected"
READS: dict[str, catalogue.Route] = {ASKS: "by_scope", RESULTS: "by_scope"}
WRITES = (RESULTS, "policy.ledger")
TOPICS = (ASKS, f"{ASKS}.dlq", RESULTS, "q_learning.inbox", "q_learning.changelog", "policy.ledger", "policy.current",
          "system.health.alert")
BACK_OFF_MS = 60_000
ATTEMPTS = 3


class Fits(State, frozen=True, kw_only=True):
    """Job ids that are open, in waiting, and done."""

    now_ms: int = 0
    open: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    """`<due_ms> <job id>` of attempts that are to come."""
    done: tuple[str, ...] = ()
    """`<job id> <number>`: fits that counted, and what they came to."""
    failed: tuple[str, ...] = ()


class Fitter(Agent[Fits]):
    """See the module."""

    name = NAME
    state_type = Fits
    fit_latency_ms: ClassVar[int] = 5_000
    fit_timeout_s: ClassVar[float] = 60.0

    def new(self, scope: str) -> Fits:
        return Fits()

    def step(self, state: Fits, event: Event) -> tuple[Fits, tuple[Output, ...]]:
        if isinstance(event, DriftDetected):
            return self._closed(state, event)
        assert isinstance(event, Experience)
        now_ms = max(state.now_ms, event.ts_ms)
        due = tuple(w for w in state.waiting if int(w.split()[0]) <= now_ms)
        opened = tuple(w.split()[1] for w in due)
        if event.decision_id.split("-")[0] in HOW:
            opened += (f"{event.symbol}/{event.decision_id}/0",)
        waiting = tuple(w for w in state.waiting if w not in due)
        return _with(state, now_ms=now_ms, open=state.open + opened, waiting=waiting), ()

    def _closed(self, state: Fits, event: DriftDetected) -> tuple[Fits, tuple[Output, ...]]:
        job_id = event.decision_id
        if job_id not in state.open:
            return state, ()
        rest = tuple(j for j in state.open if j != job_id)
        if event.detector == "failed":
            name, _, attempt = job_id.rpartition("/")
            due_ms = max(state.now_ms, event.ts_ms) + BACK_OFF_MS
            more = (f"{due_ms} {name}/{int(attempt) + 1}",) if int(attempt) + 1 < ATTEMPTS else ()
            return _with(state, open=rest, waiting=state.waiting + more, failed=(*state.failed, job_id)), ()
        new = _with(state, open=rest, done=(*state.done, f"{job_id} {event.mean_residual!r}"))
        return new, (Output("policy.ledger", _policy(event, state, len(new.done))),)

    def jobs(self, state: Fits) -> tuple[Job, ...]:
        return tuple(Job(job_id, job_id.encode()) for job_id in state.open)

    def perform(self, job: Job) -> Output:
        how, seconds, _ = job.job_id.split("/")[1].split("-")
        print("what a library prints")
        until = time.monotonic() + float(seconds)
        numbers = np.random.default_rng(list(job.request)).normal(size=(64, 64))
        while True:
            found = float(np.linalg.norm(np.tanh(numbers @ numbers)))
            if time.monotonic() >= until:
                break
        attempt = job.job_id.rpartition("/")[2]
        if how == "raise" or (how == "once" and attempt == "0"):
            raise ValueError(f"{job.job_id} does not converge")
        if how == "exit":
            os._exit(7)
        if how == "foreign":
            return Output("market.regime.changed", RegimeChanged(
                symbol=job.job_id.split("/")[0], interval_ms=60_000, ts_ms=0, current="bull", bars_in_previous=0,
                trend_strength=0.0, volatility_ratio=0.0, source="synthetic:1", origin="SYNTHETIC"))
        print("not a number", file=sys.stderr)
        return Output(RESULTS, _result(job, "done", found))

    def failed(self, job: Job, reason: str, ts_ms: int) -> Output:
        return Output(RESULTS, _result(job, "failed", 0.0, ts_ms))


HOW = ("good", "raise", "once", "exit", "foreign")


class Impatient(Fitter):
    """Gives a fit half a second, the start of the process included."""

    fit_timeout_s: ClassVar[float] = 0.5


def _with(state: Fits, **changes: Any) -> Fits:
    return Fits(**{f: getattr(state, f) for f in state.__struct_fields__} | changes)


def _result(job: Job, detector: str, number: float, ts_ms: int = 0) -> DriftDetected:
    return DriftDetected(symbol=job.job_id.split("/")[0], ts_ms=ts_ms, agent=NAME, strategy="neutral",
                         detector=detector, window_before=0, window_after=0, mean_residual=number,
                         decision_id=job.job_id, source="synthetic:1", origin="SYNTHETIC")


def _policy(event: DriftDetected, state: Fits, version: int) -> PolicyRecord:
    return PolicyRecord(
        policy_id=f"{NAME}/{event.symbol}", version=version, agent=NAME, scope=event.symbol, ts_ms=state.now_ms,
        valid_from_ms=state.now_ms, fallback="neutral", status="ACTIVE", reason="update", outcomes=version, mask=(),
        actions=("neutral",), source="synthetic:1", origin="SYNTHETIC")


def asking(symbol: str, how: str, seconds: float, number: int, ts_ms: int) -> Experience:
    """An experience that asks for a fit; any other `how` than those of `HOW` asks for nothing."""
    return Experience(
        decision_id=f"{how}-{seconds}-{number}", symbol=symbol, book_id=NAME, ts_ms=ts_ms, decided_ms=ts_ms,
        status="NEUTRAL", learnable=True, forced=False, action="neutral", propensity=1.0, regime="bull",
        volatility=0.01, reward_r=0.0, pnl_usd=0.0, size_multiplier=1.0, source="synthetic:1", origin="SYNTHETIC")


def catalogue_of_fitter() -> AgentIO:
    """The catalogue's line of this agent."""
    return dataclasses.replace(catalogue.AGENTS[NAME], reads=READS, writes=WRITES)
