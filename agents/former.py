"""Events as older releases had them inside of agents' states, and how they become those of today."""

from __future__ import annotations

from msgspec.structs import asdict

from agents.contract import State
from schemas.events import Decision, Origin, Regime, Strategy


class FormerDecision(State, frozen=True, kw_only=True):
    """A decision before it carried the state that it was taken in."""

    decision_id: str
    symbol: str
    book_id: str
    decider: str
    ts_ms: int
    interval_ms: int
    next_ts_ms: int
    action: Strategy
    greedy_action: Strategy
    baseline_action: Strategy
    propensity: float
    forced: bool
    forced_reason: str | None
    policy_id: str | None
    policy_version: int | None
    state_key: str | None
    regime: Regime
    volatility: float
    close: float
    atr_pct: float
    signals: tuple[int, ...]
    size_multiplier: float
    source: str
    origin: Origin


def decision_of(former: FormerDecision) -> Decision:
    """The same decision; what it did not carry is null."""
    return Decision(**asdict(former))
