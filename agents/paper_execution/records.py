"""What happened to a book, as the events that are published."""

from __future__ import annotations

from collections.abc import Iterable

from agents.contract import Output
from agents.paper_execution.book import Closed, Ended, Happening, Taken
from agents.paper_execution.layout import Book
from schemas.events import (
    BookMark,
    Candle,
    Decision,
    DecisionOutcome,
    EquityMarked,
    PolicyApplied,
    TradeClosed,
)

APPLIER = "paper_execution"
NOT_EXECUTED = "none"
NO_POSITION = "neutral"


def trade_id(decision_id: str) -> str:
    """Business id of the trade of a decision: the same in every replay."""
    return decision_id + "/t"


def outputs_of(symbol: str, book_id: str, log: Iterable[Happening]) -> list[Output]:
    """The events that tell what happened to a learner's book, in order."""
    out: list[Output] = []
    for happening in log:
        if isinstance(happening, Taken):
            _tell_taken(happening, out)
        elif isinstance(happening, Closed):
            _tell_closed(symbol, book_id, happening, out)
        else:
            out.append(_neutral_outcome(symbol, book_id, happening))
    return out


def refusal(decision: Decision, reason: str, ts_ms: int) -> list[Output]:
    """The events of a decision that was not executed."""
    out: list[Output] = []
    _tell_refused(decision, reason, ts_ms, out)
    return out


def _tell_taken(taken: Taken, out: list[Output]) -> None:
    decision = taken.order.decision
    if taken.reason is not None:
        _tell_refused(decision, taken.reason, taken.ts_ms, out)
    else:
        # Without a signal a strategy takes no position: what was executed is neutral, whatever was recommended.
        _tell_applied(decision, decision.action if taken.order.side else NO_POSITION, taken.ts_ms, out)


def _tell_refused(decision: Decision, reason: str, ts_ms: int, out: list[Output]) -> None:
    _tell_applied(decision, NOT_EXECUTED, ts_ms, out)
    out.append(Output("decision.outcome", DecisionOutcome(
        decision_id=decision.decision_id, symbol=decision.symbol, book_id=decision.book_id, ts_ms=ts_ms,
        status="NOT_EXECUTED", reason=reason, source=decision.source, origin=decision.origin,
    )))


def _tell_applied(decision: Decision, executed: str, ts_ms: int, out: list[Output]) -> None:
    if decision.policy_id is None or decision.policy_version is None:
        return
    out.append(Output("policy.applied", PolicyApplied(
        decision_id=decision.decision_id, symbol=decision.symbol, ts_ms=ts_ms, policy_id=decision.policy_id,
        policy_version=decision.policy_version, recommended_action=decision.action, executed_action=executed,
        baseline_action=decision.baseline_action, applier=APPLIER, source=decision.source, origin=decision.origin,
    )))


def _neutral_outcome(symbol: str, book_id: str, ended: Ended) -> Output:
    neutral = ended.neutral
    return Output("decision.outcome", DecisionOutcome(
        decision_id=neutral.decision_id, symbol=symbol, book_id=book_id, ts_ms=ended.ts_ms, status="NEUTRAL",
        reason=neutral.reason, source=neutral.source, origin=neutral.origin,
    ))


def _tell_closed(symbol: str, book_id: str, closed: Closed, out: list[Output]) -> None:
    position, result = closed.position, closed.result
    entry = position.entry
    name = trade_id(entry.decision_id)
    notional = entry.price * entry.quantity
    assert result.r_multiple is not None  # a learner's position has a stop
    out.append(Output("execution.trade.closed", TradeClosed(
        trade_id=name, decision_id=entry.decision_id, book_id=book_id, symbol=symbol,
        side="LONG" if entry.side > 0 else "SHORT", ts_ms=closed.ts_ms, opened_ms=entry.opened_ms,
        entry_price=entry.price, exit_price=result.exit_price, quantity=entry.quantity,
        size_multiplier=entry.size_multiplier, leverage=notional / entry.equity, equity_at_open=entry.equity,
        notional_at_open=notional, risk_at_open=entry.risk_usd, stop_price=entry.stop_price,
        target_price=entry.target_price, fees=result.fees, funding=position.funding, spread_cost=result.spread_cost,
        slippage=result.slippage, pnl_usd=result.pnl_usd, pnl_pct=result.pnl_usd / entry.equity,
        r_multiple=result.r_multiple, mae_pct=min(0.0, entry.side * (position.worst / entry.price - 1.0)),
        mfe_pct=max(0.0, entry.side * (position.best / entry.price - 1.0)), bars_held=position.bars,
        exit_reason=closed.reason, strategy=entry.strategy, policy_id=entry.policy_id,
        policy_version=entry.policy_version, execution=entry.execution, source=position.source,
        origin=position.origin,
    )))
    out.append(Output("decision.outcome", DecisionOutcome(
        decision_id=entry.decision_id, symbol=symbol, book_id=book_id, ts_ms=closed.ts_ms, status="TRADED",
        trade_id=name, source=position.source, origin=position.origin,
    )))


def mark(candle: Candle, halted: bool, books: Iterable[Book]) -> Output:
    """Equity of the books at a close.

    Equity is the balance, plus the open position at the close (no cost of leaving in it), minus its entry fee and its
    funding so far; the entry's spread and slippage are in its price.
    """
    return Output("execution.equity.marked", EquityMarked(
        symbol=candle.symbol, interval_ms=candle.interval_ms, ts_ms=candle.ts_ms, close=candle.close, halted=halted,
        books=tuple([_book_mark(b) for b in books if candle.open_time_ms >= b.started_ms]),
        source=candle.source, origin=candle.origin,
    ))


def _book_mark(book: Book) -> BookMark:
    entry = None if book.position is None else book.position.entry
    return BookMark(
        book_id=book.book_id, equity=book.equity, peak_equity=book.peak_equity,
        drawdown=1.0 - book.equity / book.peak_equity, day_pnl=book.equity - book.day_start_equity,
        position=0.0 if entry is None else entry.side * entry.quantity,
        entry_price=None if entry is None else entry.price,
        open_decision_id=None if entry is None else entry.decision_id, trades=book.trades, outcomes=book.outcomes,
        sum_r=book.sum_r, sum_r2=book.sum_r2,
    )
