"""What a bar does to a book: orders, exits, funding, results."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from agents.algorithms import fills
from agents.algorithms.lineage import merge_origin, merge_source
from agents.paper_execution.layout import Book, Entry, Neutral, PaperConfig, Position
from agents.paper_execution.limits import allowed_size, governed, label
from schemas.events import STRATEGY_SYMBOLS, Candle, Decision, ExitReason, Strategy

DAY_MS = 86_400_000
NEVER_MS = 2**62


class Terms(NamedTuple):
    """What an instrument costs at a bar. `label` is the trade's `execution` field."""

    costs: fills.Costs
    funding_bps: float
    funding_interval_ms: int
    volume_cap: float | None
    label: str


class Order(NamedTuple):
    """What a decision asks of a book: strategy and side (0: no position). `hold`: buy-and-hold, no stop or horizon."""

    decision: Decision
    strategy: Strategy
    side: int
    hold: bool = False


class Bar(NamedTuple):
    """A candle with what is in force at it."""

    candle: Candle
    terms: Terms
    halted: bool


class Closed(NamedTuple):
    """A position that was closed in a bar, for the record."""

    position: Position
    result: fills.Result
    reason: ExitReason
    ts_ms: int


class Ended(NamedTuple):
    """A neutral decision whose horizon has come."""

    neutral: Neutral
    ts_ms: int


class Taken(NamedTuple):
    """What became of an order: refused for `reason`, or executed (None)."""

    order: Order
    reason: str | None
    ts_ms: int


Happening = Closed | Ended | Taken


def run_bar(config: PaperConfig, book: Book, orders: tuple[Order, ...], bar: Bar, log: list[Happening]) -> Book:
    """What a bar does to a book: halt, orders, funding, exits, neutral ends, mark; in that order.

    Args:
        orders: decisions that are due before this bar, oldest first.
        log: what happened is appended here, in order.
    """
    candle = bar.candle
    if candle.open_time_ms < book.started_ms:
        return book
    day = candle.open_time_ms // DAY_MS
    if day != book.day:
        book = replace(book, day=day, day_start_equity=book.equity)
    if bar.halted and book.position is not None:
        book = _close_at_open(book, "HALT", bar, log)
    for order in orders:
        book = _take(config, book, order, bar, log)
    if book.position is not None:
        book = _hold(book, book.position, bar, log)
    if book.neutrals and book.neutrals[0].horizon_ms <= candle.ts_ms:
        book = _end_neutrals(book, candle.ts_ms, log)
    return book


def _take(config: PaperConfig, book: Book, order: Order, bar: Bar, log: list[Happening]) -> Book:
    """Execute an order at the bar's open under its decision's limits, or say why not."""
    decision, candle = order.decision, bar.candle
    config = governed(config, decision)
    reason: str | None = None
    position = book.position
    if bar.halted:
        reason = "halt"
    elif position is not None:
        reason = "position_open"
        if decision.signals[STRATEGY_SYMBOLS.index(position.entry.strategy)] == -position.entry.side:
            book = _close_at_open(book, "SIGNAL", bar, log)
    elif order.side == 0:
        neutral = Neutral(
            decision_id=decision.decision_id, horizon_ms=decision.ts_ms + config.max_holding_bars * candle.interval_ms,
            reason=None if order.strategy == "neutral" else "no_signal", source=decision.source, origin=decision.origin,
        )
        book = replace(book, neutrals=(*book.neutrals, neutral))
    elif book.balance - book.day_start_equity <= -config.daily_loss_limit * book.day_start_equity:
        reason = "daily_loss_limit"
    elif candle.open_time_ms != decision.ts_ms:
        reason = "gap"
    else:
        opened = _opened(config, book, order, bar)
        if isinstance(opened, str):
            reason = opened
        else:
            book = replace(book, position=opened)
    log.append(Taken(order, reason, candle.open_time_ms))
    return book


def _opened(config: PaperConfig, book: Book, order: Order, bar: Bar) -> Position | str:
    """The position that an order opens at the bar's open, or why there is none."""
    decision, candle, terms, side = order.decision, bar.candle, bar.terms, order.side
    size = allowed_size(config, decision)
    price = fills.fill_price(candle.open, side, terms.costs)
    distance = config.stop_atr * decision.atr_pct * decision.close
    stop = price - side * distance
    if not order.hold and (distance <= 0.0 or stop <= 0.0):
        return "no_market"
    if order.hold:
        wanted = book.balance / price
    else:
        wanted = fills.quantity_for_risk(book.balance * config.risk_pct, distance, size)
    cap = terms.volume_cap
    limit = None if cap is None or candle.volume is None else cap * candle.volume
    quantity = fills.capped(wanted, price, book.balance, config.max_leverage, limit)
    if not quantity > 0.0:
        return "too_small"
    filled = fills.fill(candle.open, side, quantity, terms.costs)
    target = None if order.hold or config.target_r is None else price + side * config.target_r * distance
    execution = terms.label if cap is None or candle.volume is not None else f"{terms.label} volume=missing"
    entry = Entry(
        decision_id=decision.decision_id, strategy=order.strategy, side=side, opened_ms=candle.open_time_ms,
        horizon_ms=NEVER_MS if order.hold else decision.ts_ms + config.max_holding_bars * candle.interval_ms,
        price=price, quantity=quantity, stop_price=None if order.hold else stop,
        target_price=target if target is not None and target > 0.0 else None,
        size_multiplier=size * (quantity / wanted), equity=book.balance,
        risk_usd=0.0 if order.hold else abs(price - stop) * quantity, fee=filled.fee, spread_cost=filled.spread_cost,
        slippage=filled.slippage, policy_id=decision.policy_id, policy_version=decision.policy_version,
        execution=execution + label(decision),
    )
    return Position(
        entry=entry, worst=price, best=price, bars=0, funding=0.0, funded_to_ms=candle.open_time_ms + 1,
        source=merge_source(decision.source, candle.source), origin=merge_origin(decision.origin, candle.origin),
    )


