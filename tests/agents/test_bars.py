"""Bars of trades: against bars reckoned at once from all trades, in whatever order they come; what is refused."""

from __future__ import annotations

import random
from itertools import groupby
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.algorithms import seen as seen_module
from agents.algorithms.candles import candle_problem
from agents.algorithms.seen import MOST, Seen
from agents.bars import Bars, BarsConfig, BarsState
from agents.bars.bar import opening_ms
from agents.contract import Refused
from schemas.events import Candle, MarketTrade

MINUTE_MS = 60_000
START_MS = 1_700_000_040_000 // MINUTE_MS * MINUTE_MS
LATE_MS = 2_000


def trade(number: int, at_ms: int, price: float = 100.0, quantity: float = 1.0, side: Any = "BUY",
          **more: Any) -> MarketTrade:
    values: dict[str, Any] = {"symbol": "AAA", "trade_id": number, "ts_ms": START_MS + at_ms, "price": price,
                              "quantity": quantity, "taker_side": side, "source": "test", "origin": "CLAIMED"}
    return MarketTrade(**(values | more))


def fold(trades: list[MarketTrade], state: BarsState | None = None,
         **config: int) -> tuple[list[Candle], BarsState, list[str]]:
    agent, out, refused = Bars(BarsConfig(**config)), [], []
    state = agent.new("AAA") if state is None else state
    for t in trades:
        try:
            state, outputs = agent.step(state, t)
        except Refused as exc:
            refused.append(exc.reason)
            continue
        assert all(o.topic == "market.candles" for o in outputs)
        out += [o.event for o in outputs if isinstance(o.event, Candle)]
    return out, state, refused


def market(seed: int, n: int) -> list[MarketTrade]:
    """Trades of a market with quiet minutes, several in one millisecond, sides that are not always known."""
    g, at, price, out = random.Random(seed), 0, 100.0, []
    for number in range(n):
        at += g.choice((0, 0, 1, 700, 3_000, 20_000, 150_000 if g.random() < 0.05 else 9))
        price *= 1 + g.gauss(0, 0.001)
        side = g.choices(("BUY", "SELL", None), (9, 9, 1))[0]
        out.append(trade(number, at, price, g.choice((0.001, 1.0, 7.0)), side))
    return out


def at_once(trades: list[MarketTrade]) -> list[dict[str, Any]]:
    """Bars from all trades, by plain grouping; without the first, and without those that nothing closes."""
    ordered = sorted(trades, key=lambda t: (t.ts_ms, t.trade_id))
    until = (ordered[-1].ts_ms - LATE_MS) // MINUTE_MS * MINUTE_MS
    bars = []
    for open_ms, group in groupby(ordered, key=lambda t: t.ts_ms // MINUTE_MS * MINUTE_MS):
        some = list(group)
        if open_ms >= until:
            break
        prices, sides = [t.price for t in some], {t.taker_side for t in some}
        bars.append({
            "open_time_ms": open_ms, "ts_ms": open_ms + MINUTE_MS, "open": prices[0], "high": max(prices),
            "low": min(prices), "close": prices[-1], "trades": len(some),
            "volume": pytest.approx(sum(t.quantity for t in some)),
            "quote_volume": pytest.approx(sum(t.quantity * t.price for t in some)),
            "taker_buy_volume": None if None in sides else pytest.approx(
                sum(t.quantity for t in some if t.taker_side == "BUY")),
        })
    return bars[1:]


def numbers(candles: list[Candle], like: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: getattr(c, name) for name in like[0]} for c in candles]


@pytest.mark.parametrize("seed", range(5))
def test_bars_are_those_of_all_trades_at_once(seed: int) -> None:
    trades = market(seed, 600)
    candles, state, refused = fold(trades)
    expected = at_once(trades)
    assert len(expected) > 20
    assert numbers(candles, expected) == expected
    assert not refused
    assert (state.seen.first, state.seen.last) == ((0,), (599,)), "numbers without a gap are one range"
    for c in candles:
        assert candle_problem(open_ms=c.open_time_ms, ts_ms=c.ts_ms, interval_ms=c.interval_ms, open_=c.open,
                              high=c.high, low=c.low, close=c.close, volume=c.volume,
                              taker=c.taker_buy_volume) is None
        assert (c.source, c.origin) == ("test", "CLAIMED")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, LATE_MS))
def test_the_order_of_arrival_within_the_lateness_changes_nothing(seed: int, most_ms: int) -> None:
    g, trades = random.Random(seed), market(seed, 200)
    late = sorted(trades[1:], key=lambda t: t.ts_ms + g.uniform(0, most_ms))
    twice = [t for t in late for _ in range(1 + (g.random() < 0.2))]
    candles, _, refused = fold([trades[0], *twice])
    expected = at_once(trades)
    assert not refused
    if expected:
        assert numbers(candles, expected) == expected
    else:
        assert not candles


