"""Market regime with hysteresis, from a trend score and a volatility ratio.

Volatile is looked at first: a market that moves far more than usual is volatile, whatever its direction. Each label is
entered at one threshold and left at another nearer to 0, so that a score that trembles about a threshold does not
flip the label.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Label = Literal["bull", "bear", "sideways", "volatile"]


class Thresholds(NamedTuple):
    """When labels begin and end.

    Found on simulated markets of four hidden regimes (drift +-.5 sigma a bar, reversion, 2.5 sigma), with normal and
    with Student's t noise (5 degrees of freedom), by the share of right labels. The optimum is flat: a tenth up or
    down costs a point at most, normal noise wants the volatile thresholds lower, heavy tails want them higher.

    Attributes:
        volatile_enter: volatility ratio above which a market is volatile. The ratio of a quiet market is 1 +- .13
            (deviation of 30 normal returns) or 1 +- .25 (heavy tails); 2.5 sigma markets pass 1.6 after some 13 bars.
        volatile_exit: ratio below which it no longer is.
        trend_enter: absolute trend score above which it is bull or bear. The score is standard normal without drift;
            with .5 sigma a bar it is 2.7 +- 1 after 30 bars.
        trend_exit: score below which it no longer is: so low, because a real trend of .5 sigma falls under it in 1 %
            of the bars only, and sideways markets pull the score to 0 by themselves.
    """

    volatile_enter: float = 1.6
    volatile_exit: float = 1.3
    trend_enter: float = 1.6
    trend_exit: float = 0.3


def regime(
    previous: Label | None, trend_strength: float, volatility_ratio: float, thresholds: Thresholds
) -> Label:
    """Label of a bar.

    Args:
        previous: label of the bar before; None at the first.
        trend_strength: t-like score of the last returns.
        volatility_ratio: volatility over its usual level, from 0.
        thresholds: when labels begin and end.

    >>> regime("bull", 0.5, 1.0, Thresholds()), regime(None, 0.5, 1.0, Thresholds())
    ('bull', 'sideways')
    """
    t = thresholds
    if volatility_ratio > (t.volatile_exit if previous == "volatile" else t.volatile_enter):
        return "volatile"
    if trend_strength > (t.trend_exit if previous == "bull" else t.trend_enter):
        return "bull"
    if -trend_strength > (t.trend_exit if previous == "bear" else t.trend_enter):
        return "bear"
    return "sideways"
