"""How much to risk on a decision: not learned by argmax, but from how sure its expected result is.

A reward is linear in the size, so a learner that takes sizes for actions finds only the smallest or the largest. Here
the size m of `SIZES` maximises the mean-variance utility

    m mu_lower - lambda m^2 sigma^2

(Markowitz 1952, Portfolio selection) with a cautious mean: shrunk towards 0 as if `SHRUNK_BY` outcomes of 0 had been
seen too, and less one standard error.
"""

from __future__ import annotations

from math import sqrt

SIZES = (0.5, 0.75, 1.0, 1.5, 2.0)
"""Multiples of the unit risk."""
AVERSION = 0.075
"""lambda, 1/R: in the middle of .05 to .1. At a deviation of .7 R a cautious mean of .07 R is worth the unit risk."""
SHRUNK_BY = 10.0  # outcomes


def cautious_mean(mean_r: float, deviation_r: float, n: float) -> float:
    """The mean that a size is chosen by, R; below 0 where nothing was seen.

    Args:
        mean_r: estimate, R.
        deviation_r: standard deviation of one outcome, R.
        n: outcomes that the estimate rests on.

    >>> round(cautious_mean(0.2, 0.7, 90), 3), cautious_mean(0.0, 1.0, 0)
    (0.114, -1.0)
    """
    share = n / (n + SHRUNK_BY)
    return share * mean_r - deviation_r / sqrt(max(n, 1.0)) * (share if n else 1.0)


def utility(size: float, mean_r: float, deviation_r: float, aversion: float = AVERSION) -> float:
    """Utility of a size, R."""
    return size * mean_r - aversion * (size * deviation_r) ** 2


def best_size(mean_r: float, deviation_r: float, aversion: float = AVERSION) -> float:
    """The size of the highest utility; of equal ones the smaller.

    Args:
        mean_r: cautious mean of an outcome at size 1, R.
        deviation_r: its standard deviation, R.
        aversion: lambda.

    >>> [best_size(mean, 0.7) for mean in (-0.1, 0.03, 0.07, 0.11, 0.2)]
    [0.5, 0.5, 1.0, 1.5, 2.0]
    """
    return max(SIZES, key=lambda size: (utility(size, mean_r, deviation_r, aversion), -size))


def results(r: float, risk_usd: float, sizes: tuple[float, ...] = SIZES) -> tuple[float, ...]:
    """What one trade would have earned at each size, quote currency: linear, as long as nothing caps the quantity.

    Args:
        r: its net result, R.
        risk_usd: what size 1 would have risked.

    >>> results(0.5, 100.0)
    (25.0, 37.5, 50.0, 75.0, 100.0)
    """
    return tuple([size * r * risk_usd for size in sizes])
