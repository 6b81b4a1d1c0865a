"""Measures of the account, and the points that they make."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import NamedTuple

from agents.risk_controller.account import drawdown, slope_per_day
from agents.risk_controller.config import RiskConfig
from agents.risk_controller.state import Label, RiskState, Trade
from agents.risk_controller.table import POINTS, Measured
from schemas.events import REGIME_SYMBOLS, RiskReason

EVIDENCE = 8  # ids that a reason names, the newest
MARKS, TRADES, REGIMES = "execution.equity.marked", "execution.trade.closed", "market.regime.changed"
_REGIMES: dict[Measured, frozenset[str]] = {
    "volatile_share": frozenset({"volatile"}), "choppy_share": frozenset({"sideways"}),
    "trending_share": frozenset({"bull", "bear"}),
}


class Measure(NamedTuple):
    """A value, the number of records that it rests on, and how the newest of them are found: few bars need them."""

    value: float
    n: int
    evidence: Callable[[], tuple[str, ...]]


class Score(NamedTuple):
    """Points of a bar, with what made them."""

    defensive: int
    aggressive: int
    reasons: tuple[RiskReason, ...]


def measures(state: RiskState, config: RiskConfig) -> dict[Measured, Measure]:
    """What can be measured; what cannot is left out, never made up."""
    account, found = state.account, dict[Measured, Measure]()
    if account.mark_ms >= 0:
        last = f"{MARKS}/{account.last_mark}"
        found["drawdown"] = Measure(drawdown(account), account.books,
                                    lambda: (f"{MARKS}/{account.peak_mark}", last))
        found["days_without_profit"] = Measure(float(account.bad_days), account.bad_days, lambda: (last,))
        slope = slope_per_day(account)
        if slope is not None:
            found["equity_slope"] = Measure(slope[0], slope[1], lambda: (last,))
    newest = state.trades[-config.trades_window:]
    if len(newest) >= config.min_trades:
        found["win_rate"] = Measure(sum([t.pnl_usd > 0 for t in newest]) / len(newest), len(newest),
                                    partial(_traded, newest[-EVIDENCE:]))
    if state.n_trades:
        found["losses_in_a_row"] = Measure(float(state.losses), state.losses,
                                           partial(_traded, newest[-min(state.losses or 1, EVIDENCE):]))
    n = len(state.labels)
    if n:
        for name, regimes in _REGIMES.items():
            here = sum([k for k, regime in zip(state.regimes, REGIME_SYMBOLS, strict=True) if regime in regimes])
            found[name] = Measure(here / n, n, partial(_labelled, state.labels, regimes, here))
    return found


def _traded(trades: tuple[Trade, ...]) -> tuple[str, ...]:
    return tuple([f"{TRADES}/{t.trade_id}" for t in trades])


def _labelled(labels: tuple[Label, ...], regimes: frozenset[str], n: int) -> tuple[str, ...]:
    here = islice((x for x in reversed(labels) if x.regime in regimes), min(n, EVIDENCE))
    return tuple([f"{REGIMES}/{x.symbol}@{x.ts_ms}" for x in here][::-1])


def scored(state: RiskState, config: RiskConfig) -> Score:
    """The points of the account as it stands. Nothing speaks for more risk before there are `min_trades` trades."""
    found, reasons = measures(state, config), []
    tried = state.n_trades >= config.min_trades
    for point in POINTS:
        m = found.get(point.measure)
        if m is not None and point.counts(m.value) and (point.points < 0 or tried):
            reasons.append(RiskReason(name=point.measure, points=point.points, value=m.value,
                                      threshold=point.threshold, n=m.n, evidence=m.evidence()))
    return Score(-sum([r.points for r in reasons if r.points < 0]), sum([r.points for r in reasons if r.points > 0]),
                 tuple(reasons))
