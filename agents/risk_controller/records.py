"""What the risk controller publishes: the policy with its limits, and the change of mode with its reasons."""

from __future__ import annotations

from agents.contract import Output
from agents.risk_controller.config import RiskConfig
from agents.risk_controller.score import Score
from agents.risk_controller.state import RiskState, Told, symbols_of
from agents.risk_controller.table import FALLBACK, LIMITS, MODES
from schemas.events import PolicyCommand, PolicyRecord, RiskModeChanged, RiskPolicy, RiskReason

NAME, SCOPE = "risk_controller", "global"
POLICY_ID = f"{NAME}/{SCOPE}"


def policy(state: RiskState, told: Told, config: RiskConfig, ts_ms: int, reason: str,
           command: PolicyCommand | None, obeyed: bool | None) -> Output:
    """A version of the policy."""
    return Output("policy.ledger", PolicyRecord(
        policy_id=POLICY_ID, version=state.version, agent=NAME, scope=SCOPE, ts_ms=ts_ms, valid_from_ms=ts_ms,
        valid_until_ms=ts_ms + config.valid_for_ms, fallback=FALLBACK, status="ACTIVE", reason=reason[:512],
        outcomes=state.n_trades, mask=(), actions=MODES, limits=RiskPolicy(
            now=LIMITS[told.mode], otherwise=LIMITS[FALLBACK], synthetic=config.synthetic,
            full_books=told.full_books, closed_until_ms=told.closed_until_ms),
        command_id=None if command is None else command.command_id, actor=None if command is None else command.actor,
        obeyed=obeyed, source=state.source, origin=told.origin,
    ))


def changed(state: RiskState, before: Told | None, now: Told, score: Score, ts_ms: int,
            command: PolicyCommand | None) -> Output:
    """The event that tells why the mode is another one, or is forced otherwise."""
    over = state.override
    return Output("risk.mode.changed", RiskModeChanged(
        scope=SCOPE, ts_ms=ts_ms, previous=None if before is None else before.mode, current=now.mode,
        scored=state.mode, forced=now.forced, defensive=score.defensive, aggressive=score.aggressive,
        reasons=(*_forcing(state), *score.reasons),
        judged=tuple([here.symbol for here in symbols_of(state.account)]), basis=basis(state),
        policy_version=state.version, command_id=None if command is None else command.command_id,
        actor=None if command is None else command.actor, until_ms=None if over is None else over.until_ms,
        source=state.source, origin=now.origin,
    ))


def _forcing(state: RiskState) -> list[RiskReason]:
    """What forces the mode, whatever the scores say."""
    found = [RiskReason(name="critical", points=0, evidence=(f"system.health.alert/{s.component}@{s.ts_ms}"[:512],))
             for s in state.sick]
    over = state.override
    if over is not None:
        found.append(RiskReason(name="override", points=0, evidence=(f"policy.commands/{over.command_id}"[:512],)))
    return found


def basis(state: RiskState) -> str:
    """What was judged, in words."""
    account = state.account
    if not account.books:
        return f"no book is judged: all that was seen is {state.origin} ({state.source}); the initial mode holds"[:512]
    symbols = symbols_of(account)
    names = sorted({b.book_id for here in symbols for b in here.books})
    return (f"{account.books} books ({', '.join(names)}) of {len(symbols)} symbols, {state.origin}; "
            f"{state.n_trades} trades")[:512]
