"""The Q-learner: what it learns from, what it publishes, how it explores, how it meets drift."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.contract import Refused
from agents.q_learning import QLearningAgent, QLearningConfig
from agents.q_learning.core import QLearningState
from agents.q_learning.table import INDEX, KEYS
from benchmarks.q_edge_simulation import PREDECESSOR, World, simulate
from schemas.events import STRATEGY_SYMBOLS, DriftDetected, Event, Experience, PolicyRecord, QUpdated
from tests.agents.check import check_agent


def experience(n: int, **changes: Any) -> Experience:
    """A learnable outcome of the n-th decision."""
    values: dict[str, Any] = {
        "decision_id": f"S/q_learning/{n}", "symbol": "S", "book_id": "q_learning", "ts_ms": 1000 * n + 900,
        "decided_ms": 1000 * n, "status": "TRADED", "learnable": True, "forced": False, "action": "breakout",
        "propensity": 0.25, "policy_version": 1, "state_key": "bear|vol:2", "regime": "bear", "volatility": 0.02,
        "reward_r": 0.5, "pnl_usd": 5.0, "size_multiplier": 1.0, "source": "test", "origin": "CLAIMED",
    }
    return Experience(**(values | changes))


def forced(n: int, **changes: Any) -> Experience:
    """A forced decision's experience: only its volatility counts."""
    values = {"learnable": False, "forced": True, "status": "NEUTRAL", "action": "neutral", "reward_r": 0.0,
              "policy_version": None, "state_key": None, "volatility": 0.001 * n}
    return experience(n, **(values | changes))


def fold(agent: QLearningAgent, state: QLearningState, events: Sequence[Event]) -> tuple[QLearningState, list[Event]]:
    out: list[Event] = []
    for event in events:
        state, outputs = agent.step(state, event)
        out += [o.event for o in outputs]
    return state, out


def warm(**config: Any) -> tuple[QLearningAgent, QLearningState, PolicyRecord]:
    agent = QLearningAgent(QLearningConfig(**config))
    state, out = fold(agent, agent.new("S"), [forced(n) for n in range(1, agent.config.warmup_decisions + 1)])
    assert isinstance(out[-1], PolicyRecord)
    return agent, state, out[-1]


def test_genesis_comes_after_the_warm_up_and_is_uniform() -> None:
    agent = QLearningAgent()
    state, out = fold(agent, agent.new("S"), [forced(n) for n in range(1, 20)])
    assert out == []
    state, (policy,) = fold(agent, state, [forced(20)])
    assert isinstance(policy, PolicyRecord)
    assert (policy.policy_id, policy.version, policy.reason, policy.outcomes) == ("q_learning/S", 1, "genesis", 0)
    assert policy.tabular is not None
    assert [c.state_key for c in policy.tabular.cells] == list(KEYS)
    assert {c.probabilities for c in policy.tabular.cells} == {(0.25,) * 4}
    assert {c.greedy for c in policy.tabular.cells} == {"neutral"}
    low, high = policy.tabular.volatility_edges
    assert (low, high) == pytest.approx((0.007, 0.014), abs=0.002)  # terciles of .001 .. .020
    assert fold(agent, state, [forced(21)])[1] == []


def test_an_outcome_moves_its_cell_and_nothing_else() -> None:
    agent, state, _ = warm()
    new, (updated, policy) = fold(agent, state, [experience(50, reward_r=0.8)])
    assert isinstance(updated, QUpdated)
    assert isinstance(policy, PolicyRecord)
    assert (updated.q_before, updated.q_after, updated.visits, updated.step_size) == (0.0, 0.8, 1, 1.0)
    assert (updated.policy_version, policy.version, policy.reason, policy.outcomes) == (2, 2, "update", 1)
    assert (policy.valid_from_ms, policy.valid_until_ms) == (50_900, 50_900 + 30 * 86_400_000)
    place = INDEX["bear|vol:2"]
    assert new.cells[place].q == (0.0, 0.0, 0.8, 0.0)
    assert [c for i, c in enumerate(new.cells) if i != place] == [c for i, c in enumerate(state.cells) if i != place]
    assert policy.tabular is not None
    assert policy.tabular.cells[place].greedy == "breakout"


def test_estimates_are_means_and_errors_are_those_of_means() -> None:
    rng = np.random.default_rng(0)
    agent, state, _ = warm()
    rewards = [float(r) for r in rng.normal(0.3, 1, 60)]
    _, out = fold(agent, state, [experience(50 + n, reward_r=r) for n, r in enumerate(rewards)])
    policy = out[-1]
    assert isinstance(policy, PolicyRecord)
    assert policy.tabular is not None
    cell = policy.tabular.cells[INDEX["bear|vol:2"]]
    assert cell.q[2] == pytest.approx(fmean(rewards))
    assert cell.se[2] == pytest.approx(np.std(rewards, ddof=1) / sqrt(60), rel=0.02)
    assert cell.visits == (0, 0, 60, 0)
    assert min(cell.se[i] for i in (0, 1, 3)) > 5 * cell.se[2]


