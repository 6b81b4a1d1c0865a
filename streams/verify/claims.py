"""The edge that a policy claims, reckoned again from the outcomes on the log.

Nothing of the learner's arithmetic is used: sums over `learning.experience`, and the test martingale itself in place of
the bound that is solved from it. A claim is right where the martingale for a mean of 0 has passed 1 / alpha, a lower
bound where the martingale for that mean stands at 1 / alpha (`docs/decisions/0043`). Every version is held against the
outcomes up to the offset that its provenance names.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import isclose, log, sqrt

from schemas.catalogue import AgentIO
from schemas.events import Experience, PolicyRecord
from streams.log import Record
from streams.records import ERROR, header
from streams.verify.cells import Cell
from streams.verify.evidence import Evidence

LEDGER, OUTCOMES = "policy.ledger", "learning.experience"
ALPHA, V_OPT, NEEDED, UNSEEN_R = 0.01, 500.0, 100, -1.0
RHO = V_OPT / (-2 * log(ALPHA) + log(1 - 2 * log(ALPHA)))
NEAR = 1e-6  # relative; sums in another order differ in the last digits
SHOWN = 3  # policies that a sentence names


@dataclass
class Sums:
    """Outcomes of one learner and scope in one partition: offsets, and sums of rewards and of squares up to each."""

    offsets: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)

    def add(self, offset: int, reward_r: float) -> None:
        """An outcome more."""
        last, last2 = (self.sums[-1], self.squares[-1]) if self.sums else (0.0, 0.0)
        self.offsets.append(offset)
        self.sums.append(last + reward_r)
        self.squares.append(last2 + reward_r * reward_r)

    def upto(self, offset: int) -> tuple[int, float, float]:
        """Number, sum and sum of squares of the outcomes up to an offset, inclusive."""
        n = bisect_right(self.offsets, offset)
        return (n, self.sums[n - 1], self.squares[n - 1]) if n else (0, 0.0, 0.0)


def with_claims(evidence: Evidence, io: AgentIO, cell: Cell) -> Cell:
    """The cell LEARNS with what became of the claims: FAIL where one does not follow from its outcomes.

    A cell that is a FAIL already stays as it is, and so does one whose outcomes are not there from their beginning.
    """
    if cell.state == "FAIL" or any(evidence.log.bounds(OUTCOMES, p)[0] for p in evidence.topics.get(OUTCOMES, ())):
        return cell
    outcomes, read = _outcomes(evidence, io.name), {r.partition: r.offset for r, _ in evidence.events(OUTCOMES)}
    newest: dict[str, PolicyRecord] = {}
    for record, policy in evidence.events(LEDGER):
        if not isinstance(policy, PolicyRecord) or policy.agent != io.name or policy.provenance is None:
            continue
        p = policy.provenance
        if p.to_offset > read.get(p.input_partition, -1):
            continue  # the run went on while the log was read; LEARNS says so where the input is not there at all
        n, total, squares = outcomes.get((p.input_partition, policy.scope), Sums()).upto(p.to_offset)
        problem = wrong(policy, n, total, squares)
        if problem is not None:
            return replace(cell, state="FAIL", place=record.place, age_s=None, why=(
                f"{policy.policy_id} version {policy.version}: {problem}"))
        newest[policy.scope] = policy
    return _told(cell, newest.values()) if newest else cell


def _outcomes(evidence: Evidence, name: str) -> dict[tuple[int, str], Sums]:
    """Outcomes that a learner had to learn from; what it refused lies among its dead letters and is left out."""
    refused = {_place(r) for r in evidence.records(f"{OUTCOMES}.dlq")
               if header(r.headers, f"{ERROR}by") == name}
    found: dict[tuple[int, str], Sums] = {}
    seen: set[str] = set()
    for record, e in evidence.events(OUTCOMES):
        if isinstance(e, Experience) and e.learnable and e.book_id == name and e.decision_id not in seen \
                and (record.partition, record.offset) not in refused:
            seen.add(e.decision_id)
            found.setdefault((record.partition, e.symbol), Sums()).add(record.offset, e.reward_r)
    return found


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
