"""Which bars can be true, on plain numbers: the same rule for everyone who folds candles."""

from __future__ import annotations

from hashlib import blake2b

WEEK_MS = 604_800_000
WEEK_OFFSET_MS = 345_600_000  # the epoch was a Thursday; weekly bars open on Mondays
PRICE_MIN, PRICE_MAX = 1e-12, 1e12  # quote currency; beyond it a record is broken, and sums might overflow
VOLUME_MAX = 1e18  # base currency; the cheapest coins trade some 1e14 a day
TAKER_TOLERANCE = 1e-9  # relative; feeds round taker and total volume apart from one another


def candle_problem(
    *, open_ms: int, ts_ms: int, interval_ms: int, open_: float, high: float, low: float, close: float,
    volume: float | None, taker: float | None,
) -> str | None:
    """What is wrong with a bar; None where nothing is."""
    grid = WEEK_OFFSET_MS if interval_ms == WEEK_MS else 0
    if not (low <= open_ <= high and low <= close <= high):
        return f"open {open_} or close {close} is outside of low {low} to high {high}"
    if not (low >= PRICE_MIN and high <= PRICE_MAX):
        return f"low {low} or high {high} is outside of {PRICE_MIN} to {PRICE_MAX}"
    if ts_ms != open_ms + interval_ms:
        return f"ts_ms {ts_ms} is not open_time_ms {open_ms} + interval_ms {interval_ms}"
    if (open_ms - grid) % interval_ms:
        return f"open_time_ms {open_ms} is not on the grid of {interval_ms} ms"
    if volume is not None and not 0 <= volume <= VOLUME_MAX:
        return f"volume {volume} is outside of 0 to {VOLUME_MAX}"
    if volume is not None and taker is not None and not 0 <= taker <= volume * (1 + TAKER_TOLERANCE):
        return f"taker_buy_volume {taker} is outside of 0 to volume {volume}"
    return None


def numbers_digest(*numbers: float | None) -> bytes:
    """8 bytes that tell the numbers of one bar from those of another. `repr` of a float is exact."""
    return blake2b(repr(numbers).encode(), digest_size=8).digest()
