"""The decision agent; see the package's docstring."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from agents.algorithms.commanded import Commanded, answered, barred, ordered
from agents.algorithms.sizing import AVERSION
from agents.algorithms.strategies import signals
from agents.contract import Agent, Config, Output, Refused
from agents.decision.choosing import Choice, chosen, fallen_back, size_of
from agents.decision.held import HeldPolicy, held, in_force, needed, taken
from agents.decision.limits import POLICY_ID, bound, with_limits
from agents.decision.networks import Weights, joined, observation_of, split
from agents.decision.state import (
    Configured,
    Decider,
    DecisionState,
    FirstState,
    SecondState,
    ThirdState,
    from_first,
    from_second,
    from_third,
)
from schemas.events import Decision, Event, Features, PolicyCommand, PolicyConfig, PolicyRecord, Regime, Strategy

TOPIC = "rl.meta.strategy_selected"
NO_SIGNALS = (0, 0, 0, 0)
CONFIGURATIONS = 8  # kept for a symbol: the one in force, and those whose time has not come


class DecisionConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of the actor.

    Attributes:
        deciders: agents whose policies decide, each for the book of its own name.
        default_decider: the one of them that drives the default book, None: the first. `policy.config` may change it.
        decide_every_bars: a decision falls on every bar whose close is a multiple of that many intervals.
        baseline_action: what is done where no policy is in force.
        size_multiplier: multiple of the unit risk where no policy chooses, and everywhere without `aversion`.
        aversion: lambda of the size that a policy's choice gets (`algorithms/sizing`), 1/R; None: no such sizes.
        pending_limit: policy versions kept for each decider.
        risk_pct: loss at the stop at size 1, as a fraction of equity; paper execution's. Risk limits clip the size by
            it.
        pending_networks: of versions that are networks so many; their weights are heavy.
    """

    deciders: tuple[str, ...] = ("q_learning", "meta_strategy")
    default_decider: str | None = None
    decide_every_bars: int = 4
    baseline_action: Strategy = "neutral"
    size_multiplier: float = 1.0
    aversion: float | None = AVERSION
    pending_limit: int = 256
    risk_pct: float = 0.01
    pending_networks: int = 8

    @property
    def drives(self) -> str:
        """The decider that drives the default book."""
        return self.default_decider or self.deciders[0]

    def __post_init__(self) -> None:
        if not self.deciders or len(set(self.deciders)) != len(self.deciders):
            raise ValueError(f"deciders must be one or more different names, not {self.deciders}")
        if self.default_decider not in (None, *self.deciders):
            raise ValueError(f"default_decider is {self.default_decider}; it must be one of {', '.join(self.deciders)}")
        if self.aversion is not None and not 0 < self.aversion <= 10:
            raise ValueError(f"aversion is {self.aversion}; above 0 and at most 10 is needed")
        if min(self.pending_limit, self.pending_networks) < 2:
            raise ValueError("pending_limit and pending_networks must be at least 2")
        if self.decide_every_bars < 1 or not 0 < self.size_multiplier <= 10:
            raise ValueError("decide_every_bars >= 1 and 0 < size_multiplier <= 10 are needed")
        if not 0 < self.risk_pct <= 1:
            raise ValueError("0 < risk_pct <= 1 is needed")


