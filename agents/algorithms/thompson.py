"""Thompson sampling with its probabilities written out, for independent normal posteriors.

Thompson 1933, On the likelihood that one unknown probability exceeds another; Chapelle and Li 2011, An empirical
evaluation of Thompson sampling. A sampler draws one number from each posterior and takes the largest. A policy that
is published, applied elsewhere and judged afterwards needs the probability of each choice instead, so the integral

    P(i is best) = integral of prod_{j != i} F_j(x) dF_i(x)

is computed here by a quadrature without randomness.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr  # type: ignore[import-untyped]  # River depends on scipy; it ships no types

_Z = np.arange(-6.0, 6.0 + 1e-9, 0.2)
"""Nodes of each action in its own standard deviations. Spacing .2 leaves an absolute error below .001 for standard
deviations that differ a hundredfold; beyond 6 there is 1e-9 of a normal."""


def best_probabilities(means: Sequence[float], sds: Sequence[float]) -> tuple[float, ...]:
    """Probability of each action to have the largest value, its value being normal and independent of the others.

    Args:
        means: means of the posteriors.
        sds: their standard deviations, all above 0.

    Returns:
        Probabilities that sum to 1; absolute error below .001.

    Raises:
        ValueError: a standard deviation is not above 0, or a number is not finite.

    >>> [round(p, 6) for p in best_probabilities((0.0, 0.0), (1.0, 5.0))]
    [0.5, 0.5]
    """
    if not all(isfinite(m) and isfinite(s) and s > 0 for m, s in zip(means, sds, strict=True)):
        raise ValueError(f"means {means} and standard deviations {sds}: finite numbers, and sds above 0, are needed")
    m_A1, s_A1 = np.array(means)[:, None], np.array(sds)[:, None]
    x_N = (m_A1 + s_A1 * _Z).ravel()
    x_N.sort()
    cdf_AN: NDArray[np.float64] = ndtr((x_N - m_A1) / s_A1)
    others_AN = np.ones_like(cdf_AN)  # product of all rows but the own one, from the rows before and the rows after
    np.cumprod(cdf_AN[:-1], axis=0, out=others_AN[1:])
    others_AN[:-1] *= np.cumprod(cdf_AN[:0:-1], axis=0)[::-1]
    weights = ((cdf_AN[:, 1:] - cdf_AN[:, :-1]) * (others_AN[:, 1:] + others_AN[:, :-1])).sum(axis=1).tolist()
    total = sum(weights)
    return tuple(w / total for w in weights)


def with_floor(probabilities: Sequence[float], floor: float) -> tuple[float, ...]:
    """Probabilities mixed with the uniform distribution so that none is below the floor.

    Raises:
        ValueError: the floor leaves nothing for the best action.

    >>> with_floor((1.0, 0.0), 0.02)
    (0.98, 0.02)
    """
    free = 1 - floor * len(probabilities)
    if floor < 0 or free <= 0:
        raise ValueError(f"a floor of {floor} for {len(probabilities)} actions leaves nothing to choose")
    return tuple(floor + free * p for p in probabilities)


def normal_posterior(mean: float, n: float, sd: float, prior_n: float) -> tuple[float, float]:
    """Mean and standard deviation of the posterior of an expected reward.

    The prior is normal around 0 and weighs as much as `prior_n` outcomes; outcomes have the standard deviation `sd`.

    Args:
        mean: mean of the outcomes seen.
        n: how many they were; 0 gives the prior.
        sd: standard deviation of one outcome, above 0.
        prior_n: pseudo-count of the prior, above 0.

    >>> normal_posterior(1.0, 0, 2.0, 0.25)
    (0.0, 4.0)
    """
    weight = n + prior_n
    return mean * n / weight, float(sd / weight**0.5)
