"""The decision agent; see the package's docstring."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from agents.algorithms.counter import choose, uniform
from agents.algorithms.strategies import signals
from agents.contract import Agent, Config, Output, Refused, State
from agents.decision.held import HeldPolicy, held, in_force, needed, taken
from schemas.events import Decision, Event, Features, PolicyRecord, Regime, Strategy

TOPIC = "rl.meta.strategy_selected"
NO_SIGNALS = (0, 0, 0, 0)


class DecisionConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of the actor.

    Attributes:
        deciders: agents whose policies decide, each for the book of its own name.
        decide_every_bars: a decision falls on every bar whose close is a multiple of that many intervals.
        baseline_action: what is done where no policy is in force.
        size_multiplier: multiple of the unit risk.
        pending_limit: policy versions kept for each decider.
    """

    deciders: tuple[str, ...] = ("q_learning",)
    decide_every_bars: int = 4
    baseline_action: Strategy = "neutral"
    size_multiplier: float = 1.0
    pending_limit: int = 256

    def __post_init__(self) -> None:
        if not self.deciders or len(set(self.deciders)) != len(self.deciders):
            raise ValueError(f"deciders must be one or more different names, not {self.deciders}")
        if self.decide_every_bars < 1 or self.pending_limit < 2 or not 0 < self.size_multiplier <= 10:
            raise ValueError("decide_every_bars >= 1, pending_limit >= 2 and 0 < size_multiplier <= 10 are needed")


class Decider(msgspec.Struct, frozen=True, kw_only=True):
    """A decider's policies that may still decide, and the newest version seen of it."""

    name: str
    version: int = 0
    policies: tuple[HeldPolicy, ...] = ()


class DecisionState(State, frozen=True, kw_only=True):
    """Per symbol: the primary interval, the last decided bar, the policies."""

    deciders: tuple[Decider, ...]
    interval_ms: int | None = None
    decided_ms: int = -1


class DecisionAgent(Agent[DecisionState]):
    """Applies the policies in force, per symbol."""

    name: ClassVar[str] = "decision"
    state_type = DecisionState
    config_type: ClassVar[type[Config]] = DecisionConfig
    config: DecisionConfig

    def new(self, scope: str) -> DecisionState:
        """No policy, no interval."""
        return DecisionState(deciders=tuple(Decider(name=n) for n in self.config.deciders))

    def step(self, state: DecisionState, event: Event) -> tuple[DecisionState, tuple[Output, ...]]:
        """Fold features (perhaps decide) or a policy (keep it)."""
        if isinstance(event, Features):
            return self._features(state, event)
        if isinstance(event, PolicyRecord):
            return self._policy(state, event), ()
        return state, ()

    def _policy(self, state: DecisionState, record: PolicyRecord) -> DecisionState:
        for i, decider in enumerate(state.deciders):
            if decider.name == record.agent and record.version > decider.version:
                policies = taken(decider.policies, held(record), state.decided_ms, self.config.pending_limit)
                changed = Decider(name=decider.name, version=record.version, policies=policies)
                deciders = (*state.deciders[:i], changed, *state.deciders[i + 1:])
                return msgspec.structs.replace(state, deciders=deciders)
        return state

    def _features(self, state: DecisionState, bar: Features) -> tuple[DecisionState, tuple[Output, ...]]:
        if state.interval_ms is None:
            state = msgspec.structs.replace(state, interval_ms=bar.interval_ms)
        due = bar.ts_ms // bar.interval_ms % self.config.decide_every_bars == 0
        if not due or not bar.ready or bar.interval_ms != state.interval_ms or bar.ts_ms <= state.decided_ms:
            return state, ()
        if bar.regime is None or bar.volatility_30 is None or bar.atr_14_pct is None:
            raise Refused("CONTRADICTORY", "ready, but without regime, volatility_30 or atr_14_pct")
        outputs = []
        for decider in state.deciders:
            decision = self._decide(decider, bar, bar.regime, bar.volatility_30, bar.atr_14_pct)
            outputs.append(Output(TOPIC, decision))
        state = DecisionState(
            deciders=tuple(msgspec.structs.replace(d, policies=needed(d.policies, bar.ts_ms))
                           for d in state.deciders),
            interval_ms=state.interval_ms, decided_ms=bar.ts_ms,
        )
        return state, tuple(outputs)

    def _decide(self, decider: Decider, bar: Features, regime: Regime, volatility: float, atr_pct: float) -> Decision:
        config = self.config
        policy = in_force(decider.policies, bar.ts_ms)
        decision_id = f"{bar.symbol}/{decider.name}/{bar.ts_ms}"
        directions = signals(
            ema_dist_14=bar.ema_dist_14, ema_dist_50=bar.ema_dist_50, bollinger_position=bar.bollinger_position,
            range_position=bar.range_position,
        )
        action = greedy = config.baseline_action if policy is None else policy.fallback
        propensity, state_key = 1.0, None
        reason = _forced_reason(policy, bar.ts_ms, directions is None)
        if policy is not None and policy.cells:
            cell = policy.cell(regime, volatility)
            state_key = cell.state_key
            if reason is None:
                i = choose(cell.probabilities, uniform(config.seed, "decision", decision_id))
                action, greedy, propensity = policy.actions[i], cell.greedy, cell.probabilities[i]
        return Decision(
            decision_id=decision_id, symbol=bar.symbol, book_id=decider.name, decider=decider.name, ts_ms=bar.ts_ms,
            interval_ms=bar.interval_ms, next_ts_ms=bar.ts_ms + config.decide_every_bars * bar.interval_ms,
            action=action, greedy_action=greedy, baseline_action=config.baseline_action, propensity=propensity,
            forced=reason is not None, forced_reason=reason,
            policy_id=None if policy is None else policy.policy_id,
            policy_version=None if policy is None else policy.version, state_key=state_key, regime=regime,
            volatility=volatility, close=bar.close, atr_pct=atr_pct, signals=directions or NO_SIGNALS,
            size_multiplier=config.size_multiplier, source=bar.source, origin=bar.origin,
        )


def _forced_reason(policy: HeldPolicy | None, ts_ms: int, missing: bool) -> str | None:
    """Why the policy may not choose; None where it may."""
    if policy is None:
        return "no_policy"
    if policy.status == "RETIRED":
        return "policy_retired"
    if policy.valid_until_ms is not None and ts_ms > policy.valid_until_ms:
        return "policy_expired"
    return "missing_feature" if missing else None
