"""One bar: from the windows before it to the windows after it, and the features at its close."""

from __future__ import annotations

from math import fsum, log, sqrt
from typing import Any

from agents.algorithms import indicators as ind
from agents.algorithms.indicators import Window, deviation, ema, mean, push, wilder
from agents.algorithms.regime import Label, Thresholds, regime
from agents.contract import State
from schemas.events import Candle, Features

Values = dict[str, Any]

WILDER = 14
EMA_SPANS = (7, 14, 30, 50)
LEVEL_SPAN = 3000  # bars; robust level of volatility, see `indicators.usual_level`
LEVEL_UP, LEVEL_DOWN = 0.1, 0.3
LEVEL_MIN = 200  # values before the level counts: by then its error is that of volatility_30 itself
FULL_BARS = 50  # longest window of closes; all shorter ones and Wilder's are full by then


class Windows(State, frozen=True, kw_only=True):
    """What a symbol's interval remembers of its bars since the last long gap. Windows: the newest value last."""

    bars: int = 0
    closes: Window = ()
    returns: Window = ()
    highs: Window = ()
    lows: Window = ()
    volumes: Window = ()
    signed_volumes: Window = ()
    ema_7: float = 0.0
    ema_14: float = 0.0
    ema_30: float = 0.0
    ema_50: float = 0.0
    ema_12: float = 0.0
    ema_26: float = 0.0
    signal: float = 0.0
    gain: float = 0.0
    loss: float = 0.0
    true_range: float = 0.0
    plus: float = 0.0
    minus: float = 0.0
    adx: float = 0.0
    log_level: float = 0.0
    level_count: int = 0
    regime: Label | None = None
    regime_bars: int = 0


def advance(w: Windows, candle: Candle, thresholds: Thresholds) -> tuple[Windows, Values]:
    """Take a bar.

    Args:
        w: windows before the bar.
        candle: the bar, checked.
        thresholds: of the regime.

    Returns:
        Windows after the bar, and the fields of `market.features` that are not null, `ready` included.
    """
    values: Values = {}
    bars = w.bars + 1
    new: Values = {"bars": bars, "level_count": w.level_count, "log_level": w.log_level}
    _averages(w, new, candle.close, values)
    _movement(w, new, candle, values)
    _returns(w, new, candle.close, values)
    _volume(w, new, candle, values)
    _label(w, new, thresholds, values)
    values["ready"] = bars >= FULL_BARS and new["level_count"] >= LEVEL_MIN and new["regime"] is not None
    return Windows(**new), values


def _averages(w: Windows, new: Values, close: float, values: Values) -> None:
    """Simple and exponential means, MACD, Bollinger bands, momentum."""
    first, bars = w.bars == 0, w.bars + 1
    closes = new["closes"] = push(w.closes, close, 50)
    for n, before in zip(EMA_SPANS, (w.ema_7, w.ema_14, w.ema_30, w.ema_50), strict=True):
        level = new[f"ema_{n}"] = close if first else ema(before, close, n)
        if bars >= n:
            values[f"sma_dist_{n}"] = close / mean(closes[-n:]) - 1.0
            values[f"ema_dist_{n}"] = close / level - 1.0
    fast = new["ema_12"] = close if first else ema(w.ema_12, close, 12)
    slow = new["ema_26"] = close if first else ema(w.ema_26, close, 26)
    line = fast - slow
    signal = new["signal"] = line if first else ema(w.signal, line, 9)
    if bars >= 26:
        values["macd"] = line / close
    if bars >= 34:
        values["macd_signal"] = signal / close
        values["macd_hist"] = line / close - signal / close
    if bars >= 20:
        middle, band = mean(closes[-20:]), 2.0 * deviation(closes[-20:], ddof=0)
        values["bollinger_position"] = ind.ratio(close - middle, band)
        values["bollinger_width"] = 2.0 * band / middle
    for n in (5, 10, 20):
        if bars > n:
            values[f"momentum_{n}"] = close / closes[-n - 1] - 1.0


