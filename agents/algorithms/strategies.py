"""The four reference strategies as pure signal functions: features at the close of a bar to a direction.

A signal is 1 (long), -1 (short) or 0 (no position). Every input is a ratio without a unit, as `market.features`
states it; no strategy looks at a price level. They are plain textbook rules on purpose: what is learned is when to
use which of them.
"""

from __future__ import annotations

STRATEGIES = ("trend_following", "mean_reversion", "breakout", "neutral")

BAND = 0.5
"""Mean reversion acts beyond half of the way from the middle to a Bollinger band (one standard deviation)."""


def trend_following(ema_dist_14: float, ema_dist_50: float) -> int:
    """With the trend: the side of both exponential means on which the close stands; 0 where they disagree.

    Args:
        ema_dist_14: close / exponential mean (span 14) - 1.
        ema_dist_50: close / exponential mean (span 50) - 1.

    >>> trend_following(0.01, 0.02), trend_following(-0.01, -0.02), trend_following(-0.01, 0.02)
    (1, -1, 0)
    """
    if ema_dist_14 > 0 and ema_dist_50 > 0:
        return 1
    return -1 if ema_dist_14 < 0 and ema_dist_50 < 0 else 0


def mean_reversion(bollinger_position: float) -> int:
    """Against a close that has left the middle of its Bollinger bands by more than `BAND`; 0 inside.

    Args:
        bollinger_position: (close - middle) / (2 standard deviations) over 20 bars; 1 is the upper band.

    >>> mean_reversion(0.8), mean_reversion(-0.8), mean_reversion(0.1)
    (-1, 1, 0)
    """
    if bollinger_position > BAND:
        return -1
    return 1 if bollinger_position < -BAND else 0


def breakout(range_position: float) -> int:
    """With a close that leaves the range of the 20 bars before it; 0 inside.

    Args:
        range_position: (close - lowest low) / (highest high - lowest low) of the 20 bars before this one.

    >>> breakout(1.2), breakout(-0.2), breakout(1.0)
    (1, -1, 0)
    """
    if range_position > 1:
        return 1
    return -1 if range_position < 0 else 0


def signals(
    *, ema_dist_14: float | None, ema_dist_50: float | None, bollinger_position: float | None,
    range_position: float | None,
) -> tuple[int, int, int, int] | None:
    """Direction of every strategy, in the order of `STRATEGIES`.

    Returns:
        None where an input is absent: a missing number is not a signal of 0.
    """
    if ema_dist_14 is None or ema_dist_50 is None or bollinger_position is None or range_position is None:
        return None
    return (
        trend_following(ema_dist_14, ema_dist_50),
        mean_reversion(bollinger_position),
        breakout(range_position),
        0,
    )
