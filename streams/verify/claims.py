"""The edge that a policy claims, reckoned again from the outcomes on the log.

Nothing of the learner's arithmetic is used: sums over `learning.experience`, and the test martingale itself in place of
the bound that is solved from it. A claim is right where the martingale for a mean of 0 has passed 1 / alpha, a lower
bound where the martingale for that mean stands at 1 / alpha (`docs/decisions/0043`). Every version is held against the
outcomes up to the offset that its provenance names; a rollback takes their sums back to those of the old version, and
what comes while a policy is frozen or retired does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import isclose, log, sqrt
from typing import NamedTuple

from schemas.catalogue import AgentIO
from schemas.events import Experience, PolicyRecord
from streams.log import Record
from streams.records import ERROR, SOURCE_OFFSET, SOURCE_PARTITION, header
from streams.verify.cells import Cell
from streams.verify.evidence import Evidence

LEDGER, OUTCOMES = "policy.ledger", "learning.experience"
ALPHA, V_OPT, NEEDED, UNSEEN_R = 0.01, 500.0, 100, -1.0
RHO = V_OPT / (-2 * log(ALPHA) + log(1 - 2 * log(ALPHA)))
NEAR = 1e-6  # relative; sums in another order differ in the last digits
SHOWN = 3  # policies that a sentence names


class Sums(NamedTuple):
    """Number of outcomes, and sums of their rewards (R) and of the squares."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def and_one(self, reward_r: float) -> Sums:
        """With an outcome more."""
        return Sums(self.n + 1, self.total + reward_r, self.squares + reward_r * reward_r)


def with_claims(evidence: Evidence, io: AgentIO, cell: Cell) -> Cell:
    """The cell LEARNS with what became of the claims: FAIL where one does not follow from its outcomes.

    A cell that is a FAIL already stays as it is, and so does one whose outcomes are not there from their beginning.
    """
    partitions = evidence.topics.get(io.input_topic, ())
    if cell.state == "FAIL" or any(evidence.log.bounds(io.input_topic, p)[0] for p in partitions):
        return cell
    newest: dict[str, PolicyRecord] = {}
    for record, policy, sums in _standing(evidence, io):
        problem = wrong(policy, *sums)
        if problem is not None:
            return replace(cell, state="FAIL", place=record.place, age_s=None, why=(
                f"{policy.policy_id} version {policy.version}: {problem}"))
        newest[policy.scope] = policy
    return _told(cell, newest.values()) if newest else cell


def _standing(evidence: Evidence, io: AgentIO) -> Iterator[tuple[Record, PolicyRecord, Sums]]:
    """Each version with the sums of the outcomes that it rests on; those whose input is not there (yet) left out.

    What the agent refused lies among its dead letters and does not count.
    """
    versions: dict[tuple[int, int], list[tuple[Record, PolicyRecord]]] = {}
    for record, policy in evidence.events(LEDGER):
        if isinstance(policy, PolicyRecord) and policy.agent == io.name and policy.provenance is not None:
            p = policy.provenance
            versions.setdefault((p.input_partition, p.to_offset), []).append((record, policy))
    refused = {_place(r) for r in evidence.records(f"{OUTCOMES}.dlq") if header(r.headers, f"{ERROR}by") == io.name}
    now: dict[str, Sums | None] = {}
    at: dict[tuple[str, int], Sums | None] = {}
    status: dict[str, str] = {}
    seen: set[str] = set()
    for taken in evidence.records(io.input_topic):
        e = evidence.decoded(taken)
        if isinstance(e, Experience) and e.learnable and e.book_id == io.name and e.decision_id not in seen \
                and _source(taken) not in refused:
            seen.add(e.decision_id)
            sums = now.get(e.symbol, Sums())
            if sums is not None and status.get(e.symbol, "ACTIVE") == "ACTIVE":
                now[e.symbol] = sums.and_one(e.reward_r)
        for record, policy in versions.get((taken.partition, taken.offset), ()):
            scope = policy.scope
            if policy.restored_version is not None:
                now[scope] = at.get((scope, policy.restored_version))  # None: not on the ledger, so nothing to hold to
            held = at[scope, policy.version] = now.get(scope, Sums())
            status[scope] = policy.status
            if held is not None:
                yield record, policy, held


