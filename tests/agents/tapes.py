"""Tapes for tests of the trader: made markets through the features' own windows, and short ones by hand."""

from __future__ import annotations

from functools import cache

import numpy as np

from agents.algorithms.market import PLANTED, Params, generate
from agents.algorithms.regime import Thresholds
from agents.algorithms.trading_view import INPUTS, Tape, row
from agents.features.bar import Windows, advance
from schemas.events import Candle

QUARTER_MS = 900_000


@cache
def made_tape(seed: int, bars: int, params: Params = PLANTED, volume: bool = True) -> Tape:
    """A made market from the first bar at which its features are ready."""
    m, windows, rows = generate(seed, bars, params), Windows(), []
    for i, (o, h, lo, c, v) in enumerate(zip(*(x.tolist() for x in (m.open, m.high, m.low, m.close, m.volume)),
                                             strict=True)):
        candle = Candle(
            symbol="T", interval_ms=QUARTER_MS, open_time_ms=i * QUARTER_MS, ts_ms=(i + 1) * QUARTER_MS, open=o,
            high=h, low=lo, close=c, volume=v if volume else None, source=f"synthetic:{seed}", origin="SYNTHETIC",
        )
        windows, values = advance(windows, candle, Thresholds())
        if values["ready"]:
            rows.append(row(candle.open_time_ms, QUARTER_MS, o, h, lo, c, values["regime"], values))
    return Tape(np.array(rows), QUARTER_MS)


def hand_tape(bars: list[tuple[float, float, float, float]], atr_pct: float = 0.01) -> Tape:
    """Bars as (open, high, low, close), with columns that are all there."""
    values = dict.fromkeys(INPUTS, 0.5) | {"atr_14_pct": atr_pct, "volatility_30": 0.01}
    rows = [row(i * QUARTER_MS, QUARTER_MS, *bar, "bull", values) for i, bar in enumerate(bars)]
    return Tape(np.array(rows), QUARTER_MS)


def rough_tape(seed: int, bars: int) -> Tape:
    """A wild market: gaps in price and in time, ranges that hold stops, columns that are missing here and there."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(0.03 * rng.standard_normal(bars)))
    open_ = np.concatenate(([100.0], close[:-1])) * np.exp(0.02 * rng.standard_normal(bars) * (rng.random(bars) < 0.2))
    high = np.maximum(open_, close) * (1 + 0.02 * rng.random(bars))
    low = np.minimum(open_, close) * (1 - 0.02 * rng.random(bars))
    opened = np.cumsum(np.where(rng.random(bars) < 0.05, 3, 1)) * QUARTER_MS
    rows = []
    for i in range(bars):
        values = {name: float(rng.standard_normal()) for name in INPUTS}
        values |= {"atr_14_pct": 0.01 * rng.random() * (rng.random() > 0.05), "volatility_30": 0.02, "rsi_14": 50.0,
                   "volatility_ratio": 1.0, "volume_ratio_20": 1.0}
        known: dict[str, float | None] = dict(values)
        if rng.random() < 0.1:
            known["macd"] = None
        rows.append(row(int(opened[i]), QUARTER_MS, *(float(x[i]) for x in (open_, high, low, close)), "bear", known))
    return Tape(np.array(rows), QUARTER_MS)
