"""What people's commands make of a learner, whichever it is: each is answered by one version of its policy.

A learner's state has, whatever else is in it: symbol, version, source, now_ms, status, retired_ms, obeyed, early.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, cast

from msgspec.structs import replace

from agents.contract import Agent, Output, Refused, State, Tombstone
from schemas.events import Command, Event, Experience, PolicyCommand, PolicyStatus

REMEMBERED = 64  # ids of commands: nobody sends one again after so many others
EARLY = 16  # commands that wait for the first version, at most
KEY_FREED_AFTER_MS = 7 * 86_400_000
"""How long a retired policy stays on `policy.current`: the contract for subscribers in ARCHITECTURE.md."""

NOT_OF_A_LEARNER: tuple[Command, ...] = ("HALT", "RESUME", "OVERRIDE", "CLEAR")

_BEFORE: dict[Command, tuple[PolicyStatus, ...]] = {
    "FREEZE": ("ACTIVE",), "UNFREEZE": ("FROZEN",), "RETIRE": ("ACTIVE", "FROZEN"),
}
_AFTER: dict[Command, PolicyStatus] = {"FREEZE": "FROZEN", "UNFREEZE": "ACTIVE", "RETIRE": "RETIRED"}


class Early(State, frozen=True, kw_only=True):
    """A command that came before the first policy version; answered soon behind it."""

    command_id: str
    command: Command
    ts_ms: int
    version: int | None
    actor: str
    reason: str


class Commanded(Protocol):
    """The part of a learner's state that commands are about.

    Attributes:
        version: newest policy version; 0 before the first.
        now_ms: newest event time of an experience.
        retired_ms: event time of the version that retired the policy, until its key was freed; else -1.
        obeyed: ids of the commands last answered, oldest first.
        early: commands that wait for the first version.
    """

    @property
    def symbol(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def source(self) -> str: ...
    @property
    def now_ms(self) -> int: ...
    @property
    def status(self) -> PolicyStatus: ...
    @property
    def retired_ms(self) -> int: ...
    @property
    def obeyed(self) -> tuple[str, ...]: ...
    @property
    def early(self) -> tuple[Early, ...]: ...


S = TypeVar("S", bound=State)


def commanded(state: State) -> Commanded:
    """The same state, as commands see it."""
    return cast(Commanded, state)


def _with(state: S, **changes: Any) -> S:
    return replace(state, **changes)


class ObedientLearner(Agent[S]):
    """A learner whose policies people can freeze, retire and roll back. Subclasses write `published` and `restored`."""

    def published(self, state: S, ts_ms: int, valid_from_ms: int, reason: str) -> Output:
        """The state as a version of the policy."""
        raise NotImplementedError

    def restored(self, state: S, old: S) -> dict[str, Any]:
        """What a rollback leaves as it is: the fields of the present state that guard against learning twice."""
        raise NotImplementedError

    def numbered(self, state: S, version: int) -> S:
        """The next version will be above `version`."""
        return state if commanded(state).version >= version else _with(state, version=version)

    def rolled_back(self, current: S, old: S | Refused, command: PolicyCommand) -> tuple[S, tuple[Output, ...]]:
        """Answer a command by one new version; every command comes through here, `old` counts for a ROLLBACK only."""
        name, _, scope = (command.policy_id or "").partition("/")
        now = commanded(current)
        if name != self.name or scope != (now.symbol or scope) or command.command in NOT_OF_A_LEARNER:
            return current, ()
        known = (*now.obeyed, *(e.command_id for e in now.early))
        state, freed = self.freed(current, command.ts_ms)
        if command.command_id in known:
            return state, freed
        if speaks(state) and not now.early:
            after, outputs = self._answer(state, command, old)
            return after, (*freed, *outputs)
        if len(now.early) >= EARLY:
            raise Refused("TOO_EARLY", f"{command.policy_id} has no version yet, and {EARLY} commands wait for it")
        return self.late_answer(_with(state, early=(*now.early, _early(command))))

    def late_answer(self, state: S) -> tuple[S, tuple[Output, ...]]:
        """Answer the first of the commands that came before there was a version, where there is one now."""
        now = commanded(state)
        if not now.early or not speaks(state):
            return state, ()
        first, *rest = now.early
        too_early = Refused("TOO_EARLY", "it came before the first version")
        return self._answer(_with(state, early=tuple(rest)), _command_of(first, self.policy_id(state)), too_early)

    def _answer(self, state: S, command: PolicyCommand, old: S | Refused) -> tuple[S, tuple[Output, ...]]:
        found = self._obeyed(state, command, old)
        why_not, after = (found, state) if isinstance(found, str) else (None, found)
        now = commanded(state)
        after = _with(after, version=now.version + 1, obeyed=(*now.obeyed, command.command_id)[-REMEMBERED:])
        policy = self.published(after, command.ts_ms, min(command.ts_ms, now.now_ms), _told(command, why_not))
        restored = command.version if command.command == "ROLLBACK" and why_not is None else None
        return after, (policy._replace(event=replace(
            policy.event, command_id=command.command_id, actor=command.actor, obeyed=why_not is None,
            restored_version=restored)),)

    def _obeyed(self, state: S, command: PolicyCommand, old: S | Refused) -> S | str:
        """The state after a command, its version number still the old one; or why it cannot be obeyed."""
        now = commanded(state)
        if command.command == "ROLLBACK":
            return self._taken_back(state, command, old)
        if now.status not in _BEFORE[command.command]:
            return f"the policy is {now.status}"
        status = _AFTER[command.command]
        return _with(state, status=status, retired_ms=command.ts_ms if status == "RETIRED" else -1)

    def _taken_back(self, state: S, command: PolicyCommand, old: S | Refused) -> S | str:
        """What was learned comes from the old state, what guards against learning twice from the present one."""
        if isinstance(old, Refused):
            return f"{old.reason}: {old.detail}"
        before, now = commanded(old), commanded(state)
        if before.version != command.version or not before.source:
            return f"the state that it carries is that of version {before.version}"
        return _with(
            old, version=now.version, symbol=now.symbol, now_ms=now.now_ms, retired_ms=-1, obeyed=now.obeyed,
            early=now.early, status="FROZEN" if command.freeze else "ACTIVE", **self.restored(state, old),
        )

    def freed(self, state: S, ts_ms: int) -> tuple[S, tuple[Output, ...]]:
        """Once the time of a retired policy is over, the null that frees its key."""
        retired_ms = commanded(state).retired_ms
        if retired_ms < 0 or ts_ms < retired_ms + KEY_FREED_AFTER_MS:
            return state, ()
        null = Tombstone(policy_id=self.policy_id(state), ts_ms=ts_ms)
        return _with(state, retired_ms=-1), (Output("policy.current", null),)

    def policy_id(self, state: S) -> str:
        """Name of the policy of a state's symbol."""
        return f"{self.name}/{commanded(state).symbol}"