class DecisionAgent(Agent[DecisionState]):
    """Applies the policies in force, per symbol."""

    name: ClassVar[str] = "decision"
    state_type = DecisionState
    config_type: ClassVar[type[Config]] = DecisionConfig
    format_version: ClassVar[int] = 4  # 2: commands; 3: risk limits, networks, sizes; 4: configuration
    former = {1: (FirstState, from_first), 2: (SecondState, from_second), 3: (ThirdState, from_third)}  # noqa: RUF012
    heavy: ClassVar[tuple[str, ...]] = ("weights",)
    live: ClassVar[frozenset[str]] = frozenset({"default_decider"})
    config: DecisionConfig

    def new(self, scope: str) -> DecisionState:
        """No policy, no interval."""
        return DecisionState(deciders=tuple(Decider(name=n) for n in self.config.deciders))

    def step(self, state: DecisionState, event: Event) -> tuple[DecisionState, tuple[Output, ...]]:
        """Fold features (perhaps decide), a policy (keep it), a command (obey it) or a configuration.

        Raises:
            Refused: CONTRADICTORY for features, UNUSABLE_POLICY, BAD_CONFIG.
        """
        if isinstance(event, Features):
            return self._features(state, event)
        if isinstance(event, PolicyRecord):
            return self._policy(state, event), ()
        if isinstance(event, PolicyCommand):
            return self._command(state, event), ()
        if isinstance(event, PolicyConfig):
            return self._config(state, event), ()
        return state, ()

    def sticky_key(self, event: Event) -> str | None:
        """What a symbol born later must obey: limits, a configuration that holds, and commands, as it may have a policy
        that was not read yet."""
        if isinstance(event, PolicyConfig):
            return "config" if self.takes(event) else None
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

    def _config(self, state: DecisionState, event: PolicyConfig) -> DecisionState:
        """Keep a configuration for the first decision at or after its time."""
        if event.agent != self.name:
            return state
        self.configured(event.values)
        others = [c for c in state.configured if c.ts_ms != event.ts_ms]  # of one time the later record counts
        given = Configured(ts_ms=event.ts_ms, values=event.values)
        kept = sorted([*others, given], key=lambda c: c.ts_ms)[-CONFIGURATIONS:]
        return msgspec.structs.replace(state, configured=tuple(kept))

    def _policy(self, state: DecisionState, record: PolicyRecord) -> DecisionState:
        if record.policy_id == POLICY_ID:
            limits = with_limits(state.limits, record, state.decided_ms)
            return state if limits is state.limits else msgspec.structs.replace(state, limits=limits)
        state = self._complete(state)
        for i, decider in enumerate(state.deciders):
            if decider.name == record.agent and record.version > decider.version:
                policy = held(record)
                limit = self.config.pending_limit if policy.network is None else self.config.pending_networks
                policies = taken(decider.policies, policy, state.decided_ms, limit)
                changed = Decider(name=decider.name, version=record.version, policies=policies)
                commanded = state.commanded if record.command_id is None else answered(
                    state.commanded, record.command_id, record.policy_id, record.version, record.restored_version)
                more = {} if record.network is None else {(record.policy_id, record.version): record.network.weights}
                return _holding(msgspec.structs.replace(state, commanded=commanded),
                                (*state.deciders[:i], changed, *state.deciders[i + 1:]), more)
        return state

    def _complete(self, state: DecisionState) -> DecisionState:
        """The state with every decider of the configuration; one may be newer than the state."""
        known = {d.name for d in state.deciders}
        new = tuple([Decider(name=n) for n in self.config.deciders if n not in known])
        return msgspec.structs.replace(state, deciders=(*state.deciders, *new)) if new else state

    def _features(self, state: DecisionState, bar: Features) -> tuple[DecisionState, tuple[Output, ...]]:
        if state.interval_ms is None:
            state = msgspec.structs.replace(state, interval_ms=bar.interval_ms)
        due = bar.ts_ms // bar.interval_ms % self.config.decide_every_bars == 0
        if not due or not bar.ready or bar.interval_ms != state.interval_ms or bar.ts_ms <= state.decided_ms:
            return state, ()
        if bar.regime is None or bar.volatility_30 is None or bar.atr_14_pct is None:
            raise Refused("CONTRADICTORY", "ready, but without regime, volatility_30 or atr_14_pct")
        state = self._complete(state)
        weights = split(_policies(state.deciders), state.weights)
        holding = [c for c in state.configured if c.ts_ms <= bar.ts_ms]
        if len(holding) > 1:
            state = msgspec.structs.replace(state, configured=state.configured[len(holding) - 1:])
        config = self.configured(holding[-1].values) if holding else self.config
        assert isinstance(config, DecisionConfig)
        outputs = []
        for decider in state.deciders:
            decision = self._decide(state, decider, bar, bar.regime, bar.volatility_30, bar.atr_14_pct, weights,
                                    decider.name == config.drives)
            outputs.append(Output(TOPIC, bound(decision, state.limits, self.config.risk_pct)))
        state = msgspec.structs.replace(state, decided_ms=bar.ts_ms)
        return _holding(state, tuple([msgspec.structs.replace(d, policies=needed(d.policies, bar.ts_ms))
                                      for d in state.deciders])), tuple(outputs)

    def _decide(self, state: DecisionState, decider: Decider, bar: Features, regime: Regime, volatility: float,
                atr_pct: float, weights: Weights, default_book: bool) -> Decision:
        config = self.config
        policy = in_force(decider.policies, bar.ts_ms)
        decision_id = f"{bar.symbol}/{decider.name}/{bar.ts_ms}"
        directions = signals(
            ema_dist_14=bar.ema_dist_14, ema_dist_50=bar.ema_dist_50, bollinger_position=bar.bollinger_position,
            range_position=bar.range_position,
        )
        observation = observation_of(bar)
        reason = "halt" if state.halted else _forced_reason(policy, state.commanded, bar.ts_ms, directions is None)
        choice: Choice | None = None
        if policy is not None and reason is None:
            found = chosen(policy, regime, volatility, observation, weights, config.seed, decision_id)
            reason, choice = ("missing_feature", None) if found is None else (None, found)
        if choice is None:
            action = config.baseline_action if policy is None or state.halted else policy.fallback
            choice = fallen_back(policy, action, regime, volatility)
        return Decision(
            decision_id=decision_id, symbol=bar.symbol, book_id=decider.name, decider=decider.name, ts_ms=bar.ts_ms,
            interval_ms=bar.interval_ms, next_ts_ms=bar.ts_ms + config.decide_every_bars * bar.interval_ms,
            action=choice.action, greedy_action=choice.greedy, baseline_action=config.baseline_action,
            propensity=choice.propensity, forced=reason is not None, forced_reason=reason,
            policy_id=None if policy is None else policy.policy_id,
            policy_version=None if policy is None else policy.version, state_key=choice.state_key, regime=regime,
            volatility=volatility, close=bar.close, atr_pct=atr_pct, signals=directions or NO_SIGNALS,
            size_multiplier=self._size(choice, reason), observation=observation, log_probability=choice.log_probability,
            value=choice.value, default_book=default_book, source=bar.source, origin=bar.origin,
        )

    def _size(self, choice: Choice, forced: str | None) -> float:
        """The multiple of the unit risk; what no policy chose has the configured one."""
        if forced is not None or self.config.aversion is None:
            return self.config.size_multiplier
        return size_of(choice.expected, self.config.aversion)


def _policies(deciders: tuple[Decider, ...]) -> list[HeldPolicy]:
    return [p for d in deciders for p in d.policies]


def _holding(state: DecisionState, deciders: tuple[Decider, ...], more: Weights | None = None) -> DecisionState:
    """The state with other policies, and their weights.

    Args:
        more: weights of a new one.
    """
    before, after = _policies(state.deciders), _policies(deciders)
    if not more and before == after:
        return msgspec.structs.replace(state, deciders=deciders)
    weights = split(before, state.weights) | (more or {})
    return msgspec.structs.replace(state, deciders=deciders, weights=joined(after, weights))


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
