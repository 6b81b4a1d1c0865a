"""Tests and intervals that hold at every number of outcomes at once, so that looking often costs nothing.

The normal mixture: if S is a sum of outcomes of mean 0 and V the variance that it has gathered, then

    M = sqrt(rho / (V + rho)) exp(S^2 / (2 (V + rho)))

is a martingale that starts at 1, and by Ville's inequality it ever reaches 1/alpha with probability alpha at most.
Solved for S that is a boundary which |S| ever crosses with probability alpha at most; `rho` says where it is tightest.

Robbins 1970, Statistical methods related to the law of the iterated logarithm; Howard, Ramdas, McAuliffe and Sekhon
2021, Time-uniform, nonparametric, nonasymptotic confidence sequences (equations 14 and 15, proposition 3); de la Pena,
Lai and Shao 2009, Self-normalized processes, for a variance that is taken from the outcomes themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf, log, sqrt

from scipy.special import betaln, log_ndtr  # type: ignore[import-untyped]  # River depends on scipy; it ships no types

HALVINGS = 200  # of an interval, to a root; a float has no more to give long before


def mixture_rho(v_opt: float, alpha: float) -> float:
    """Width of the two-sided mixture that makes its boundary tightest about a variance.

    Args:
        v_opt: variance at which the boundary shall be tight; with outcomes of variance 1 a number of outcomes.
        alpha: probability of ever crossing it.

    Raises:
        ValueError: v_opt is not above 0, or alpha not between 0 and 1.

    >>> round(mixture_rho(100.0, 0.05), 5)
    12.60056
    """
    if not (v_opt > 0 and 0 < alpha < 1):
        raise ValueError(f"v_opt above 0 and alpha between 0 and 1 are needed, not {v_opt} and {alpha}")
    twice = 2 * log(1 / alpha)
    return v_opt / (twice + log(1 + twice))


def two_sided(v: float, rho: float, alpha: float) -> float:
    """What |S| ever exceeds, at any variance v, with probability alpha at most.

    >>> round(two_sided(100.0, mixture_rho(100.0, 0.05), 0.05), 5)
    30.35209
    """
    return sqrt((v + rho) * log((v + rho) / (rho * alpha * alpha)))


def one_sided(v: float, rho: float, alpha: float) -> float:
    """What S ever exceeds, at any variance v, with probability alpha at most: the mixture over positive means only.

    A little above `two_sided` at twice the alpha. For a boundary that is tight at v_opt take
    `mixture_rho(v_opt, 2 * alpha)`.
    """
    def excess(s: float) -> float:
        tail = float(log_ndtr(s / sqrt(v + rho)))
        return 0.5 * log(4 * rho / (v + rho)) + s * s / (2 * (v + rho)) + tail + log(alpha)

    return _root(excess, 0.0, 2 * two_sided(v, rho, alpha))


def half_width(n: float, rho: float, alpha: float) -> float:
    """Half of the width of a mean's interval after n outcomes, in standard deviations of the outcomes (ddof 0).

    The variance is taken from the outcomes themselves, about the mean that is tested: n (mean - m) is held against the
    boundary times the root mean square of the outcomes about m. Solved for m that is mean +- sd b / sqrt(n^2 - b^2), b
    being the boundary at a variance of n. For outcomes that are symmetric about their mean given the past the
    normalised sum is exact at each n and heavy tails make it safer; in general it is right as n grows.

    Returns:
        inf where n outcomes can exclude no mean at all, however equal they are.
    """
    b = two_sided(n, rho, alpha) if n > 0 else inf
    return b / sqrt(n * n - b * b) if n > b else inf


def mean_interval(n: float, mean: float, sd: float, rho: float, alpha: float) -> tuple[float, float]:
    """Interval of a mean at every n at once.

    Args:
        n: number of outcomes.
        mean: their mean.
        sd: their standard deviation, ddof 0, in the same unit.
        rho: see `mixture_rho`, with outcomes counted.
        alpha: probability that the mean is ever outside; half of it on each side.
    """
    half = half_width(n, rho, alpha)
    if half == inf:
        return -inf, inf
    return mean - sd * half, mean + sd * half


def smallest_mean(n: float, sd: float, rho: float, alpha: float) -> float:
    """The smallest mean that n outcomes of such a deviation could have shown to be above 0: the interval, inverted.

    With sd 1 it is in standard deviations; with sd in R it is in R. inf where they could show none.

    >>> round(smallest_mean(1000, 1.0, mixture_rho(500, 0.01), 0.01), 3)
    0.114
    """
    half = half_width(n, rho, alpha)
    return inf if half == inf else sd * half


def bernoulli_interval(successes: float, n: int, n_opt: float, alpha: float) -> tuple[float, float]:
    """Interval of a probability at every n at once, by the beta-binomial mixture.

    Args:
        successes: of n trials.
        n: trials, from 1.
        n_opt: number of trials at which the interval is tightest.
        alpha: probability that the probability is ever outside.

    Howard et al. 2021, proposition 7; the mixture is the one of their package confseq.

    >>> tuple(round(p, 5) for p in bernoulli_interval(700, 1000, 100, 0.05))
    (0.65163, 0.74595)
    """
    def excess(p: float) -> float:
        variance = p * (1 - p)
        r = max(mixture_rho(n_opt * variance, alpha) - variance, 1e-3 * variance)
        a, b = r / (1 - p), r / p
        mixed = betaln(a + successes, b + n - successes) - betaln(a, b)
        return float(mixed - successes * log(p) - (n - successes) * log(1 - p) + log(alpha))

    seen, edge = successes / n, exp(-30)
    low = 0.0 if seen <= edge or excess(edge) < 0 else _root(lambda p: -excess(p), edge, seen)
    high = 1.0 if seen >= 1 - edge or excess(1 - edge) < 0 else _root(excess, seen, 1 - edge)
    return low, high


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a function rises through 0 between low and high."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if f(middle) < 0 else (low, middle)
    return (low + high) / 2