class ExperienceLearner(ObedientLearner[S]):
    """A learner from the experiences of one book. Subclasses write `learned_from`, and what the bases leave to them.

    Attributes:
        book_id: the book; of its configuration.
    """

    @property
    def book_id(self) -> str:
        """Book that it learns from."""
        raise NotImplementedError

    def learned_from(self, state: S, event: Experience) -> tuple[S, tuple[Output, ...]]:
        """Fold an experience of the own book; at most one version is published.

        Raises:
            Refused: it cannot be taken.
        """
        raise NotImplementedError

    def step(self, state: S, event: Event) -> tuple[S, tuple[Output, ...]]:
        """Fold one experience or command; those of other books and policies, and repeats, change nothing.

        Raises:
            Refused: what `learned_from` refuses; TOO_EARLY for a command.
        """
        if isinstance(event, PolicyCommand):
            return self.rolled_back(state, Refused("NO_STATE", "its state was not read"), event)
        if not isinstance(event, Experience) or event.book_id != self.book_id:
            return state, ()
        state, freed = self.freed(state, event.ts_ms)
        after, outputs = self.learned_from(state, event)
        if not outputs:  # one version a step: its provenance names the state behind the step
            after, outputs = self.late_answer(after)
        return after, (*freed, *outputs)


def speaks(state: State) -> bool:
    """Whether a version can be published: there is one, and what it rests on is known."""
    now = commanded(state)
    return now.version > 0 and bool(now.symbol and now.source)


def _told(command: PolicyCommand, why_not: str | None) -> str:
    """A version's reason: the command with its own, and why it was not obeyed."""
    what = command.command.lower() + ("" if command.version is None else f" to {command.version}")
    return (f"{what}: {command.reason}" if why_not is None else f"refused: {what}: {why_not}; {command.reason}")[:512]


def _early(command: PolicyCommand) -> Early:
    """A command to be kept until there is a version; a state that it carries is not: it can be of no version."""
    return Early(command_id=command.command_id, command=command.command, ts_ms=command.ts_ms, version=command.version,
                 actor=command.actor, reason=command.reason)


def _command_of(kept: Early, policy_id: str) -> PolicyCommand:
    """The command that was kept."""
    return PolicyCommand(command_id=kept.command_id, ts_ms=kept.ts_ms, command=kept.command, policy_id=policy_id,
                         version=kept.version, actor=kept.actor, reason=kept.reason)
