"""Rules (configuration) and state of a book, as plain frozen structs."""

from __future__ import annotations

from agents.contract import Config, State
from schemas.events import Origin, Strategy


class PaperConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules of paper execution.

    Attributes:
        equity: money that a book begins with, quote currency.
        risk_pct: loss at the stop at size 1, before costs, as a fraction of the book's equity.
        stop_atr: distance of the stop in average true ranges.
        target_r: distance of the target in distances of the stop; None: no target.
        max_holding_bars: bars after which a position is closed and a neutral decision has ended.
        max_leverage: notional over equity that a position may not pass.
        daily_loss_limit: loss since the start of the UTC day, fraction of the equity then, from which on a book opens
            nothing more that day.
        max_wait_bars: candles that wait for a decision at most.
        baseline_books: whether the baseline books run.
        mark_every_bar: whether equity is published every bar, or only where a book traded or an outcome was known.
        default_fee_bps, default_half_spread_bps, default_slippage_bps: costs where no instrument record is in force.
    """

    equity: float = 10_000.0
    risk_pct: float = 0.01
    stop_atr: float = 2.0
    target_r: float | None = 2.0
    max_holding_bars: int = 4
    max_leverage: float = 3.0
    daily_loss_limit: float = 0.03
    max_wait_bars: int = 192
    baseline_books: bool = True
    mark_every_bar: bool = True
    default_fee_bps: float = 5.0
    default_half_spread_bps: float = 0.5
    default_slippage_bps: float = 1.0

    def __post_init__(self) -> None:
        positive = (self.equity, self.risk_pct, self.stop_atr, self.max_leverage, self.daily_loss_limit)
        if not all(x > 0 for x in positive) or not (self.target_r is None or self.target_r > 0):
            raise ValueError("equity, risk_pct, stop_atr, target_r, max_leverage, daily_loss_limit must be above 0")
        if self.max_holding_bars < 1 or self.max_wait_bars < 1:
            raise ValueError("max_holding_bars and max_wait_bars must be at least 1")
        if min(self.default_half_spread_bps, self.default_slippage_bps) < 0:
            raise ValueError("default spread and slippage cannot be negative")


class Entry(State, frozen=True, kw_only=True):
    """Facts of a position that stay. `risk_usd` 0: no stop. `equity`, `notional`: at open, quote currency."""

    decision_id: str
    strategy: Strategy
    side: int
    opened_ms: int
    horizon_ms: int
    price: float
    quantity: float
    stop_price: float | None
    target_price: float | None
    size_multiplier: float
    equity: float
    risk_usd: float
    fee: float
    spread_cost: float
    slippage: float
    policy_id: str | None
    policy_version: int | None
    execution: str


class Position(State, frozen=True, kw_only=True):
    """An open position. `worst`, `best`: extreme prices against and for it. `funded_to_ms`: funding charged up to."""

    entry: Entry
    worst: float
    best: float
    bars: int
    funding: float
    funded_to_ms: int
    source: str
    origin: Origin


class Neutral(State, frozen=True, kw_only=True):
    """A decision that took no position and ends at its horizon."""

    decision_id: str
    horizon_ms: int
    reason: str | None
    source: str
    origin: Origin


class Book(State, frozen=True, kw_only=True):
    """A book. `balance`: its first money plus the results of all closed trades; `equity`: as marked at the last close.

    `decided_ms` and `decided_digest` are of the newest decision received, `awaits_ms` the time of the next one
    (0: none is awaited).
    """

    book_id: str
    started_ms: int
    balance: float
    equity: float
    peak_equity: float
    day_start_equity: float
    day: int = -1
    awaits_ms: int = 0
    decided_ms: int = -1
    decided_digest: bytes = b""
    position: Position | None = None
    neutrals: tuple[Neutral, ...] = ()
    trades: int = 0
    outcomes: int = 0
    sum_r: float = 0.0
    sum_r2: float = 0.0
