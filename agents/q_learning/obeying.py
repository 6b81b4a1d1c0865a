"""What a person's command makes of the learner's state."""

from __future__ import annotations

from msgspec.structs import replace

from agents.contract import Refused
from agents.q_learning.state import Early, QLearningState
from schemas.events import Command, PolicyCommand, PolicyStatus

REMEMBERED = 64  # ids of commands: nobody sends one again after so many others
EARLY = 16  # commands that wait for the first version, at most
KEY_FREED_AFTER_MS = 7 * 86_400_000
"""How long a retired policy stays on `policy.current`: the contract for subscribers in ARCHITECTURE.md."""

NOT_OF_A_LEARNER: tuple[Command, ...] = ("HALT", "RESUME", "OVERRIDE", "CLEAR")

_BEFORE: dict[Command, tuple[PolicyStatus, ...]] = {
    "FREEZE": ("ACTIVE",), "UNFREEZE": ("FROZEN",), "RETIRE": ("ACTIVE", "FROZEN"),
}
_AFTER: dict[Command, PolicyStatus] = {"FREEZE": "FROZEN", "UNFREEZE": "ACTIVE", "RETIRE": "RETIRED"}


def obeyed(state: QLearningState, command: PolicyCommand, old: QLearningState | Refused) -> QLearningState | str:
    """The state after a command, its version number still the old one; or why it cannot be obeyed.

    Args:
        state: the state; a version of it was published.
        command: a command about its policy.
        old: what a ROLLBACK takes back; not looked at otherwise.
    """
    if command.command == "ROLLBACK":
        return _rolled_back(state, command, old)
    if state.status not in _BEFORE[command.command]:
        return f"the policy is {state.status}"
    status = _AFTER[command.command]
    return replace(state, status=status, retired_ms=command.ts_ms if status == "RETIRED" else -1)


def _rolled_back(state: QLearningState, command: PolicyCommand, old: QLearningState | Refused) -> QLearningState | str:
    """What was learned comes from the old state, what guards against learning twice from the present one."""
    if isinstance(old, Refused):
        return f"{old.reason}: {old.detail}"
    if old.version != command.version or not old.source:
        return f"the state that it carries is that of version {old.version}"
    return replace(
        old, version=state.version, recent=state.recent, symbol=state.symbol, now_ms=state.now_ms,
        status="FROZEN" if command.freeze else "ACTIVE", retired_ms=-1, unlearned=state.unlearned,
        obeyed=state.obeyed, early=state.early,
    )


def told(command: PolicyCommand, why_not: str | None) -> str:
    """A version's reason: the command with its own, and why it was not obeyed."""
    what = command.command.lower() + ("" if command.version is None else f" to {command.version}")
    return (f"{what}: {command.reason}" if why_not is None else f"refused: {what}: {why_not}; {command.reason}")[:512]


def early(command: PolicyCommand) -> Early:
    """A command to be kept until there is a version; a state that it carries is not: it can be of no version."""
    return Early(command_id=command.command_id, command=command.command, ts_ms=command.ts_ms, version=command.version,
                 actor=command.actor, reason=command.reason)


def command_of(kept: Early, policy_id: str) -> PolicyCommand:
    """The command that was kept."""
    return PolicyCommand(command_id=kept.command_id, ts_ms=kept.ts_ms, command=kept.command, policy_id=policy_id,
                         version=kept.version, actor=kept.actor, reason=kept.reason)
