"""What changed between two versions of a policy: its envelope, its greedy actions, every cell and action that moved."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import msgspec

from schemas.events import Cell, PolicyRecord

ENVELOPE = ("policy_id", "version", "status", "reason", "outcomes", "ts_ms", "valid_from_ms", "valid_until_ms",
            "fallback", "mask", "actions", "edge_claim", "edge", "source", "origin", "provenance")


class Field(NamedTuple):
    """A field of the envelope that changed; nested ones by their path."""

    name: str
    before: Any
    after: Any


class Flip(NamedTuple):
    """A cell whose greedy action changed."""

    state_key: str
    before: str
    after: str


@dataclass(frozen=True)
class Move:
    """An action of a cell whose numbers changed; None where a version has no such cell or action.

    Attributes:
        q_before, q_after: estimates, R.
        p_before, p_after: probabilities of being drawn.
        visits_before, visits_after: outcomes.
    """

    state_key: str
    action: str
    q_before: float | None
    q_after: float | None
    p_before: float | None
    p_after: float | None
    visits_before: int | None
    visits_after: int | None

    @property
    def size(self) -> tuple[float, float]:
        """Change of probability, which is what decisions feel, then of the estimate."""
        return abs((self.p_after or 0.0) - (self.p_before or 0.0)), abs((self.q_after or 0.0) - (self.q_before or 0.0))


@dataclass(frozen=True)
class Difference:
    """All that differs.

    Attributes:
        moves: the largest first.
        cells: cells of either version.
    """

    fields: tuple[Field, ...]
    flips: tuple[Flip, ...]
    moves: tuple[Move, ...]
    cells: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"fields": {f.name: {"before": f.before, "after": f.after} for f in self.fields},
                "greedy_flips": [f._asdict() for f in self.flips], "moves": [asdict(m) for m in self.moves],
                "cells": self.cells}


def difference(before: PolicyRecord, after: PolicyRecord) -> Difference:
    """What changed from one version to another; they may be of two policies."""
    old, new = _cells(before), _cells(after)
    keys = list(dict.fromkeys((*old, *new)))
    flips = [Flip(k, old[k].greedy, new[k].greedy) for k in keys
             if k in old and k in new and old[k].greedy != new[k].greedy]
    moves = []
    for k in keys:
        for action in dict.fromkeys((*before.actions, *after.actions)):
            a, b = _numbers(before, old.get(k), action), _numbers(after, new.get(k), action)
            if a != b:
                moves.append(Move(k, action, a[0], b[0], a[1], b[1], a[2], b[2]))
    moves.sort(key=lambda m: m.size, reverse=True)
    return Difference(tuple(_fields(before, after)), tuple(flips), tuple(moves), len(keys))


def _cells(policy: PolicyRecord) -> dict[str, Cell]:
    return {c.state_key: c for c in (policy.tabular.cells if policy.tabular is not None else ())}


def _numbers(policy: PolicyRecord, cell: Cell | None,
             action: str) -> tuple[float | None, float | None, int | None]:
    if cell is None or action not in policy.actions:
        return None, None, None
    i = policy.actions.index(action)
    return cell.q[i], cell.probabilities[i], cell.visits[i]


def _fields(before: PolicyRecord, after: PolicyRecord) -> list[Field]:
    a, b = _flat(before), _flat(after)
    return [Field(name, a.get(name), b.get(name)) for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name)]


def _flat(policy: PolicyRecord) -> dict[str, Any]:
    plain = msgspec.to_builtins(policy)
    flat: dict[str, Any] = {}
    for name in (*ENVELOPE, *(f for f in plain if f not in (*ENVELOPE, "tabular", "agent", "scope"))):
        value = plain[name]
        if name == "network" and value is not None:
            value = {k: v for k, v in value.items() if k != "weights"}  # their hash speaks for them
        if isinstance(value, dict):
            flat |= {f"{name}.{k}": v for k, v in value.items()}
        else:
            flat[name] = value
    flat["volatility_edges"] = None if policy.tabular is None else list(policy.tabular.volatility_edges)
    return flat
