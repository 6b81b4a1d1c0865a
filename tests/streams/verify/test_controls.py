"""The verdict on the controls: each state, from a log made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from agents.algorithms.strategies import STRATEGIES
from schemas.codec import Codec
from schemas.events import REGIME_SYMBOLS, Candle, Cell, Control, Event, Experience, PolicyRecord, Tabular
from streams import controls
from streams.calibrated import table
from streams.records import encode_event
from streams.verify.cells import State
from streams.verify.controls import FALSE_RED, LEARNING, NEEDED, judge_controls, limits
from streams.verify.evidence import Evidence
from streams.verify.view import MemoryLog

CODEC = Codec()
BARS = 60
LAB = controls.draw(5, bars=BARS)
EDGES = (0.003, 0.006)


def of(kind: str) -> Control:
    return next(c for c in LAB.controls if c.kind == kind)


def outcomes(symbol: str, rewards: Sequence[float]) -> list[tuple[str, Event]]:
    return [("learning.experience", Experience(
        decision_id=f"{symbol}/{i}", symbol=symbol, book_id="q_learning", ts_ms=i, decided_ms=i, status="TRADED",
        learnable=True, forced=False, action="breakout", propensity=1.0, regime="bull", volatility=0.01,
        reward_r=float(r), pnl_usd=float(r), size_multiplier=1.0, source="synthetic:1", origin="SYNTHETIC"))
        for i, r in enumerate(rewards)]


def policy(symbol: str, greedy: dict[tuple[int, int], int], claim: bool | None = None) -> PolicyRecord:
    cells = tuple(Cell(state_key=f"{regime}|vol:{b}", q=(0.0,) * 4, se=(1.0,) * 4, visits=(1,) * 4,
                       probabilities=(0.25,) * 4, greedy=STRATEGIES[greedy.get((g, b), 3)])
                  for g, regime in enumerate(REGIME_SYMBOLS) for b in range(3))
    return PolicyRecord(
        policy_id=f"q_learning/{symbol}", version=1, agent="q_learning", scope=symbol, ts_ms=1, valid_from_ms=1,
        fallback="neutral", status="ACTIVE", reason="update", outcomes=1, mask=(), actions=STRATEGIES,
        tabular=Tabular(volatility_edges=EDGES, cells=cells), edge_claim=claim, source="synthetic:1",
        origin="SYNTHETIC")


def judged(kind: str, rewards: Sequence[float], learned: PolicyRecord | None, *, edit: Any = None,
           published: int = BARS, key: bool = True, more: Sequence[tuple[str, Event]] = ()) -> Any:
    """The verdict on one control; `edit` changes its candles on their way, `more` stands behind the outcomes."""
    control = of(kind)
    log = MemoryLog()
    for topic in ("market.candles", "learning.experience", "policy.ledger", controls.REVEAL):
        log.create(topic, 1)
    mine = [c for c in LAB.loaded.candles() if c.symbol == control.symbol]
    events: list[tuple[str, Event]] = [("market.candles", c) for c in mine]
    if edit is not None:
        events = [(t, edit(e)) for t, e in events]
    events += outcomes(control.symbol, rewards)
    events += [*([("policy.ledger", learned)] if learned is not None else []), *more]
    shown = controls.revealed(LAB, {control.symbol: published})
    events += [(controls.REVEAL, replace(shown, controls=tuple(c for c in shown.controls if c.kind == kind)))] * key
    for i, (topic, event) in enumerate(events):
        row = encode_event(CODEC, topic, event, f"x{i}", "x")
        log.append(topic, 0, row.key, row.value, row.headers, 1)
    return judge_controls(Evidence(log, {}, CODEC))


def noisy(mean: float, n: int, sd: float = 0.7) -> list[float]:
    x = np.random.Generator(np.random.PCG64(1)).standard_normal(n)
    return list(mean + sd * (x - x.mean()))


def best(kind: str) -> PolicyRecord:
    return policy(of(kind).symbol, table(kind.lower()).oracle(EDGES))


def state(kind: str, rewards: Sequence[float], learned: PolicyRecord | None, **how: Any) -> tuple[State, str]:
    (verdict,) = judged(kind, rewards, learned, **how)
    assert (verdict.symbol, verdict.kind) == (of(kind).symbol, kind)
    return verdict.cell.state, verdict.cell.why


def test_nothing_is_said_before_the_key_is_out() -> None:
    assert judged("FAIR", noisy(0.0, 10), None, key=False) == ()


@pytest.mark.parametrize("kind", ["PLANTED", "REVERSED"])
def test_a_map_that_was_learned_passes_and_its_twins_does_not(kind: str) -> None:
    other = "REVERSED" if kind == "PLANTED" else "PLANTED"
    assert state(kind, noisy(0.15, NEEDED), best(kind))[0] == "PASS"
    wrong = replace(best(kind), tabular=best(other).tabular)
    answer, why = state(kind, noisy(0.15, NEEDED), wrong)
    assert answer == "NOT PROVEN"
    assert "gain -" in why


@pytest.mark.parametrize("kind", ["PLANTED", "REVERSED"])
def test_blind_choice_is_red_once_it_cannot_be_chance(kind: str) -> None:
    blind = table(kind.lower()).uniform()
    assert state(kind, noisy(blind, NEEDED), best(kind))[0] == "FAIL"
    assert state(kind, noisy(blind, LEARNING + 100), best(kind))[0] == "NOT PROVEN", "so few could be chance"
    late = [*noisy(blind, LEARNING), *noisy(0.15, NEEDED - LEARNING)]
    assert state(kind, late, best(kind))[0] == "PASS", "it began blind, as every learner does"


def test_too_few_outcomes_are_counted() -> None:
    answer, why = state("PLANTED", noisy(0.15, 1000), best("PLANTED"))
    assert (answer, f"1000/{NEEDED}" in why) == ("NOT PROVEN", True)
    assert state("PLANTED", [], None)[0] == "NOT PROVEN"


def test_who_earns_on_a_fair_walk_is_red() -> None:
    assert state("FAIR", noisy(0.1, NEEDED), policy(of("FAIR").symbol, {}))[0] == "FAIL"
    assert state("FAIR", noisy(0.1, 200), policy(of("FAIR").symbol, {}))[0] == "NOT PROVEN"
    assert state("FAIR", noisy(-0.05, NEEDED), policy(of("FAIR").symbol, {}, claim=False))[0] == "PASS"


def test_a_claim_on_a_fair_walk_is_never_a_pass_and_never_red() -> None:
    """By its definition 1 in 100 runs ever claims; a red is less than 1 in 1,000."""
    assert state("FAIR", noisy(0.02, NEEDED), policy(of("FAIR").symbol, {}, claim=True))[0] == "NOT PROVEN"


def test_candles_that_the_seed_does_not_make_are_red() -> None:
    def higher(e: Any) -> Any:
        return replace(e, close=e.close * 1.0001, high=e.high * 1.01) if isinstance(e, Candle) and e.ts_ms % 7 else e

    answer, why = state("PLANTED", noisy(0.15, NEEDED), best("PLANTED"), edit=higher)
    assert (answer, "not what its key makes" in why) == ("FAIL", True)
    answer, why = state("PLANTED", noisy(0.15, NEEDED), best("PLANTED"), published=BARS + 1)
    assert (answer, "the key says 61" in why) == ("FAIL", True)


def test_healthy_learners_are_hardly_ever_red() -> None:
    """Looked at after every 50th outcome, learners that take their time: none of 200 is red."""
    made, alpha = table("planted"), FALSE_RED / 3
    blind, top = made.uniform(), made.value_of_map(EDGES, made.oracle(EDGES))
    for seed in range(200):
        rng = np.random.Generator(np.random.PCG64(seed))
        means = blind + (top - blind) * np.minimum(np.arange(NEEDED) / 1000, 0.8)
        rewards = means + 0.7 * rng.standard_t(5, NEEDED) * np.sqrt(3 / 5)
        for n in range(LEARNING, NEEDED + 1, 200):
            assert limits(rewards[LEARNING:n].tolist(), alpha)[1] > (blind + top) / 2, (seed, n)


def test_fair_walks_are_hardly_ever_red() -> None:
    """Skewed outcomes as stops and targets make them, mean 0: none of 200 is red."""
    for seed in range(200):
        rng = np.random.Generator(np.random.PCG64(seed))
        rewards = np.where(rng.random(NEEDED) < 0.5, 0.0, np.where(rng.random(NEEDED) < 2 / 3, -1.0, 2.0))
        for n in range(100, NEEDED + 1, 200):
            assert limits(rewards[:n].tolist(), FALSE_RED / 3)[0] <= 0, (seed, n)
