"""The actor with policies that are networks: what is drawn from, what is recorded, when it must not choose."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from math import exp
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from agents.algorithms.observation import NAMES
from agents.algorithms.tensors import dumped
from agents.contract import Refused
from agents.decision import DecisionAgent, DecisionConfig
from agents.decision.state import DecisionState
from schemas.codec import Codec
from schemas.events import STRATEGY_SYMBOLS, Decision, Features, Network, PolicyRecord
from streams.blobs import lightened
from tests.agents.test_decision import HOUR, START, bar
from tests.agents.test_decision import policy as table

INPUTS = ("return_1", "rsi_14", "regime_bull")
SEEN: dict[str, Any] = {"return_1": 0.01, "rsi_14": 60.0}


def weights(seed: int, dtype: Any = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {"actor.0.weight": (3, 5), "actor.0.bias": (5,), "actor.1.weight": (5, 4), "actor.1.bias": (4,),
              "critic.0.weight": (3, 5), "critic.0.bias": (5,), "critic.1.weight": (5, 1), "critic.1.bias": (1,)}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def network(seed: int = 0, **changes: Any) -> Network:
    data = dumped(weights(seed))
    values = {"inputs": INPUTS, "means": (0.0, 0.5, 0.25), "deviations": (0.01, 0.1, 0.05), "clip": 10.0,
              "activation": "tanh", "residual_deviation": 0.7, "weights": data,
              "weights_sha256": sha256(data).hexdigest()}
    return Network(**(values | changes))


def policy(version: int, from_hour: int = 0, *, net: Network | None = None, **changes: Any) -> PolicyRecord:
    values: dict[str, Any] = {
        "policy_id": "meta_strategy/S", "agent": "meta_strategy", "tabular": None,
        "network": net if net is not None else network(version),
        "mask": tuple(n for n in NAMES if n not in INPUTS)}
    return replace(table(version, from_hour), **(values | changes))


def run(*events: Any, **config: Any) -> tuple[DecisionState, list[Decision]]:
    agent = DecisionAgent(DecisionConfig(**({"deciders": ("meta_strategy",)} | config)))
    state, out = agent.new("S"), []
    for event in events:
        state, outputs = agent.step(state, event)
        out += [o.event for o in outputs]
    return state, out


def by_hand(seed: int, x: tuple[float, float, float]) -> tuple[np.ndarray, float]:
    """Probabilities and value, straight from the description in the schema."""
    w = weights(seed, np.float64)
    h = [np.tanh(np.array(x) @ w[f"{n}.0.weight"] + w[f"{n}.0.bias"]) @ w[f"{n}.1.weight"] + w[f"{n}.1.bias"]
         for n in ("actor", "critic")]
    return np.exp(h[0]) / np.exp(h[0]).sum(), float(h[1][0])


def test_action_propensity_and_value_are_those_of_the_network() -> None:
    p, value = by_hand(1, ((0.01 - 0) / 0.01, (0.6 - 0.5) / 0.1, 10.0))
    _, out = run(policy(1), *(bar(4 * n, **SEEN) for n in range(1, 400)))
    assert {d.forced for d in out} == {False}
    for d in out:
        assert d.propensity == pytest.approx(p[STRATEGY_SYMBOLS.index(d.action)], rel=1e-5)
        assert d.log_probability is not None
        assert exp(d.log_probability) == pytest.approx(d.propensity)
        assert d.value == pytest.approx(value, rel=1e-5)
        assert (d.greedy_action, d.state_key) == (STRATEGY_SYMBOLS[int(p.argmax())], None)
        assert d.observation is not None
        assert dict(zip(NAMES, d.observation, strict=True))["rsi_14"] == 0.6
    fallen = Counter(d.action for d in out)
    for i, name in enumerate(STRATEGY_SYMBOLS):
        assert fallen[name] / len(out) == pytest.approx(p[i], abs=4 * 0.5 / len(out) ** 0.5)


@pytest.mark.parametrize(("events", "reason"), [
    ((bar(4, **SEEN),), "no_policy"),
    ((policy(1), bar(4, return_1=0.01)), "missing_feature"),
    ((policy(1, valid_until_ms=START + 3 * HOUR), bar(4, **SEEN)), "policy_expired"),
    ((policy(1, status="RETIRED", network=None), bar(4, **SEEN)), "policy_retired"),
])
def test_where_it_may_not_choose_the_declared_fallback_is_taken_and_said(events: Any, reason: str) -> None:
    changed = [replace(e, fallback="breakout") if isinstance(e, PolicyRecord) else e for e in events]
    _, (d,) = run(*changed)
    assert (d.forced, d.forced_reason, d.propensity, d.value, d.log_probability) == (True, reason, 1.0, None, None)
    assert d.action == ("neutral" if reason == "no_policy" else "breakout")


def test_versions_keep_their_own_weights_and_those_that_decide_no_more_are_let_go() -> None:
    state, out = run(policy(1), policy(2, 8), policy(3, 16), *(bar(4 * n, **SEEN) for n in range(1, 6)))
    for d in out:
        version = 1 + (d.ts_ms >= START + 8 * HOUR) + (d.ts_ms >= START + 16 * HOUR)
        p, _ = by_hand(version, (1.0, 1.0, 10.0))
        assert (d.policy_version, d.greedy_action) == (version, STRATEGY_SYMBOLS[int(p.argmax())])
    assert state.weights == network(3).weights
    assert len(Codec().encode_state(lightened(state, DecisionAgent.heavy))) < 1000
    state, _ = run(*(policy(n, 4 * n) for n in range(1, 40)), pending_networks=3)
    assert [p.version for p in state.deciders[0].policies] == [37, 38, 39]
    assert state.weights == b"".join(network(n).weights for n in (37, 38, 39))


def test_tables_and_networks_decide_side_by_side_each_for_its_own_book() -> None:
    _, out = run(table(1), policy(1), bar(4, **SEEN), deciders=("q_learning", "meta_strategy"))
    assert [(d.book_id, d.policy_id, d.value is None) for d in out] == [
        ("q_learning", "q_learning/S", True), ("meta_strategy", "meta_strategy/S", False)]


def test_a_decider_that_is_new_in_the_configuration_joins_an_older_state() -> None:
    old, _ = run(table(1), deciders=("q_learning",))
    agent = DecisionAgent(DecisionConfig(deciders=("q_learning", "meta_strategy")))
    state, _ = agent.step(old, policy(1))
    _, outputs = agent.step(state, bar(4, **SEEN))
    assert [getattr(o.event, "forced", None) for o in outputs] == [False, False]


@pytest.mark.parametrize("changes", [
    {"weights_sha256": "0" * 64}, {"inputs": ("return_1", "rsi_14", "price")}, {"means": (0.0, 0.0)},
    {"inputs": ("return_1", "return_1", "rsi_14")}, {"deviations": (0.01, 0.0, 1.0)}, {"activation": "gelu"},
    {"clip": 0.0}, {"means": (0.0, float("nan"), 0.0)},
])
def test_a_network_that_cannot_be_applied_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="UNUSABLE_POLICY"):
        run(policy(1, net=network(**changes)))


@pytest.mark.parametrize("spoilt", ["actor.1.weight", "actor.0.bias", "critic.1.bias"])
def test_tensors_that_are_no_two_networks_are_refused(spoilt: str) -> None:
    some = {n: w for n, w in weights(0).items() if n != spoilt}
    data = dumped(some)
    with pytest.raises(Refused, match="UNUSABLE_POLICY"):
        run(policy(1, net=network(weights=data, weights_sha256=sha256(data).hexdigest())))


def test_a_state_is_features_only_and_names_what_is_absent() -> None:
    _, (d,) = run(bar(4, **SEEN))
    assert d.observation is not None
    there = {n for n, x in zip(NAMES, d.observation, strict=True) if x is not None}
    assert there == {"return_1", "volatility_30", "rsi_14", "bollinger_position", "atr_14_pct", "ema_dist_14",
                     "regime_bull", "regime_bear", "regime_sideways", "regime_volatile"}
    assert isinstance(bar(4), Features)
