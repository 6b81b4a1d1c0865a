"""A trade on paper, filled again: where its rules leave one price only, it must have that price.

The rules stand in the trade itself (`paper:... fee_bps=... half_spread_bps=... slippage_bps=...`): decided at a close,
filled at the open of the next bar, left by stop, target, signal or horizon, a bar that holds stop and target takes the
stop, and every fill has half the spread and slippage against it. What a stop or target would have caught earlier must
not have been held on.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping

from schemas.events import Candle, Decision, Instrument, TradeClosed

PAPER = "paper:"
BPS = 1e-4
RELATIVE = 1e-6  # producers may round their amounts
DIGITS = 1e-5  # labels have six
_COSTS = re.compile(r"paper:(\S+) fee_bps=(\S+) half_spread_bps=(\S+) slippage_bps=(\S+)")
AT_OPEN = ("SIGNAL", "HALT")
Costs = tuple[float, float, float]


class Bars(dict[tuple[str, int], list[Candle]]):
    """Candles by symbol and time, each under its open and its close; complete before it is asked for times."""

    def __init__(self) -> None:
        super().__init__()
        self._times: dict[str, list[int]] = {}

    def times(self, symbol: str, first_ms: int, end_ms: int) -> list[int]:
        """Times of a symbol from the first to before the end, ascending."""
        if not self._times:
            for name, ms in self:
                self._times.setdefault(name, []).append(ms)
            for times in self._times.values():
                times.sort()
        known = self._times.get(symbol, [])
        return known[bisect_left(known, first_ms):bisect_left(known, end_ms)]


def wrong(t: TradeClosed, decision: Decision | None, bars: Bars,
          allowed: Mapping[str, Collection[Costs]]) -> str | None:
    """What of a paper trade does not follow from its bars; None where all does, or where its label names no costs.

    Args:
        t: the trade.
        decision: that it names.
        bars: by symbol and time; each under its open and its close.
        allowed: costs by the first word of the label: what configuration and instrument records say.
    """
    label = _COSTS.match(t.execution)
    if label is None:
        return None
    costs = float(label[2]), float(label[3]), float(label[4])
    if label[1] in allowed and not any(_same(costs, a) for a in allowed[label[1]]):
        return f"it costs {costs[0]:g} bps and {costs[1] + costs[2]:g} bps a fill, which nothing says of {t.symbol}"
    if decision is not None and t.opened_ms != decision.ts_ms:
        return f"opened at {t.opened_ms}, but its decision at {decision.ts_ms} is filled at the next open"
    leaving = [costs, *(c for some in allowed.values() for c in some)]  # another record may hold when it is left
    return _entered(t, bars, costs) or _held(t, bars) or _left(t, bars, leaving) or _paid(t, costs, leaving)


def _same(a: Costs, b: Costs) -> bool:
    return all(abs(x - y) <= DIGITS * max(abs(x), abs(y)) for x, y in zip(a, b, strict=True))


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= RELATIVE * max(abs(a), abs(b))


def _side(t: TradeClosed) -> int:
    return 1 if t.side == "LONG" else -1


def _opening(t: TradeClosed, bars: Bars, ms: int) -> list[Candle]:
    return [c for c in bars.get((t.symbol, ms), ()) if c.open_time_ms == ms]


def _closing(t: TradeClosed, bars: Bars, ms: int) -> list[Candle]:
    return [c for c in bars.get((t.symbol, ms), ()) if c.ts_ms == ms]


def _entered(t: TradeClosed, bars: Bars, costs: Costs) -> str | None:
    against = 1 + _side(t) * (costs[1] + costs[2]) * BPS
    opens = [c.open for c in _opening(t, bars, t.opened_ms)]
    if not any(_near(t.entry_price, o * against) for o in opens):
        return f"filled at {t.entry_price:g}, not at the bar's open {opens} with spread and slippage against it"
    return None


def _held(t: TradeClosed, bars: Bars) -> str | None:
    """Whether an earlier bar reached its stop or target."""
    for ms in bars.times(t.symbol, t.opened_ms, t.ts_ms):
        for c in _opening(t, bars, ms):
            if c.ts_ms < t.ts_ms or (c.ts_ms == t.ts_ms and t.exit_reason in AT_OPEN):
                for what, level in (("stop", t.stop_price), ("target", t.target_price)):
                    if _reaches(t, c, what, level):
                        return f"its {what} {level:g} was reached in the bar at {ms}, and it was held on to {t.ts_ms}"
    return None


def _reaches(t: TradeClosed, c: Candle, what: str, level: float | None) -> bool:
    if level is None:
        return False
    down = (what == "stop") == (t.side == "LONG")
    return c.low <= level if down else c.high >= level


def _left(t: TradeClosed, bars: Bars, leaving: Collection[Costs]) -> str | None:
    """The exit must be one of the prices that its reason allows."""
    prices = sorted(set(_exits(t, _opening(t, bars, t.ts_ms), _closing(t, bars, t.ts_ms))))
    if any(_near(t.exit_price, p * (1 - _side(t) * (c[1] + c[2]) * BPS)) for p in prices for c in leaving):
        return None
    return f"left at {t.exit_price:g} by {t.exit_reason}, for which its bars give {', '.join(f'{p:g}' for p in prices)}"


def _exits(t: TradeClosed, opening: Iterable[Candle], closing: Iterable[Candle]) -> list[float]:
    """Prices before costs."""
    if t.exit_reason in AT_OPEN:
        return [c.open for c in opening]
    if t.exit_reason == "HORIZON":
        return [c.close for c in closing if not _reaches(t, c, "stop", t.stop_price)
                and not _reaches(t, c, "target", t.target_price)]
    what, level = ("stop", t.stop_price) if t.exit_reason == "STOP" else ("target", t.target_price)
    if level is None:
        return []
    up = (what == "target") == (t.side == "LONG")
    beyond = [c.open for c in opening if (c.open >= level if up else c.open <= level)]
    inside = [level for c in closing if _reaches(t, c, what, level)
              and (what == "stop" or not _reaches(t, c, "stop", t.stop_price))]
    return beyond + inside


def _paid(t: TradeClosed, costs: Costs, leaving: Collection[Costs]) -> str | None:
    fees = [(t.entry_price * costs[0] + t.exit_price * c[0]) * t.quantity * BPS for c in leaving]
    if not any(abs(t.fees - f) <= DIGITS * abs(f) + 1e-12 for f in fees):
        return f"fees are {t.fees:g}, but {costs[0]:g} bps of both fills are {fees[0]:g}"
    return None


def costs_of(config: object, instruments: Iterable[Instrument]) -> dict[str, list[Costs]]:
    """What labels may say of a symbol: by configuration where no record is in force, else by a record."""
    defaults = [getattr(config, f"default_{name}_bps", None) for name in ("fee", "half_spread", "slippage")]
    allowed: dict[str, list[Costs]] = {"instrument": [(i.fee_bps, i.half_spread_bps, i.slippage_bps)
                                                      for i in instruments]}
    if None not in defaults:
        allowed["default-costs"] = [(float(defaults[0] or 0), float(defaults[1] or 0), float(defaults[2] or 0))]
    return allowed
