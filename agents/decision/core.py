"""The decision agent; see the package's docstring."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from agents.algorithms.commanded import NOTHING, Commanded, answered, barred, ordered
from agents.algorithms.counter import choose, uniform
from agents.algorithms.strategies import signals
from agents.contract import Agent, Config, Output, Refused, State
from agents.decision.held import HeldPolicy, held, in_force, needed, taken
from agents.decision.limits import POLICY_ID, HeldLimits, bound, with_limits
from schemas.events import Decision, Event, Features, PolicyCommand, PolicyRecord, Regime, Strategy

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
        risk_pct: loss at the stop at size 1, as a fraction of equity; paper execution's. Risk limits clip the size by
            it.
    """

    deciders: tuple[str, ...] = ("q_learning",)
    decide_every_bars: int = 4
    baseline_action: Strategy = "neutral"
    size_multiplier: float = 1.0
    pending_limit: int = 256
    risk_pct: float = 0.01

    def __post_init__(self) -> None:
        if not self.deciders or len(set(self.deciders)) != len(self.deciders):
            raise ValueError(f"deciders must be one or more different names, not {self.deciders}")
        if self.decide_every_bars < 1 or self.pending_limit < 2 or not 0 < self.size_multiplier <= 10:
            raise ValueError("decide_every_bars >= 1, pending_limit >= 2 and 0 < size_multiplier <= 10 are needed")
        if not 0 < self.risk_pct <= 1:
            raise ValueError("0 < risk_pct <= 1 is needed")


class Decider(msgspec.Struct, frozen=True, kw_only=True):
    """A decider's policies that may still decide, and the newest version seen of it."""

    name: str
    version: int = 0
    policies: tuple[HeldPolicy, ...] = ()


class DecisionState(State, frozen=True, kw_only=True):
    """Per symbol: the primary interval, the last decided bar, the policies, what people command, the risk limits.

    `halt_ms`, `halted`: newest halt or resume.
    """

    deciders: tuple[Decider, ...]
    interval_ms: int | None = None
    decided_ms: int = -1
    commanded: Commanded = NOTHING
    halted: bool = False
    halt_ms: int = -1
    limits: tuple[HeldLimits, ...] = ()


class SecondState(State, frozen=True, kw_only=True):
    """Format 2, before there were risk limits."""

    deciders: tuple[Decider, ...]
    interval_ms: int | None
    decided_ms: int
    commanded: Commanded = NOTHING
    halted: bool = False
    halt_ms: int = -1


class FirstState(State, frozen=True, kw_only=True):
    """Format 1, before commands were obeyed."""

    deciders: tuple[Decider, ...]
    interval_ms: int | None
    decided_ms: int


def from_first(old: FirstState) -> SecondState:
    """Format 2: nothing was commanded."""
    return SecondState(deciders=old.deciders, interval_ms=old.interval_ms, decided_ms=old.decided_ms)


def from_second(old: SecondState) -> DecisionState:
    """Format 3: no limits were known."""
    return DecisionState(**msgspec.structs.asdict(old))


