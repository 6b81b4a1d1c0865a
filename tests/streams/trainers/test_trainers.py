"""Trainer processes over a real broker: one result counts, whoever is killed, and nothing is left running."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agents.contract import Config
from schemas.events import DriftDetected, HealthAlert
from streams.identity import identity_of
from streams.records import header
from streams.settings import Settings
from streams.trainers.jobs import JOB_DURATION, JOB_ID, JOB_SEED, JOB_WORKER
from streams.worker import run_agents
from tests.faults.judge import judge, read_all
from tests.streams.hosting import CODEC, WorkerProcess, folds, in_loop, produce, read, trainers, until
from tests.streams.trainers.fitter import (
    ASKS,
    BACK_OFF_MS,
    NAME,
    RESULTS,
    TOPICS,
    Fits,
    Fitter,
    Impatient,
    asking,
)

T0 = 1_600_000_000_000
SYMBOL = "BTCUSDT"
pytestmark = [pytest.mark.topics(*TOPICS), pytest.mark.usefixtures("fitter")]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Nothing that trains is left behind."""
    yield
    assert trainers() == []


async def a_trainer(parent: int | None = None) -> psutil.Process:
    """The trainer process, once there is one that has begun its job."""
    await until(lambda: any(t.cpu_times().user > 0.3 for t in trainers(parent)), "a trainer at work")
    return trainers(parent)[0]


def state(settings: Settings, agent: Fitter | None = None, symbol: str = SYMBOL) -> Fits:
    """Durable state of a symbol; a new one where there is none."""
    for fold in folds(settings, agent or Fitter()).values():  # type: ignore[arg-type]
        if symbol in fold.scopes:
            found = fold.scopes[symbol].state
            assert isinstance(found, Fits)
            return found
    return Fits()


def undisturbed(settings: Settings) -> None:
    """All that was written is what the input comes to: state, outputs, answers to jobs that were asked."""
    found = judge(read_all(settings), {NAME: Fitter()}, {NAME: identity_of(Fitter())})
    assert found.wrong == []
    assert found.figures["answers"] > 0


def results(settings: Settings, kind: str = "done") -> list[DriftDetected]:
    """What was published."""
    events = [CODEC.decode(RESULTS, r.value) for r in read(settings, RESULTS)]
    return [e for e in events if isinstance(e, DriftDetected) and e.detector == kind]


def alerts(settings: Settings) -> list[tuple[str, str]]:
    """Status and reason of what was said of the trainer."""
    events = [CODEC.decode("system.health.alert", r.value) for r in read(settings, "system.health.alert")]
    return [(e.status, e.reason) for e in events if isinstance(e, HealthAlert) and e.component == f"{NAME}.trainer"]


def ask(settings: Settings, how: str, seconds: float = 0.0, number: int = 1, ts_ms: int = T0) -> None:
    """Ask for a fit, or let event time pass."""
    produce(settings, ASKS, [asking(SYMBOL, how, seconds, number, ts_ms)])


@in_loop
async def test_a_fit_runs_in_a_process_of_its_own_and_its_result_comes_back(prefix: Settings) -> None:
    ask(prefix, "good", 0.5)
    async with run_agents(prefix, {NAME: Fitter(Config(seed=7))}) as worker:
        trainer = await a_trainer()
        assert trainer.nice() == min(19, os.nice(0) + 10)
        await until(lambda: bool(state(prefix).done), "the fold of the result")
        (figures,) = await worker.measure()
        assert (figures["jobs_done"], figures["jobs_failed"]) == (1, 0)
    (record,) = read(prefix, RESULTS)
    (found,) = state(prefix).done
    assert found.split()[0] == header(record.headers, JOB_ID) == f"{SYMBOL}/good-0.5-1/0"
    assert record.key == SYMBOL.encode()
    assert header(record.headers, JOB_SEED) == "7"
    assert int(header(record.headers, JOB_DURATION) or 0) >= 500
    assert str(os.getpid()) in (header(record.headers, JOB_WORKER) or "")
    assert alerts(prefix) == []


@in_loop
async def test_jobs_wait_for_their_turn(prefix: Settings) -> None:
    for i in range(4):
        ask(prefix, "good", 0.3, i)
    async with run_agents(prefix.replace(trainers=2), {NAME: Fitter()}):
        most = 0

        def done() -> bool:
            nonlocal most
            most = max(most, len(trainers()))
            return len(state(prefix).done) == 4

        await until(done, "all four")
    assert 1 <= most <= 2


@pytest.mark.parametrize(("how", "agent", "says"), [
    ("raise", Fitter, "ValueError: "), ("exit", Fitter, "ended with 7 without a result; it wrote: what a library"),
    ("foreign", Fitter, "JOB_MISROUTED"), ("good", Impatient, "not done within 0.5 s"),
])
@in_loop
async def test_what_fails_is_told_and_the_worker_lives_on(
    prefix: Settings, how: str, agent: type[Fitter], says: str,
) -> None:
    ask(prefix, how, 3.0 if agent is Impatient else 0.0)
    async with run_agents(prefix, {NAME: agent()}) as worker:
        await until(lambda: bool(state(prefix).failed), "the failure")
        await until(lambda: bool(alerts(prefix)), "the alert")
        assert not worker.failed
    assert trainers() == []
    ((status, reason),) = alerts(prefix)
    assert status == "DEGRADED"
    assert f"{SYMBOL}/{how}-" in reason
    assert says in reason
    assert state(prefix).waiting[0].startswith(f"{T0 + BACK_OFF_MS} "), "an attempt later, in event time"


