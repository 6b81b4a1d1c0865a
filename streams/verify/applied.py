"""APPLIED: how many decisions a policy changed, held against the decisions and the trades themselves.

A decision is changed where what was executed is what the policy recommended, and not what would have been done without
it. An acknowledgement is a claim of the applier, so each is held against the decision it names and, where it says that
a position was taken, against the trade.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import log1p

from schemas.events import Decision, PolicyApplied, PolicyRecord, TradeClosed
from streams.log import Record
from streams.verify import decided, obeyed
from streams.verify.cells import Cell, State, cell
from streams.verify.evidence import Evidence
from streams.verify.limits import BARRED
from streams.verify.said import said

NEEDED = 20
"""Decisions under a policy before anything is said of them."""
ENOUGH = 300
"""Decisions that are enough for a FAIL where none was changed, whatever the policies drew from: an exploration floor
of 2 % for each of three strategies, half of them with a signal, leaves all 300 unchanged in 1 of 10,000 runs."""
CHANCE = 1e-3
"""Probability of so few changes, by the published probabilities, below which fewer decisions are enough."""


@dataclass
class Count:
    """What was counted.

    Attributes:
        due: decisions taken while a policy of theirs was in force, less those that a command forced.
        commanded: decisions that a command forced.
        named: of these, those that name it.
        applied: those that were acknowledged, within `since`.
        changed: executed as recommended, not as without the policy.
        log_chance: logarithm of the probability that none of `applied` would be changed.
        wrong: what contradicts an acknowledgement, with its record.
        last: newest acknowledgement of a change, else the newest of all.
    """

    due: int = 0
    commanded: int = 0
    named: int = 0
    applied: int = 0
    changed: int = 0
    log_chance: float = 0.0
    wrong: list[tuple[str, Record]] = field(default_factory=list)
    last: Record | None = None


def applied(evidence: Evidence, name: str) -> Cell:
    """The cell APPLIED of an agent that writes policies."""
    count = _count(evidence, name)
    count.wrong += decided.wrong(evidence, name)
    figures: dict[str, float] = {"due": count.due, "named": count.named, "applied": count.applied,
                                 "changed": count.changed, "commanded": count.commanded}
    silent = _silent(count)
    if silent is not None:
        state, why = silent
        return cell(state, why, None, None, **figures)
    now_ms, said = evidence.now_ms, f"changed {count.changed} of {count.applied} decisions{_by_command(count)}"
    if count.wrong:
        why, record = count.wrong[0]
        more = f" (and {len(count.wrong) - 1} more)" if len(count.wrong) > 1 else ""
        return cell("FAIL", f"{said}, but {why}{more}", record, now_ms, **figures)
    if not count.changed and (count.applied >= ENOUGH or (count.applied >= NEEDED and
                                                          count.log_chance < log1p(CHANCE - 1))):
        return cell("FAIL", f"{said}: the policies have no influence", count.last, now_ms, **figures)
    if not count.changed:
        return cell("NOT PROVEN", f"{said} ({count.applied}/{ENOUGH})", count.last, now_ms, **figures)
    if count.applied < NEEDED:
        return cell("NOT PROVEN", f"{said} ({count.applied}/{NEEDED})", count.last, now_ms, **figures)
    return cell("PASS", f"{said}; each acknowledgement met its decision, each change its trade", count.last, now_ms,
                **figures)


def _silent(count: Count) -> tuple[State, str] | None:
    """State and sentence where nothing was acknowledged that could be wrong; None where something was."""
    if count.wrong or count.applied:
        return None
    if not count.due:
        return "NOT PROVEN", f"no decision was taken while a policy was in force (0/{NEEDED}){_by_command(count)}"
    if count.due >= NEEDED and not count.named:
        return "FAIL", f"a policy was in force at {count.due} decisions, and none used it"
    if count.named >= NEEDED:
        return "FAIL", f"{count.named} decisions name a policy, and nobody says that one was executed"
    return "NOT PROVEN", f"no decision under a policy was acknowledged ({count.named}/{NEEDED})"


def _by_command(count: Count) -> str:
    return f"; commands forced {count.commanded} more" if count.commanded else ""


def _count(evidence: Evidence, name: str) -> Count:
    count = Count()
    acks = [(r, e) for r, e in evidence.events("policy.applied")
            if isinstance(e, PolicyApplied) and e.policy_id.partition("/")[0] == name]
    trades = {e.decision_id: e for _, e in evidence.events("execution.trade.closed") if isinstance(e, TradeClosed)}
    decisions = {e.decision_id: (r, e) for r, e in evidence.events("rl.meta.strategy_selected")
                 if isinstance(e, Decision) and e.decider == name}
    policies = {(e.policy_id, e.version): e for _, e in evidence.events("policy.ledger")
                if isinstance(e, PolicyRecord) and e.agent == name}
    first: dict[str, int] = {}
    for p in policies.values():
        first[p.scope] = min(first.get(p.scope, p.valid_from_ms), p.valid_from_ms)
    for record, decision in decisions.values():
        if (decision.forced_reason or "").startswith(BARRED):
            continue  # the risk limits let it open nothing: their own row holds that against them
        if evidence.covers(record) and decision.ts_ms >= first.get(decision.symbol, 2**62):
            commanded = decision.forced_reason in obeyed.BY_COMMAND
            count.commanded += commanded
            count.due += not commanded
            count.named += not commanded and decision.policy_id is not None
    count.wrong += obeyed.disobedient(evidence, decisions, policies)
    told: dict[str, int] = defaultdict(int)
    for record, ack in acks:
        if not evidence.reached(record):
            continue
        told[ack.symbol] = max(told[ack.symbol], ack.ts_ms)
    for record, ack in acks:
        if not evidence.covers(record):
            continue
        found = decisions.get(ack.decision_id)
        why = _contradiction(ack, found and found[1], policies, trades, told[ack.symbol])
        if why is not None:
            count.wrong.append((why, record))
            continue
        assert found is not None
        _add(count, record, ack, found[1], policies[ack.policy_id, ack.policy_version])
    return count


def _add(count: Count, record: Record, ack: PolicyApplied, decision: Decision, policy: PolicyRecord) -> None:
    if decision.forced:
        return
    count.applied += 1
    changed = _changed(ack)
    if changed or not count.changed:
        count.last = record
    count.changed += changed
    if ack.executed_action != "none":
        count.log_chance += log1p(-min(_to_change(decision, policy), 1 - 1e-12))


def _changed(ack: PolicyApplied) -> bool:
    return ack.executed_action == ack.recommended_action != ack.baseline_action


def _to_change(decision: Decision, policy: PolicyRecord) -> float:
    """Probability that this decision would be a change: of the actions that have a signal and are not the baseline."""
    found = said(policy, decision)
    if found is None:
        return 0.0
    return sum(p for action, p, signal in zip(policy.actions, found.probabilities, decision.signals, strict=False)
               if signal and action != decision.baseline_action)


def _contradiction(ack: PolicyApplied, decision: Decision | None, policies: dict[tuple[str, int], PolicyRecord],
                   trades: dict[str | None, TradeClosed], told_ms: int) -> str | None:
    """What speaks against an acknowledgement; None where nothing does.

    Args:
        told_ms: event time of the newest acknowledgement of the symbol: how far the applier has come.
    """
    if decision is None:
        return f"there is no decision {ack.decision_id}"
    if (decision.policy_id, decision.policy_version) != (ack.policy_id, ack.policy_version):
        return f"{ack.decision_id} names {decision.policy_id} version {decision.policy_version}, not that policy"
    if (decision.action, decision.baseline_action) != (ack.recommended_action, ack.baseline_action):
        return (f"{ack.decision_id} recommends {decision.action} over {decision.baseline_action}, "
                f"not what {ack.applier} says")
    policy = policies.get((ack.policy_id, ack.policy_version))
    if policy is None:
        return f"{ack.policy_id} version {ack.policy_version} is not on the ledger"
    if policy.valid_from_ms > decision.ts_ms:
        return f"{ack.policy_id} version {ack.policy_version} was not valid yet at {ack.decision_id}"
    if not _changed(ack):
        return None
    trade = trades.get(ack.decision_id)
    if trade is None:
        horizon_ms = 2 * (decision.next_ts_ms - decision.ts_ms)  # of a position, with room for its last bar
        if told_ms > decision.ts_ms + horizon_ms:
            return f"{ack.decision_id} was executed as {ack.executed_action}, and no trade of it was ever closed"
        return None
    if trade.strategy != ack.executed_action:
        return f"the trade of {ack.decision_id} is one of {trade.strategy}, not of {ack.executed_action}"
    return None
