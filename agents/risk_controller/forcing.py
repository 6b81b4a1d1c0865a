"""What forces the mode: components that are CRITICAL, and a person's override. Both end on our own clock.

An alert carries the wall clock of its host, which in a replay is years away from event time: so what counts is the
clock as it stands when the alert is folded.
"""

from __future__ import annotations

from msgspec.structs import replace

from agents.risk_controller.state import Override, RiskState, Sick
from agents.risk_controller.table import after_override
from schemas.events import HealthAlert, PolicyCommand


def alerted(state: RiskState, alert: HealthAlert) -> RiskState:
    """The state after an alert; the same object where it says nothing new of a component that was CRITICAL."""
    known = next((s for s in state.sick if s.component == alert.component), None)
    if known is None and alert.status != "CRITICAL":
        return state
    if known is not None and alert.ts_ms < known.ts_ms:
        return state  # late: a newer word of the component is known
    well = alert.status == "HEALTHY"
    if known is not None and well and known.well:
        return state
    now = Sick(component=alert.component, ts_ms=alert.ts_ms, well=well, well_ms=state.now_ms if well else -1)
    others = [s for s in state.sick if s.component != alert.component]
    return replace(state, sick=tuple(sorted([*others, now], key=lambda s: s.component)))


def recovered(state: RiskState, hold_ms: int) -> RiskState:
    """The state without the components that were HEALTHY for the hold time."""
    if not any(s.well for s in state.sick):
        return state
    left = []
    for s in state.sick:
        if s.well and s.well_ms < 0:  # it became well before there was a clock
            s = replace(s, well_ms=state.now_ms)
        if not s.well or state.now_ms - s.well_ms < hold_ms:
            left.append(s)
    return replace(state, sick=tuple(left)) if tuple(left) != state.sick else state


def overridden(state: RiskState, command: PolicyCommand) -> RiskState | str:
    """The state after OVERRIDE or CLEAR; or why it cannot be obeyed."""
    if command.command == "CLEAR":
        return "there is no override" if state.override is None else without_override(state)
    if command.mode is None or command.until_ms is None:
        return "an override needs mode and until_ms"
    if command.until_ms <= state.now_ms:
        return f"it ended at {command.until_ms}, and it is {state.now_ms}"
    over = Override(mode=command.mode, until_ms=command.until_ms, command_id=command.command_id,
                    actor=command.actor, reason=command.reason)
    return replace(state, override=over)


def without_override(state: RiskState) -> RiskState:
    """The state behind an override: what it left, and a dwell time that begins anew."""
    assert state.override is not None
    mode = after_override(state.mode, state.override.mode)
    return replace(state, override=None, mode=mode, changed_ms=max(state.changed_ms, state.now_ms))


def expired(state: RiskState) -> RiskState:
    """The state without an override whose time is over."""
    over = state.override
    return without_override(state) if over is not None and state.now_ms >= over.until_ms else state
