"""APPLIED of the PPO trader: which of its decisions bind, and whether they say what the policy that they name says.

In mode SHADOW it decides on paper and nobody executes it; then nothing is applied, and the cell says so. What binds
must be acknowledged on `policy.applied` by whoever executes it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from schemas.events import PolicyApplied, PolicyRecord, TraderDecision
from streams.log import Record
from streams.verify.cells import MAX_RECORDS, Cell, cell
from streams.verify.evidence import Evidence
from streams.verify.said import trader_contradiction
from streams.verify.shown import drawn

DECISIONS = "rl_v3.decision"
NEEDED = 20
"""Binding decisions before their silence says anything; as for other learners."""
HELD = 200
"""Decisions, drawn, whose probabilities are reckoned again from the weights on the ledger."""
ON_PAPER = frozenset({"OFF", "SHADOW"})
Ledger = dict[tuple[str, int], tuple[Record, PolicyRecord]]


@dataclass
class Count:
    """What was counted.

    Attributes:
        modes: decisions by mode.
        asked: those for which a version was asked.
        binding: those that bind, by id.
        held: those reckoned again.
        acknowledged: binding ones that somebody executed.
        wrong: what contradicts, with its record.
    """

    modes: Counter[str] = field(default_factory=Counter)
    asked: list[tuple[Record, TraderDecision]] = field(default_factory=list)
    binding: dict[str, TraderDecision] = field(default_factory=dict)
    held: int = 0
    acknowledged: int = 0
    wrong: list[tuple[str, Record]] = field(default_factory=list)
    last: Record | None = None


def traded(evidence: Evidence, name: str, random: Random) -> Cell:
    """The cell APPLIED of the trader."""
    ledger: Ledger = {(e.policy_id, e.version): (r, e) for r, e in evidence.events("policy.ledger")
                      if isinstance(e, PolicyRecord) and e.agent == name}
    count = _count(evidence, ledger)
    some = drawn(count.asked, HELD, random)
    for record, d in some:
        why = trader_contradiction(d, ledger[d.policy_id or "", d.policy_version or 0][1])
        if why is not None:
            count.wrong.append((f"{d.decision_id} {why}", record))
    count.held = len(some)
    _acknowledge(evidence, name, count)
    return _verdict(evidence, count).showing_each(
        [r, ledger[d.policy_id or "", d.policy_version or 0][0]] for r, d in drawn(some, MAX_RECORDS // 4, random))


def _count(evidence: Evidence, ledger: Ledger) -> Count:
    count = Count()
    for record, d in evidence.events(DECISIONS):
        if not isinstance(d, TraderDecision) or not evidence.covers(record):
            continue
        count.modes[d.mode] += 1
        count.last = record
        if d.binding:
            count.binding[d.decision_id] = d
        why = _unfounded(d, ledger)
        if why is not None:
            count.wrong.append((f"{d.decision_id} {why}", record))
        elif d.probabilities:
            count.asked.append((record, d))
    return count


def _unfounded(d: TraderDecision, ledger: Ledger) -> str | None:
    if d.binding and d.mode in ON_PAPER:
        return f"binds, in mode {d.mode}"
    if d.policy_version is None:
        return "names no version, and says what one said" if d.probabilities else None
    found = ledger.get((d.policy_id or "", d.policy_version))
    if found is None:
        return f"names version {d.policy_version}, which is not on the ledger"
    if found[1].valid_from_ms > d.ts_ms:
        return f"goes by version {d.policy_version}, which was not valid yet"
    return None


def _acknowledge(evidence: Evidence, name: str, count: Count) -> None:
    for record, ack in evidence.events("policy.applied"):
        if not isinstance(ack, PolicyApplied) or ack.policy_id.partition("/")[0] != name or not evidence.covers(record):
            continue
        d = count.binding.get(ack.decision_id)
        if d is None:
            count.wrong.append((f"{ack.decision_id} was executed, and no binding decision has that name", record))
        elif (d.policy_id, d.policy_version, d.action) != (ack.policy_id, ack.policy_version, ack.recommended_action):
            count.wrong.append((f"{ack.decision_id} was reported otherwise than it says", record))
        else:
            count.acknowledged += ack.executed_action == ack.recommended_action


def _verdict(evidence: Evidence, count: Count) -> Cell:
    made, n, now_ms = sum(count.modes.values()), len(count.binding), evidence.now_ms
    figures: dict[str, float] = {"decisions": made, "asked": len(count.asked), "held": count.held, "binding": n,
                                 "executed": count.acknowledged, **{f"mode:{m}": k for m, k in count.modes.items()}}
    said = f"{count.acknowledged} of {n} binding decisions were executed" if n else "nothing is applied"
    if count.wrong:
        why, record = count.wrong[0]
        more = f" (and {len(count.wrong) - 1} more)" if len(count.wrong) > 1 else ""
        return cell("FAIL", f"{said}, but {why}{more}", record, now_ms, **figures)
    if not made:
        return cell("IDLE", f"{said}: no decision was taken (mode OFF, windows not full, or symbols left out)", None,
                    None, **figures)
    if not n:
        modes = ", ".join(f"{m} {k}" for m, k in sorted(count.modes.items()))
        return cell("IDLE", f"{said}: of {made} decisions none binds ({modes}); {len(count.asked)} asked a version, "
                            f"and {count.held} of {count.held} drawn say what its weights give", count.last, now_ms,
                    **figures)
    if not count.acknowledged:
        return cell("FAIL" if n >= NEEDED else "NOT PROVEN", f"{said} ({n}/{NEEDED}); nobody says that one was",
                    count.last, now_ms, **figures)
    if n < NEEDED:
        return cell("NOT PROVEN", f"{said} ({n}/{NEEDED})", count.last, now_ms, **figures)
    return cell("PASS", f"{said}, each as it says; {count.held} of {count.held} drawn say what the weights give",
                count.last, now_ms, **figures)
