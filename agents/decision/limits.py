"""Risk limits in the actor: which version is in force at a bar, and what it makes of a decision.

The limits travel with the decision: whoever executes it obeys what the decision carries, so that the trades are a
function of candles and decisions, however fast the limits came over their own topic.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal

import msgspec
from msgspec.structs import replace

from agents.contract import Refused
from schemas.events import Decision, PolicyRecord, RiskLimits, RiskPolicy

POLICY_ID = "risk_controller/global"
KEPT = 64  # versions ahead of the features
NO_POSITION: Literal["neutral"] = "neutral"


class HeldLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a version of the risk policy that binds."""

    version: int
    valid_from_ms: int
    valid_until_ms: int | None
    policy: RiskPolicy


def with_limits(held: tuple[HeldLimits, ...], record: PolicyRecord, decided_ms: int) -> tuple[HeldLimits, ...]:
    """The versions kept, in order, with a newer one: those that a decision after `decided_ms` may still go by.

    A version that holds from the same time as an older one, or from before it, takes its whole place.

    Raises:
        Refused: UNUSABLE_POLICY.
    """
    if held and record.version <= held[-1].version:
        return held
    if record.limits is None:
        raise Refused("UNUSABLE_POLICY", f"{record.policy_id} version {record.version} has no limits")
    new = HeldLimits(version=record.version, valid_from_ms=record.valid_from_ms, valid_until_ms=record.valid_until_ms,
                     policy=record.limits)
    kept = (*[h for h in held if h.valid_from_ms < new.valid_from_ms], new)
    first = max(bisect_right(kept, decided_ms, key=_from) - 1, 0)
    return kept[first:][-KEPT:]


def bound(decision: Decision, held: tuple[HeldLimits, ...], risk_pct: float,
          confidence: float | None = None) -> Decision:
    """A decision under the limits in force: clipped in size, or forced to take no position; as it is where none bind.

    Args:
        risk_pct: loss at the stop at size 1, as a fraction of equity.
        confidence: of the decision, where its policy states one.
    """
    i = bisect_right(held, decision.ts_ms, key=_from)
    version = held[i - 1] if i else None
    if version is None or not (version.policy.synthetic or decision.origin != "SYNTHETIC"):
        return decision
    over = version.valid_until_ms is not None and decision.ts_ms > version.valid_until_ms
    limits = version.policy.otherwise if over else version.policy.now
    size = min(decision.size_multiplier, limits.risk_per_trade / risk_pct)
    decision = replace(decision, limits=limits, limits_version=version.version, size_multiplier=size)
    reason = None if decision.forced_reason == "halt" else _barred(version.policy, over, limits, decision, confidence)
    if reason is None:
        return decision
    return replace(decision, action=NO_POSITION, greedy_action=NO_POSITION, propensity=1.0, forced=True,
                   forced_reason=reason, log_probability=None, value=None)


def _barred(policy: RiskPolicy, over: bool, limits: RiskLimits, d: Decision, confidence: float | None) -> str | None:
    """Why a decision may open nothing."""
    if policy.closed_until_ms is not None and d.ts_ms < policy.closed_until_ms:
        return "risk_daily_loss"
    if not over and d.book_id in policy.full_books:
        return "risk_max_positions"
    if confidence is not None and confidence < limits.min_confidence:
        return "risk_min_confidence"
    return None


def _from(held: HeldLimits) -> int:
    return held.valid_from_ms
