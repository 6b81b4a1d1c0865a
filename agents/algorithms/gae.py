"""Generalised advantage estimation.

Schulman, Moritz, Levine, Jordan, Abbeel 2016, High-dimensional continuous control using generalized advantage
estimation; Pardo, Tavakoli, Levdik, Kormushev 2018, Time limits in reinforcement learning: an episode that was cut
short (truncated) is worth what would have followed, one that ended (terminated) is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def advantages(
    rewards_TN: Array,
    values_TN: Array,
    following_TN: Array,
    terminated_TN: NDArray[np.bool_],
    cut_TN: NDArray[np.bool_],
    *,
    gamma: float,
    lam: float,
) -> Array:
    """Advantage of each step, [T, N]; the return that a critic learns is advantage + value.

        delta_t = r_t + gamma V(what followed) - V(s_t),    A_t = delta_t + gamma lam A_(t+1)

    V(what followed) is 0 where the episode terminated, and A_(t+1) is 0 where the next row is not the next step. An
    episode of one step has the advantage r - V(s), whatever gamma and lam are.

    Args:
        rewards_TN: reward of each step, T steps of N streams.
        values_TN: value of the state that was acted on.
        following_TN: value of the state that followed, before any reset; ignored where terminated, so it may be
            anything there, even NaN.
        terminated_TN: the episode ended with this step.
        cut_TN: the row below is not the next step of the same episode: truncated, or a gap. The last row is cut in
            any case.
        gamma: discount of a step.
        lam: 0 trusts the critic after one step, 1 takes all rewards of the episode.
    """
    goes_on = np.where(terminated_TN, 0, gamma * following_TN)
    delta_TN = rewards_TN + goes_on - values_TN
    keep_TN = np.where(terminated_TN | cut_TN, 0, gamma * lam).astype(delta_TN.dtype)
    found_TN = np.empty_like(delta_TN)
    last_N = np.zeros_like(delta_TN[0])
    for t in range(len(delta_TN) - 1, -1, -1):
        last_N = delta_TN[t] + keep_TN[t] * last_N
        found_TN[t] = last_N
    return found_TN
