"""State of the actor, and how states of older releases become it."""

from __future__ import annotations

import msgspec

from agents.algorithms.commanded import NOTHING, Commanded
from agents.contract import State
from agents.decision.held import HeldCell, HeldPolicy
from agents.decision.limits import HeldLimits
from schemas.events import PolicyStatus, Strategy


class Decider(msgspec.Struct, frozen=True, kw_only=True):
    """A decider's policies that may still decide, and the newest version seen of it."""

    name: str
    version: int = 0
    policies: tuple[HeldPolicy, ...] = ()


class Configured(msgspec.Struct, frozen=True, kw_only=True):
    """What a person changed in the configuration, from an event time on; `values` as in `PolicyConfig`."""

    ts_ms: int
    values: str


class DecisionState(State, frozen=True, kw_only=True):
    """Per symbol: the primary interval, the last decided bar, the policies, what people command, the risk limits.

    `halt_ms`, `halted`: newest halt or resume. `weights`: of the policies that are networks, see `networks`.
    `configured`: the configuration in force, and those whose time has not come, in order of time.
    """

    deciders: tuple[Decider, ...]
    interval_ms: int | None = None
    decided_ms: int = -1
    commanded: Commanded = NOTHING
    halted: bool = False
    halt_ms: int = -1
    limits: tuple[HeldLimits, ...] = ()
    weights: bytes = b""
    configured: tuple[Configured, ...] = ()


class ThirdState(State, frozen=True, kw_only=True):
    """Format 3, before the configuration could be changed while the agent runs."""

    deciders: tuple[Decider, ...]
    interval_ms: int | None
    decided_ms: int
    commanded: Commanded
    halted: bool
    halt_ms: int
    limits: tuple[HeldLimits, ...]
    weights: bytes


class SecondCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell of formats 1 and 2, before sizes were chosen."""

    state_key: str
    probabilities: tuple[float, ...]
    greedy: Strategy


class SecondPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A held policy of formats 1 and 2, before there were networks."""

    policy_id: str
    version: int
    valid_from_ms: int
    valid_until_ms: int | None
    fallback: Strategy
    status: PolicyStatus
    actions: tuple[Strategy, ...]
    volatility_edges: tuple[float, ...]
    cells: tuple[SecondCell, ...]


class SecondDecider(msgspec.Struct, frozen=True, kw_only=True):
    """A decider of formats 1 and 2."""

    name: str
    version: int
    policies: tuple[SecondPolicy, ...]


class FirstState(State, frozen=True, kw_only=True):
    """Format 1, before commands were obeyed."""

    deciders: tuple[SecondDecider, ...]
    interval_ms: int | None
    decided_ms: int


class SecondState(State, frozen=True, kw_only=True):
    """Format 2, before there were risk limits and networks."""

    deciders: tuple[SecondDecider, ...]
    interval_ms: int | None
    decided_ms: int
    commanded: Commanded
    halted: bool
    halt_ms: int


def from_first(old: FirstState) -> SecondState:
    """Format 2: nothing was commanded."""
    return SecondState(deciders=old.deciders, interval_ms=old.interval_ms, decided_ms=old.decided_ms,
                       commanded=NOTHING, halted=False, halt_ms=-1)


def from_second(old: SecondState) -> ThirdState:
    """Format 3: no limits are known, no policy is a network, and of no cell more is known than what is drawn from.

    A decider that is new in the configuration comes with the next event.
    """
    deciders = tuple([Decider(name=d.name, version=d.version, policies=tuple(map(_policy, d.policies)))
                      for d in old.deciders])
    return ThirdState(deciders=deciders, interval_ms=old.interval_ms, decided_ms=old.decided_ms,
                      commanded=old.commanded, halted=old.halted, halt_ms=old.halt_ms, limits=(), weights=b"")


def from_third(old: ThirdState) -> DecisionState:
    """Format 4: the configuration is the one that the agent was started with."""
    return DecisionState(**{name: getattr(old, name) for name in old.__struct_fields__})


def _policy(old: SecondPolicy) -> HeldPolicy:
    cells = tuple([HeldCell(**msgspec.structs.asdict(c)) for c in old.cells])
    return HeldPolicy(**(msgspec.structs.asdict(old) | {"cells": cells}))