def test_the_claim_is_about_all_outcomes_whatever_cell_they_fell_in_and_may_be_taken_back() -> None:
    """Not evaluated below 100 outcomes; then true or false, from the mean of all of them; drift forgets none."""
    agent, state, genesis = warm()
    assert (genesis.edge_claim, genesis.edge) == (None, None)
    rng = np.random.default_rng(6)
    rewards = [*rng.normal(0.6, 1, 300), *rng.normal(-1.5, 0.5, 300)]
    events = []
    for n, r in enumerate(rewards):
        action = STRATEGY_SYMBOLS[n % 4]
        events.append(experience(50 + n, action=action, state_key=KEYS[n % 12], status="NEUTRAL" if n % 4 == 3 else
                                 "TRADED", reward_r=0.0 if n % 4 == 3 else float(r)))
    _, out = fold(agent, state, events)
    policies = [e for e in out if isinstance(e, PolicyRecord)]
    assert {p.edge_claim for p in policies[:99]} == {None}
    for policy in policies[99:]:
        seen = [e.reward_r for e in events[:policy.outcomes]]
        edge = policy.edge
        assert edge is not None
        assert edge.n == policy.outcomes
        assert (edge.mean_r, edge.sd_r) == pytest.approx((fmean(seen), np.std(seen, ddof=1)))
        assert policy.edge_claim == (edge.lower_r > 0)
    assert policies[299].edge_claim
    assert not policies[-1].edge_claim
    assert any(e for e in out if isinstance(e, DriftDetected)), "what is forgotten by the table counts for the claim"


@pytest.mark.parametrize("config", [{}, {"exploration": "epsilon"}])
def test_no_action_is_ever_below_two_percent(config: dict[str, Any]) -> None:
    agent, state, _ = warm(**config)
    rng = np.random.default_rng(1)
    for n in range(400):
        action = STRATEGY_SYMBOLS[n % 4]
        reward = float(rng.normal(5 if action == "breakout" else -5, 1))
        state, _ = agent.step(state, experience(50 + n, action=action, reward_r=reward, state_key=KEYS[n % 12]))
        for cell in state.cells:
            assert min(cell.probabilities) >= 0.02 - 1e-12
            assert sum(cell.probabilities) == pytest.approx(1)
    assert state.cells[2].probabilities[2] > 0.75


def test_other_books_repeats_and_other_events_change_nothing() -> None:
    agent, state, policy = warm()
    state, _ = agent.step(state, experience(50))
    for event in (experience(51, book_id="baseline:random"), experience(50), forced(20), policy):
        after, out = agent.step(state, event)
        assert after is state
        assert out == ()


