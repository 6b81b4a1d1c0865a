"""The rules of a trading account against numbers worked out by hand, and what must hold for every bar."""

from __future__ import annotations

from math import exp, log

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.algorithms.trading import ACTIONS, Account, Action, Bar, Happened, Rules, opened, step, valid

RULES = Rules(fee_bps=10.0, half_spread_bps=5.0, slippage_bps=5.0, drawdown_weight=0.5)
FLAT = Bar(100.0, 101.0, 99.0, 100.0, 2.0)
FREE = Rules(fee_bps=0.0, half_spread_bps=0.0, slippage_bps=0.0)
price = st.floats(1.0, 1e5)


@st.composite
def bars(draw: st.DrawFn) -> Bar:
    points = sorted(draw(price) for _ in range(4))
    low, high = points[0], points[3]
    open_, close = draw(st.permutations(points[1:3]))
    return Bar(open_, high, low, close, draw(st.floats(0.0, 1e4)), draw(st.integers(0, 3)), draw(st.booleans()))


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    cost = st.floats(0.0, 50.0)
    return Rules(fee_bps=draw(cost), half_spread_bps=draw(cost), slippage_bps=draw(cost),
                 funding_bps=draw(st.floats(-10.0, 10.0)), drawdown_weight=draw(st.floats(0.0, 2.0)),
                 max_leverage=draw(st.floats(0.5, 5.0)), stop_atr=draw(st.floats(0.5, 4.0)))


def played(rule: Rules, moves: list[tuple[int, Bar]], last: bool = False) -> tuple[Account, list[Happened]]:
    account, found = opened(rule), []
    for i, (action, bar) in enumerate(moves):
        account, happened = step(rule, account, action, bar, last and i == len(moves) - 1)
        found.append(happened)
    return account, found


def test_one_enumeration() -> None:
    assert ACTIONS == ("HOLD", "LONG", "SHORT", "REDUCE", "CLOSE", "EMERGENCY_FLATTEN")


def test_a_long_and_its_close_by_hand() -> None:
    higher = Bar(110.0, 111.0, 109.0, 110.0, 2.0)
    account, (opened_, closed) = played(RULES, [(Action.LONG, FLAT), (Action.CLOSE, higher)])
    # risk of 100 over a stop 2 away: 50 units, bought at 100.1, sold at 110 - .11
    assert opened_.fees == pytest.approx(50 * 100.1 * 0.001)
    assert opened_.spread_cost == opened_.slippage == pytest.approx(50 * 100 * 0.0005)
    assert closed.turnover == pytest.approx(50 * 109.89)
    assert account.balance == account.equity == pytest.approx(
        10_000 + 50 * (109.89 - 100.1) - 50 * 100.1 * 0.001 - 50 * 109.89 * 0.001)
    assert account.side == 0


def test_leverage_caps_a_position() -> None:
    account, _ = played(FREE, [(Action.LONG, Bar(100.0, 100.0, 100.0, 100.0, 0.1))])
    assert account.quantity == pytest.approx(300.0)  # three times 10,000, not risk's 1,000 units


def test_a_stop_fills_at_its_level_or_at_the_open_of_a_gap() -> None:
    account, found = played(FREE, [(Action.LONG, FLAT), (Action.HOLD, Bar(99.0, 99.5, 97.0, 99.0, 2.0))])
    assert (found[1].stopped, account.equity) == (True, pytest.approx(9_900.0))
    account, found = played(FREE, [(Action.SHORT, FLAT), (Action.HOLD, Bar(104.0, 105.0, 101.0, 102.0, 2.0))])
    assert (found[1].stopped, account.equity) == (True, pytest.approx(10_000 - 50 * 4.0))


def test_reduce_halves_and_turning_round_closes_first() -> None:
    account, found = played(FREE, [(Action.LONG, FLAT), (Action.REDUCE, FLAT), (Action.SHORT, FLAT)])
    assert found[1].turnover == pytest.approx(25 * 100.0)
    assert found[2].turnover == pytest.approx(25 * 100.0 + 50 * 100.0)
    assert (account.side, account.stop_price, account.held_bars) == (-1, 102.0, 1)


