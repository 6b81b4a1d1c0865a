"""One open bar: what its trades come to, whatever the order in which they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from agents.algorithms.candles import WEEK_MS, WEEK_OFFSET_MS
from agents.algorithms.lineage import merge_origin
from agents.contract import State
from schemas.events import Candle, MarketTrade, Origin

if TYPE_CHECKING:
    from schemas.lockstep import Array

Moments = TypeVar("Moments", int, "Array")


class Bar(State, frozen=True, kw_only=True):
    """A bar that is not closed. Prices in quote currency, volumes in base currency, `turnover` in quote currency.

    Attributes:
        first_ms, first_id, last_ms, last_id: time and number of the trades that `open` and `close` are of.
        bought: what takers bought; null once the side of a trade is not known.
    """

    open_time_ms: int
    first_ms: int
    first_id: int
    last_ms: int
    last_id: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    turnover: float
    bought: float | None
    trades: int
    origin: Origin


def opening_ms(ts_ms: Moments, interval_ms: int) -> Moments:
    """Opening time of the bar that holds a moment, or of those that hold many; weekly bars open on Mondays.

    >>> opening_ms(119_999, 60_000), opening_ms(120_000, 60_000)
    (60000, 120000)
    """
    grid = WEEK_OFFSET_MS if interval_ms == WEEK_MS else 0
    open_ms: Moments = ts_ms - (ts_ms - grid) % interval_ms
    return open_ms


def begun(open_time_ms: int, trade: MarketTrade) -> Bar:
    """A bar of one trade."""
    t, price, quantity = trade, trade.price, trade.quantity
    return Bar(
        open_time_ms=open_time_ms, first_ms=t.ts_ms, first_id=t.trade_id, last_ms=t.ts_ms, last_id=t.trade_id,
        open=price, high=price, low=price, close=price, volume=quantity, turnover=price * quantity,
        bought=_bought(trade), trades=1, origin=t.origin,
    )


def grown(bar: Bar, trade: MarketTrade) -> Bar:
    """A bar with one trade more."""
    b, t, price = bar, trade, trade.price
    earlier = (t.ts_ms, t.trade_id) < (b.first_ms, b.first_id)
    later = (t.ts_ms, t.trade_id) > (b.last_ms, b.last_id)
    more = _bought(trade)
    return Bar(
        open_time_ms=b.open_time_ms,
        first_ms=t.ts_ms if earlier else b.first_ms, first_id=t.trade_id if earlier else b.first_id,
        last_ms=t.ts_ms if later else b.last_ms, last_id=t.trade_id if later else b.last_id,
        open=price if earlier else b.open, high=max(b.high, price), low=min(b.low, price),
        close=price if later else b.close, volume=b.volume + t.quantity, turnover=b.turnover + price * t.quantity,
        bought=None if b.bought is None or more is None else b.bought + more,
        trades=b.trades + 1, origin=merge_origin(b.origin, t.origin),
    )


def _bought(trade: MarketTrade) -> float | None:
    if trade.taker_side is None:
        return None
    return trade.quantity if trade.taker_side == "BUY" else 0.0


def closed(bar: Bar, symbol: str, source: str, interval_ms: int) -> Candle:
    """The candle of a bar."""
    b = bar
    return Candle(
        symbol=symbol, interval_ms=interval_ms, open_time_ms=b.open_time_ms, ts_ms=b.open_time_ms + interval_ms,
        open=b.open, high=b.high, low=b.low, close=b.close, volume=b.volume, quote_volume=b.turnover, trades=b.trades,
        taker_buy_volume=b.bought, source=source, origin=b.origin,
    )
