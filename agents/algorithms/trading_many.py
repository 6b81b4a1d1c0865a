"""Many trading accounts at once: the rules of `trading` on arrays, and the environments that PPO trains in.

Step by step the same as `trading.step`: the accounts to the bit, the rewards to the last digits of a logarithm. The
tests hold one to the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.algorithms import fills
from agents.algorithms.counter import uniform
from agents.algorithms.environments import Step
from agents.algorithms.trading import ACTIONS, LOWEST, PERCENT, Action, Rules
from agents.algorithms.trading_view import FEATURES, Tape, dropped, observation, seen

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Accounts:
    """N accounts; the fields of `trading.Account`, each [N]."""

    def __init__(self, n: int, equity: float) -> None:
        self.first, self.balance, self.equity, self.peak = (np.full(n, equity) for _ in range(4))
        self.side, self.held_bars, self.cooldown = (np.zeros(n, np.int64) for _ in range(3))
        self.quantity, self.entry_price, self.stop_price = (np.zeros(n) for _ in range(3))

    def begin(self, rows: Flags, equity: float) -> None:
        """Some of them anew."""
        for money in (self.first, self.balance, self.equity, self.peak):
            money[rows] = equity
        for rest in (self.side, self.held_bars, self.cooldown, self.quantity, self.entry_price, self.stop_price):
            rest[rows] = 0


class Bars(NamedTuple):
    """The bars in which actions are executed; the fields of `trading.Bar`, each [N]."""

    open: Floats
    high: Floats
    low: Floats
    close: Floats
    distance: Floats
    funding_points: Ints
    follows: Flags


class Happened(NamedTuple):
    """What a bar brought each account; the fields of `trading.Happened`, each [N]."""

    reward: Floats
    growth: Floats
    drawdown: Floats
    gross: Floats
    fees: Floats
    spread_cost: Floats
    slippage: Floats
    funding: Floats
    turnover: Floats
    stopped: Flags
    ruined: Flags


def valid_many(side_N: Ints, cooldown_N: Ints) -> Flags:
    """Which actions mean something, [N, A]."""
    held, free = side_N != 0, cooldown_N == 0
    always = np.ones(len(side_N), np.bool_)
    return np.stack((always, (side_N <= 0) & free, (side_N >= 0) & free, held, held, held), axis=1)


def step_many(rules: Rules, accounts: Accounts, actions_N: NDArray[np.integer[Any]], bars: Bars,
              last_N: Flags) -> Happened:
    """As `trading.step` for each account; the accounts are moved."""
    a, paid = accounts, _Paid(len(actions_N))
    before_equity, before_peak = a.equity, a.peak
    _act(rules, a, actions_N, bars, paid)
    held = a.side != 0
    stopped, price = _stops(a, bars)
    _leave(a, stopped, price, a.quantity, rules.costs, paid)
    staying = held & ~stopped
    a.held_bars = a.held_bars + staying
    charged = staying & (bars.funding_points > 0)
    if rules.funding_bps and charged.any():
        points = np.where(charged, bars.funding_points, 0)
        due: Any = fills.funding_paid(a.side, a.quantity, bars.open, rules.funding_bps, points)  # type: ignore[arg-type]
        a.balance = a.balance - due
        paid.funding = paid.funding + due
    a.equity = a.balance + a.side * (bars.close - a.entry_price) * a.quantity
    ruined = a.equity < rules.ruin * a.first
    ending = (a.side != 0) & (last_N | ruined)
    if ending.any():
        _leave(a, ending, bars.close, a.quantity, rules.costs, paid)
        a.equity = np.where(ending, a.balance, a.equity)
    a.peak = np.maximum(before_peak, a.equity)
    lowest = LOWEST * a.first
    growth = PERCENT * np.log(np.maximum(a.equity, lowest) / np.maximum(before_equity, lowest))
    deeper = np.maximum(0.0, (1.0 - a.equity / a.peak) - (1.0 - before_equity / before_peak))
    drawdown = np.where(deeper > 0, -rules.drawdown_weight * PERCENT * deeper, 0.0)
    gross = a.equity - before_equity + paid.fees + paid.spread_cost + paid.slippage + paid.funding
    return Happened(growth + drawdown, growth, drawdown, gross, paid.fees, paid.spread_cost, paid.slippage,
                    paid.funding, paid.turnover, stopped, ruined)


class _Paid:
    """What was paid in a bar, each [N]."""

    def __init__(self, n: int) -> None:
        self.fees: Floats = np.zeros(n)
        self.spread_cost, self.slippage, self.funding, self.turnover = (np.zeros(n) for _ in range(4))

    def note(self, rows: Flags, filled: fills.Fill, quantity: Floats) -> None:
        self.fees = self.fees + np.where(rows, filled.fee, 0.0)
        self.spread_cost = self.spread_cost + np.where(rows, filled.spread_cost, 0.0)
        self.slippage = self.slippage + np.where(rows, filled.slippage, 0.0)
        self.turnover = self.turnover + np.where(rows, filled.price * quantity, 0.0)


def _act(rules: Rules, a: Accounts, actions_N: NDArray[np.integer[Any]], bars: Bars, paid: _Paid) -> None:
    rows = np.arange(len(actions_N))
    chosen = np.where(valid_many(a.side, a.cooldown)[rows, actions_N], actions_N, int(Action.HOLD))
    a.cooldown = np.maximum(0, a.cooldown - 1)
    if not chosen.any():
        return
    opening = (chosen == Action.LONG) | (chosen == Action.SHORT)
    emergency = chosen == Action.EMERGENCY_FLATTEN
    halved = chosen == Action.REDUCE
    leaving = (chosen == Action.CLOSE) | halved | (opening & (a.side != 0))
    _leave(a, leaving, bars.open, np.where(halved, a.quantity / 2.0, a.quantity), rules.costs, paid)
    _leave(a, emergency, bars.open, a.quantity, rules.emergency_costs, paid)
    a.cooldown = np.where(emergency, rules.cooldown_bars, a.cooldown)
    opening &= bars.follows
    if opening.any():
        _enter(rules, a, opening, np.where(chosen == Action.LONG, 1, -1), bars, paid)


def _stops(a: Accounts, bars: Bars) -> tuple[Flags, Floats]:
    """Whether each stop is touched, and the price before costs: the open where the bar opens beyond it."""
    held, long = a.side != 0, a.side > 0
    touched = held & np.where(long, bars.low <= a.stop_price, bars.high >= a.stop_price)
    beyond = a.side * (bars.open - a.stop_price) <= 0.0
    return touched, np.where(beyond, bars.open, a.stop_price)


def _leave(a: Accounts, rows: Flags, reference: Floats, quantity: Floats, costs: fills.Costs, paid: _Paid) -> None:
    if not rows.any():
        return
    filled = fills.fill(reference, -a.side, quantity, costs)  # type: ignore[arg-type]
    gained = a.side * (filled.price - a.entry_price) * quantity - filled.fee
    a.balance = np.where(rows, a.balance + gained, a.balance)
    paid.note(rows, filled, quantity)
    whole = rows & (quantity >= a.quantity)
    a.quantity = np.where(whole, 0.0, np.where(rows, a.quantity - quantity, a.quantity))
    a.side, a.held_bars = np.where(whole, 0, a.side), np.where(whole, 0, a.held_bars)
    a.entry_price, a.stop_price = np.where(whole, 0.0, a.entry_price), np.where(whole, 0.0, a.stop_price)


def _enter(rules: Rules, a: Accounts, rows: Flags, side: Ints, bars: Bars, paid: _Paid) -> None:
    price = fills.fill_price(bars.open, side, rules.costs)  # type: ignore[arg-type]
    stop = price - side * bars.distance
    rows = rows & (bars.distance > 0.0) & (stop > 0.0) & (a.balance > 0.0)
    distance = np.where(rows, bars.distance, 1.0)
    quantity = np.minimum(a.balance * rules.risk_pct / distance * 1.0, rules.max_leverage * a.balance / price)
    filled = fills.fill(bars.open, side, quantity, rules.costs)  # type: ignore[arg-type]
    a.balance = np.where(rows, a.balance - filled.fee, a.balance)
    paid.note(rows, filled, quantity)
    a.side, a.quantity = np.where(rows, side, a.side), np.where(rows, quantity, a.quantity)
    a.entry_price, a.stop_price = np.where(rows, filled.price, a.entry_price), np.where(rows, stop, a.stop_price)


def start_of(tape: Tape, episode_bars: int, seed: int, episode: int) -> int:
    """Row that an episode begins on: any from which it has all its bars, by the name of the draw."""
    room = max(len(tape) - 1 - episode_bars, 0)
    return int(uniform(seed, "episode", episode) * (room + 1))


class TradingEnvironments:
    """N episodes side by side on one tape; `environments.Environments`.

    Args:
        tape: what is traded.
        n: episodes at once.
        rules: of the account.
        episode_bars: bars of an episode; the tape may be shorter.
        once: each plays one episode and is idle afterwards; else the next begins at once.
        mask: columns that count as 0; None: those of `trading_view.dropped`.
        starts: rows that the first episodes begin on; None: drawn by name.

    Attributes:
        sums: of each field of `Happened` over all steps of all episodes since it was made.
    """

    features = FEATURES
    actions = len(ACTIONS)

    def __init__(self, tape: Tape, n: int, rules: Rules, *, episode_bars: int = 1000, once: bool = False,
                 mask: tuple[str, ...] | None = None, starts: list[int] | None = None) -> None:
        self.n, self.rules, self.tape = n, rules, tape
        self.mask = dropped(tape) if mask is None else mask
        self.accounts = Accounts(n, rules.equity)
        self.happened: Happened | None = None
        self.sums = dict.fromkeys(Happened._fields, 0.0)
        self._bars, self._once, self._starts = min(episode_bars, len(tape) - 1), once, starts
        self._columns, self._known = seen(tape.columns, self.mask)
        self._prices = tape.rows[:, 1:5].T.copy()
        self._volatility = np.nan_to_num(tape.rows[:, 6], nan=0.0)
        self._distances, self._follows = tape.distances(rules.stop_atr), tape.follows
        self._funding = tape.funding_points(rules.funding_interval_ms)
        self._seed, self._episode = 0, np.zeros(n, np.int64)
        self._at, self._end = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._idle = np.zeros(n, np.bool_)

    def reset(self, seed: int) -> tuple[Floats, Flags | None]:
        """Begin an episode in each; environment i draws with seed + i."""
        self._seed, self._episode = seed, np.full(self.n, -1)
        self._idle = np.zeros(self.n, np.bool_)
        self._begin(np.ones(self.n, np.bool_))
        return self._observed(), self._masks()

    def step(self, actions_N: NDArray[np.intp]) -> Step:
        """Act in each."""
        void = self._idle.copy()
        nexts = np.minimum(self._at + 1, self._end)
        open_, high, low, close = self._prices[:, nexts]
        bars = Bars(open_, high, low, close, self._distances[self._at], self._funding[nexts], self._follows[nexts])
        self.happened = step_many(self.rules, self.accounts, np.where(void, 0, actions_N), bars, nexts == self._end)
        self._at = nexts
        terminated = self.happened.ruined & ~void
        truncated = (nexts == self._end) & ~terminated & ~void
        ended = terminated | truncated
        final = self._observed()
        observations = final
        if ended.any():
            if self._once:
                self._idle |= ended
            else:
                self._begin(ended)
                observations = self._observed()
        for name, values in zip(Happened._fields, self.happened, strict=True):
            self.sums[name] += float(values[~void].sum())
        rewards = np.where(void, 0.0, self.happened.reward)
        return Step(observations, self._masks(), rewards, terminated, truncated, final, void)

    @property
    def over(self) -> bool:
        """Whether every episode has ended, where each plays one."""
        return bool(self._idle.all())

    def _begin(self, rows: Flags) -> None:
        self.accounts.begin(rows, self.rules.equity)
        self._episode[rows] += 1
        for i in np.flatnonzero(rows).tolist():
            k = int(self._episode[i])
            given = self._starts is not None and k == 0
            start = self._starts[i] if given and self._starts else start_of(self.tape, self._bars, self._seed + i, k)
            self._at[i], self._end[i] = start, min(start + self._bars, len(self.tape) - 1)

    def _observed(self) -> Floats:
        a, at = self.accounts, self._at
        return observation(self._columns[at], self._volatility[at], self._prices[3, at], a.side, a.quantity,
                           a.entry_price, a.balance, a.equity, self.rules.max_leverage)

    def _masks(self) -> Flags:
        masks = valid_many(self.accounts.side, self.accounts.cooldown)
        unknown = ~self._known[self._at] | self._idle
        masks[unknown, 1:] = False
        return masks
