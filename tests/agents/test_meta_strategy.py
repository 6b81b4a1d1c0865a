"""The meta strategy: what a round is, what it publishes, which inputs it uses, how it is commanded, what it learns."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from math import log
from typing import Any

import numpy as np
import pytest

from agents.algorithms.draws import bits, normals, uniforms
from agents.algorithms.learner import from_bytes, parameters_to_bytes
from agents.algorithms.network_policy import Applied, Scaling, read
from agents.algorithms.observation import NAMES, observed
from agents.algorithms.ppo import evaluate
from agents.contract import Refused
from agents.decision.networks import held_network
from agents.meta_strategy import MetaStrategyAgent, MetaStrategyConfig
from agents.meta_strategy.state import MetaState
from schemas.catalogue import TOPICS
from schemas.codec import Codec
from schemas.events import REGIME_SYMBOLS, STRATEGY_SYMBOLS, Event, Experience, MetaUpdated, PolicyCommand, PolicyRecord
from streams.blobs import lightened

SMALL: dict[str, Any] = {"round_size": 8, "recent_ids": 16, "hidden": (16,)}
ABSENT = NAMES[-3:]


def seen(n: int, regime: str = "bull", **changes: Any) -> tuple[float | None, ...]:
    """A state; the n-th, which sets its numbers."""
    drawn = normals((13,), 0, "state", n).tolist()
    oscillators = {"rsi_14": 50.0 + n % 3, "adx_14": 20.0 + n % 5, "stochastic_k_14": 30.0 + n % 7}
    values: dict[str, Any] = dict(zip(NAMES[:13], drawn, strict=True)) | oscillators | {"regime": regime}
    return observed(**(values | changes))


def experience(n: int, **changes: Any) -> Experience:
    """A learnable outcome of the n-th decision."""
    values: dict[str, Any] = {
        "decision_id": f"S/meta_strategy/{n}", "symbol": "S", "book_id": "meta_strategy", "ts_ms": 1000 * n + 900,
        "decided_ms": 1000 * n, "status": "TRADED", "learnable": True, "forced": False, "action": "breakout",
        "propensity": 0.25, "policy_version": 1, "state_key": None, "regime": "bull", "volatility": 0.02,
        "observation": seen(n), "reward_r": 0.5, "pnl_usd": 5.0, "size_multiplier": 1.0, "source": "test",
        "origin": "CLAIMED",
    }
    return Experience(**(values | changes))


def forced(n: int, **changes: Any) -> Experience:
    """A forced decision's experience: only its state counts."""
    values = {"learnable": False, "forced": True, "status": "NEUTRAL", "action": "neutral", "reward_r": 0.0,
              "policy_version": None}
    return experience(n, **(values | changes))


def fold(agent: MetaStrategyAgent, state: MetaState, events: Sequence[Event]) -> tuple[MetaState, list[Any]]:
    out: list[Any] = []
    for event in events:
        state, outputs = agent.step(state, event)
        out += [o.event for o in outputs]
    return state, out


def warm(**config: Any) -> tuple[MetaStrategyAgent, MetaState, PolicyRecord]:
    agent = MetaStrategyAgent(MetaStrategyConfig(**(SMALL | config)))
    state, (policy,) = fold(agent, agent.new("S"), [forced(n) for n in range(agent.config.warmup_decisions)])
    return agent, state, policy


def says(policy: PolicyRecord, observation: tuple[float | None, ...]) -> Applied:
    """The policy applied as the actor does."""
    assert policy.network is not None
    held = held_network(policy.network, 4)
    found = held.applied(policy.network.weights, observation, 4)
    assert found is not None
    return found


# ---------------------------------------------------------------------- rounds
def test_the_first_version_comes_after_the_warm_up_and_is_all_but_blind() -> None:
    _, state, policy = warm()
    assert (policy.policy_id, policy.version, policy.reason, policy.outcomes) == ("meta_strategy/S", 1, "genesis", 0)
    assert policy.mask == ABSENT
    assert policy.network is not None
    assert policy.network.inputs == NAMES[:17]
    assert says(policy, seen(5)).probabilities == pytest.approx((0.25,) * 4, abs=0.02)
    assert state.learner