def _movement(w: Windows, new: Values, candle: Candle, values: Values) -> None:
    """Ranges, stochastic, and Wilder's RSI, ATR and ADX."""
    high, low, close = candle.high, candle.low, candle.close
    highs = new["highs"] = push(w.highs, high, 20)
    lows = new["lows"] = push(w.lows, low, 20)
    values["price_range"] = (high - low) / close
    if len(w.highs) == 20:
        values["range_position"] = ind.position(close, min(w.lows), max(w.highs))
    if len(highs) >= WILDER:
        k = ind.position(close, min(lows[-WILDER:]), max(highs[-WILDER:]))
        values["stochastic_k_14"] = None if k is None else 100.0 * k
    count = w.bars  # moves from bar to bar, this one included
    if count == 0:
        return
    before = w.closes[-1]
    change = close - before
    gain = new["gain"] = wilder(w.gain, max(change, 0.0), count, WILDER)
    loss = new["loss"] = wilder(w.loss, max(-change, 0.0), count, WILDER)
    spread = new["true_range"] = wilder(w.true_range, ind.true_range(high, low, before), count, WILDER)
    up, down = ind.directional(high, low, w.highs[-1], w.lows[-1])
    plus = new["plus"] = wilder(w.plus, up, count, WILDER)
    minus = new["minus"] = wilder(w.minus, down, count, WILDER)
    new["adx"] = w.adx
    if count >= WILDER:
        values["rsi_14"] = ind.relative_strength(gain, loss)
        values["atr_14_pct"] = spread / close
        new["adx"] = wilder(w.adx, ind.directional_index(plus, minus), count - WILDER + 1, WILDER)
    if count >= 2 * WILDER - 1:
        values["adx_14"] = new["adx"]


def _returns(w: Windows, new: Values, close: float, values: Values) -> None:
    """Log returns, volatility, its ratio to the usual, trend score."""
    if w.bars == 0:
        return
    last = values["return_1"] = log(close / w.closes[-1])
    returns = new["returns"] = push(w.returns, last, 30)
    for n in (5, 15):
        if w.bars >= n:
            values[f"return_{n}"] = log(close / w.closes[-n])
    if w.bars >= 7:
        values["volatility_7"] = deviation(returns[-7:])
    if len(returns) < 30:
        return
    volatility = values["volatility_30"] = deviation(returns)
    values["trend_strength"] = ind.ratio(fsum(returns), volatility * sqrt(30))
    count, level = w.level_count, w.log_level
    if volatility > 0:
        count += 1
        level = ind.usual_level(level, volatility, count, LEVEL_SPAN, LEVEL_UP, LEVEL_DOWN)
    new["level_count"], new["log_level"] = count, level
    if count >= LEVEL_MIN:
        values["volatility_ratio"] = ind.over_level(volatility, level)


def _volume(w: Windows, new: Values, candle: Candle, values: Values) -> None:
    """Volume against its mean, signed volume, share of takers. A bar without volume empties the windows."""
    volume = candle.volume
    if volume is None:
        return
    before = w.closes[-1] if w.bars else candle.close  # the first bar has no direction
    signed = volume if candle.close > before else -volume if candle.close < before else 0.0
    volumes = new["volumes"] = push(w.volumes, volume, 20)
    signed_volumes = new["signed_volumes"] = push(w.signed_volumes, signed, 14)
    if len(volumes) == 20:
        values["volume_ratio_20"] = ind.ratio(volume, mean(volumes))
    if len(signed_volumes) == 14:
        values["obv_slope_14"] = ind.ratio(fsum(signed_volumes), fsum(volumes[-14:]))
    if candle.taker_buy_volume is not None and volume > 0:
        values["taker_buy_share"] = min(candle.taker_buy_volume / volume, 1.0)


def _label(w: Windows, new: Values, thresholds: Thresholds, values: Values) -> None:
    """Regime; where the scores are undefined (a market that stands still), the label stays."""
    trend, ratio = values.get("trend_strength"), values.get("volatility_ratio")
    label = w.regime if trend is None or ratio is None else regime(w.regime, trend, ratio, thresholds)
    values["regime"] = new["regime"] = label
    new["regime_bars"] = w.regime_bars + 1 if label == w.regime else 1


def features_of(candle: Candle, values: Values, bar_count: int, origin: Any) -> Features:
    """The record of a bar."""
    return Features(
        symbol=candle.symbol, interval_ms=candle.interval_ms, open_time_ms=candle.open_time_ms, ts_ms=candle.ts_ms,
        bar_count=bar_count, open=candle.open, high=candle.high, low=candle.low, close=candle.close,
        source=candle.source, origin=origin, **values,
    )
