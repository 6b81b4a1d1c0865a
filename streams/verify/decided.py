"""Decisions held against the policy that they name: cell, greedy action, propensity, size, version, the draw itself.

A decision says what it drew from. The policy is on the ledger, so each word of that can be looked up; and over many
decisions the actions must fall as often as their propensities say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import log, sqrt

from schemas.events import Decision, PolicyRecord
from streams.log import Record
from streams.verify.evidence import Evidence
from streams.verify.said import contradiction, said
from streams.verify.sized import Sizes

FROZEN = 20
"""Decisions in a row by one version, and newer ones on the ledger before the first of them, that make it a frozen one.
A relay that starts again copies its topics side by side, so some decisions may miss some versions."""
CHANCE = 1e-9
"""Probability, by Freedman's inequality (1975), beyond which an excess is no chance. It holds for draws whose
probabilities hang on the earlier ones, looked at as often as one likes; a normal bound does not where the sum is small:
at five standard deviations one honest run of 1,000 was red."""

Decided = tuple[Record, Decision]


def wrong(evidence: Evidence, name: str) -> list[tuple[str, Record]]:
    """What speaks against the decisions of a learner's policies, each with its record.

    Args:
        evidence: the log.
        name: the agent that wrote the policies.
    """
    policies = {(e.policy_id, e.version): (r, e) for r, e in evidence.events("policy.ledger")
                if isinstance(e, PolicyRecord) and e.agent == name}
    found: list[tuple[str, Record]] = []
    sizes = Sizes(evidence)
    by_symbol: dict[str, list[Decided]] = defaultdict(list)
    for record, d in evidence.events("rl.meta.strategy_selected"):
        if not isinstance(d, Decision) or d.decider != name or not evidence.covers(record):
            continue
        _, policy = policies.get((d.policy_id or "", d.policy_version or 0), (None, None))
        if d.forced:
            why = sizes.wrong(record, d, policy)
        elif policy is None:
            continue  # where it is acknowledged, that is held against the ledger too
        else:
            by_symbol[d.symbol].append((record, d))
            why = contradiction(d, policy) or sizes.wrong(record, d, policy)
        if why is not None:
            found.append((why, record))
    for decisions in by_symbol.values():
        decisions.sort(key=lambda pair: pair[1].ts_ms)
        why = frozen(decisions, policies)
        if why is not None:
            found.append((why, decisions[-1][0]))
    every = [pair for decisions in by_symbol.values() for pair in decisions]
    why = biased(every, policies)
    return found if why is None else [*found, (why, every[-1][0])]


def frozen(decisions: Sequence[Decided], policies: Mapping[tuple[str, int], tuple[Record, PolicyRecord]]) -> str | None:
    """Whether the last decisions of a symbol all go by one version, although newer ones were there; in words.

    Args:
        decisions: of one symbol, in order of event time, unforced.
        policies: of the ledger, by policy and version.
    """
    last = decisions[-FROZEN:]
    if len(last) < FROZEN or len({(d.policy_id, d.policy_version) for _, d in last}) > 1:
        return None
    record, first = last[0]
    newer = [p.version for (policy_id, version), (r, p) in policies.items()
             if policy_id == first.policy_id and version > (first.policy_version or 0)
             and p.valid_from_ms <= first.ts_ms and (r.timestamp_ms or 0) < (record.timestamp_ms or 0)]
    if len(newer) < FROZEN:
        return None
    return (f"the last {FROZEN} decisions of {first.symbol} go by version {first.policy_version}, and version "
            f"{max(newer)} was on the ledger before the first of them")


def biased(decisions: Sequence[Decided], policies: Mapping[tuple[str, int], tuple[Record, PolicyRecord]]) -> str | None:
    """Whether an action falls too often or too seldom for the probabilities that were published; in words."""
    fallen: dict[str, float] = {}
    variance: dict[str, float] = {}
    for _, d in decisions:
        found = policies.get((d.policy_id or "", d.policy_version or 0))
        says = None if found is None else said(found[1], d)
        if found is None or says is None:
            continue
        for action, p in zip(found[1].actions, says.probabilities, strict=False):
            fallen[action] = fallen.get(action, 0.0) + (d.action == action) - p
            variance[action] = variance.get(action, 0.0) + p * (1 - p)
    for action, excess in fallen.items():
        if beyond_chance(excess, variance[action]):
            return (f"{action} was taken {abs(excess):.0f} times {'more' if excess > 0 else 'less'} than its published "
                    f"probabilities give, which is {abs(excess) / sqrt(variance[action]):.1f} standard deviations")
    return None


def beyond_chance(excess: float, variance: float) -> bool:
    """Whether a sum of draws minus their probabilities, of this variance in all, is no chance.

    Source: Freedman, On tail probabilities for martingales, 1975, for steps of at most 1.
    """
    return excess ** 2 / (2 * (variance + abs(excess) / 3)) > -log(CHANCE)
