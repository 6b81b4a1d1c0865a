"""Which inputs are used, and on what scale."""

from __future__ import annotations

from math import sqrt

import numpy as np
from msgspec.structs import replace

from agents.algorithms.moments import Moments
from agents.algorithms.network_policy import Scaling
from agents.algorithms.observation import NAMES, Observation
from agents.meta_strategy.state import MetaState

REGIMES = tuple(i for i, name in enumerate(NAMES) if name.startswith("regime_"))
REGIME_MEAN, REGIME_DEVIATION = 0.25, 0.05
"""Scale of the four inputs of the regime, which are 0 or 1. The mean is that of four regimes equally often: the first
decisions see one regime or two, and their mean would say that the others never come. The deviation is an eighth of
theirs, so that the regime weighs more than the thirteen inputs beside it; `docs/decisions/0085` has what that brings.
"""
CONSTANT = 1e-12  # variance of an input that has not moved yet: it is left on its own scale


def seen(state: MetaState, observation: Observation | None) -> MetaState:
    """A state seen. Before the first version an absent input is dropped, later the state is passed over."""
    if observation is None:
        return state
    there = tuple([i for i in state.kept if observation[i] is not None])
    if len(there) < len(state.kept):
        if state.version:
            return state
        places = [state.kept.index(i) for i in there]
        state = replace(state, kept=there, means=tuple([state.means[p] for p in places]),
                        variances=tuple([state.variances[p] for p in places]))
    row_1F = np.array([[observation[i] for i in state.kept]], np.float64)
    after = Moments(np.array(state.means), np.array(state.variances), state.states).seen(row_1F)
    return replace(state, states=after.n, means=tuple(after.mean.tolist()), variances=tuple(after.variance.tolist()))


def scaling(state: MetaState) -> Scaling:
    """What the states seen so far say of the scale of the inputs."""
    means, deviations = [], []
    for place, mean, variance in zip(state.kept, state.means, state.variances, strict=True):
        regime = place in REGIMES
        means.append(REGIME_MEAN if regime else mean)
        deviations.append(REGIME_DEVIATION if regime else sqrt(variance) if variance > CONSTANT else 1.0)
    return Scaling(means=tuple(means), deviations=tuple(deviations))


def names(state: MetaState) -> tuple[str, ...]:
    """Names of the inputs that are used, in their order."""
    return tuple([NAMES[i] for i in state.kept])


def mask(state: MetaState) -> tuple[str, ...]:
    """Names of those that are not."""
    return tuple([name for i, name in enumerate(NAMES) if i not in state.kept])