def test_each_outcome_is_used_in_one_round_and_then_gone() -> None:
    agent, state, _ = warm()
    state, out = fold(agent, state, [experience(n) for n in range(100, 107)])
    assert out == []
    assert len(state.rollout.waiting) == 7
    state, (updated, policy) = fold(agent, state, [experience(107)])
    assert isinstance(updated, MetaUpdated)
    assert updated.decision_ids == tuple(f"S/meta_strategy/{n}" for n in range(100, 108))
    assert (updated.n, updated.used, updated.policy_version, updated.mean_reward_r) == (8, 8, 2, 0.5)
    assert (policy.version, policy.reason, policy.outcomes) == (2, "update", 8)
    assert state.rollout.waiting == ()
    again, out = fold(agent, state, [experience(103), experience(107)])
    assert (again, out) == (state, [])


def test_before_its_first_step_a_round_has_the_probabilities_that_were_drawn_from() -> None:
    """What the actor recorded is what the learner's own arithmetic gives: the ratio is 1, the KL of one step is 0."""
    agent, state, policy = warm(epochs=1, minibatch=8)
    events = []
    for n in range(100, 108):
        applied = says(policy, seen(n))
        events.append(experience(n, action=STRATEGY_SYMBOLS[n % 4], propensity=applied.probabilities[n % 4]))
    _, (updated, _) = fold(agent, state, events)
    assert updated.approx_kl == pytest.approx(0.0, abs=1e-6)
    assert updated.clip_fraction == 0.0


def test_what_is_published_is_what_was_learned() -> None:
    agent, state, _ = warm()
    state, (_, policy) = fold(agent, state, [experience(n) for n in range(100, 108)])
    settings = agent.config.ppo(17)
    assert state.scaling is not None
    x_1F = state.scaling.scaled(seen(300)[:17])[None]  # type: ignore[arg-type]
    learned = evaluate(settings, from_bytes(state.learner, settings).parameters, x_1F)
    applied = says(policy, seen(300))
    assert applied.log_probabilities == pytest.approx(learned.log_probabilities[0].tolist(), abs=1e-6)
    assert applied.value == pytest.approx(float(learned.values[0]), abs=1e-6)
    assert sum(applied.probabilities) == pytest.approx(1.0, abs=1e-12)


def test_better_known_scales_do_not_change_what_the_policy_says() -> None:
    """With no step taken a version differs by the scaling of its inputs alone."""
    agent, state, policy = warm(lr=1e-12)
    _, (_, after) = fold(agent, state, [experience(n) for n in range(100, 108)])
    assert after.network.means != policy.network.means  # type: ignore[union-attr]
    for n in range(300, 320):
        assert says(after, seen(n)).probabilities == pytest.approx(says(policy, seen(n)).probabilities, abs=1e-5)
        assert says(after, seen(n)).value == pytest.approx(says(policy, seen(n)).value, abs=1e-4)


def test_a_stale_outcome_that_the_newest_version_would_not_have_chosen_is_dropped_and_counted() -> None:
    agent, state, _ = warm(max_age=0)
    state, _ = fold(agent, state, [experience(n) for n in range(100, 108)])
    state, _ = fold(agent, state, [experience(200, propensity=0.9), experience(201, propensity=0.25)])
    assert (state.rollout.dropped, state.rollout.stale, len(state.rollout.waiting)) == (1, 1, 1)
    _, (updated, _) = fold(agent, state, [experience(n, policy_version=2) for n in range(202, 209)])
    assert (updated.dropped, updated.stale, updated.used) == (1, 1, 16)


# ---------------------------------------------------------------------- what it does not learn from
def test_forced_not_executed_and_others_teach_no_network() -> None:
    agent, state, _ = warm()
    more = [forced(200), experience(201, learnable=False, status="NOT_EXECUTED", reward_r=0.0)]
    after, out = fold(agent, state, more)
    assert out == []
    assert (after.learner, after.rollout, after.outcomes) == (state.learner, state.rollout, 0)
    assert after.states == state.states + 2
    assert agent.step(state, experience(202, book_id="q_learning"))[0] is state


