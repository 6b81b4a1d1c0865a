"""What a policy does in each regime: probability of every action."""

from __future__ import annotations

from agents.algorithms.network_policy import Scaling, read
from schemas.events import REGIME_SYMBOLS, PolicyRecord

PREFIX = "regime_"


def by_regime(policy: PolicyRecord) -> dict[str, dict[str, float]]:
    """Probabilities by regime and action; a regime of which it says nothing is left out.

    Of a table the cells of a regime, weighed by their outcomes. Of a network that is told the regime what it says where
    every other input is at its mean.
    """
    if policy.tabular is not None:
        return _of_table(policy)
    n = policy.network
    if n is None or not any(name.startswith(PREFIX) for name in n.inputs):
        return {}
    network = read(n.weights, n.activation, len(n.inputs), len(policy.actions))
    scaling = Scaling(means=n.means, deviations=n.deviations, clip=n.clip)
    return {regime: dict(zip(policy.actions, network.applied(scaling, tuple(
        float(name == PREFIX + regime) if name.startswith(PREFIX) else mean
        for name, mean in zip(n.inputs, n.means, strict=True))).probabilities, strict=True))
        for regime in REGIME_SYMBOLS}


def _of_table(policy: PolicyRecord) -> dict[str, dict[str, float]]:
    sums: dict[str, list[float]] = {}
    outcomes: dict[str, int] = {}
    for c in policy.tabular.cells if policy.tabular is not None else ():
        regime, n = c.state_key.partition("|")[0], sum(c.visits)
        before = sums.setdefault(regime, [0.0] * len(policy.actions))
        sums[regime] = [s + n * p for s, p in zip(before, c.probabilities, strict=False)]
        outcomes[regime] = outcomes.get(regime, 0) + n
    return {regime: dict(zip(policy.actions, [s / outcomes[regime] for s in total], strict=False))
            for regime, total in sums.items() if outcomes[regime]}


def most_probable(policy: dict[str, dict[str, float]]) -> dict[str, str]:
    """The most probable action of each regime; of equal ones the first."""
    return {regime: max(p, key=lambda action: p[action]) for regime, p in policy.items() if p}
