"""Every trade computed again: its side, its fills against the candles, its result, its decision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import isfinite

from schemas.events import STRATEGY_SYMBOLS, Candle, Decision, Instrument, TradeClosed
from streams.verify import paper
from streams.verify.evidence import Evidence
from streams.verify.paper import PAPER, RELATIVE, Bars, Costs

LONGEST = 1000  # bars of a position that are looked at one by one


def bars_of(evidence: Evidence, trades: Iterable[TradeClosed], decisions: Mapping[str, Decision]) -> Bars:
    """Candles that open or close where a trade opened, was held, or closed; by symbol and both of their times."""
    wanted = set()
    for t in trades:
        wanted |= {(t.symbol, t.opened_ms), (t.symbol, t.ts_ms)}
        decision = decisions.get(t.decision_id or "")
        if decision is not None:
            times = range(t.opened_ms, t.ts_ms, max(decision.interval_ms, 1))
            wanted |= {(t.symbol, ms) for ms in times[:LONGEST]}
    bars = Bars()
    if wanted:
        for _, candle in evidence.stream("market.candles"):
            if isinstance(candle, Candle):
                for ms in (candle.open_time_ms, candle.ts_ms):
                    if (candle.symbol, ms) in wanted:
                        bars.setdefault((candle.symbol, ms), []).append(candle)
    return bars


def costs_of(evidence: Evidence, symbol: str) -> dict[str, list[Costs]]:
    """Costs that a paper trade of a symbol may name: the executor's configuration and the symbol's records."""
    executor = evidence.roster.get("paper_execution")
    return paper.costs_of(None if executor is None else executor.config,
                          (e for _, e in evidence.events("market.instruments")
                           if isinstance(e, Instrument) and e.symbol == symbol))


def wrong(trade: TradeClosed, decision: Decision | None, bars: Bars,
          allowed: Mapping[str, Collection[Costs]]) -> str | None:
    """What does not hold in a trade; None where all does.

    Args:
        trade: of any engine.
        decision: the one that it names; None where it is not on the log.
        bars: see `bars_of`.
        allowed: see `costs_of`.
    """
    return _arithmetic(trade) or (_decided(trade, decision) if trade.decision_id is not None else None) \
        or _filled(trade, bars) or (paper.wrong(trade, decision, bars, allowed)
                                    if trade.execution.startswith(PAPER) else None)


def _near(a: float, b: float, scale: float) -> bool:
    return isfinite(a) and abs(a - b) <= RELATIVE * max(abs(a), abs(b)) + 1e-12 * scale


def _arithmetic(t: TradeClosed) -> str | None:
    side, notional = (1 if t.side == "LONG" else -1), t.entry_price * t.quantity
    pnl = side * (t.exit_price - t.entry_price) * t.quantity - t.fees - t.funding
    checks = (
        ("pnl_usd", t.pnl_usd, pnl, "side x (exit - entry) x quantity - fees - funding", notional),
        ("r_multiple", t.r_multiple, pnl / t.risk_at_open, "pnl / risk_at_open", notional / t.risk_at_open),
        ("pnl_pct", t.pnl_pct, pnl / t.equity_at_open, "pnl / equity_at_open", notional / t.equity_at_open),
        ("notional_at_open", t.notional_at_open, notional, "entry price x quantity", notional),
    )
    for name, said, is_, how, scale in checks:
        if not _near(said, is_, scale):
            return f"{name} is {said:g}, but {how} is {is_:g}"
    if t.stop_price is not None:
        if not _near(t.risk_at_open, abs(t.entry_price - t.stop_price) * t.quantity, notional):
            return f"risk_at_open is {t.risk_at_open:g}, but the stop is {abs(t.entry_price - t.stop_price):g} away"
        if side * (t.entry_price - t.stop_price) <= 0:
            return f"its stop {t.stop_price:g} is on the wrong side of a {t.side} at {t.entry_price:g}"
    return None


def _decided(t: TradeClosed, decision: Decision | None) -> str | None:
    if decision is None:
        return f"its decision {t.decision_id} is not on the log"
    if (t.symbol, t.strategy) != (decision.symbol, decision.action):
        return f"{t.strategy} on {t.symbol}, but its decision is {decision.action} on {decision.symbol}"
    if t.opened_ms < decision.ts_ms:
        return f"opened at {t.opened_ms}, before its decision at {decision.ts_ms}"
    signal, side = decision.signals[STRATEGY_SYMBOLS.index(decision.action)], (1 if t.side == "LONG" else -1)
    if signal == -side or (signal != side and t.execution.startswith(PAPER)):
        return f"{t.side}, but the signal of {t.strategy} was {signal}"
    return None


def _filled(t: TradeClosed, bars: Bars) -> str | None:
    """Fills must lie in their bars, but for the spread and slippage that the trade declares."""
    if t.ts_ms < t.opened_ms:
        return f"closed at {t.ts_ms}, before it opened at {t.opened_ms}"
    slack = (t.spread_cost + t.slippage) / t.quantity
    for what, ms, price in (("entry", t.opened_ms, t.entry_price), ("exit", t.ts_ms, t.exit_price)):
        around = bars.get((t.symbol, ms), [])
        if not around:
            return f"there is no candle at its {what}, {ms}"
        near = RELATIVE * price + slack
        if not any(c.low - near <= price <= c.high + near for c in around):
            return f"its {what} at {price:g} lies outside of the bar's {around[-1].low:g} to {around[-1].high:g}"
    return None
