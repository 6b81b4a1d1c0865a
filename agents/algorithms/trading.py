"""The rules of a trading account, one bar at a time: what an action does, what it costs, what it is rewarded with.

The same rules move the account that a policy is trained on and the one that it is judged by live. Decided on the close
of a bar, executed at the open of the next with half the spread and slippage against us; a position has a stop, which a
gap fills at the open; funding is paid at its times; the end of an episode closes what is open, and that costs too.
Fills, sizes and exits are those of `fills`. `trading_many` is the same for many accounts at once.

The reward of a bar is what the account grew, and what shaping takes away; shaping never gives. An account that holds
nothing and does nothing is rewarded with 0, always.

    account = opened(rules)
    account, happened = step(rules, account, Action.LONG, bar)
"""

from __future__ import annotations

from enum import IntEnum
from math import isfinite, log
from typing import NamedTuple

import msgspec

from agents.algorithms import fills

PERCENT = 100.0
LOWEST = 0.01
"""Share of its first money below which an account counts as having that much, so that a logarithm exists."""


class Action(IntEnum):
    """What can be done at a close; the one enumeration, for the simulator, the networks and live.

    LONG and SHORT open a position, or turn one round. REDUCE closes half. EMERGENCY_FLATTEN closes at once, whatever
    the price: slippage is a multiple, and nothing is opened for some bars.
    """

    HOLD = 0
    LONG = 1
    SHORT = 2
    REDUCE = 3
    CLOSE = 4
    EMERGENCY_FLATTEN = 5


ACTIONS = tuple(a.name for a in Action)


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the account trades under.

    Attributes:
        equity: money that an account begins with, quote currency.
        fee_bps, half_spread_bps, slippage_bps: costs of a fill.
        funding_bps: paid by longs to shorts at each funding time, basis points of notional; 0: not a perpetual.
        funding_interval_ms: between two funding times, on the UTC grid.
        risk_pct: loss at the stop before costs, as a fraction of the balance.
        stop_atr: distance of the stop in average true ranges.
        max_leverage: notional over balance that a position may not pass.
        emergency_slippage: times the slippage of EMERGENCY_FLATTEN.
        cooldown_bars: bars after it in which nothing is opened.
        ruin: share of its first money below which an episode ends.
        drawdown_weight: shaping: weight of a percent of new drawdown from the peak; never below 0.

    Raises:
        ValueError: a value outside of its range, with its name.
    """

    equity: float = 10_000.0
    fee_bps: float = 5.0
    half_spread_bps: float = 0.5
    slippage_bps: float = 1.0
    funding_bps: float = 0.0
    funding_interval_ms: int = 28_800_000
    risk_pct: float = 0.01
    stop_atr: float = 2.0
    max_leverage: float = 3.0
    emergency_slippage: float = 2.0
    cooldown_bars: int = 12
    ruin: float = 0.5
    drawdown_weight: float = 0.1

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; a finite number is needed")
        for name in ("equity", "risk_pct", "stop_atr", "max_leverage"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("half_spread_bps", "slippage_bps", "cooldown_bars", "drawdown_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be below 0")
        if self.funding_interval_ms < 1 or self.emergency_slippage < 1 or not 0 <= self.ruin < 1:
            raise ValueError("funding_interval_ms and emergency_slippage must be at least 1, ruin from 0 to below 1")

    @property
    def costs(self) -> fills.Costs:
        """Of a fill."""
        return fills.Costs(self.fee_bps, self.half_spread_bps, self.slippage_bps)

    @property
    def emergency_costs(self) -> fills.Costs:
        """Of a fill that cannot wait."""
        return fills.Costs(self.fee_bps, self.half_spread_bps, self.slippage_bps * self.emergency_slippage)


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account at a close. Money in quote currency.

    Attributes:
        first: money that it began with.
        balance: after everything that was closed and paid.
        equity: balance and the open position at the close.
        peak: highest equity so far.
        side: 1 long, -1 short, 0 none.
        quantity: of the position, base currency.
        entry_price, stop_price: of the position; 0 where there is none.
        held_bars: bars that it is open.
        cooldown: bars in which nothing may be opened yet.
    """

    first: float
    balance: float
    equity: float
    peak: float
    side: int = 0
    quantity: float = 0.0
    entry_price: float = 0.0
    stop_price: float = 0.0
    held_bars: int = 0
    cooldown: int = 0


class Bar(NamedTuple):
    """The bar in which an action is executed.

    Attributes:
        open, high, low, close: prices.
        distance: of a stop, in price, as known at the close before.
        funding_points: funding times after its open, up to its close.
        follows: whether it begins where the bar that was decided on ended; nothing is opened across a gap.
    """

    open: float
    high: float
    low: float
    close: float
    distance: float
    funding_points: int = 0
    follows: bool = True


class Happened(NamedTuple):
    """What a bar brought.

    Attributes:
        reward: growth + drawdown.
        growth: 100 ln(equity / equity before), all costs in it; its sum over an episode is that of the whole.
        drawdown: at most 0: the weight times the percent by which the distance from the peak grew.
        gross: change of equity before costs.
        fees, spread_cost, slippage, funding: what was paid.
        turnover: notional traded.
        stopped: whether the stop closed the position.
        ruined: whether the account fell below its share of the first money; its position was closed.
    """

    reward: float
    growth: float
    drawdown: float
    gross: float
    fees: float
    spread_cost: float
    slippage: float
    funding: float
    turnover: float
    stopped: bool
    ruined: bool


def opened(rules: Rules) -> Account:
    """An account before its first bar."""
    return Account(first=rules.equity, balance=rules.equity, equity=rules.equity, peak=rules.equity)


