"""Gain of every version of a policy, where its symbol is a control whose key is on the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.algorithms.mlp import output
from agents.algorithms.network_policy import Scaling, read
from agents.algorithms.observation import NAMES
from schemas.events import REGIME_SYMBOLS, ControlReveal, Event, Experience, PolicyRecord
from streams.calibrated import Table, generator, table
from streams.gains import gain_of_actions
from streams.policies.ledger import Version

MEASURED = ("PLANTED", "REVERSED")  # kinds on which something can be gained
REVEAL, OUTCOMES = "control.reveal", "learning.experience"


def greedy_actions(policy: PolicyRecord, states_N20: NDArray[np.float64]) -> NDArray[np.intp]:
    """Place of the action that a network holds best in each state; its inputs must all be there.

    Args:
        states_N20: in the order of `observation.NAMES`.
    """
    n = policy.network
    assert n is not None
    network = read(n.weights, n.activation, len(n.inputs), len(policy.actions))
    places = [NAMES.index(name) for name in n.inputs]
    x_NF = Scaling(means=n.means, deviations=n.deviations, clip=n.clip).scaled(states_N20[:, places])
    return output(network.actor, network.actor_layers, x_NF.astype(np.float32)).argmax(axis=1)


def kind_of(reveals: Iterable[Event | None], symbol: str) -> str | None:
    """Kind of the control that a symbol is by the newest key; None where it is none, or nothing can be gained there.

    A key of another version of the generator says nothing of the tables here.
    """
    kinds = {c.symbol: c.kind if key.generator == generator() else None
             for key in reveals if isinstance(key, ControlReveal) for c in key.controls}
    found = kinds.get(symbol)
    return found if found in MEASURED else None


def gains(versions: Sequence[Version], kind: str, outcomes: Iterable[Event | None]) -> dict[int, float]:
    """Gain of each version on the calibrated table of a control.

    Args:
        versions: of one policy.
        kind: of the control.
        outcomes: on the log; a network is asked in the states of those that its agent learned from there. One that does
            not choose a strategy in such a state has no gain.
    """
    made = table(kind.lower())
    networks = [v.policy for v in versions if v.policy.network is not None and set(v.policy.network.inputs) <= {*NAMES}]
    found = _of_tables(made, [v.policy for v in versions if v.policy.tabular is not None])
    if not networks:
        return found
    agent, symbol = networks[0].agent, networks[0].scope
    seen = [e for e in outcomes if isinstance(e, Experience) and e.symbol == symbol and e.book_id == agent
            and e.learnable and e.observation is not None and len(e.observation) == len(NAMES)]
    states = np.array([[np.nan if x is None else x for x in e.observation or ()] for e in seen]).reshape(-1, len(NAMES))
    for p in networks:
        assert p.network is not None
        whole = ~np.isnan(states[:, [NAMES.index(name) for name in p.network.inputs]]).any(axis=1)
        rows = [e for e, there in zip(seen, whole, strict=True) if there]
        actions = greedy_actions(p, states[whole]).tolist() if rows else []
        gain = gain_of_actions(made, [(REGIME_SYMBOLS.index(e.regime), e.volatility, a)
                                      for e, a in zip(rows, actions, strict=True)])
        if gain is not None:
            found[p.version] = gain.gain
    return found


def _of_tables(made: Table, policies: Sequence[PolicyRecord]) -> dict[int, float]:
    """A table's gain changes only where an edge or a greedy action does."""
    known: dict[object, float] = {}
    found = {}
    for p in policies:
        assert p.tabular is not None
        key = p.tabular.volatility_edges, tuple((c.state_key, c.greedy) for c in p.tabular.cells)
        if key not in known:
            known[key] = made.gain_of_policy(p)
        found[p.version] = known[key]
    return found
