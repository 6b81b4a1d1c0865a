"""The events that the agent makes, and what it holds against a trade."""

from __future__ import annotations

from agents.algorithms.lineage import merge_origin, merge_source
from agents.contract import Output
from schemas.events import (
    Decision,
    DecisionOutcome,
    Experience,
    Origin,
    Orphan,
    OrphanReason,
    OutcomeStatus,
    TradeClosed,
)

RELATIVE = 1e-6  # a producer may round its amounts
OF_NOTIONAL = 1e-12  # what is left of doubles where a large gain and large costs cancel out


def inconsistency(trade: TradeClosed) -> str | None:
    """What contradicts itself in a trade; None where nothing does.

    The result must follow from side, prices, quantity, fees and funding; the R multiple from result and risk. A wrong
    sign here would teach a learner the opposite of what happened.
    """
    t = trade
    side = 1 if t.side == "LONG" else -1
    expected = side * (t.exit_price - t.entry_price) * t.quantity - t.fees - t.funding
    slack = OF_NOTIONAL * t.entry_price * t.quantity
    if not abs(t.pnl_usd - expected) <= RELATIVE * max(abs(t.pnl_usd), abs(expected)) + slack:
        return f"pnl_usd is {t.pnl_usd!r}, but side x (exit - entry) x quantity - fees - funding is {expected!r}"
    r = t.pnl_usd / t.risk_at_open
    if not abs(t.r_multiple - r) <= RELATIVE * max(abs(t.r_multiple), abs(r)) + slack / t.risk_at_open:
        return f"r_multiple is {t.r_multiple!r}, but pnl_usd / risk_at_open is {r!r}"
    if t.ts_ms < t.opened_ms:
        return f"closed at {t.ts_ms}, before it opened at {t.opened_ms}"
    return None


def mismatch(decision: Decision, trade: TradeClosed) -> str | None:
    """Why a trade cannot be that of the decision it names; None where it can."""
    if trade.symbol != decision.symbol:
        return f"symbol {trade.symbol}, but its decision is of {decision.symbol}"
    if trade.book_id is not None and trade.book_id != decision.book_id:
        return f"book {trade.book_id}, but its decision is of {decision.book_id}"
    if trade.strategy != decision.action:
        return f"strategy {trade.strategy}, but its decision chose {decision.action}"
    if trade.ts_ms < decision.ts_ms:
        return f"closed at {trade.ts_ms}, before its decision at {decision.ts_ms}"
    return None


def traded_experience(decision: Decision, trade: TradeClosed) -> Output:
    """The experience of a decision and its trade."""
    return _experience(
        decision, trade.ts_ms, "TRADED", None, trade.source, trade.origin, trade_id=trade.trade_id,
        reward_r=trade.r_multiple, pnl_usd=trade.pnl_usd, size_multiplier=trade.size_multiplier,
    )


def outcome_experience(decision: Decision, outcome: DecisionOutcome) -> Output:
    """The experience of a decision that took no position."""
    return _experience(decision, outcome.ts_ms, outcome.status, outcome.reason, outcome.source, outcome.origin)


def expired_experience(decision: Decision, reason: str, deadline_ms: int) -> Output:
    """The experience of a decision whose outcome never came."""
    return _experience(decision, deadline_ms, "NOT_EXECUTED", reason, decision.source, decision.origin)


def _experience(
    decision: Decision, ts_ms: int, status: OutcomeStatus, reason: str | None, source: str, origin: Origin, *,
    trade_id: str | None = None, reward_r: float = 0.0, pnl_usd: float = 0.0, size_multiplier: float | None = None,
) -> Output:
    d = decision
    return Output("learning.experience", Experience(
        decision_id=d.decision_id, symbol=d.symbol, book_id=d.book_id, ts_ms=ts_ms, decided_ms=d.ts_ms, status=status,
        reason=reason, learnable=status != "NOT_EXECUTED" and not d.forced, forced=d.forced, action=d.action,
        propensity=d.propensity, policy_version=d.policy_version, state_key=d.state_key, regime=d.regime,
        volatility=d.volatility, observation=d.observation, trade_id=trade_id, reward_r=reward_r, pnl_usd=pnl_usd,
        size_multiplier=d.size_multiplier if size_multiplier is None else size_multiplier,
        source=merge_source(d.source, source), origin=merge_origin(d.origin, origin),
    ))


def orphan_of_trade(trade: TradeClosed, reason: OrphanReason, ts_ms: int) -> Output:
    """A trade that nobody can learn from."""
    return Output("learning.orphan", Orphan(
        orphan_id=trade.trade_id, symbol=trade.symbol, ts_ms=ts_ms, reason=reason, trade_id=trade.trade_id,
        decision_id=trade.decision_id, pnl_usd=trade.pnl_usd, source=trade.source, origin=trade.origin,
    ))


def orphan_of_outcome(outcome: DecisionOutcome, reason: OrphanReason, ts_ms: int) -> Output:
    """An outcome that belongs to no decision."""
    return Output("learning.orphan", Orphan(
        orphan_id=outcome.decision_id, symbol=outcome.symbol, ts_ms=ts_ms, reason=reason, trade_id=outcome.trade_id,
        decision_id=outcome.decision_id, source=outcome.source, origin=outcome.origin,
    ))