def valid(side: int, cooldown: int) -> tuple[bool, ...]:
    """Which actions mean something, in the order of `Action`; the others do nothing.

    >>> valid(0, 0)
    (True, True, True, False, False, False)
    >>> valid(1, 0)
    (True, False, True, True, True, True)
    """
    held = side != 0
    free = cooldown == 0
    return (True, side <= 0 and free, side >= 0 and free, held, held, held)


def step(rules: Rules, account: Account, action: int, bar: Bar, last: bool = False) -> tuple[Account, Happened]:
    """Execute an action at the bar's open and live through the bar.

    Args:
        action: an `Action`; one that is not `valid` does nothing.
        last: the episode ends with this bar: what is open is closed at its close.
    """
    desk = _Desk(account)
    _act(rules, desk, action, bar)
    stopped = False
    if desk.side:
        exit_ = fills.exit_in_bar(desk.side, desk.stop_price, None, bar.open, bar.high, bar.low)
        stopped = exit_ is not None
        if exit_ is not None:
            desk.leave(exit_.price, desk.quantity, rules.costs)
        else:
            desk.held_bars += 1
            if bar.funding_points:
                paid = fills.funding_paid(desk.side, desk.quantity, bar.open, rules.funding_bps, bar.funding_points)
                desk.balance -= paid
                desk.funding += paid
    equity = desk.equity(bar.close)
    ruined = equity < rules.ruin * account.first
    if desk.side and (last or ruined):
        desk.leave(bar.close, desk.quantity, rules.costs)
        equity = desk.balance
    return _ended(rules, account, desk, equity, stopped, ruined)


def _act(rules: Rules, desk: _Desk, action: int, bar: Bar) -> None:
    if not valid(desk.side, desk.cooldown)[action]:
        action = Action.HOLD
    desk.cooldown = max(0, desk.cooldown - 1)
    if action == Action.REDUCE:
        desk.leave(bar.open, desk.quantity / 2.0, rules.costs)
    elif action == Action.CLOSE:
        desk.leave(bar.open, desk.quantity, rules.costs)
    elif action == Action.EMERGENCY_FLATTEN:
        desk.leave(bar.open, desk.quantity, rules.emergency_costs)
        desk.cooldown = rules.cooldown_bars
    elif action in (Action.LONG, Action.SHORT):
        if desk.side:
            desk.leave(bar.open, desk.quantity, rules.costs)
        if bar.follows:
            desk.enter(rules, 1 if action == Action.LONG else -1, bar)


def _ended(
    rules: Rules, before: Account, desk: _Desk, equity: float, stopped: bool, ruined: bool
) -> tuple[Account, Happened]:
    peak = max(before.peak, equity)
    lowest = LOWEST * before.first
    growth = PERCENT * log(max(equity, lowest) / max(before.equity, lowest))
    deeper = max(0.0, (1.0 - equity / peak) - (1.0 - before.equity / before.peak))
    drawdown = -rules.drawdown_weight * PERCENT * deeper if deeper else 0.0
    after = Account(
        first=before.first, balance=desk.balance, equity=equity, peak=peak, side=desk.side, quantity=desk.quantity,
        entry_price=desk.entry_price, stop_price=desk.stop_price, held_bars=desk.held_bars, cooldown=desk.cooldown,
    )
    gross = equity - before.equity + desk.fees + desk.spread_cost + desk.slippage + desk.funding
    return after, Happened(
        growth + drawdown, growth, drawdown, gross, desk.fees, desk.spread_cost, desk.slippage, desk.funding,
        desk.turnover, stopped, ruined,
    )


class _Desk:
    """An account while a bar is lived through."""

    def __init__(self, account: Account) -> None:
        self.balance, self.side, self.quantity = account.balance, account.side, account.quantity
        self.entry_price, self.stop_price = account.entry_price, account.stop_price
        self.held_bars, self.cooldown = account.held_bars, account.cooldown
        self.fees = self.spread_cost = self.slippage = self.funding = self.turnover = 0.0

    def equity(self, mark: float) -> float:
        """Balance and what the position would bring at a price."""
        return self.balance + fills.unrealised(self.side, self.entry_price, self.quantity, mark)

    def leave(self, reference: float, quantity: float, costs: fills.Costs) -> None:
        """Close so much of the position."""
        filled = fills.fill(reference, -self.side, quantity, costs)
        self.balance += self.side * (filled.price - self.entry_price) * quantity - filled.fee
        self._note(filled, quantity)
        if quantity < self.quantity:
            self.quantity -= quantity
            return
        self.side, self.held_bars = 0, 0
        self.quantity = self.entry_price = self.stop_price = 0.0

    def enter(self, rules: Rules, side: int, bar: Bar) -> None:
        """Open a position at the open, where the market allows a stop."""
        price = fills.fill_price(bar.open, side, rules.costs)
        stop = price - side * bar.distance
        if not (bar.distance > 0.0 and stop > 0.0 and self.balance > 0.0):
            return
        wanted = fills.quantity_for_risk(self.balance * rules.risk_pct, bar.distance, 1.0)
        quantity = fills.capped(wanted, price, self.balance, rules.max_leverage, None)
        filled = fills.fill(bar.open, side, quantity, rules.costs)
        self.balance -= filled.fee
        self._note(filled, quantity)
        self.side, self.quantity, self.entry_price, self.stop_price = side, quantity, filled.price, stop

    def _note(self, filled: fills.Fill, quantity: float) -> None:
        self.fees += filled.fee
        self.spread_cost += filled.spread_cost
        self.slippage += filled.slippage
        self.turnover += filled.price * quantity
