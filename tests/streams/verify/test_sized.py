"""Sizes held against the rule: honest ones of tables, networks, limits and forces, and sizes made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agents.algorithms.sizing import AVERSION, SIZES
from agents.decision import DecisionAgent, DecisionConfig
from agents.decision.choosing import Expected, size_of
from agents.decision.limits import bound, with_limits
from schemas.events import Decision, Event, PolicyRecord
from streams.verify.planted import actors
from streams.verify.planted.records import go_on
from streams.verify.planted.stage import HOUR_MS, Stage, at, stage
from streams.verify.sized import Estimate, Rule, best, wrong_size
from tests.agents import test_sizing as made
from tests.agents.test_decision import bar, run
from tests.agents.test_decision_networks import SEEN, network
from tests.agents.test_risk_limits import limits

APART = ("ppo_trader", "risk_controller")
RULE = Rule(AVERSION, 1.0, 0.01)


@given(st.floats(-2, 2), st.floats(0.01, 3), st.one_of(st.just(0.0), st.floats(0.05, 5_000)), st.floats(0.05, 0.1))
def test_the_rule_reckoned_again_gives_what_the_agent_chooses(
        mean: float, sd: float, n: float, aversion: float) -> None:
    assert size_of(Expected(mean, sd, n), aversion) in best(Estimate(mean, sd, n), aversion)


def test_more_than_one_size_is_right_only_where_they_are_as_good_as_equal() -> None:
    counts = [len(best(Estimate(mean / 1000, 0.7, 200), AVERSION)) for mean in range(-300, 300)]
    assert set(counts) == {1}


TABLES = [made.sized(q=(0.0, 0.0, mean, 0.0), se=(1.0, 1.0, 0.7 / n**0.5, 1.0), visits=(0, 0, n, 0))
          for mean, n in ((-0.2, 400), (0.2, 3), (0.115, 400), (0.16, 400), (0.4, 400))]


@pytest.mark.parametrize("record", TABLES)
def test_of_a_table_one_size_is_right(record: PolicyRecord) -> None:
    (d,) = run(record, bar(4))[1]
    held = {size: wrong_size(replace(d, size_multiplier=size), record, RULE) for size in (*SIZES, 1.1)}
    assert [size for size, why in held.items() if why is None] == [d.size_multiplier]
    assert f"by version 1 it is {d.size_multiplier:g}" in (held[1.1] or "")


@pytest.mark.parametrize(("outcomes", "deviation"), [(0, 0.7), (4_000, 2.0), (4_000, 0.7)])
def test_of_a_network_one_size_is_right(outcomes: int, deviation: float) -> None:
    seed = next(s for s in range(1, 50) if (made.value(s) or 0) > 0.7)
    record = made.with_network(seed, net=network(seed, residual_deviation=deviation), outcomes=outcomes)
    _, out = made.run_network(record, *(bar(4 * n, **SEEN) for n in range(1, 40)))
    assert {d.action == d.greedy_action for d in out} == {True, False}
    for d in out:
        assert [size for size in SIZES if wrong_size(replace(d, size_multiplier=size), record, RULE) is None] == [
            d.size_multiplier]


def test_limits_clip_what_the_rule_gives() -> None:
    record, mode = TABLES[-1], limits(1, "CONSERVATIVE")
    assert mode.limits is not None
    d = bound(run(record, bar(4))[1][0], with_limits((), mode, -1), 0.01)
    assert d.limits is not None
    assert d.size_multiplier == d.limits.risk_per_trade / 0.01 < 2.0
    assert wrong_size(d, record, RULE) is None
    assert "it is" in (wrong_size(replace(d, size_multiplier=2.0), record, RULE) or "")
    full = limits(1, "MODERATE", full_books=("q_learning",))
    barred = bound(run(record, bar(4))[1][0], with_limits((), full, -1), 0.01)
    assert (barred.forced_reason, wrong_size(barred, record, RULE)) == ("risk_max_positions", None)


def test_what_no_policy_chose_has_the_configured_size() -> None:
    (d,) = run(bar(4), size_multiplier=1.5)[1]
    rule = Rule(AVERSION, 1.5, 0.01)
    assert d.forced
    assert wrong_size(d, None, rule) is None
    assert "the configuration gives 1.5" in (wrong_size(replace(d, size_multiplier=2.0), None, rule) or "")
    everywhere = Rule(None, 1.5, 0.01)
    (d,) = run(TABLES[-1], bar(4), size_multiplier=1.5, aversion=None)[1]
    assert wrong_size(d, TABLES[-1], everywhere) is None
    assert wrong_size(replace(d, size_multiplier=2.0), TABLES[-1], everywhere) is not None


# ---------------------------------------------------------------------- on a log
def resized(bars: int, change: Callable[[Decision], float]) -> Stage:
    def tamper(topic: str, event: Event) -> Event:
        return replace(event, size_multiplier=change(event)) if isinstance(event, Decision) else event

    return stage(bars=bars, tamper=tamper, without=APART)


@pytest.mark.parametrize("learner", ["q_learning", "meta_strategy"])
def test_a_size_made_up_is_seen(learner: str) -> None:
    run = stage({"decision": actors.AlwaysLarge()}, bars=450, without=APART)
    cell = at(run.judge_by_its_own_code(), learner, "APPLIED")
    assert cell.state == "FAIL"
    assert "has a size of 2, and by version" in cell.why


def test_a_forced_decision_of_another_size_is_seen() -> None:
    run = resized(300, lambda d: 1.5 if d.forced else d.size_multiplier)
    cell = at(run.judge(), "q_learning", "APPLIED")
    assert cell.state == "FAIL"
    assert "the configuration gives 1 where no policy chose" in cell.why


def test_the_configuration_is_that_of_the_roster() -> None:
    other = DecisionAgent(DecisionConfig(aversion=None, size_multiplier=1.5))
    run = stage({"decision": other}, bars=450, without=APART)
    assert at(run.judge({**run.roster}), "q_learning", "APPLIED").state == "PASS"
    assert "has a size of 1.5" in at(run.judge(), "q_learning", "APPLIED").why


def test_decisions_of_an_earlier_epoch_went_by_another_rule() -> None:
    """Of their configuration the log has the hash alone, so nothing is said of their sizes."""
    run = resized(300, lambda d: 1.7 if d.ts_ms < 280 * HOUR_MS else d.size_multiplier)
    assert "has a size of 1.7" in at(run.judge(), "q_learning", "APPLIED").why
    (fold,) = run.driver.folds["decision"]
    fold.begin_epoch()
    assert at(go_on(run, 300).judge(), "q_learning", "APPLIED").state == "PASS"
