"""The verdict on the controls, of a learner of networks: each state, from a log made by hand; and its gain."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import pytest
from msgspec.structs import replace

from agents.algorithms.observation import NAMES
from agents.algorithms.strategies import STRATEGIES
from agents.algorithms.tensors import dumped
from schemas.events import REGIME_SYMBOLS, STRATEGY_SYMBOLS, Event, Experience, Network, PolicyRecord
from streams.calibrated import table
from streams.gains import gain_of_actions
from streams.verify.cells import Cell, Report, Verdict
from streams.verify.controls import NEEDED
from tests.streams.verify.test_controls import best, judged, noisy, of, policy

INPUTS = tuple(f"regime_{regime}" for regime in REGIME_SYMBOLS)
EXPECTED = 10_000


def states(kind: str, n: int) -> list[tuple[int, float]]:
    """Regimes and volatilities as they come in a market."""
    made = table(kind.lower())
    cells = np.random.Generator(np.random.PCG64(2)).choice(made.weight.size, n, p=made.weight.ravel())
    return [(int(c) // len(made.middles), float(made.middles[int(c) % len(made.middles)])) for c in cells]


def outcomes(kind: str, rewards: Sequence[float]) -> list[tuple[str, Event]]:
    symbol, seen = of(kind).symbol, states("PLANTED" if kind == "FAIR" else kind, max(len(rewards), 1))
    return [("learning.experience", Experience(
        decision_id=f"{symbol}/meta_strategy/{i}", symbol=symbol, book_id="meta_strategy", ts_ms=i, decided_ms=i,
        status="TRADED", learnable=True, forced=False, action="breakout", propensity=1.0, regime=REGIME_SYMBOLS[g],
        volatility=v, observation=tuple(float(name == INPUTS[g]) for name in NAMES), reward_r=float(r),
        pnl_usd=float(r), size_multiplier=1.0, source="synthetic:1", origin="SYNTHETIC"))
        for i, (r, (g, v)) in enumerate(zip(rewards, seen, strict=False))]


def network(kind: str, actions: Sequence[int], claim: bool | None = None) -> PolicyRecord:
    """A network that takes one action in each regime."""
    actor = np.zeros((4, 4), np.float32)
    actor[range(4), list(actions)] = 3.0
    data = dumped({"actor.0.weight": actor, "actor.0.bias": np.zeros(4, np.float32),
                   "critic.0.weight": np.zeros((4, 1), np.float32), "critic.0.bias": np.zeros(1, np.float32)})
    return replace(
        policy(of(kind).symbol, {}, claim), policy_id=f"meta_strategy/{of(kind).symbol}", agent="meta_strategy",
        tabular=None, mask=tuple(n for n in NAMES if n not in INPUTS), actions=STRATEGY_SYMBOLS,
        network=Network(inputs=INPUTS, means=(0.0,) * 4, deviations=(1.0,) * 4, clip=10.0, activation="tanh",
                        residual_deviation=1.0, weights=data, weights_sha256=sha256(data).hexdigest()))


def good(kind: str) -> list[int]:
    """The best action of each regime."""
    made = table(kind.lower())
    return [int((made.weight[g][:, None] * made.mean[g]).sum(axis=0).argmax()) for g in range(4)]


def verdict(kind: str, rewards: Sequence[float], learned: PolicyRecord | None) -> Verdict:
    more = outcomes(kind, rewards) + ([("policy.ledger", learned)] if learned is not None else [])
    (found,) = judged(kind, noisy(0.15 if kind != "FAIR" else 0.0, NEEDED),
                      policy(of(kind).symbol, {}) if kind == "FAIR" else best(kind), more=more)
    assert isinstance(found, Verdict)
    assert (found.learner, found.cell.state) == ("q_learning", "PASS"), "the other learner's word is as it was"
    return found


def said(kind: str, rewards: Sequence[float], learned: PolicyRecord | None) -> Cell:
    found = verdict(kind, rewards, learned).others
    assert list(found) == ["meta_strategy"]
    return found["meta_strategy"]


@pytest.mark.parametrize("kind", ["PLANTED", "REVERSED"])
def test_a_network_that_learned_the_map_passes_and_its_twins_waits(kind: str) -> None:
    other = "REVERSED" if kind == "PLANTED" else "PLANTED"
    right, wrong = (said(kind, noisy(0.15, NEEDED), network(kind, good(which))) for which in (kind, other))
    assert (right.state, wrong.state) == ("PASS", "NOT PROVEN")
    assert right.figures["gain"] > 0.9
    assert wrong.figures["gain"] < 0
    assert f"{NEEDED} of {EXPECTED} outcomes, gain so far {wrong.figures['gain']:.2f}" in wrong.why


def test_few_outcomes_are_never_red_and_say_the_gain_so_far() -> None:
    for n in (2, 500, NEEDED - 1):
        cell = said("PLANTED", noisy(0.15, n), network("PLANTED", good("PLANTED")))
        assert (cell.state, f"{n} of {EXPECTED} outcomes, gain so far" in cell.why) == ("NOT PROVEN", True)
    losing = said("PLANTED", noisy(-0.3, EXPECTED - 1), network("PLANTED", good("REVERSED")))
    assert losing.state == "NOT PROVEN"
    assert said("PLANTED", [], network("PLANTED", good("PLANTED"))).state == "NOT PROVEN"
    assert said("PLANTED", noisy(0.1, 50), None).state == "NOT PROVEN"


def test_what_earns_no_more_than_blind_choice_past_the_promised_outcomes_is_red() -> None:
    late = [*noisy(0.15, EXPECTED), *noisy(table("planted").uniform(), NEEDED)]
    cell = said("PLANTED", late, network("PLANTED", good("REVERSED")))
    assert (cell.state, f"after {EXPECTED} outcomes" in cell.why) == ("FAIL", True)
    slow = said("PLANTED", noisy(0.15, EXPECTED + 1), network("PLANTED", good("REVERSED")))
    assert (slow.state, "is expected by now" in slow.why) == ("NOT PROVEN", True)


def test_a_fair_walk_passes_without_a_claim_and_a_false_claim_never_does() -> None:
    blind = [3, 3, 3, 3]
    assert said("FAIR", noisy(-0.05, NEEDED), network("FAIR", blind, False)).state == "PASS"
    assert said("FAIR", noisy(0.02, NEEDED), network("FAIR", blind, True)).state == "NOT PROVEN"
    assert said("FAIR", noisy(-0.05, 500), network("FAIR", blind)).state == "NOT PROVEN"
    assert said("FAIR", noisy(0.1, NEEDED), network("FAIR", blind, True)).state == "FAIL"


def test_the_report_has_it_in_fields_of_its_own() -> None:
    found = verdict("PLANTED", noisy(0.15, 500), network("PLANTED", good("PLANTED")))
    report = Report(0, 0, 0, None, (), (found,))
    (shown,) = report.as_dict()["controls"]
    assert {"symbol", "kind", "state", "why", "place", "age_s", "figures"} < set(shown)
    assert (shown["learner"], shown["state"]) == ("q_learning", "PASS")
    assert shown["others"]["meta_strategy"]["state"] == "NOT PROVEN"
    assert [whose for whose, _, _ in report.every] == [f"control:{found.symbol}",
                                                       f"control:{found.symbol}:meta_strategy"]
    assert report.exit_code == 3


# ---------------------------------------------------------------------- gain
def test_a_map_has_the_gain_that_a_table_with_the_same_map_has() -> None:
    made = table("planted")
    edges = made.edges[7::8].tolist()
    seen = [(g, float(v)) for g in range(4) for v in made.middles]
    for actions in (good("planted"), good("reversed"), [0, 1, 2, 3], [3, 3, 3, 3]):
        found = gain_of_actions(made, [(g, v, actions[g]) for g, v in seen])
        assert found is not None
        assert found.gain == pytest.approx(made.gain(edges, {(g, b): actions[g] for g in range(4) for b in range(3)}))
        assert found.states == len(seen)
    oracle = made.oracle(edges)
    done = [(g, v, oracle[g, int(np.searchsorted(edges, v, side="right"))]) for g, v in seen]
    assert (gain_of_actions(made, done) or (0,))[0] == pytest.approx(1.0)


def test_blind_actions_gain_nothing_and_no_actions_are_no_gain() -> None:
    made = table("planted")
    done = [(g, float(v), a) for g in range(4) for v in made.middles for a in range(len(STRATEGIES))]
    assert (gain_of_actions(made, done) or (1,))[0] == pytest.approx(0.0, abs=1e-12)
    assert gain_of_actions(made, []) is None
