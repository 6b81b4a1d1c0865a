"""The laboratory: its arithmetic is the agents', its edge has the stated size, oracle and gain mean what they say."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from agents.algorithms import fills, market
from agents.features import Features as FeaturesAgent
from agents.paper_execution import PaperExecutionAgent
from agents.paper_execution.layout import PaperConfig
from benchmarks.candle_outcomes import run_seed
from schemas.events import STRATEGY_SYMBOLS, Decision, Event, Features, TradeClosed
from streams.driver import Driver, ObjectCodec
from streams.ingest.publish import instruments
from streams.ingest.synthetic import SEEDS_APART, synthetic_market
from streams.laboratory import COSTS, INTERVAL_MS, PARTITION, Table, Trials, calibrate, tabulate, try_market

BARS = 1_500
SEED = 3


@cache
def small() -> Table:
    return calibrate(20_000, jobs=1)


def test_trades_equal_those_of_the_agents() -> None:
    """Every strategy's trade at every decision, once by the laboratory, once by features and paper execution."""
    loaded, costs = synthetic_market(SEED, ["LAB"], BARS)
    candles = list(loaded.candles())
    first = Driver({"features": FeaturesAgent()}, codec=ObjectCodec(), keep=("market.features",))
    first.run(("market.candles", c) for c in candles)
    trials = try_market(SEED * SEEDS_APART, BARS)
    ready = [f for f in first.events("market.features") if isinstance(f, Features) and f.ready]
    due = [f for f in ready if f.ts_ms // INTERVAL_MS % 4 == 0 and f.ts_ms + 4 * INTERVAL_MS <= candles[-1].ts_ms]
    assert len(due) == len(trials.hidden)

    decisions = [_decision(f, a, tuple(map(int, sides)))
                 for f, sides in zip(due, trials.sides, strict=True) for a in range(3)]
    events: list[tuple[str, Event]] = [("market.instruments", i) for i in instruments(loaded, costs)]
    events += [("market.candles", c) for c in candles] + [("rl.meta.strategy_selected", d) for d in decisions]
    order = {"market.instruments": 0, "market.candles": 1, "rl.meta.strategy_selected": 2}
    events.sort(key=lambda pair: (pair[1].ts_ms, order[pair[0]]))  # type: ignore[attr-defined]
    agent = PaperExecutionAgent(PaperConfig(baseline_books=False, daily_loss_limit=10.0))
    second = Driver({"paper_execution": agent}, codec=ObjectCodec(), keep=("execution.trade.closed",))
    second.run(events)
    closed = {t.decision_id: t.r_multiple for t in second.events("execution.trade.closed")
              if isinstance(t, TradeClosed)}
    expected = {_decision_id(f, a): trials.rewards[n, a] for n, f in enumerate(due) for a in range(3)
                if trials.sides[n, a]}
    assert closed.keys() == expected.keys()
    assert len(expected) > 300
    np.testing.assert_allclose([closed[k] for k in expected], list(expected.values()), rtol=1e-9, atol=1e-12)


def _decision_id(bar: Features, action: int) -> str:
    return f"{STRATEGY_SYMBOLS[action]}/{bar.ts_ms}"


def _decision(bar: Features, action: int, sides: tuple[int, ...]) -> Decision:
    assert bar.regime is not None
    assert bar.volatility_30 is not None
    assert bar.atr_14_pct is not None
    name = STRATEGY_SYMBOLS[action]
    return Decision(
        decision_id=_decision_id(bar, action), symbol=bar.symbol, book_id=name, decider=name, ts_ms=bar.ts_ms,
        interval_ms=bar.interval_ms, next_ts_ms=bar.ts_ms + 4 * bar.interval_ms, action=name, greedy_action=name,
        baseline_action="neutral", propensity=1.0, forced=False, regime=bar.regime, volatility=bar.volatility_30,
        close=bar.close, atr_pct=bar.atr_14_pct, signals=sides, size_multiplier=1.0, source=bar.source,
        origin=bar.origin,
    )


def test_the_edge_has_its_size_in_every_regime() -> None:
    report = small().report
    best = dict(zip(("bull", "bear", "sideways", "volatile"),
                    ("trend_following", "trend_following", "mean_reversion", "breakout"), strict=True))
    for regime, strategy in best.items():
        entry = report["by_hidden_regime"][regime]
        assert abs(entry[strategy]["d"] - 0.5) < 0.05 + 3 * entry[strategy]["d_error"], (regime, entry)
        of_a_decision = {s: entry[s]["mean_r_of_a_decision"] for s in STRATEGY_SYMBOLS[:3]}
        assert max(of_a_decision, key=lambda s: of_a_decision[s]) == strategy


def test_the_detector_finds_the_regimes() -> None:
    assert small().report["detector_right"] >= 0.9


def test_gain_is_one_at_the_oracle_and_worse_elsewhere() -> None:
    table = small()
    edges = (float(table.middles[7]), float(table.middles[15]))
    oracle = table.oracle(edges)
    assert table.gain(edges, oracle) == pytest.approx(1.0)
    assert table.report["value_hidden_oracle_r"] >= table.value_of_map(edges, oracle)
    for state in oracle:
        for action in range(4):
            assert table.gain(edges, oracle | {state: action}) <= 1.0 + 1e-12
    neutral = table.gain(edges, {})
    assert neutral == pytest.approx(-table.uniform() / (table.value_of_map(edges, oracle) - table.uniform()))


def test_table_by_hand() -> None:
    """Two kinds of decisions: in bull the first action earns 1, in bear it loses 1; nothing else earns anything."""
    rng = np.random.default_rng(0)
    n = 20_000
    regime = rng.integers(0, 2, n)
    rewards = np.zeros((n, 4))
    rewards[:, 0] = np.where(regime == 0, 1.0, -1.0)
    rewards += 1e-9 * rng.standard_normal((n, 4))
    sides = np.zeros((n, 4), dtype=int)
    sides[:, :3] = rng.choice([-1, 1], (n, 3))
    volatility = rng.uniform(0.01, 0.02, n)
    table = tabulate(Trials(regime, regime, volatility, sides, rewards, np.eye(4, dtype=int)))
    assert table.weight.shape == (4, PARTITION)
    assert table.weight.sum() == pytest.approx(1.0)
    assert table.uniform() == pytest.approx(0.0, abs=0.01)
    edges = (0.013, 0.017)
    best = table.oracle(edges)
    assert all(best[0, b] == 0 for b in range(3))
    assert all(best[1, b] != 0 for b in range(3))
    assert table.value_of_map(edges, best) == pytest.approx(0.5, abs=0.02)
    half = {(0, 0): 0}  # the right action in one of three volatility buckets
    assert table.gain(edges, half) == pytest.approx(0.3, abs=0.05)


@cache
def other(name: str, costs: fills.Costs = COSTS) -> Table:
    return calibrate(20_000, jobs=1, params=market.MARKETS[name], costs=costs)


def test_in_the_twin_every_regime_pays_another_strategy() -> None:
    """Hidden and as detected; the edge has the planted size."""
    report = other("reversed").report
    assert all(a != b for a, b in zip(market.PLANTED.best, market.REVERSED.best, strict=True))
    for label, strategy in zip(market.REGIMES, market.REVERSED.best, strict=True):
        entry = report["by_hidden_regime"][label]
        assert abs(entry[strategy]["d"] - 0.5) < 0.05 + 3 * entry[strategy]["d_error"], (label, entry)
        for view in ("by_hidden_regime", "by_observed_regime"):
            of_a_decision = {s: report[view][label][s]["mean_r_of_a_decision"] for s in STRATEGY_SYMBOLS[:3]}
            assert max(of_a_decision, key=lambda s: of_a_decision[s]) == strategy, (view, label)
    assert report["detector_right"] >= 0.9


def test_the_oracles_of_the_twins_agree_nowhere() -> None:
    planted, reverse = small(), other("reversed")
    for table, params in ((planted, market.PLANTED), (reverse, market.REVERSED)):
        edges = (float(table.middles[7]), float(table.middles[15]))
        for place, label in enumerate(market.REGIMES):
            values = sum(table.weight[place, k] * table.mean[place, k] for k in range(PARTITION))
            assert STRATEGY_SYMBOLS[int(np.argmax(values))] == params.best[place], label
        assert table.gain(edges, table.oracle(edges)) == pytest.approx(1.0)
    edges = (float(planted.middles[7]), float(planted.middles[15]))
    assert reverse.gain(edges, planted.oracle(edges)) < 0
    assert planted.gain(edges, reverse.oracle(edges)) < 0.2


def test_nothing_pays_in_the_fair_walk() -> None:
    """With costs every strategy loses; without them each earns 0 within its error."""
    free = fills.Costs(0.0, 0.0, 0.0)
    for label in market.REGIMES:
        for strategy in STRATEGY_SYMBOLS[:3]:
            paid = other("fair").report["by_hidden_regime"][label][strategy]
            assert paid["d"] < -0.05
            free_of_costs = other("fair", free).report["by_hidden_regime"][label][strategy]
            assert abs(free_of_costs["d"]) < 4 * free_of_costs["d_error"], (label, strategy)


@pytest.mark.parametrize("name", ["planted", "reversed"])
def test_the_learner_finds_either_map_and_claims_its_edge(name: str) -> None:
    """Three markets each, the agent on candle-true outcomes; benchmarks/README.md holds the figures over many."""
    table = small() if name == "planted" else other(name)
    for seed in (1, 2, 3):
        run = run_seed(seed, market.MARKETS[name], {"full": COSTS}, 3_000, table)["full"]
        assert run["gains"][-1] >= 0.8
        assert run["claims_at_end"]
        assert 100 <= run["first_claim"] < 2_500


@pytest.mark.parametrize("costs", [COSTS, fills.Costs(0.0, 0.0, 0.0)], ids=["costs", "no costs"])
def test_the_learner_claims_nothing_on_a_fair_walk(costs: fills.Costs) -> None:
    for seed in (1, 2, 3):
        run = run_seed(seed, market.FAIR, {"null": costs}, 2_000, None)["null"]
        assert run["first_claim"] is None
        assert abs(run["mean_r"]) < 0.1
