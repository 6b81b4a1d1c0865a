"""Indicators of a price series, one bar at a time: plain floats in, plain floats out, no state of their own.

A window is a tuple of the newest values, the newest last. Means and deviations are computed anew from the window, so
that no rounding error builds up over millions of bars; recursive means forget theirs geometrically.

Sources: Wilder 1978, New Concepts in Technical Trading Systems (RSI, ATR, ADX); Bollinger 2001, Bollinger on
Bollinger Bands (population deviation); Appel 2005, Technical Analysis (MACD); Lane 1984, Stochastics.
"""

from __future__ import annotations

from math import dist, exp, fsum, log, sqrt

Window = tuple[float, ...]


def push(window: Window, value: float, size: int) -> Window:
    """The window with a value more, its oldest dropped beyond `size`.

    >>> push((1.0, 2.0, 3.0), 4.0, 3)
    (2.0, 3.0, 4.0)
    """
    return (*window[1:], value) if len(window) >= size else (*window, value)


def mean(window: Window) -> float:
    """Mean of a window, correctly rounded sum."""
    return fsum(window) / len(window)


def deviation(window: Window, ddof: int = 1) -> float:
    """Standard deviation of a window, in two passes; `ddof` 1 is the sample's, 0 the population's.

    >>> deviation((1.0, 3.0), ddof=0)
    1.0
    """
    n = len(window)
    return dist(window, (fsum(window) / n,) * n) / sqrt(n - ddof)


def ema(previous: float, value: float, span: int) -> float:
    """Exponential mean with weight 2 / (span + 1), not adjusted: the first value seeds it."""
    return previous + (value - previous) * (2.0 / (span + 1))


def wilder(previous: float, value: float, count: int, size: int) -> float:
    """Wilder's mean: the plain mean of the first `size` values, afterwards weight 1 / size.

    Args:
        previous: mean before this value.
        count: number of this value, from 1.
        size: Wilder's period.
    """
    return previous + (value - previous) / min(count, size)


def true_range(high: float, low: float, previous_close: float) -> float:
    """Largest of the bar's range and its distances from the close before."""
    return max(high, previous_close) - min(low, previous_close)


def directional(high: float, low: float, previous_high: float, previous_low: float) -> tuple[float, float]:
    """Wilder's directional movement (up, down) of a bar; at most one of them is not 0."""
    up, down = high - previous_high, previous_low - low
    return (up if up > down and up > 0 else 0.0), (down if down > up and down > 0 else 0.0)


def directional_index(plus: float, minus: float) -> float:
    """Wilder's DX, 0..100, of smoothed movements; 0 where nothing moved."""
    total = plus + minus
    return 100.0 * abs(plus - minus) / total if total > 0 else 0.0


def relative_strength(gain: float, loss: float) -> float | None:
    """RSI, 0..100, of the mean gain and the mean loss; None where neither is above 0."""
    total = gain + loss
    return 100.0 * (gain / total) if total > 0 else None


def position(value: float, low: float, high: float) -> float | None:
    """Where a value lies between two bounds, 0 at the lower, 1 at the upper; None where they are the same."""
    return (value - low) / (high - low) if high > low else None


def ratio(value: float, base: float) -> float | None:
    """value / base, None where the base is 0."""
    return value / base if base != 0 else None


def usual_level(log_level: float, value: float, count: int, span: int, up: float, down: float) -> float:
    """Log of the usual size of a positive series, robust: one value moves it by a bounded step only.

    An exponential mean of logarithms whose innovations are clipped to [-down, up]: a value far above the level counts
    as `up`, however far. With up < down the level rests below the median, so a long spell of large values moves it
    little, and it falls back faster than it rose. Weight: max(2 / (span + 1), 2 / (count + 1)).

    Args:
        log_level: level before this value, log.
        value: the new value, above 0.
        count: number of this value, from 1; the first one seeds the level.
        span: span of the exponential mean, values.
        up: largest innovation upwards, log.
        down: largest innovation downwards, log.
    """
    x = log(value)
    if count == 1:
        return x
    return log_level + min(max(x - log_level, -down), up) * (2.0 / (min(count, span) + 1))


def over_level(value: float, log_level: float) -> float:
    """value / level, the level given as its log."""
    return value * exp(-log_level)
