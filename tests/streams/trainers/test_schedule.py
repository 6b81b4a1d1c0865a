"""The trader's training over a day of candles, through the features and without a broker: slots, changes, crashes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from agents.algorithms.market import generate
from agents.contract import Agent, Job, Output
from agents.features import Features
from agents.ppo_trader import PpoTraderAgent
from schemas.events import Candle, Event, PolicyConfig, PolicyRecord, TraderDecision, TrainingCompleted, TrainingStarted
from streams.driver import Driver
from streams.records import ERROR, header
from tests.agents.traders import DAY_MS, QUARTER_MS, SMALL, config_event

STARTED, COMPLETED, LEDGER, CONFIG = (
    "rl_v3.training.started", "rl_v3.training.completed", "policy.ledger", "policy.config")
WARM_BARS = 288  # three days: features are ready after 232
MIDNIGHT_MS = 20_000 * DAY_MS
HOUR_MS = 4 * QUARTER_MS
SYMBOL = "MADE"


def day(*changes: PolicyConfig, agent: Agent[object] | None = None, hours: int = 24) -> Driver:
    """Three days without training, then so many hours with what the changes say, each folded before its bar."""
    first_ms, m = MIDNIGHT_MS - WARM_BARS * QUARTER_MS, generate(3, WARM_BARS + 4 * hours)
    columns = zip(*(x.tolist() for x in (m.open, m.high, m.low, m.close)), strict=True)
    events: list[tuple[str, Event]] = [(CONFIG, c) for c in (config_event(OFF, first_ms), *changes)]
    for i, (open_, high, low, close) in enumerate(columns):
        opened = first_ms + i * QUARTER_MS
        events.append(("market.candles", Candle(
            symbol=SYMBOL, interval_ms=QUARTER_MS, open_time_ms=opened, ts_ms=opened + QUARTER_MS, open=open_,
            high=high, low=low, close=close, source="synthetic:3", origin="SYNTHETIC")))
    driver = Driver({"features": Features(), "ppo_trader": agent or PpoTraderAgent(SMALL)})
    driver.run(sorted(events, key=lambda pair: pair[1].ts_ms))  # type: ignore[attr-defined]
    return driver


OFF = '{"rl_v3.training.enabled": false}'


def settings(hour: float, minutes: int = 30, episodes: int = 2, enabled: bool = True) -> PolicyConfig:
    """A configuration that holds from the first bar behind an hour of the day on: the slot ending there has the old."""
    return config_event(
        f'{{"rl_v3.training.enabled": {str(enabled).lower()}, "rl_v3.training.interval_minutes": {minutes}, '
        f'"rl_v3.training.episodes_per_run": {episodes}}}', MIDNIGHT_MS + int(hour * HOUR_MS) + 1)


def slots(minutes: int, begin: float, end: float) -> list[tuple[int, int]]:
    """Start and end of the slots between two hours of the day."""
    length = minutes * 60_000
    return [(ms, ms + length) for ms in range(MIDNIGHT_MS + int(begin * HOUR_MS), MIDNIGHT_MS + int(end * HOUR_MS),
                                              length)]


def started(driver: Driver) -> list[TrainingStarted]:
    return [e for e in driver.events(STARTED) if isinstance(e, TrainingStarted)]


def ended(driver: Driver) -> list[TrainingCompleted]:
    return [e for e in driver.events(COMPLETED) if isinstance(e, TrainingCompleted)]


def versions(driver: Driver) -> list[PolicyRecord]:
    return [e for e in driver.events(LEDGER) if isinstance(e, PolicyRecord)]


def spans(events: Iterable[TrainingStarted | TrainingCompleted]) -> list[tuple[int, int]]:
    return [(e.slot_start_ms, e.slot_end_ms) for e in events]


@pytest.mark.parametrize(("minutes", "episodes"), [(30, 2), (60, 1), (45, 3)])
def test_a_day_has_the_runs_of_its_schedule_and_no_other(minutes: int, episodes: int) -> None:
    driver = day(settings(0, minutes, episodes))
    expected = slots(minutes, 0, 24)
    assert spans(started(driver)) == expected
    assert spans(e for e in ended(driver) if e.success) == expected
    assert {e.skipped for e in ended(driver) if not e.success} == {"disabled"}
    assert {(e.episodes, e.attempt) for e in started(driver)} == {(episodes, 1)}
    assert [p.version for p in versions(driver)] == list(range(1, len(expected) + 1))


def test_a_change_takes_effect_on_the_way_and_a_bad_one_is_refused_and_the_old_one_kept() -> None:
    bad = config_event('{"rl_v3.training.interval_minutes": 0}', MIDNIGHT_MS + 9 * HOUR_MS)
    driver = day(settings(0), settings(6, 60, 3), bad, settings(12, 90, 1), settings(18, enabled=False))
    assert spans(started(driver)) == [*slots(30, 0, 6), *slots(60, 6, 12), *slots(90, 12, 18)]
    by_hour = [(e.slot_start_ms - MIDNIGHT_MS) // (6 * HOUR_MS) for e in started(driver)]
    assert [e.episodes for e in started(driver)] == [(2, 3, 1)[part] for part in by_hour]
    off = [e for e in ended(driver) if e.slot_start_ms >= MIDNIGHT_MS + 18 * HOUR_MS]
    assert spans(off) == slots(30, 18, 24)
    assert {e.skipped for e in off} == {"disabled"}
    (letter,) = driver.log[f"{CONFIG}.dlq"]
    assert header(letter.headers, f"{ERROR}reason") == "BAD_CONFIG"


PATIENT = replace(SMALL, retry_after_ms=20 * 60_000)  # longer than a bar


class Crashing(PpoTraderAgent):
    """Its attempts of one slot raise, so many of them."""

    attempts = 1
    slot_ms = MIDNIGHT_MS + 3 * HOUR_MS

    def perform(self, job: Job) -> Output:
        name, attempt = job.job_id.rsplit("/", 1)
        if name.endswith(f"/{self.slot_ms}") and int(attempt) <= self.attempts:
            raise FloatingPointError("the loss is not finite")
        return super().perform(job)


class Hopeless(Crashing):
    """Both of them."""

    attempts = 2


@pytest.mark.parametrize("kind", [Crashing, Hopeless])
def test_a_crash_is_told_and_made_good_once_after_a_while_and_the_old_policy_serves(kind: type[Crashing]) -> None:
    driver = day(settings(0), agent=kind(PATIENT), hours=6)
    tries = [e for e in started(driver) if e.slot_start_ms == kind.slot_ms]
    assert [e.attempt for e in tries] == [1, 2]
    failures = [e for e in ended(driver) if e.status == "FAILED"]
    assert [e.job_id for e in failures] == [e.job_id for e in tries[: kind.attempts]]
    assert {e.error for e in failures} == {"FloatingPointError: the loss is not finite"}
    assert tries[1].ts_ms >= failures[0].ts_ms + PATIENT.retry_after_ms
    done = [e for e in ended(driver) if e.success]
    given_up = slots(30, 3, 3.5) if kind is Hopeless else []
    assert spans(done) == [s for s in slots(30, 0, 6) if s not in given_up]
    assert [p.version for p in versions(driver)] == list(range(1, len(done) + 1))
    served = next(p.version for p in reversed(versions(driver)) if p.ts_ms <= tries[0].ts_ms)
    until_ms = next(p.valid_from_ms for p in versions(driver) if p.version == served + 1)
    between = [d for d in driver.events("rl_v3.decision") if isinstance(d, TraderDecision)
               and tries[0].ts_ms <= d.ts_ms < until_ms]
    assert len(between) >= 2
    assert {d.policy_version for d in between} == {served}
    assert all(d.probabilities for d in between), "it was asked"