def test_forced_and_not_executed_teach_volatility_only() -> None:
    agent, state, _ = warm()
    idle = experience(51, learnable=False, status="NOT_EXECUTED", reward_r=0.0, volatility=0.5)
    after, out = agent.step(state, idle)
    assert out == ()
    assert after.cells == state.cells
    assert (after.outcomes, after.version, after.volatilities) == (0, 1, 21)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state_key": "bull|vol:3"}, "UNKNOWN_CELL"),
        ({"state_key": None}, "UNKNOWN_CELL"),
        ({"policy_version": 2}, "UNKNOWN_VERSION"),
        ({"policy_version": None}, "UNKNOWN_VERSION"),
        ({"forced": True}, "CONTRADICTORY"),
        ({"status": "NOT_EXECUTED"}, "CONTRADICTORY"),
        ({"reward_r": 101.0}, "OUT_OF_RANGE"),
        ({"reward_r": float("nan")}, "OUT_OF_RANGE"),
        ({"volatility": 11.0}, "OUT_OF_RANGE"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(changes: dict[str, Any], reason: str) -> None:
    agent, state, _ = warm()
    with pytest.raises(Refused, match=reason):
        agent.step(state, experience(50, **changes))


@pytest.mark.parametrize(("touched", "origin"), [("SYNTHETIC", "SYNTHETIC"), ("CHECKED", "MIXED")])
def test_what_touched_one_synthetic_record_is_synthetic_and_other_mixtures_are_said(touched: str, origin: str) -> None:
    agent, state, policy = warm()
    assert policy.origin == "CLAIMED"
    state, _ = fold(agent, state, [experience(50, origin=touched)])
    _, (updated, record) = fold(agent, state, [experience(51)])
    assert isinstance(updated, QUpdated)
    assert isinstance(record, PolicyRecord)
    assert (state.origin, updated.origin, record.origin) == (origin,) * 3


def test_a_strategy_that_always_earns_nothing_is_known_to() -> None:
    """Neutral has no spread: its standard error falls faster than the pooled one would."""
    agent, state, _ = warm()
    rng = np.random.default_rng(2)
    events = [experience(50 + n, action="neutral" if n % 2 else "breakout",
                         reward_r=0.0 if n % 2 else float(rng.normal())) for n in range(200)]
    _, out = fold(agent, state, events)
    policy = out[-1]
    assert isinstance(policy, PolicyRecord)
    assert policy.tabular is not None
    se = policy.tabular.cells[INDEX["bear|vol:2"]].se
    assert se[3] < se[2] / 2


def test_drift_caps_the_past_and_opens_exploration() -> None:
    agent, state, _ = warm()
    rng = np.random.default_rng(3)
    events = [experience(50 + n, reward_r=float(rng.normal(1, 0.5))) for n in range(400)]
    state, before = fold(agent, state, events)
    assert not any(isinstance(e, DriftDetected) for e in before)
    settled = state.cells[INDEX["bear|vol:2"]]
    for n in range(200):
        state, out = fold(agent, state, [experience(500 + n, reward_r=float(rng.normal(-1, 0.5)))])
        if any(isinstance(e, DriftDetected) for e in out):
            break
    updated, drift, policy = out
    assert isinstance(updated, QUpdated)
    assert isinstance(drift, DriftDetected)
    assert isinstance(policy, PolicyRecord)
    assert n < 64, "two standard deviations are seen at the second look"
    assert (updated.drift, policy.reason, drift.strategy, drift.agent) == (True, "drift", "breakout", "q_learning")
    assert drift.window_before > drift.window_after
    assert drift.mean_residual < -0.5
    after = state.cells[INDEX["bear|vol:2"]]
    assert after.n[2] == 10
    assert after.visits[2] == settled.visits[2] + n + 1
    assert state.explored == 0
    assert after.probabilities[2] < settled.probabilities[2]
    state, _ = fold(agent, state, [experience(900 + n, reward_r=-1.0) for n in range(30)])
    assert state.cells[INDEX["bear|vol:2"]].q[2] < -0.4, "without the cap the mean would still be above 0"


def test_the_state_survives_the_codec() -> None:
    from schemas.codec import Codec

    agent, state, _ = warm()
    state, out = fold(agent, state, [experience(50 + n, reward_r=n / 10) for n in range(80)])
    codec = Codec()
    assert codec.decode_state(QLearningState, codec.encode_state(state)) == state
    assert codec.decode("policy.ledger", codec.encode("policy.ledger", out[-1])) == out[-1]
    assert len(state.recent) == 64


def test_the_agent_passes_the_common_suite() -> None:
    rng = np.random.default_rng(4)
    events: list[Event] = []
    for symbol in ("AAA", "BBB"):
        events += [msgspec.structs.replace(forced(n), symbol=symbol, decision_id=f"{symbol}/q_learning/{n}")
                   for n in range(1, 21)]
        for n in range(21, 90):
            action = STRATEGY_SYMBOLS[int(rng.integers(4))]
            reward = 0.0 if action == "neutral" else float(rng.normal())
            event = experience(n, symbol=symbol, decision_id=f"{symbol}/q_learning/{n}", action=action,
                               reward_r=reward, state_key=KEYS[int(rng.integers(12))], volatility=float(rng.random()))
            events.append(event)
    check_agent(QLearningAgent, sorted(events, key=lambda e: e.ts_ms))


# ------------------------------------------------------------------ a planted edge, without a market
def test_a_planted_edge_is_found() -> None:
    """benchmarks/q_edge_simulation.py, few seeds; the benchmark holds the figures over many."""
    results = [simulate(seed, World(edge=0.5)) for seed in range(6)]
    assert all(r.gain >= 0.8 for r in results)
    assert all(r.mean_reward > 0.25 for r in results), "half of what the oracle earns, exploration paid"
    assert sum(bool(r.alarms) for r in results) <= 1


def test_without_an_edge_nothing_is_gained_or_preferred() -> None:
    """All strategies earn 0 with noise: the probabilities stay far from certainty."""
    agent, state, _ = warm()
    rng = np.random.default_rng(5)
    for n in range(1500):
        cell = int(rng.integers(12))
        action = STRATEGY_SYMBOLS[int(rng.choice(4, p=state.cells[cell].probabilities))]
        state, _ = agent.step(state, experience(50 + n, action=action, state_key=KEYS[cell],
                                                reward_r=float(rng.normal())))
    assert fmean(max(c.probabilities) for c in state.cells) < 0.75


def test_the_predecessors_settings_cost_gain() -> None:
    """A fixed step of .01, gamma .99 and a decaying epsilon are configuration; on the same seeds they earn less."""
    ours = [simulate(seed, World(edge=0.3)) for seed in range(4)]
    theirs = [simulate(seed, World(edge=0.3), PREDECESSOR) for seed in range(4)]
    assert fmean(r.gain for r in theirs) < fmean(r.gain for r in ours)
    assert fmean(r.mean_reward for r in theirs) < fmean(r.mean_reward for r in ours)


@pytest.mark.parametrize(
    "config",
    [{"alpha": 0.0}, {"gamma": 1.0}, {"min_probability": 0.01}, {"min_probability": 0.25}, {"epsilon_end": 0.01},
     {"warmup_decisions": 0}, {"adwin_delta": 0.0}, {"prior_outcomes": 0.0}],
)
def test_configuration_is_validated(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needed|must be"):
        QLearningConfig(**config)