class DecisionAgent(Agent[DecisionState]):
    """Applies the policies in force, per symbol."""

    name: ClassVar[str] = "decision"
    state_type = DecisionState
    config_type: ClassVar[type[Config]] = DecisionConfig
    format_version: ClassVar[int] = 3  # 2: commands; 3: risk limits
    former = {1: (FirstState, from_first), 2: (SecondState, from_second)}  # noqa: RUF012
    config: DecisionConfig

    def new(self, scope: str) -> DecisionState:
        """No policy, no interval."""
        return DecisionState(deciders=tuple(Decider(name=n) for n in self.config.deciders))

    def step(self, state: DecisionState, event: Event) -> tuple[DecisionState, tuple[Output, ...]]:
        """Fold features (perhaps decide), a policy (keep it) or a command (obey it)."""
        if isinstance(event, Features):
            return self._features(state, event)
        if isinstance(event, PolicyRecord):
            return self._policy(state, event), ()
        if isinstance(event, PolicyCommand):
            return self._command(state, event), ()
        return state, ()

    def sticky_key(self, event: Event) -> str | None:
        """What a symbol born later must obey: limits, and commands, as it may have a policy that was not read yet."""
        if isinstance(event, PolicyRecord) and event.policy_id == POLICY_ID:
            return "limits"
        if not isinstance(event, PolicyCommand) or event.command not in ("HALT", "RESUME", "RETIRE", "ROLLBACK"):
            return None
        return f"{event.command}:{event.policy_id or event.symbol or '*'}"

    def _command(self, state: DecisionState, command: PolicyCommand) -> DecisionState:
        """Obey at once; of halt and resume the newest by event time counts, and a halt wins over a resume."""
        if command.command in ("HALT", "RESUME"):
            halt = command.command == "HALT"
            if (command.ts_ms, halt) <= (state.halt_ms, state.halted):
                return state
            return msgspec.structs.replace(state, halted=halt, halt_ms=command.ts_ms)
        policy_id, above = command.policy_id or "", 0 if command.command == "RETIRE" else command.version
        ours = policy_id.partition("/")[0] in self.config.deciders
        if not ours or above is None or command.command not in ("RETIRE", "ROLLBACK"):
            return state
        after = ordered(state.commanded, command.command_id, policy_id, above)
        return state if after is state.commanded else msgspec.structs.replace(state, commanded=after)

    def _policy(self, state: DecisionState, record: PolicyRecord) -> DecisionState:
        if record.policy_id == POLICY_ID:
            limits = with_limits(state.limits, record, state.decided_ms)
            return state if limits is state.limits else msgspec.structs.replace(state, limits=limits)
        for i, decider in enumerate(state.deciders):
            if decider.name == record.agent and record.version > decider.version:
                policies = taken(decider.policies, held(record), state.decided_ms, self.config.pending_limit)
                changed = Decider(name=decider.name, version=record.version, policies=policies)
                deciders = (*state.deciders[:i], changed, *state.deciders[i + 1:])
                commanded = state.commanded if record.command_id is None else answered(
                    state.commanded, record.command_id, record.policy_id, record.version, record.restored_version)
                return msgspec.structs.replace(state, deciders=deciders, commanded=commanded)
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
            decision = self._decide(state, decider, bar, bar.regime, bar.volatility_30, bar.atr_14_pct)
            outputs.append(Output(TOPIC, bound(decision, state.limits, self.config.risk_pct)))
        state = DecisionState(
            deciders=tuple(msgspec.structs.replace(d, policies=needed(d.policies, bar.ts_ms))
                           for d in state.deciders),
            interval_ms=state.interval_ms, decided_ms=bar.ts_ms, commanded=state.commanded, halted=state.halted,
            halt_ms=state.halt_ms, limits=state.limits,
        )
        return state, tuple(outputs)

    def _decide(self, state: DecisionState, decider: Decider, bar: Features, regime: Regime, volatility: float,
                atr_pct: float) -> Decision:
        config = self.config
        policy = in_force(decider.policies, bar.ts_ms)
        decision_id = f"{bar.symbol}/{decider.name}/{bar.ts_ms}"
        directions = signals(
            ema_dist_14=bar.ema_dist_14, ema_dist_50=bar.ema_dist_50, bollinger_position=bar.bollinger_position,
            range_position=bar.range_position,
        )
        action = greedy = config.baseline_action if policy is None or state.halted else policy.fallback
        propensity, state_key = 1.0, None
        reason = "halt" if state.halted else _forced_reason(policy, state.commanded, bar.ts_ms, directions is None)
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


def _forced_reason(policy: HeldPolicy | None, commanded: Commanded, ts_ms: int, missing: bool) -> str | None:
    """Why the policy may not choose; None where it may."""
    if policy is None:
        return "no_policy"
    by_command = barred(commanded, policy.policy_id, policy.version)
    if by_command is not None:
        return by_command
    if policy.status == "RETIRED":
        return "policy_retired"
    if policy.valid_until_ms is not None and ts_ms > policy.valid_until_ms:
        return "policy_expired"
    return "missing_feature" if missing else None