def _source(taken: Record) -> tuple[int, int]:
    """Partition and offset of an input record at its source."""
    partition, offset = (header(taken.headers, name) for name in (SOURCE_PARTITION, SOURCE_OFFSET))
    return (taken.partition, taken.offset) if partition is None or offset is None else (int(partition), int(offset))


def _place(dead: Record) -> tuple[int, int]:
    """Partition and offset that a dead letter was refused at."""
    return int(header(dead.headers, f"{ERROR}partition") or -1), int(header(dead.headers, f"{ERROR}offset") or -1)


def log_martingale(n: int, total: float, squares: float, mean: float) -> float:
    """Logarithm of the test martingale for a mean, the unseen loss among the outcomes; below 0 outcomes speak for less.

    Args:
        n: outcomes.
        total: their sum, R.
        squares: sum of their squares, R^2.
        mean: the mean that is tested, R.
    """
    v = n + 1
    away = total + UNSEEN_R - v * mean
    about = squares + UNSEEN_R**2 - 2 * mean * (total + UNSEEN_R) + v * mean * mean
    return 0.5 * log(RHO / (v + RHO)) + away * abs(away) / (about / v) / (2 * (v + RHO))


def wrong(policy: PolicyRecord, n: int, total: float, squares: float) -> str | None:
    """What a policy says of its edge and its outcomes do not give; None where all follows.

    Args:
        policy: the version.
        n: outcomes up to its input.
        total: their sum, R.
        squares: sum of their squares, R^2.
    """
    claim, edge, least = policy.edge_claim, policy.edge, -log(ALPHA)
    if claim is None and edge is None:
        return None
    if claim is None or edge is None or n < NEEDED:
        return f"it says edge_claim = {claim} of {n} outcomes; {NEEDED} are needed, and what the claim rests on"
    standing = log_martingale(n, total, squares, 0.0)
    if claim != (standing > least) and not isclose(standing, least, rel_tol=NEAR):
        return (f"it says edge_claim = {claim}, but of {n} outcomes with a mean of {total / n:+.3f} R the test "
                f"martingale stands at e^{standing:.1f} and {1 / ALPHA:.0f} are needed")
    sd = sqrt(max(squares - total * total / n, 0.0) / (n - 1))
    about = (n - 1) * sd * sd
    checks = (
        ("n", edge.n, n), ("mean_r", edge.mean_r, total / n), ("sd_r", edge.sd_r, sd),
        ("the martingale at lower_r", log_martingale(n, total, squares, edge.lower_r), least),
        ("the martingale at smallest_r", log_martingale(
            n, n * edge.smallest_r, about + n * edge.smallest_r**2, 0.0), least),
    )
    for name, said, is_ in checks:
        if not isclose(said, is_, rel_tol=NEAR, abs_tol=1e-9):
            return f"{name} is {said:.6g}, and by its outcomes {is_:.6g}"
    return None


def _told(cell: Cell, policies: Iterable[PolicyRecord]) -> Cell:
    """The cell with a sentence on the newest policies' claims, and their figures."""
    held = sorted(policies, key=lambda p: p.scope)
    evaluated = [(p, p.edge) for p in held if p.edge is not None]
    claims = sum(bool(p.edge_claim) for p in held)
    figures = {**cell.figures, "policies": float(len(held)), "edge_claims": float(claims)}
    for p, edge in evaluated:
        figures |= {f"edge_outcomes:{p.scope}": edge.n, f"edge_mean_r:{p.scope}": edge.mean_r,
                    f"edge_lower_r:{p.scope}": edge.lower_r, f"edge_smallest_r:{p.scope}": edge.smallest_r}
    if not evaluated:
        told = f"no edge evaluated, {NEEDED} outcomes are needed"
    else:
        named = ", ".join(f"{p.scope} {edge.smallest_r:.3f} R in {edge.n}" for p, edge in evaluated[:SHOWN])
        more = f" and {len(evaluated) - SHOWN} more" if len(evaluated) > SHOWN else ""
        told = f"{claims} of {len(held)} policies claim an edge, as their outcomes give; smallest mean that n " \
               f"outcomes could have shown: {named}{more}"
    return replace(cell, why=f"{cell.why}; {told}", figures=figures)
