"""Sizes held against the rule: what a decision risks, reckoned again from the policy that it names.

The rule is that of docs/decisions/0086: of five multiples of the unit risk the one of the highest
m mu - lambda m^2 sigma^2, mu shrunk as if ten outcomes of 0 had come too and less one standard error; what no policy
chose has the configured size; risk limits clip both. No arithmetic of an agent is used; of the agent only its
configuration.
"""

from __future__ import annotations

from math import isclose, sqrt
from typing import NamedTuple

from schemas.events import Decision, PolicyRecord
from streams.log import Record
from streams.records import CE_ID, header, output_id
from streams.verify.evidence import Evidence
from streams.verify.limits import BARRED
from streams.verify.refold import first_offset
from streams.verify.said import said

DECIDER = "decision"
SIZES = (0.5, 0.75, 1.0, 1.5, 2.0)
SHRUNK_BY = 10.0  # outcomes
UNTRIED_SD = 1.0  # R, of an outcome of an action that was never tried
NEAR = 1e-9  # relative: of a size, and of the utilities of two sizes that are as good as equal


class Rule(NamedTuple):
    """What of the decider's configuration a size hangs on.

    Attributes:
        aversion: lambda, 1/R; None: every decision has the size `otherwise`.
        otherwise: size where no policy chose.
        risk_pct: loss at the stop at size 1, as a fraction of equity.
    """

    aversion: float | None
    otherwise: float
    risk_pct: float


class Estimate(NamedTuple):
    """Mean and standard deviation of an outcome, R, and outcomes that the mean rests on."""

    mean: float
    sd: float
    n: float


class Sizes:
    """The rule of the decider of a log.

    Args:
        evidence: the log; its roster has the decider as it runs. Without it nothing is said of any size.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        agent = evidence.roster.get(DECIDER)
        c = None if agent is None else agent.config
        self.rule = None if c is None else Rule(getattr(c, "aversion", None), getattr(c, "size_multiplier", 1.0),
                                                getattr(c, "risk_pct", 0.01))
        self._first: dict[int, int] = {}

    def wrong(self, record: Record, d: Decision, policy: PolicyRecord | None) -> str | None:
        """What is wrong with a decision's size, in words; None where nothing is.

        Decisions before the decider's epoch went by another rule or configuration, of which the log has the hash only.

        Args:
            policy: the version that it names; None where the ledger does not have it.
        """
        written = output_id(header(record.headers, CE_ID))
        if self.rule is None or written is None or written[0] != DECIDER:
            return None
        partition, offset = written[1], written[2]
        if partition not in self._first:
            self._first[partition] = first_offset(self._evidence, DECIDER, partition)
        return wrong_size(d, policy, self.rule) if offset >= self._first[partition] else None


def wrong_size(d: Decision, policy: PolicyRecord | None, rule: Rule) -> str | None:
    """What is wrong with a decision's size, in words; None where nothing is, or nothing can be said.

    Args:
        policy: the version that it names; None where the ledger does not have it.
    """
    cap = None if d.limits is None else d.limits.risk_per_trade / rule.risk_pct
    right = [size if cap is None else min(size, cap) for size in _sizes(d, policy, rule)]
    if not right or any(isclose(d.size_multiplier, size, rel_tol=NEAR) for size in right):
        return None
    by = f"the configuration gives {rule.otherwise:g} where no policy chose" if d.forced or rule.aversion is None \
        else f"by version {d.policy_version} it is {right[0]:g}"
    return f"{d.decision_id} has a size of {d.size_multiplier:g}, and {by}"


def _sizes(d: Decision, policy: PolicyRecord | None, rule: Rule) -> list[float]:
    """Sizes that a decision may have but for its limits; none where nothing can be said.

    Where full or closed books forced it, the record has lost what had been chosen: any size of the rule will do, as
    nothing is opened with it.
    """
    if rule.aversion is None:
        return [rule.otherwise]
    if d.forced:
        return [rule.otherwise, *(SIZES if (d.forced_reason or "").startswith(BARRED) else ())]
    return _of(estimate(d, policy), rule.aversion) if policy is not None and d.action in policy.actions else []


def _of(expected: Estimate | None, aversion: float) -> list[float]:
    return list(SIZES[:1]) if expected is None else best(expected, aversion)


def estimate(d: Decision, policy: PolicyRecord) -> Estimate | None:
    """What a version expects of a decision's action; None where it says nothing of it.

    A network's critic speaks of what the policy mostly does, so of the greedy action alone; its mean is as sure as that
    of a linear fit with as many inputs.
    """
    if policy.network is not None:
        n = policy.network
        if d.value is None or d.action != d.greedy_action:
            return None
        return Estimate(d.value, n.residual_deviation, policy.outcomes / (len(n.inputs) + 1))
    found = said(policy, d)
    if policy.tabular is None or found is None:
        return None
    cell = next(c for c in policy.tabular.cells if c.state_key == found.state_key)
    i = policy.actions.index(d.action)
    tried = cell.visits[i]
    return Estimate(cell.q[i], cell.se[i] * sqrt(tried), tried) if tried else Estimate(0.0, UNTRIED_SD, 0)


def best(expected: Estimate, aversion: float) -> list[float]:
    """The sizes of the highest utility, smallest first: one, and more only where they are as good as equal.

    >>> best(Estimate(0.2, 0.7, 90), 0.075), best(Estimate(0.0, 1.0, 0), 0.075)
    ([1.5], [0.5])
    """
    kept = expected.n / (expected.n + SHRUNK_BY)
    mu = kept * (expected.mean - expected.sd / sqrt(max(expected.n, 1.0))) if expected.n else -expected.sd
    utility = [m * mu - aversion * (m * expected.sd) ** 2 for m in SIZES]
    top = max(utility)
    slack = NEAR * max(abs(m * mu) + aversion * (m * expected.sd) ** 2 for m in SIZES)
    return [m for m, u in zip(SIZES, utility, strict=True) if top - u <= slack]