@pytest.mark.parametrize(("changes", "reason"), [
    ({"policy_version": 2}, "UNKNOWN_VERSION"), ({"policy_version": None}, "UNKNOWN_VERSION"),
    ({"forced": True}, "CONTRADICTORY"), ({"status": "NOT_EXECUTED"}, "CONTRADICTORY"),
    ({"reward_r": 101.0}, "OUT_OF_RANGE"), ({"reward_r": float("nan")}, "OUT_OF_RANGE"),
    ({"observation": None}, "NO_OBSERVATION"), ({"observation": seen(1, macd=None)}, "NO_OBSERVATION"),
    ({"observation": (0.0,) * 19}, "OUT_OF_RANGE"),
    ({"observation": (float("inf"), *seen(1)[1:])}, "OUT_OF_RANGE"),
])
def test_what_cannot_be_learned_from_is_refused(changes: dict[str, Any], reason: str) -> None:
    agent, state, _ = warm()
    with pytest.raises(Refused, match=reason):
        agent.step(state, experience(100, **changes))


def test_an_input_that_was_absent_in_the_warm_up_is_dropped_for_good() -> None:
    agent = MetaStrategyAgent(MetaStrategyConfig(**SMALL))
    events = [forced(n, observation=seen(n, volume_ratio_20=None if n == 3 else 1.0)) for n in range(20)]
    state, (policy,) = fold(agent, agent.new("S"), events)
    assert policy.mask == ("volume_ratio_20", *ABSENT)
    assert policy.network.inputs == tuple(n for n in NAMES[:17] if n != "volume_ratio_20")
    state, (_, policy) = fold(agent, state, [experience(n) for n in range(100, 108)])
    assert policy.mask == ("volume_ratio_20", *ABSENT)


# ---------------------------------------------------------------------- commands
def command(kind: str, n: int, **more: Any) -> PolicyCommand:
    return PolicyCommand(**({"command_id": f"{kind}-{n}", "ts_ms": 1000 * n, "command": kind,
                             "policy_id": "meta_strategy/S", "actor": "ann", "reason": "because"} | more))


def test_frozen_learns_nothing_and_unfrozen_goes_on_with_its_round() -> None:
    agent, state, _ = warm()
    state, _ = fold(agent, state, [experience(n) for n in range(100, 104)])
    state, (policy,) = fold(agent, state, [command("FREEZE", 110)])
    assert (policy.status, policy.version, policy.valid_until_ms) == ("FROZEN", 2, None)
    assert policy.command_id == "FREEZE-110"
    frozen, out = fold(agent, state, [experience(n) for n in range(120, 140)])
    assert (out, frozen.unlearned, frozen.learner) == ([], 20, state.learner)
    frozen, _ = fold(agent, frozen, [command("UNFREEZE", 141)])
    _, (updated, _) = fold(agent, frozen, [experience(n, policy_version=3) for n in range(150, 154)])
    taken = [int(i.rpartition("/")[2]) for i in updated.decision_ids]
    assert taken == [100, 101, 102, 103, 150, 151, 152, 153]


def test_a_retired_policy_has_no_network_and_its_key_is_freed_a_week_later() -> None:
    agent, state, _ = warm()
    state, (policy,) = fold(agent, state, [command("RETIRE", 110)])
    assert (policy.status, policy.network, policy.fallback) == ("RETIRED", None, "neutral")
    _, out = fold(agent, state, [experience(111 + 7 * 86_400)])
    assert [type(e).__name__ for e in out] == ["Tombstone"]


def test_a_rollback_takes_the_networks_back_and_drops_what_waited() -> None:
    agent, state, _ = warm()
    old, (_, second) = fold(agent, state, [experience(n) for n in range(100, 108)])
    state, _ = fold(agent, old, [experience(n, policy_version=2) for n in range(110, 121)])
    assert (state.version, len(state.rollout.waiting)) == (3, 3)
    after, ((_, policy),) = agent.rolled_back(state, old, command("ROLLBACK", 130, version=2))
    assert isinstance(policy, PolicyRecord)
    assert (policy.version, policy.restored_version, policy.obeyed, policy.outcomes) == (4, 2, True, 8)
    assert policy.network == second.network
    assert (after.learner, after.rollout.waiting, after.rollout.dropped) == (old.learner, (), 3)
    assert fold(agent, after, [experience(115, policy_version=2)])[0] == after


# ---------------------------------------------------------------------- claims, sizes, configuration
def test_the_claim_is_about_all_outcomes() -> None:
    agent, state, _ = warm()
    rewards = normals((120,), 3, "rewards").tolist()
    _, out = fold(agent, state, [experience(100 + n, reward_r=r) for n, r in enumerate(rewards)])
    policies = [e for e in out if isinstance(e, PolicyRecord)]
    assert [p.edge is None for p in policies] == [p.outcomes < 100 for p in policies]
    last = policies[-1].edge
    assert last is not None
    taken = rewards[:policies[-1].outcomes]
    assert len(taken) > 100
    assert (last.n, last.mean_r, last.sd_r) == pytest.approx((len(taken), np.mean(taken), np.std(taken, ddof=1)))


