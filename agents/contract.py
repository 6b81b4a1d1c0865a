"""What an agent is: a pure, deterministic fold over the events of one scope.

    state, outputs = agent.step(state, event)

An agent owns no thread, socket, file or clock. Its state is an immutable `msgspec.Struct`; a step returns a new one,
or the very same object where nothing changed (the host then writes nothing). Time is the event's `ts_ms`. Randomness
is drawn by counter from (seed, agent, business id): see `agents.algorithms.counter`. Partition numbers and offsets
never reach an agent, so that the state of a scope is the same whatever the partition count.

`agents` never import each other; what they share is in `agents/algorithms`, which knows no event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import msgspec

from schemas.events import Event, PolicyCommand
from schemas.refused import Refused

__all__ = ["Agent", "Config", "Output", "Refused", "State", "Tombstone"]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every agent's state: immutable fields that Avro can hold (no dict, no set, no array)."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every agent's configuration: frozen, keyword-only, validated, unknown fields refused."""

    seed: int = 0


S = TypeVar("S", bound=State)


class Output(NamedTuple):
    """An event to publish. The key follows from the catalogue."""

    topic: str
    event: Event


class Tombstone(Event, frozen=True, kw_only=True, gc=False):
    """The null that frees a policy's key on `policy.current`: no record is left there, the ledger keeps them all."""

    SCHEMA_NAME: ClassVar[str] = "Tombstone"
    policy_id: str
    """Key that is freed."""
    ts_ms: int
    """Event time of the event that let it leave."""


class Agent(Generic[S]):
    """Base of every agent. Subclasses set the class variables and write `new` and `step`.

    Attributes:
        name: its name in `schemas.catalogue.AGENTS`; inputs and outputs stand there.
        state_type: class of its state.
        format_version: raised with every change of the state's layout.
        former: for each older format version that can still be taken up: the class of the state as it was, and the
            function from it to the state of the next version.
        heavy: fields of the state, of type bytes, that are kept in `state.blobs` and by their hash in the state's
            record: network weights and the like.
    """

    name: ClassVar[str]
    state_type: type[S]
    config_type: ClassVar[type[Config]] = Config
    format_version: ClassVar[int] = 1
    former: ClassVar[Mapping[int, tuple[type[State], Callable[[Any], State]]]] = {}
    heavy: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else self.config_type()

    def new(self, scope: str) -> S:
        """State of a scope that was never seen."""
        raise NotImplementedError

    def step(self, state: S, event: Event) -> tuple[S, tuple[Output, ...]]:
        """Fold one event.

        Args:
            state: state of the event's scope; never mutated.
            event: the event.

        Returns:
            The new state (the same object if nothing changed) and what to publish, in order.

        Raises:
            Refused: the event cannot be taken; the state stays as it was.
        """
        raise NotImplementedError

    def numbered(self, state: S, version: int) -> S:
        """The state with its version numbers above `version`: what its policies go on from after a state was made anew.

        Whoever holds a policy takes only newer versions. An agent without policies has nothing to do.
        """
        return state

    def sticky_key(self, event: Event) -> str | None:
        """Key under which a broadcast event is kept for scopes born later; None: not kept."""
        return None

    def rolled_back(self, current: S, old: S | Refused, command: PolicyCommand) -> tuple[S, tuple[Output, ...]]:
        """Take an old state back, as a person commands; for agents that write policies.

        Args:
            current: state of the scope.
            old: its state at the version that the command names, decoded and held against its hash; or why there is
                none. Either way the command is answered by one new version.
            command: a ROLLBACK of a policy of this agent.

        Returns:
            The state that learning goes on from, and what to publish. What guards against taking an event twice stays
            that of `current`.
        """
        raise Refused("UNEXPECTED", f"{self.name} takes no state back")
