"""Jobs without a broker: what is open, what may come back, and when results arrive in the driver."""

from __future__ import annotations

from typing import Any

import pytest

from agents.contract import Job, Output, Refused
from schemas.codec import Codec
from schemas.events import DriftDetected, Event
from streams.driver import Driver, ObjectCodec
from streams.fold import PartitionFold
from streams.records import CE_ID, header
from streams.trainers.jobs import JOB_ID, Asked, OpenJobs, encoded, failure, has_jobs, returning
from tests.agents.check import check_jobs
from tests.streams.counting import CountingFeatures
from tests.streams.trainers.fitter import ASKS, BACK_OFF_MS, NAME, RESULTS, Fits, Fitter, asking

T0 = 1_600_000_000_000
pytestmark = pytest.mark.usefixtures("fitter")


def asked(how: str, number: int = 1, ts_ms: int = T0, symbol: str = "BTCUSDT") -> tuple[str, Event]:
    return ASKS, asking(symbol, how, 0.0, number, ts_ms)


def driven(*events: tuple[str, Event], partitions: int = 1, codec: Codec | None = None, perform: bool = True) -> Driver:
    driver = Driver({NAME: Fitter()}, partitions=partitions, codec=codec, perform=perform)
    driver.run(events)
    return driver


def fits(driver: Driver, symbol: str = "BTCUSDT") -> Fits:
    found: Fits = driver.state(NAME, symbol)
    return found


def test_who_opens_jobs() -> None:
    assert has_jobs(Fitter())
    assert not has_jobs(CountingFeatures())


def test_a_result_arrives_after_the_latency() -> None:
    before = driven(asked("good"), asked("none", 2, T0 + Fitter.fit_latency_ms - 1))
    assert [r.topic for r in before.log[ASKS]] == [ASKS, ASKS]
    assert before.now_ms == T0 + Fitter.fit_latency_ms
    (done,) = fits(before).done
    (record,) = before.log[RESULTS]
    assert done == f"BTCUSDT/good-0.0-1/0 {record.event.mean_residual!r}"  # type: ignore[union-attr]
    assert header(record.headers, JOB_ID) == "BTCUSDT/good-0.0-1/0"


def test_a_failure_closes_the_job_and_is_tried_again_in_event_time() -> None:
    driver = driven(asked("once"), asked("none", 2, T0 + 2 * BACK_OFF_MS))
    assert fits(driver).failed == ("BTCUSDT/once-0.0-1/0",)
    assert fits(driver).done[0].startswith("BTCUSDT/once-0.0-1/1 ")


def test_an_agent_gives_up_by_itself() -> None:
    driver = driven(asked("raise"), *(asked("none", i, T0 + 2 * i * BACK_OFF_MS) for i in range(1, 6)))
    state = fits(driver)
    assert [j[-1] for j in state.failed] == ["0", "1", "2"]
    assert (state.open, state.waiting, state.done) == ((), (), ())


def test_partitions_and_codecs_change_nothing() -> None:
    events = [asked("good", i, T0 + i, f"SYM{i % 3}USDT") for i in range(9)]
    once = driven(*events)
    assert driven(*events, partitions=8).scope_hashes() == once.scope_hashes()
    assert driven(*events, codec=ObjectCodec()).scope_hashes() == once.scope_hashes()


def test_a_replay_takes_results_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [asked("good", i, T0 + i) for i in range(3)]
    once = driven(*events)
    monkeypatch.setattr(Fitter, "perform", lambda self, job: pytest.fail("performed again"))
    results: list[tuple[str, Any]] = [(RESULTS, e) for e in once.events(RESULTS)]
    replayed = Driver({NAME: Fitter()}, perform=False)
    replayed.run(events)
    assert fits(replayed).open != ()
    for topic, event in results:
        replayed.push(topic, event)
    replayed.run(())
    assert replayed.scope_hashes() == once.scope_hashes()