def test_networks_of_two_layers_of_128_fit_into_a_record_and_larger_ones_are_refused() -> None:
    _, _, policy = warm(hidden=(128, 128))
    assert policy.network is not None
    assert 150_000 < len(policy.network.weights) < 256 * 1024
    assert policy.network.weights_sha256 == sha256(policy.network.weights).hexdigest()
    assert len(Codec().encode("policy.ledger", policy)) < TOPICS["policy.ledger"].max_bytes
    with pytest.raises(ValueError, match="weights of up to"):
        MetaStrategyConfig(hidden=(256, 256))


def test_the_networks_are_kept_apart_from_the_rest_of_the_state() -> None:
    agent, state, _ = warm()
    state, _ = fold(agent, state, [experience(n) for n in range(100, 106)])
    assert len(Codec().encode_state(lightened(state, agent.heavy))) < len(state.learner)
    assert len(parameters_to_bytes(from_bytes(state.learner, agent.config.ppo(17)), agent.config.ppo(17))) > 1000


@pytest.mark.parametrize("config", [{"round_size": 1}, {"recent_ids": 8}, {"max_abs_reward_r": 0.0}, {"lr": -1.0}])
def test_a_configuration_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needed|must"):
        MetaStrategyConfig(**config)


# ---------------------------------------------------------------------- what it learns
BEST = np.array([0, 3, 1, 2])
"""In each regime one action earns one standard deviation; neutral (3) earns nothing, the others lose half of it."""


def gain_after(seed: int, outcomes: int, d: float, **config: Any) -> float:
    """Gain of the agent's newest policy in a world of four regimes that last 40 decisions in the mean."""
    table = np.full((4, 4), -0.5 * d)
    table[:, 3] = 0.0
    table[np.arange(4), BEST] = d
    agent = MetaStrategyAgent(MetaStrategyConfig(seed=seed, **config))
    state, n = agent.new("S"), outcomes + agent.config.warmup_decisions
    change = uniforms((n,), seed, "change") < 1 / 40
    regime = (bits(n, seed, "regime") % 4).astype(int)[np.maximum.accumulate(np.where(change, np.arange(n), 0))]
    noise, policy = normals((n,), seed, "reward"), None
    for i in range(n):
        name = REGIME_SYMBOLS[regime[i]]
        if policy is None:
            event = forced(i, observation=seen(i, name))
        else:
            found = says(policy, seen(i, name))
            action = int(np.searchsorted(np.cumsum(found.probabilities), uniforms((1,), seed, "act", i)[0]))
            event = experience(i, observation=seen(i, name), action=STRATEGY_SYMBOLS[min(action, 3)],
                               propensity=found.probabilities[min(action, 3)], policy_version=policy.version,
                               reward_r=float(table[regime[i], min(action, 3)] + noise[i]))
        state, outputs = agent.step(state, event)
        policy = next((o.event for o in outputs if isinstance(o.event, PolicyRecord)), policy)
    assert policy is not None
    chosen = np.array([[says(policy, seen(9_000_000 + k, r)).greedy for k in range(100)] for r in REGIME_SYMBOLS])
    value = float(np.mean([table[g, chosen[g]].mean() for g in range(4)]))
    return (value - float(table.mean())) / (d - float(table.mean()))


def test_it_learns_what_pays_in_each_regime_and_chained_decisions_cost_the_gain() -> None:
    """d = .3. Gamma and lambda stay configuration; `one_step=False` lets them count, and this is what they cost."""
    own, chained = ([gain_after(seed, 1_280, 0.3, one_step=one_step) for seed in (1, 2)] for one_step in (True, False))
    assert min(own) >= 0.9, own
    assert max(chained) < 0.6, chained


def test_scaling_is_the_stated_formula() -> None:
    scaling = Scaling(means=(1.0, -2.0), deviations=(2.0, 0.001))
    assert scaling.scaled((4.0, 5.0)).tolist() == [1.5, 10.0]
    assert log(0.25) == pytest.approx(-1.386, abs=1e-3)
    with pytest.raises(ValueError, match="no tensors"):
        read(b"", "tanh", 2, 4)
