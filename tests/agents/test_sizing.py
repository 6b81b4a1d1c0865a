"""Sizes: what a cautious mean is worth, what a decision gets, and that one trade speaks for all five."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agents.algorithms.sizing import AVERSION, SIZES, best_size, cautious_mean, results, utility
from agents.decision import DecisionConfig
from schemas.events import Cell, Decision, PolicyRecord, TradeClosed
from tests.agents.test_decision import bar, run
from tests.agents.test_decision import policy as table
from tests.agents.test_decision_networks import SEEN, network
from tests.agents.test_decision_networks import policy as with_network
from tests.agents.test_decision_networks import run as run_network
from tests.agents.test_paper_execution import candle, decision, instrument, of
from tests.agents.test_paper_execution import run as execute


@given(st.floats(-2, 2), st.floats(0.01, 3), st.floats(0.05, 0.1))
def test_the_size_is_the_best_of_the_five_and_grows_with_the_mean(
        mean: float, deviation: float, aversion: float) -> None:
    found = best_size(mean, deviation, aversion)
    assert found in SIZES
    assert all(utility(found, mean, deviation, aversion) >= utility(m, mean, deviation, aversion) for m in SIZES)
    assert best_size(mean + 0.1, deviation, aversion) >= found
    assert best_size(mean, deviation * 1.5, aversion) <= found or mean < 0


def test_the_mean_is_shrunk_less_by_more_outcomes_and_lies_below_the_estimate() -> None:
    seen = [cautious_mean(0.2, 0.7, n) for n in (1, 10, 50, 400, 100_000)]
    assert seen == sorted(seen)
    assert seen[0] < 0 < seen[2]
    assert seen[-1] == pytest.approx(0.2, abs=0.003)


def sized(**cell: Any) -> PolicyRecord:
    """A table whose every cell knows this of breakout, which it always draws."""
    record = table(1)
    assert record.tabular is not None
    values = {"q": (0.0,) * 4, "se": (1.0,) * 4, "visits": (0,) * 4} | cell
    cells = tuple(Cell(state_key=c.state_key, probabilities=(0.0, 0.0, 1.0, 0.0), greedy="breakout", **values)
                  for c in record.tabular.cells)
    return replace(record, tabular=replace(record.tabular, cells=cells))


@pytest.mark.parametrize(("mean", "n", "size"), [
    (-0.2, 400, 0.5),  # it loses
    (0.2, 3, 0.5),  # it may win: 3 outcomes say nothing
    (0.095, 400, 0.75),
    (0.115, 400, 1.0),  # a cautious mean of .077 R at a deviation of .7 R
    (0.16, 400, 1.5),
    (0.4, 400, 2.0),
])
def test_a_table_s_choice_gets_the_size_that_its_estimate_is_worth(mean: float, n: int, size: float) -> None:
    record = sized(q=(0.0, 0.0, mean, 0.0), se=(1.0, 1.0, 0.7 / n**0.5, 1.0), visits=(0, 0, n, 0))
    (d,) = run(record, bar(4))[1]
    assert (d.action, d.size_multiplier) == ("breakout", size)


@pytest.mark.parametrize(("outcomes", "deviation", "size"), [(0, 0.7, 0.5), (4_000, 2.0, None), (4_000, 0.7, 2.0)])
def test_a_network_s_greedy_choice_is_sized_by_the_critic(outcomes: int, deviation: float, size: float | None) -> None:
    """Its value here is a large one, either way: what is tested is that it, its deviation and outcomes count."""
    seed = next(s for s in range(1, 50) if (value(s) or 0) > 0.7)
    record = with_network(seed, net=network(seed, residual_deviation=deviation), outcomes=outcomes)
    _, out = run_network(record, *(bar(4 * n, **SEEN) for n in range(1, 40)))
    greedy, explored = ([d for d in out if (d.action == d.greedy_action) == g] for g in (True, False))
    assert {d.size_multiplier for d in explored} <= {0.5}
    assert greedy
    expected = best_size(cautious_mean(greedy[0].value or 0.0, deviation, outcomes / 4), deviation)
    assert {d.size_multiplier for d in greedy} == {expected}
    assert size is None or expected == size


def value(seed: int) -> float | None:
    _, (d,) = run_network(with_network(seed), bar(4, **SEEN))
    return d.value


def test_forced_decisions_and_a_configuration_without_aversion_have_the_configured_size() -> None:
    record = sized(q=(0.0, 0.0, 0.4, 0.0), se=(1.0, 1.0, 0.01, 1.0), visits=(0, 0, 400, 0))
    assert run(bar(4), size_multiplier=1.5)[1][0].size_multiplier == 1.5
    assert run(record, bar(4), size_multiplier=1.5, aversion=None)[1][0].size_multiplier == 1.5
    with pytest.raises(ValueError, match="aversion"):
        DecisionConfig(aversion=0.0)
    assert AVERSION == 0.075


# ---------------------------------------------------------------------- one trade speaks for all five sizes
def traded(size: float, volume: float = 1e6) -> TradeClosed:
    bars = [candle(n, (100, 102, 99, 101), volume=volume) for n in range(1, 5)]
    d: Decision = decision(0, size_multiplier=size)
    (trade,) = of(TradeClosed, execute([instrument(volume_cap=0.01, fee_bps=10.0), candle(0), d, *bars])[1])
    return trade


@pytest.mark.parametrize("size", SIZES)
def test_from_the_trade_of_one_size_follow_those_of_all_within_the_volume_cap(size: float) -> None:
    mine = traded(size)
    told = results(mine.r_multiple, mine.risk_at_open / mine.size_multiplier)
    assert told == pytest.approx([traded(m).pnl_usd for m in SIZES])


def test_beyond_the_volume_cap_a_larger_size_earns_no_more() -> None:
    small, large = traded(1.0, volume=2_500.0), traded(2.0, volume=2_500.0)
    assert small.quantity == pytest.approx(25.0)
    assert (large.quantity, large.pnl_usd) == pytest.approx((small.quantity, small.pnl_usd))
    assert large.size_multiplier == pytest.approx(1.0)
    assert large.r_multiple == pytest.approx(small.r_multiple)