def test_the_first_result_counts() -> None:
    driver = driven(asked("good"))
    first = driver.events(RESULTS)[0]
    assert isinstance(first, DriftDetected)
    other = DriftDetected(**{f: getattr(first, f) for f in first.__struct_fields__} | {"mean_residual": -1.0})
    before = driver.scope_hashes()
    driver.push(RESULTS, other)
    driver.run(())
    assert driver.scope_hashes() == before


@pytest.mark.parametrize("job_id", ["", "x" * 257, "tab\t", "ümlaut"])
def test_ids_that_are_none(job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fitter, "jobs", lambda self, state: (Job(job_id, b""),))
    with pytest.raises(ValueError, match="is no job id"):
        driven(asked("none"))


def test_an_id_belongs_to_one_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fitter, "jobs", lambda self, state: (Job("same", b""),))
    fold = PartitionFold(Fitter(), 0, Codec())
    for symbol in ("AUSDT", "BUSDT"):
        fold.scopes[symbol] = fold.born(symbol, 0)
    with pytest.raises(ValueError, match="open in AUSDT and in BUSDT"):
        OpenJobs(fold).look()


def test_an_agent_is_asked_again_only_for_another_state(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Fits] = []
    jobs = Fitter.jobs
    monkeypatch.setattr(Fitter, "jobs", lambda self, state: calls.append(state) or jobs(self, state))
    fold = PartitionFold(Fitter(), 0, Codec())
    for symbol in ("AUSDT", "BUSDT"):
        fold.scopes[symbol] = fold.born(symbol, 0)
    looked = OpenJobs(fold)
    assert looked.look() == looked.look() == {}
    assert len(calls) == 2


def test_what_may_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, codec, job = Fitter(), Codec(), Job("BTCUSDT/good-0.0-1/0", b"x")
    done = encoded(codec, agent, job, agent.perform(job))
    assert returning(agent, Asked("BTCUSDT", job), done).headers[-1] == (JOB_ID, job.job_id.encode())
    with pytest.raises(Refused, match="leads to another scope than ETHUSDT"):
        returning(agent, Asked("ETHUSDT", job), done)
    with pytest.raises(Refused, match="does not both write and read policy"):
        returning(agent, Asked("BTCUSDT", job), done._replace(topic="policy.ledger"))
    with pytest.raises(Refused, match="JOB_TOO_LARGE"):
        returning(agent, Asked("BTCUSDT", job), done._replace(value=bytes(1 << 20)))


def test_a_failure_has_an_id_of_its_own_and_two_unequal_ones_have_two() -> None:
    agent, codec = Fitter(), Codec()
    job = Job("BTCUSDT/raise-0.0-1/0", b"x")
    ids = [header(failure(codec, agent, Asked("BTCUSDT", job), "why", ts_ms).headers, CE_ID) for ts_ms in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]
    assert (ids[0] or "").startswith(f"{NAME}:failed:{job.job_id}:")
    assert isinstance(agent.failed(job, "why", 0), Output)


class Forgetful(Fitter):
    """Its request hangs on when it is asked."""

    def jobs(self, state: Fits) -> tuple[Job, ...]:
        return tuple(Job(j, f"{j} {state.now_ms}".encode()) for j in state.open)


class Greedy(Fitter):
    """Counts an answer of a job that is not open."""

    def step(self, state: Fits, event: Event) -> Any:
        new, outputs = super().step(state, event)
        if isinstance(event, DriftDetected) and new is state:
            new = Fits(now_ms=state.now_ms, done=(*state.done, "again"))
        return new, outputs


def test_the_suite_of_agents_holds_jobs_to_the_contract() -> None:
    events = [asked("good", i, T0 + i)[1] for i in range(3)]
    check_jobs(Fitter, events)
    check_jobs(CountingFeatures, events)
    with pytest.raises(AssertionError, match="another request"):
        check_jobs(Forgetful, events)
    with pytest.raises(AssertionError, match="a second answer counts too"):
        check_jobs(Greedy, events)
    with pytest.raises(AssertionError, match="open no job"):
        check_jobs(Fitter, [asked("none")[1]])
