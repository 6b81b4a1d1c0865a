"""When a learner may claim an edge: the mean of its own outcomes, costs included, is above neutral beyond doubt.

One claim for a policy, from all of its outcomes since its beginning, those of exploration among them; never one for a
cell (the best of 80 cells passes z > 2.33 on noise in 56 % of runs). The claim is about now: it holds while the lower
bound of `mean_interval` is above 0, at this number of outcomes. The bound holds at all numbers at once, so the
probability of ever claiming on outcomes of mean 0 is half of `ALPHA` at most; but the mean that a learner has earned so
far changes as it learns and as the market changes, so an old claim says nothing of today's mean and does not stand.

The variance comes from the outcomes. Many of them may be exactly 0 (neutral), and the few others all small wins: then
the loss that a position risks has not been seen yet, and the outcomes look surer than they are. So one outcome more is
reckoned with, `UNSEEN_R`: a stop that was hit. `docs/decisions/0043` holds the measurements.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import NamedTuple

from agents.algorithms.sequential import half_width, mixture_rho, two_sided

ALPHA = 0.01
"""Of the two-sided interval. Its lower half makes the claims."""
V_OPT = 500.0
"""Outcomes at which the bound is tightest."""
MIN_OUTCOMES = 100
UNSEEN_R = -1.0
"""One stop, R: the outcome that is counted without having been seen."""
RHO = mixture_rho(V_OPT, ALPHA)


class Shown(NamedTuple):
    """What outcomes show.

    Attributes:
        n: outcomes.
        mean_r: their mean, R.
        sd_r: their standard deviation, ddof 1, R.
        lower_r: anytime lower bound of the mean, R.
        smallest_r: smallest mean that n outcomes of this deviation could have shown, R.
    """

    n: int
    mean_r: float
    sd_r: float
    lower_r: float
    smallest_r: float

    @property
    def claim(self) -> bool:
        """Whether the mean is above 0."""
        return self.lower_r > 0


def shown(n: int, mean_r: float, squares: float) -> Shown | None:
    """What n outcomes show; None below `MIN_OUTCOMES`, where nothing is evaluated.

    Args:
        n: outcomes.
        mean_r: their mean, R.
        squares: sum of their squared deviations from it, R^2.
    """
    if n < MIN_OUTCOMES:
        return None
    more = n + 1
    mean = (n * mean_r + UNSEEN_R) / more
    sd = sqrt((squares + n / more * (mean_r - UNSEEN_R) ** 2) / more)
    lower = mean - sd * half_width(more, RHO, ALPHA)
    return Shown(n, mean_r, sqrt(squares / (n - 1)), lower, smallest(n, squares))


def smallest(n: int, squares: float) -> float:
    """Smallest mean, R, at which n outcomes with these squared deviations would have made the claim.

    The claim asks for sum > b x root mean square, the unseen outcome in both. With a mean of m that is a quadratic in
    m, and the larger root is the threshold.
    """
    more = n + 1
    b2 = two_sided(more, RHO, ALPHA) ** 2 / more
    a = n * n - b2 * n
    if a <= 0:
        return inf
    half = -n * UNSEEN_R
    c = UNSEEN_R**2 - b2 * (squares + UNSEEN_R**2)
    return (half + sqrt(half * half - a * c)) / a
