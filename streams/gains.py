"""Gain of what was done in states that were seen, on a calibrated table.

A network sees more of a state than the cell it falls into, so no map from cells to actions says what it does: its
actions in many states do. Each state counts by the mean that its regime and volatility have on the table, never by the
outcome that came of it; cells count as they do there, those without a state are left out on all sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from streams.laboratory import PARTITION, Table

BUCKETS = 3  # of volatility in the state of the oracle, as the Q-learner has them


class Gain(NamedTuple):
    """What was done, on a table.

    Attributes:
        gain: share of the way from blind choice to the oracle.
        value: mean of a decision, R.
        blind: as if every action were drawn alike, R.
        oracle: as the best map from regime and volatility tercile does, R.
        states: that it rests on.
    """

    gain: float
    value: float
    blind: float
    oracle: float
    states: int


def gain_of_actions(made: Table, done: Iterable[tuple[int, float, int]]) -> Gain | None:
    """Gain of actions; None without any.

    Args:
        made: the table of the market.
        done: of each state the regime's place in `REGIME_SYMBOLS`, volatility_30, the action's place in `STRATEGIES`.
    """
    count = np.zeros_like(made.mean)
    for regime, volatility, action in done:
        count[regime, np.searchsorted(made.edges, volatility, side="right"), action] += 1
    states = count.sum(axis=2)
    if not states.any():
        return None
    weight = np.where(states > 0, made.weight, 0.0)
    weight /= weight.sum()
    shares = count / np.maximum(states, 1)[..., None]
    value = float((weight * (made.mean * shares).sum(axis=2)).sum())
    blind = float((weight * made.mean.mean(axis=2)).sum())
    best = made.oracle(made.edges[PARTITION // BUCKETS - 1::PARTITION // BUCKETS].tolist())
    oracle = sum(float(weight[g, k] * made.mean[g, k, best[g, k * BUCKETS // PARTITION]])
                 for g in range(len(weight)) for k in range(PARTITION))
    return Gain((value - blind) / (oracle - blind), value, blind, oracle, int(states.sum()))
