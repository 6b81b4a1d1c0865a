"""Policies over time as plain data: what `quantum policy list`, `diff` and `plot` print with --json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streams.policies.course import Point, as_rows
from streams.policies.difference import difference
from streams.policies.ledger import Ledger, Version, at_time, newest


def listed(ledger: Ledger, at_ms: int | None) -> dict[str, Any]:
    """Every policy with its newest version, or the one in force at an event time; schema `quantum.policies/1`."""
    held = {i: newest(vs) for i, vs in ledger.versions.items()} if at_ms is None else at_time(ledger, at_ms)
    return {"schema": "quantum.policies/1", "at_ms": at_ms, "policies": [{
        "policy_id": i, "agent": v.policy.agent, "scope": v.policy.scope, "version": v.policy.version,
        "versions": len(ledger.versions[i]), "status": v.policy.status, "reason": v.policy.reason,
        "outcomes": v.policy.outcomes, "origin": v.policy.origin, "source": v.policy.source,
        "edge_claim": v.policy.edge_claim, "valid_from_ms": v.policy.valid_from_ms,
        "valid_until_ms": v.policy.valid_until_ms, "place": v.record.place,
    } for i, v in sorted(held.items())]}


def compared(old: Version, new: Version) -> dict[str, Any]:
    """What changed between two versions; schema `quantum.policy.diff/1`."""
    ends = {name: {"policy_id": v.policy.policy_id, "version": v.policy.version, "place": v.record.place}
            for name, v in (("before", old), ("after", new))}
    return {"schema": "quantum.policy.diff/1", **ends, **difference(old.policy, new.policy).as_dict()}


def followed(policy_id: str, points: Sequence[Point]) -> dict[str, Any]:
    """A policy over event time; schema `quantum.policy.course/1`."""
    return {"schema": "quantum.policy.course/1", "policy_id": policy_id, "points": as_rows(points)}