def test_emergency_pays_more_slippage_and_opens_nothing_for_some_bars() -> None:
    rule = msgspec.structs.replace(RULES, cooldown_bars=2)
    _, (_, closed) = played(RULES, [(Action.LONG, FLAT), (Action.CLOSE, FLAT)])
    moves = [(Action.LONG, FLAT), (Action.EMERGENCY_FLATTEN, FLAT), *[(Action.LONG, FLAT)] * 3]
    account, found = played(rule, moves)
    assert found[1].slippage == pytest.approx(2 * closed.slippage)
    assert [h.turnover > 0 for h in found] == [True, True, False, False, True]
    assert account.side == 1


def test_funding_is_paid_by_longs_and_received_by_shorts() -> None:
    rule = msgspec.structs.replace(FREE, funding_bps=10.0)
    bar = Bar(100.0, 101.0, 99.0, 100.0, 2.0, funding_points=2)
    assert played(rule, [(Action.LONG, bar)])[1][0].funding == pytest.approx(50 * 100 * 0.001 * 2)
    assert played(rule, [(Action.SHORT, bar)])[0].balance == pytest.approx(10_000 + 10.0)


def test_the_end_closes_what_is_open_and_that_costs() -> None:
    account, found = played(RULES, [(Action.LONG, FLAT)], last=True)
    assert account.side == 0
    assert found[0].turnover == pytest.approx(50 * 100.1 + 50 * 99.9)
    assert found[0].reward < 0


def test_ruin_ends_it() -> None:
    rule = Rules(risk_pct=1.0, max_leverage=10.0)
    account, found = played(rule, [(Action.LONG, Bar(100.0, 100.0, 100.0, 100.0, 60.0)),
                                   (Action.HOLD, Bar(60.0, 60.0, 45.0, 50.0, 60.0))])
    assert found[1].ruined
    assert (account.side, account.equity < 5_000) == (0, True)


def test_nothing_is_opened_across_a_gap_in_time() -> None:
    account, _ = played(FREE, [(Action.LONG, FLAT._replace(follows=False))])
    assert account.side == 0


@given(rules(), st.lists(bars(), min_size=1, max_size=20))
def test_doing_nothing_is_never_rewarded(rule: Rules, run: list[Bar]) -> None:
    account, found = played(rule, [(Action.HOLD, bar) for bar in run], last=True)
    assert all(h == Happened(0, 0, 0, 0, 0, 0, 0, 0, 0, False, False) for h in found)
    assert account == opened(rule)


@given(rules(), st.lists(st.tuples(st.sampled_from(Action), bars()), min_size=1, max_size=30))
def test_shaping_only_takes_and_a_flat_hold_brings_nothing(rule: Rules, moves: list[tuple[int, Bar]]) -> None:
    account = opened(rule)
    for action, bar in moves:
        before = account
        account, happened = step(rule, account, action, bar)
        assert happened.drawdown <= 0
        assert happened.reward == happened.growth + happened.drawdown
        if before.side == 0 and (action == Action.HOLD or not valid(before.side, before.cooldown)[action]):
            assert happened.reward == 0
        if happened.ruined:
            break


@given(rules(), st.lists(st.tuples(st.sampled_from(Action), bars()), min_size=1, max_size=30))
def test_growth_adds_up_to_that_of_the_whole_and_every_cost_is_counted_once(
    rule: Rules, moves: list[tuple[int, Bar]]
) -> None:
    account, found = opened(rule), []
    for action, bar in moves:
        account, happened = step(rule, account, action, bar)
        found.append(happened)
        if happened.ruined:
            return
    assert sum(h.growth for h in found) == pytest.approx(100 * log(account.equity / account.first), abs=1e-6)
    net = sum(h.gross - h.fees - h.spread_cost - h.slippage - h.funding for h in found)
    assert net == pytest.approx(account.equity - account.first, abs=1e-5)
    assert account.equity == pytest.approx(account.first * exp(sum(h.growth for h in found) / 100), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "value"), [("risk_pct", 0.0), ("drawdown_weight", -0.1), ("ruin", 1.0), ("fee_bps", float("nan"))])
def test_rules_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Rules(**{name: value})