def test_an_interval_without_trades_has_no_bar_and_the_first_bar_is_left_out() -> None:
    candles, _, _ = fold([trade(1, 30_000), trade(2, 59_999), trade(3, 61_000), trade(4, 400_000), trade(5, 500_000)])
    assert [(c.open_time_ms - START_MS) // MINUTE_MS for c in candles] == [1, 6]


def test_a_bar_is_closed_by_a_trade_that_is_the_lateness_behind_its_end() -> None:
    before = [trade(1, 0), trade(2, 61_000), trade(3, 120_000 + LATE_MS - 1)]
    assert fold(before)[0] == []
    assert len(fold([*before, trade(4, 120_000 + LATE_MS)])[0]) == 1


def test_a_trade_of_a_closed_bar_is_refused_and_a_repeat_is_not() -> None:
    trades = [trade(1, 0), trade(2, 61_000), trade(4, 130_000)]
    candles, state, _ = fold(trades)
    assert len(candles) == 1
    again, same, refused = fold([trade(3, 62_000), trades[1], trade(5, 130_000)], state)
    assert (again, refused) == ([], ["LATE"])
    assert same.seen.has(5)
    assert not same.seen.has(3), "a refused trade leaves the state as it was"
    agent = Bars()
    assert agent.step(state, trades[1])[0] is state, "a repeat makes no new state"


def test_a_trade_from_before_the_feed_began_changes_no_bar() -> None:
    candles, _, refused = fold([trade(5, 10_000), trade(4, 9_000, 1.0), trade(6, 70_000, 50.0), trade(7, 200_000)])
    assert not refused
    assert [(c.open, c.low, c.trades) for c in candles] == [(50.0, 50.0, 1)]


@pytest.mark.parametrize(("more", "reason"), [
    ({"source": "another"}, "SOURCE_CONFLICT"), ({"price": 1e13}, "BAD_TRADE"), ({"price": 1e-13}, "BAD_TRADE"),
    ({"quantity": 1e19}, "BAD_TRADE"),
])
def test_what_is_refused(more: dict[str, Any], reason: str) -> None:
    _, state, _ = fold([trade(1, 0)])
    assert fold([msgspec.structs.replace(trade(2, 1), **more)], state)[2] == [reason]
    with pytest.raises(Refused, match="bars takes trades"):
        Bars().step(state, Candle(symbol="A", interval_ms=1000, open_time_ms=0, ts_ms=1000, open=1, high=1, low=1,
                                  close=1, source="s", origin="CLAIMED"))


def test_origins_of_a_bar_are_merged_as_everywhere() -> None:
    rows = [trade(1, 0), trade(2, 61_000), trade(3, 62_000, origin="CHECKED"), trade(4, 121_000),
            trade(5, 122_000, origin="SYNTHETIC"), trade(6, 181_000, origin="CHECKED"), trade(7, 300_000)]
    assert [c.origin for c in fold(rows)[0]] == ["MIXED", "SYNTHETIC", "CHECKED"]


def test_the_grid_is_utc_and_weeks_begin_on_mondays() -> None:
    monday_ms = 1_704_067_200_000  # 2024-01-01
    week_ms = 604_800_000
    assert opening_ms(monday_ms + week_ms - 1, week_ms) == monday_ms
    trades = [trade(i, monday_ms - START_MS + i * (week_ms + LATE_MS)) for i in range(3)]
    (bar,) = fold(trades, interval_ms=week_ms)[0]
    assert (bar.open_time_ms, bar.ts_ms) == (monday_ms + week_ms, monday_ms + 2 * week_ms)


@pytest.mark.parametrize("config", [{"interval_ms": 999}, {"interval_ms": 604_800_001}, {"lateness_ms": -1},
                                    {"lateness_ms": 3_600_001}, {"interval_ms": 1000, "lateness_ms": 100_001}])
def test_configurations_that_cannot_be(config: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="outside"):
        BarsConfig(**config)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=80))
def test_seen_is_a_set(numbers: list[int]) -> None:
    held, plain = Seen(), set[int]()
    for n in numbers:
        assert held.has(n) == (n in plain)
        if n not in plain:
            held, plain = held.with_(n), plain | {n}
        assert all(a <= b for a, b in zip(held.first, held.last, strict=True))
        assert all(b + 1 < a for a, b in zip(held.first[1:], held.last[:-1], strict=True)), "ranges that touch"
    assert {n for a, b in zip(held.first, held.last, strict=True) for n in range(a, b + 1)} == plain


def test_numbers_with_too_many_gaps_are_forgotten_from_below_and_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_module, "MOST", 3)
    _, state, _ = fold([trade(n, n) for n in (10, 20, 30, 40)])
    assert (state.seen.first, state.seen.forgotten) == ((20, 30, 40), 10)
    assert fold([trade(9, 5), trade(10, 10), trade(20, 20), trade(15, 15)], state)[2] == ["LATE", "LATE"]
    assert MOST == 256
