"""Versions that answer people's commands, held against the commands and against the ledger.

The fold takes a rollback's state from the command itself, if it has the hash that the command says. Whether that is the
state of the version which it names is asked here: the ledger has the hash of every version. So nobody can bring a state
in through a command that was never learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from schemas.events import PolicyCommand, PolicyRecord
from streams.log import Record
from streams.verify.evidence import Evidence

COMMANDS = "policy.commands"
Ledger = Mapping[tuple[str, int], PolicyRecord]


class Update(NamedTuple):
    """A policy version on the ledger."""

    record: Record
    policy: PolicyRecord


def commands_of(evidence: Evidence) -> dict[str, PolicyCommand]:
    """Commands by id; of repeats the first, as every reader has it."""
    found: dict[str, PolicyCommand] = {}
    for _, e in evidence.events(COMMANDS):
        if isinstance(e, PolicyCommand):
            found.setdefault(e.command_id, e)
    return found


def contradiction(evidence: Evidence, updates: Sequence[Update]) -> tuple[str, Record] | None:
    """The first version that claims to answer a command and does not, in words; None where all is as they say.

    Args:
        updates: versions of one agent, all of them, in order within each policy.
    """
    if all(u.policy.command_id is None and u.policy.status == "ACTIVE" for u in updates):
        return None
    commands, ledger = commands_of(evidence), {(u.policy.policy_id, u.policy.version): u.policy for u in updates}
    given: dict[str, int] = {}
    for record, policy in updates:
        why = _wrong(policy, commands, ledger)
        if why is None and policy.command_id is not None:
            first = given.setdefault(policy.command_id, policy.version)
            why = None if first == policy.version else f"answers {policy.command_id}, and so did version {first}"
        if why is not None:
            return f"{policy.policy_id} version {policy.version} {why}", record
    return None


def _wrong(policy: PolicyRecord, commands: Mapping[str, PolicyCommand], ledger: Ledger) -> str | None:
    before = ledger.get((policy.policy_id, policy.version - 1))
    was = "ACTIVE" if before is None else before.status
    if policy.command_id is None:
        if policy.restored_version is not None:
            return f"took version {policy.restored_version} back, and names no command"
        return None if policy.status == was else f"became {policy.status}, and names no command"
    command = commands.get(policy.command_id)
    if command is None:
        return f"answers {policy.command_id}, which is not on {COMMANDS}"
    if (command.policy_id, command.actor) != (policy.policy_id, policy.actor):
        return f"says that {policy.actor} commanded it; {command.command_id} is by {command.actor}, of " \
               f"{command.policy_id}"
    if not policy.obeyed:
        return None if policy.status == was else f"refused {command.command_id}, and yet became {policy.status}"
    rolled = command.version if command.command == "ROLLBACK" else None
    if policy.restored_version != rolled:
        return f"says that it took version {policy.restored_version} back; {command.command_id} is " \
               f"{command.command} to {rolled}"
    expected = {"FREEZE": "FROZEN", "UNFREEZE": "ACTIVE", "RETIRE": "RETIRED", "OVERRIDE": "ACTIVE", "CLEAR": "ACTIVE",
                "ROLLBACK": "FROZEN" if command.freeze else "ACTIVE"}.get(command.command)
    if policy.status != expected:
        return f"is {policy.status} after {command.command}"
    return None if rolled is None else _not_restored(policy, command, ledger.get((policy.policy_id, rolled)))


def _not_restored(policy: PolicyRecord, command: PolicyCommand, old: PolicyRecord | None) -> str | None:
    if old is None or old.provenance is None:
        return f"took version {command.version} back, which is not on the ledger"
    carried = sha256(policy.scope.encode() + b"\0" + (command.state or b"")).hexdigest()
    if carried != old.provenance.state_hash:
        return f"took a state back that is not the one of version {command.version}: {command.command_id} carries " \
               f"{carried[:12]}, the ledger says {old.provenance.state_hash[:12]}"
    return None
