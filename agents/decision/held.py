"""What the actor keeps of a policy, and which of the kept ones is in force at a time."""

from __future__ import annotations

import math
from bisect import bisect_right

import msgspec

from agents.contract import Refused
from agents.decision.networks import HeldNetwork, held_network
from schemas.events import REGIME_SYMBOLS, STRATEGY_SYMBOLS, PolicyRecord, PolicyStatus, Strategy, Tabular

SUM_TOLERANCE = 1e-9


class HeldCell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell of a held policy: what is drawn from, and what a size is chosen by, for each action.

    Attributes:
        means: estimated results, R.
        errors: their standard errors, R.
        outcomes: seen of each.
    """

    state_key: str
    probabilities: tuple[float, ...]
    greedy: Strategy
    means: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    outcomes: tuple[int, ...] = ()


class HeldPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a policy record that decides: cells or a network. A RETIRED record has neither."""

    policy_id: str
    version: int
    valid_from_ms: int
    valid_until_ms: int | None
    fallback: Strategy
    status: PolicyStatus
    actions: tuple[Strategy, ...]
    volatility_edges: tuple[float, ...]
    cells: tuple[HeldCell, ...]
    network: HeldNetwork | None = None
    outcomes: int = 0

    def cell(self, regime: str, volatility: float) -> HeldCell:
        """The cell of a regime and a volatility; `held` has made sure that there is one."""
        key = f"{regime}|vol:{bisect_right(self.volatility_edges, volatility)}"
        return next(c for c in self.cells if c.state_key == key)


def held(record: PolicyRecord) -> HeldPolicy:
    """What to keep of a record.

    Raises:
        Refused: UNUSABLE_POLICY, with what about it cannot be applied.
    """
    fallback = _strategy(record, record.fallback)
    actions = tuple(_strategy(record, a) for a in record.actions)
    edges: tuple[float, ...] = ()
    cells: tuple[HeldCell, ...] = ()
    network: HeldNetwork | None = None
    if record.status != "RETIRED" and record.network is not None:
        try:
            network = held_network(record.network, len(actions))
        except ValueError as exc:
            raise _unusable(record, f"has a network that cannot be applied: {exc}") from exc
    elif record.status != "RETIRED":
        if record.tabular is None:
            raise _unusable(record, "has neither cells nor a network")
        if record.mask:
            raise _unusable(record, f"drops dimensions {record.mask}, which its cells are found by")
        edges = record.tabular.volatility_edges
        cells = _cells(record, record.tabular, len(actions))
    return HeldPolicy(
        policy_id=record.policy_id, version=record.version, valid_from_ms=record.valid_from_ms,
        valid_until_ms=record.valid_until_ms, fallback=fallback, status=record.status, actions=actions,
        volatility_edges=edges, cells=cells, network=network,
        outcomes=record.outcomes,
    )


def _cells(record: PolicyRecord, table: Tabular, n_actions: int) -> tuple[HeldCell, ...]:
    if list(table.volatility_edges) != sorted(table.volatility_edges):
        raise _unusable(record, "has volatility edges out of order")
    keys = [c.state_key for c in table.cells]
    buckets = len(table.volatility_edges) + 1
    expected = {f"{r}|vol:{b}" for r in REGIME_SYMBOLS for b in range(buckets)}
    if set(keys) != expected or len(keys) != len(expected):
        raise _unusable(record, f"has the cells {keys}, not one for every regime and bucket")
    cells = []
    for c in table.cells:
        p = c.probabilities
        if len(p) != n_actions or min(p, default=-1.0) < 0 or not math.isclose(sum(p), 1, abs_tol=SUM_TOLERANCE):
            raise _unusable(record, f"draws from {p} in {c.state_key}, not {n_actions} probabilities of sum 1")
        if not len(c.q) == len(c.se) == len(c.visits) == n_actions or not all(map(math.isfinite, (*c.q, *c.se))):
            raise _unusable(record, f"has no estimate of every action in {c.state_key}")
        cells.append(HeldCell(state_key=c.state_key, probabilities=p, greedy=_strategy(record, c.greedy), means=c.q,
                              errors=c.se, outcomes=c.visits))
    return tuple(cells)


def _strategy(record: PolicyRecord, name: str) -> Strategy:
    for strategy in STRATEGY_SYMBOLS:
        if strategy == name:
            return strategy
    raise _unusable(record, f"names the action {name!r}; known are {STRATEGY_SYMBOLS}")


def _unusable(record: PolicyRecord, what: str) -> Refused:
    return Refused("UNUSABLE_POLICY", f"{record.policy_id} version {record.version} {what}")


def taken(policies: tuple[HeldPolicy, ...], new: HeldPolicy, decided_ms: int, limit: int) -> tuple[HeldPolicy, ...]:
    """The kept policies, in order of version and of valid_from, with a newer version added.

    A version that holds from the same time as an older one, or from before it, takes its whole place.
    """
    kept = tuple(p for p in policies if p.valid_from_ms < new.valid_from_ms)
    return needed((*kept, new), decided_ms)[-limit:]


def needed(policies: tuple[HeldPolicy, ...], decided_ms: int) -> tuple[HeldPolicy, ...]:
    """The policies that a decision after `decided_ms` may still use: the one in force then, and those to come."""
    first = max(bisect_right(policies, decided_ms, key=lambda p: p.valid_from_ms) - 1, 0)
    return policies[first:]


def in_force(policies: tuple[HeldPolicy, ...], ts_ms: int) -> HeldPolicy | None:
    """The newest policy that decisions at `ts_ms` may apply."""
    i = bisect_right(policies, ts_ms, key=lambda p: p.valid_from_ms)
    return policies[i - 1] if i else None