@in_loop
async def test_a_failure_is_tried_again_under_another_id_after_a_while_and_health_returns(prefix: Settings) -> None:
    ask(prefix, "once")
    async with run_agents(prefix, {NAME: Fitter()}):
        await until(lambda: bool(state(prefix).waiting), "the failure")
        ask(prefix, "none", ts_ms=T0 + BACK_OFF_MS - 1)
        ask(prefix, "none", ts_ms=T0 + BACK_OFF_MS)
        await until(lambda: bool(state(prefix).done), "the second attempt")
        await until(lambda: [s for s, _ in alerts(prefix)] == ["DEGRADED", "HEALTHY"], "health")
    assert state(prefix).done[0].startswith(f"{SYMBOL}/once-0.0-1/1 ")


@in_loop
async def test_a_trainer_that_is_killed_has_failed(prefix: Settings) -> None:
    ask(prefix, "good", 60)
    async with run_agents(prefix, {NAME: Fitter()}):
        (await a_trainer()).kill()
        await until(lambda: bool(state(prefix).failed), "the failure")
        await until(lambda: bool(alerts(prefix)), "the alert")
    assert "SIGKILL" in alerts(prefix)[0][1]


@in_loop
async def test_a_worker_that_stops_takes_its_trainers_along_and_the_next_one_goes_on(prefix: Settings) -> None:
    ask(prefix, "good", 3)
    async with run_agents(prefix, {NAME: Fitter()}):
        await a_trainer()
    assert trainers() == []
    assert results(prefix) + results(prefix, "failed") == [], "a stop is no failure"
    async with run_agents(prefix, {NAME: Fitter()}):
        await until(lambda: bool(state(prefix).done), "the fold of the result")
    assert len(results(prefix)) == 1


@in_loop
async def test_a_worker_killed_during_a_fit_leaves_no_trainer_and_one_result_counts(
    prefix: Settings, tmp_path: Path,
) -> None:
    ask(prefix, "good", 5)
    worker = WorkerProcess(prefix, NAME, tmp_path / "log", "fitting_worker.py")
    try:
        trainer = await a_trainer(worker.pid)
        worker.kill()
        await until(lambda: not trainer.is_running(), "the end of an orphan")
    finally:
        worker.kill()
    assert results(prefix) == []
    async with run_agents(prefix, {NAME: Fitter()}):
        await until(lambda: bool(state(prefix).done), "the fold of the result")
    assert len(state(prefix).done) == len(results(prefix)) == 1
    undisturbed(prefix)


@in_loop
async def test_two_results_of_a_job_count_once_and_are_the_same_record(prefix: Settings, tmp_path: Path) -> None:
    """A worker that was frozen during a fit publishes after its successor has: the first one counts."""
    ask(prefix, "good", 4)
    worker = WorkerProcess(prefix.replace(session_timeout_ms=6_000), NAME, tmp_path / "log", "fitting_worker.py")
    try:
        trainer = await a_trainer(worker.pid)
        for pid in (worker.pid, trainer.pid):
            os.kill(pid, signal.SIGSTOP)
        async with run_agents(prefix, {NAME: Fitter()}):
            await until(lambda: bool(state(prefix).done), "the fold of the first result")
            first = state(prefix)
            for pid in (trainer.pid, worker.pid):
                os.kill(pid, signal.SIGCONT)
            await until(lambda: not trainer.is_running(), "the frozen trainer's end")
            await asyncio.sleep(1)
            assert state(prefix) == first
    finally:
        worker.kill()
    assert len({(r.key, r.value, header(r.headers, "ce_id")) for r in read(prefix, RESULTS)}) == 1
    assert len(state(prefix).done) == 1
    undisturbed(prefix)


@in_loop
async def test_a_fit_lives_through_a_rebalance_or_begins_anew_elsewhere(prefix: Settings, tmp_path: Path) -> None:
    symbols = [f"SYM{i}USDT" for i in range(8)]
    produce(prefix, ASKS, [asking(s, "good", 6.0, 1, T0) for s in symbols])
    other = None
    try:
        async with run_agents(prefix.replace(trainers=8), {NAME: Fitter()}) as worker:
            await until(lambda: len(trainers()) == 8, "trainers of all")
            mine = {t.pid for t in trainers()}
            other = WorkerProcess(prefix, NAME, tmp_path / "log", "fitting_worker.py")
            await until(lambda: worker.hosts[0].stats.rebalances == 2, "the rebalance")
            await until(lambda: bool(trainers(other.pid)), "a trainer of the other worker")
            kept = {t.pid for t in trainers()} - {t.pid for t in trainers(other.pid)}
            assert kept < mine, "some go on, none begins anew, the others are gone"
            await until(lambda: all(state(prefix, symbol=s).done for s in symbols), "all results")
    finally:
        if other is not None:
            other.kill()
    assert sorted(e.symbol for e in results(prefix)) == symbols
    assert results(prefix, "failed") == []
    undisturbed(prefix)
