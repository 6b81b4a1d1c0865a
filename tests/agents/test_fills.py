"""Execution arithmetic against numbers worked out by hand, and what must hold for all bars."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.algorithms import fills
from agents.algorithms.candles import candle_problem
from agents.algorithms.fills import Costs, Exit, Fill
from agents.algorithms.lineage import merge_origin, merge_source

COSTS = Costs(fee_bps=10.0, half_spread_bps=50.0, slippage_bps=50.0)  # 1 % against us on each fill, 0.1 % fee
price = st.floats(0.01, 1e6)


def test_a_fill_goes_against_us_and_says_by_how_much() -> None:
    bought = fills.fill(100.0, +1, 25.0, COSTS)
    assert bought == pytest.approx(Fill(price=101.0, fee=2.525, spread_cost=12.5, slippage=12.5))
    assert fills.fill(100.0, -1, 25.0, COSTS) == pytest.approx(Fill(99.0, 2.475, 12.5, 12.5))


@given(price, st.sampled_from([1, -1]), st.floats(1e-6, 1e6))
def test_spread_and_slippage_are_the_whole_way_from_reference_to_fill(ref: float, side: int, quantity: float) -> None:
    filled = fills.fill(ref, side, quantity, COSTS)
    assert side * (filled.price - ref) * quantity == pytest.approx(filled.spread_cost + filled.slippage, rel=1e-9)


def test_quantity_loses_the_risk_at_the_stop() -> None:
    assert fills.quantity_for_risk(100.0, 4.0, 1.0) == 25.0
    assert fills.quantity_for_risk(100.0, 4.0, 2.0) == 50.0
    assert fills.quantity_for_risk(100.0, 0.0, 1.0) == 0.0


def test_quantity_is_capped_by_leverage_and_by_volume() -> None:
    assert fills.capped(25.0, 101.0, 10_000.0, 3.0, None) == 25.0
    assert fills.capped(500.0, 100.0, 10_000.0, 3.0, None) == 300.0
    assert fills.capped(500.0, 100.0, 10_000.0, 3.0, 7.0) == 7.0
    assert fills.capped(500.0, 100.0, 10_000.0, 3.0, 0.0) == 0.0


@pytest.mark.parametrize(("side", "stop", "target", "ohl", "expected"), [
    (+1, 95.0, 110.0, (100, 109, 96), None),
    (+1, 95.0, 110.0, (100, 109, 95), Exit("STOP", 95.0, False)),
    (+1, 95.0, 110.0, (100, 110, 96), Exit("TARGET", 110.0, False)),
    (+1, 95.0, 110.0, (100, 112, 94), Exit("STOP", 95.0, False)),  # both in the bar: the stop
    (+1, 95.0, 110.0, (93, 99, 92), Exit("STOP", 93.0, True)),  # a gap through the stop
    (+1, 95.0, 110.0, (113, 115, 112), Exit("TARGET", 113.0, True)),  # a gap through the target
    (+1, 95.0, 110.0, (113, 115, 90), Exit("TARGET", 113.0, True)),  # the open came before the stop
    (-1, 105.0, 90.0, (88, 106, 80), Exit("TARGET", 88.0, True)),
    (+1, 95.0, None, (100, 900, 96), None),
    (+1, None, None, (100, 900, 1), None),
    (-1, 105.0, 90.0, (100, 104, 91), None),
    (-1, 105.0, 90.0, (100, 105, 91), Exit("STOP", 105.0, False)),
    (-1, 105.0, 90.0, (100, 104, 90), Exit("TARGET", 90.0, False)),
    (-1, 105.0, 90.0, (100, 106, 88), Exit("STOP", 105.0, False)),
    (-1, 105.0, 90.0, (107, 108, 101), Exit("STOP", 107.0, True)),
    (-1, 105.0, 90.0, (88, 89, 80), Exit("TARGET", 88.0, True)),
])
def test_exits_within_a_bar(side: int, stop: float, target: float, ohl: tuple[float, ...], expected: Exit) -> None:
    assert fills.exit_in_bar(side, stop, target, *map(float, ohl)) == expected


@given(st.sampled_from([1, -1]), price, st.floats(0.001, 0.5), st.lists(price, min_size=3, max_size=3))
def test_no_exit_outside_of_the_bar(side: int, entry: float, width: float, prices: list[float]) -> None:
    low, open_, high = sorted(prices)
    stop, target = entry * (1 - side * width), entry * (1 + side * width)
    exit_ = fills.exit_in_bar(side, stop, target, open_, high, low)
    if exit_ is None:
        assert low > min(stop, target)
        assert high < max(stop, target)
    else:
        assert low <= exit_.price <= high
        assert exit_.price == open_ if exit_.at_open else exit_.price in (stop, target)


def test_mirrored_bars_give_mirrored_exits() -> None:
    long = fills.exit_in_bar(+1, 95.0, 110.0, 100.0, 111.0, 96.0)
    short = fills.exit_in_bar(-1, -95.0, -110.0, -100.0, -96.0, -111.0)
    assert long == Exit("TARGET", 110.0, False)
    assert short == Exit("TARGET", -110.0, False)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 60))
def test_grid_points_are_counted(start: int, length: int, interval: int) -> None:
    counted = sum(1 for t in range(start, start + length) if t % interval == 0)
    assert fills.grid_points(start, start + length, interval) == counted


def test_funding_is_paid_by_longs_and_received_by_shorts() -> None:
    assert fills.funding_paid(+1, 2.0, 100.0, 10.0, 3) == pytest.approx(0.6)
    assert fills.funding_paid(-1, 2.0, 100.0, 10.0, 3) == pytest.approx(-0.6)


def test_a_settled_trade_by_hand() -> None:
    entry = fills.fill(100.0, +1, 25.0, COSTS)
    result = fills.settle(+1, entry, 25.0, 1.0, 100.0, fills.fill(97.0, -1, 25.0, COSTS))
    assert result.exit_price == pytest.approx(96.03)
    assert result.fees == pytest.approx(2.525 + 2.40075)
    assert result.pnl_usd == pytest.approx(-124.25 - 4.92575 - 1.0)
    assert result.r_multiple == pytest.approx(-1.3017575)
    assert fills.settle(+1, entry, 25.0, 0.0, 0.0, entry).r_multiple is None


@given(price, price, st.sampled_from([1, -1]), st.floats(1e-3, 1e3))
def test_a_round_trip_costs_what_its_parts_say(a: float, b: float, side: int, quantity: float) -> None:
    entry, exit_ = fills.fill(a, side, quantity, COSTS), fills.fill(b, -side, quantity, COSTS)
    r = fills.settle(side, entry, quantity, 0.0, 1.0, exit_)
    gross = side * (b - a) * quantity
    assert r.pnl_usd == pytest.approx(gross - r.spread_cost - r.slippage - r.fees, abs=1e-9 * (a + b) * quantity)


GOOD = {"open_ms": 7_200_000, "ts_ms": 10_800_000, "interval_ms": 3_600_000, "open_": 10.0, "high": 12.0, "low": 9.0,
        "close": 11.0, "volume": 5.0, "taker": 5.0}


@pytest.mark.parametrize("changes", [
    {"high": 10.5}, {"low": 10.5}, {"low": 0.0}, {"high": 1e13}, {"ts_ms": 10_800_001}, {"volume": 1e19},
    {"volume": -1.0}, {"taker": 5.1}, {"open_ms": 7_200_001, "ts_ms": 10_800_001}, {"close": float("nan")},
])
def test_bars_that_cannot_be_true(changes: dict[str, float]) -> None:
    assert candle_problem(**GOOD) is None  # type: ignore[arg-type]
    assert candle_problem(**(GOOD | changes)) is not None  # type: ignore[arg-type]


def test_lineage() -> None:
    assert merge_origin("CHECKED", "MIXED") == merge_origin("MIXED", "CLAIMED") == "MIXED"
    assert merge_origin("MIXED", "SYNTHETIC") == merge_origin("SYNTHETIC", "CHECKED") == "SYNTHETIC"
    once = merge_source("b", "a")
    assert once == "a+b"
    assert merge_source(once, "b") == merge_source("a", once) == once