def _funding(position: Position, until_ms: int, bar: Bar) -> float:
    """Funding of the position so far, with that of the funding times up to `until_ms` (exclusive), at the open."""
    terms, entry = bar.terms, position.entry
    if terms.funding_bps == 0.0:
        return position.funding
    points = fills.grid_points(position.funded_to_ms, until_ms, terms.funding_interval_ms)
    if points == 0:
        return position.funding
    paid = fills.funding_paid(entry.side, entry.quantity, bar.candle.open, terms.funding_bps, points)
    return position.funding + paid


def _hold(book: Book, position: Position, bar: Bar, log: list[Happening]) -> Book:
    """Carry a position through a bar: exit by stop, target or horizon, or mark it at the close."""
    candle, entry = bar.candle, position.entry
    exit_ = fills.exit_in_bar(
        entry.side, entry.stop_price, entry.target_price, candle.open, candle.high, candle.low)
    if exit_ is not None and exit_.at_open:
        return _close(book, position, exit_, "STOP" if exit_.reason == "STOP" else "TARGET", bar, log)
    if entry.side > 0:
        worst, best = min(position.worst, candle.low), max(position.best, candle.high)
    else:
        worst, best = max(position.worst, candle.high), min(position.best, candle.low)
    same = position.source == candle.source and position.origin == candle.origin
    position = Position(
        entry=entry, worst=worst, best=best, bars=position.bars + 1, funding=_funding(position, candle.ts_ms, bar),
        funded_to_ms=candle.ts_ms,
        source=position.source if same else merge_source(position.source, candle.source),
        origin=position.origin if same else merge_origin(position.origin, candle.origin),
    )
    if exit_ is not None:
        return _close(book, _clipped(position), exit_, "STOP" if exit_.reason == "STOP" else "TARGET", bar, log)
    if candle.ts_ms >= entry.horizon_ms:
        return _close(book, position, fills.Exit("HORIZON", candle.close, False), "HORIZON", bar, log)
    equity = (book.balance + fills.unrealised(entry.side, entry.price, entry.quantity, candle.close)
              - entry.fee - position.funding)
    return replace(book, position=position, equity=equity, peak_equity=max(book.peak_equity, equity))


def _clipped(position: Position) -> Position:
    """A position that ended within a bar: it saw no price beyond its stop and its target."""
    entry = position.entry
    inner, outer = (max, min) if entry.side > 0 else (min, max)
    return replace(
        position,
        worst=position.worst if entry.stop_price is None else inner(position.worst, entry.stop_price),
        best=position.best if entry.target_price is None else outer(position.best, entry.target_price),
    )


def _close_at_open(book: Book, reason: ExitReason, bar: Bar, log: list[Happening]) -> Book:
    """Close the open position at the bar's open."""
    assert book.position is not None
    return _close(book, book.position, fills.Exit(reason, bar.candle.open, True), reason, bar, log)


def _close(
    book: Book, position: Position, exit_: fills.Exit, reason: ExitReason, bar: Bar, log: list[Happening]
) -> Book:
    """Close a position at the exit's price with half the spread and slippage against it; its result is booked."""
    entry, candle = position.entry, bar.candle
    ts_ms = candle.open_time_ms if exit_.at_open else candle.ts_ms
    if exit_.at_open:
        position = _seen_at_open(position, bar)
    leaving = fills.fill(exit_.price, -entry.side, entry.quantity, bar.terms.costs)
    entering = fills.Fill(entry.price, entry.fee, entry.spread_cost, entry.slippage)
    result = fills.settle(entry.side, entering, entry.quantity, position.funding, entry.risk_usd, leaving)
    log.append(Closed(position, result, reason, ts_ms))
    balance = book.balance + result.pnl_usd
    r = result.r_multiple
    counted = r is not None
    r = r or 0.0
    return replace(
        book, balance=balance, equity=balance, peak_equity=max(book.peak_equity, balance), position=None,
        trades=book.trades + 1, outcomes=book.outcomes + counted, sum_r=book.sum_r + r, sum_r2=book.sum_r2 + r * r,
    )


def _seen_at_open(position: Position, bar: Bar) -> Position:
    """A position as it stands at a bar's open: of that bar it saw the first price only."""
    candle, side = bar.candle, position.entry.side
    worst, best = (min, max) if side > 0 else (max, min)
    return replace(
        position, worst=worst(position.worst, candle.open), best=best(position.best, candle.open),
        bars=position.bars + 1, funding=_funding(position, candle.open_time_ms + 1, bar),
        source=merge_source(position.source, candle.source), origin=merge_origin(position.origin, candle.origin),
    )


def _end_neutrals(book: Book, ts_ms: int, log: list[Happening]) -> Book:
    """End the neutral decisions whose horizon has come; each is an outcome of 0 R."""
    n = 0
    while n < len(book.neutrals) and book.neutrals[n].horizon_ms <= ts_ms:
        log.append(Ended(book.neutrals[n], ts_ms))
        n += 1
    return replace(book, neutrals=book.neutrals[n:], outcomes=book.outcomes + n)
