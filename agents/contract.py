"""What an agent is: a pure, deterministic fold over the events of one scope.

    state, outputs = agent.step(state, event)

An agent owns no thread, socket, file or clock. Its state is an immutable `msgspec.Struct`; a step returns a new one,
or the very same object where nothing changed (the host then writes nothing). Time is the event's `ts_ms`. Randomness
is drawn by counter from (seed, agent, business id): see `agents.algorithms.counter`. Partition numbers and offsets
never reach an agent, so that the state of a scope is the same whatever the partition count.

`agents` never import each other; what they share is in `agents/algorithms`, which knows no event.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import msgspec

from schemas.events import Event, PolicyCommand, PolicyConfig
from schemas.refused import Refused

if TYPE_CHECKING:
    from schemas.columns import Columns  # numpy, for those only who take columns
    from schemas.lockstep import Array

__all__ = ["Agent", "Batch", "Config", "Job", "Output", "Refused", "State", "Stepped", "Tombstone"]


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


class Batch(NamedTuple, Generic[S]):
    """Records of one topic and one partition, in order, as columns.

    Attributes:
        columns: values by field of the event; every row is good.
        scopes: names of the scopes, in the order in which they first come.
        states: state of each scope before the first row.
        scope_N: index of each row's scope.
    """

    columns: Columns
    scopes: tuple[str, ...]
    states: tuple[S, ...]
    scope_N: Array


class Stepped(NamedTuple, Generic[S]):
    """What the rows of a batch come to.

    Attributes:
        states: state of each scope behind the last row; the very same object where no row changed it.
        changed: for each scope the last row whose step returned another object; -1 where none did.
        outputs: (row, output), rows ascending.
    """

    states: Sequence[S]
    changed: Sequence[int]
    outputs: Sequence[tuple[int, Output]] = ()


class Job(NamedTuple):
    """Work that takes longer than a step may: a fit, epochs of PPO. A trainer process performs it.

    Attributes:
        job_id: a function of the input, never of a clock or a random number, and another one for every attempt:
            `<agent>/<scope>/<run>/<attempt>` or the like; at most 256 characters of printable ASCII.
        request: everything that the work needs, and the same bytes for one job id for as long as it is open, since
            whoever takes the state up performs it again. A live configuration belongs in it.
    """

    job_id: str
    request: bytes


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
        live: fields of the configuration that `policy.config` may change while the agent runs; see `configured`.
        in_columns: input topics whose records it takes many at a time; see `step_many`.
        fit_latency_ms: without a log (driver, backtest) the result of a job arrives at the event time of the event
            that opened it, plus this.
        fit_timeout_s: wall time after which a trainer process is killed and its job has failed.
    """

    name: ClassVar[str]
    state_type: type[S]
    config_type: ClassVar[type[Config]] = Config
    format_version: ClassVar[int] = 1
    former: ClassVar[Mapping[int, tuple[type[State], Callable[[Any], State]]]] = {}
    heavy: ClassVar[tuple[str, ...]] = ()
    live: ClassVar[frozenset[str]] = frozenset()
    in_columns: ClassVar[frozenset[str]] = frozenset()
    fit_latency_ms: ClassVar[int] = 0
    fit_timeout_s: ClassVar[float] = 3_600.0

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

    def step_many(self, batch: Batch[S]) -> Stepped[S] | None:
        """Fold many records at once; exactly what `step` does with one after the other.

        A fast path that `step` judges: whatever is out of the ordinary (a record that `step` would refuse, above all)
        is a reason to return None. Then the host takes fewer records at a time, and at last each by itself.

        Args:
            batch: records of a topic in `in_columns`; nothing of it is mutated.

        Returns:
            States and outputs, equal to those of the steps bit for bit; None: step them.
        """
        return None

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

    def configured(self, values: str) -> Config:
        """The configuration with which the agent was started, with the fields changed that a `PolicyConfig` names.

        Whoever writes a change and whoever folds it ask here, so that what the one accepts the other takes.

        Args:
            values: a JSON object; fields that it does not name stay as the agent was started with them.

        Raises:
            Refused: BAD_CONFIG: it is none, names a field that is not `live`, or the type refuses a value.
        """
        return _changed(self.name, self.live, self.config, values)

    def takes(self, event: PolicyConfig) -> bool:
        """Whether a configuration is this agent's and can hold."""
        try:
            return event.agent == self.name and self.configured(event.values) is not None
        except Refused:
            return False

    # ------------------------------------------------------------------ long work
    def jobs(self, state: S) -> tuple[Job, ...]:
        """The jobs that this state has open.

        A job is open from the step that asks for it to the step that takes its result or its failure; the host starts
        each once its state is durable, and again wherever the state is taken up. Asked after every flush for every
        scope that changed, so it must be cheap while nothing is open.
        """
        return ()

    def perform(self, job: Job) -> Output:
        """Do the work; runs in a trainer process of its own, may take minutes.

        Pure and deterministic: the result is a function of the job and of the agent's configuration alone, bit for
        bit, since `rederive` performs it again and compares.

        Returns:
            The result. Its topic is one that the agent both writes and reads, keyed by the job's scope; its event
            carries the job id. It comes back to `step` like any input. The first result, or failure, of a job id in
            the log wins: `step` returns the same state for one whose job is not open.

        Raises:
            Exception: the job has failed; see `failed`.
        """
        raise NotImplementedError(f"{self.name} opens jobs but does not perform them")

    def failed(self, job: Job, reason: str, ts_ms: int) -> Output:
        """What to publish where the trainer process crashed, raised or took too long.

        It comes back like a result, and closes the job. Whether there is another attempt, under another job id, and
        after which time, is for the fold to decide, in event time.

        Args:
            job: the job.
            reason: what happened, at most 512 characters.
            ts_ms: newest event time that the host saw the partition fold, 0 where it saw none since it took it up; the
                fold trusts the later of this and what it knows itself.
        """
        raise NotImplementedError(f"{self.name} opens jobs but does not say what their failure means")


@lru_cache(maxsize=64)  # a function of its arguments; some agents ask at every bar
def _changed(name: str, live: frozenset[str], config: Config, values: str) -> Config:
    try:
        given = json.loads(values)
    except ValueError as exc:
        raise Refused("BAD_CONFIG", f"the values are not JSON: {exc}") from exc
    if not isinstance(given, dict):
        raise Refused("BAD_CONFIG", "the values are not a JSON object")
    fixed = sorted(given.keys() - live)
    if fixed:
        raise Refused("BAD_CONFIG", f"{', '.join(fixed)}: not changed while {name} runs; these are: "
                                    f"{', '.join(sorted(live)) or 'none'}")
    try:
        return msgspec.convert(msgspec.to_builtins(config) | given, type(config))
    except (msgspec.ValidationError, ValueError, TypeError) as exc:
        raise Refused("BAD_CONFIG", str(exc)) from exc
