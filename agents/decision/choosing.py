"""What a policy chooses in a state, and what is written down where it may not choose."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from agents.algorithms.counter import choose, uniform
from agents.algorithms.observation import Observation
from agents.algorithms.sizing import SIZES, best_size, cautious_mean
from agents.decision.held import HeldCell, HeldPolicy
from agents.decision.networks import HeldNetwork, Weights
from schemas.events import Strategy

PRIOR_DEVIATION = 1.0  # R, of an outcome before any was seen


class Expected(NamedTuple):
    """The result of an action: estimate and standard deviation of one outcome, R; outcomes that the estimate rests on.
    """

    mean: float
    deviation: float
    n: float


class Choice(NamedTuple):
    """An action, and what it was drawn from.

    Attributes:
        greedy: the action that the policy holds best.
        propensity: probability of the action.
        state_key: the policy's cell; None where it has none.
        log_probability: logarithm of the propensity, where a network gave it.
        value: what its critic expects, R.
        expected: what the size is chosen by; None where nothing is known of the action.
    """

    action: Strategy
    greedy: Strategy
    propensity: float
    state_key: str | None
    log_probability: float | None = None
    value: float | None = None
    expected: Expected | None = None


def chosen(policy: HeldPolicy, regime: str, volatility: float, observation: Observation, weights: Weights, seed: int,
           decision_id: str) -> Choice | None:
    """The policy's choice; None where a number that it needs is absent.

    Args:
        policy: may decide; with cells or a network.
        weights: of all networks held.
        seed: with the decision's id it decides what is drawn.
    """
    u = uniform(seed, "decision", decision_id)
    if policy.network is None:
        cell = policy.cell(regime, volatility)
        i = choose(cell.probabilities, u)
        return Choice(policy.actions[i], cell.greedy, cell.probabilities[i], cell.state_key,
                      expected=_of_cell(cell, i))
    found = policy.network.applied(weights[policy.policy_id, policy.version], observation, len(policy.actions))
    if found is None:
        return None
    i = choose(found.probabilities, u)
    return Choice(policy.actions[i], policy.actions[found.greedy], min(found.probabilities[i], 1.0), None,
                  min(found.log_probabilities[i], 0.0), found.value,
                  _of_network(policy, policy.network, found.value) if i == found.greedy else None)


def _of_cell(cell: HeldCell, i: int) -> Expected:
    """The cell's estimate of the action. The error of one that was never tried is its prior's, and of no use here."""
    n = cell.outcomes[i] if cell.outcomes else 0
    return Expected(cell.means[i], cell.errors[i] * sqrt(n), n) if n else Expected(0.0, PRIOR_DEVIATION, 0)


def _of_network(policy: HeldPolicy, network: HeldNetwork, value: float) -> Expected:
    """What the critic expects of the greedy action, which is most of what the policy does.

    A fit of p coefficients knows its values as well as a mean of n / p outcomes, on average over its own data (the mean
    leverage of least squares; Hastie, Tibshirani, Friedman 2009, section 7.6); a network is taken for a linear fit.
    """
    return Expected(value, network.deviation, policy.outcomes / (len(network.kept) + 1))


def size_of(expected: Expected | None, aversion: float) -> float:
    """The multiple of the unit risk; the smallest where nothing is known of the action."""
    if expected is None:
        return SIZES[0]
    mean = cautious_mean(*expected)
    return best_size(mean, expected.deviation, aversion)


def fallen_back(policy: HeldPolicy | None, action: Strategy, regime: str, volatility: float) -> Choice:
    """The action that is taken where no policy may choose; the cell is named where there is one."""
    key = policy.cell(regime, volatility).state_key if policy is not None and policy.cells else None
    return Choice(action, action, 1.0, key)
