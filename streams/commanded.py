"""People's commands on their way into a fold: whom a command is for, and the old state that a rollback carries.

A rollback brings the learner's state at the old version with it, as bytes with their hash, so that the log explains
itself and the fold stays pure: nothing is looked up. Here the bytes are held against the hash and decoded; whether the
hash is that of the version which the command names is `quantum verify`'s to say, who reads the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec

from agents.contract import Agent, Output, State
from schemas.catalogue import GLOBAL, scope_of
from schemas.codec import Codec
from schemas.events import Event, PolicyCommand
from schemas.refused import Refused
from streams.states import decoded, hash_of

MAX_STATE_BYTES = 512 * 1024
"""Largest state that a command carries: the topic and the inboxes take it eight times over."""
_OF_A_SYMBOL = frozenset({"HALT", "RESUME"})


def addressee(event: Event) -> str | None:
    """Scope that a broadcast event is for; None: all of them.

    A command about a policy is for the policy's scope, whatever symbol it names.
    """
    if isinstance(event, PolicyCommand) and event.policy_id and event.command not in _OF_A_SYMBOL:
        scope = scope_of("policy.ledger", event.policy_id)
        return None if scope == GLOBAL else scope
    symbol: str | None = getattr(event, "symbol", None)
    return symbol


def without_state(event: Event) -> Event:
    """An event as it is kept for scopes born later: none of them has use for an old state of another's."""
    if isinstance(event, PolicyCommand) and (event.state is not None or event.heavy is not None):
        return msgspec.structs.replace(event, state=None, heavy=None)
    return event


def step(agent: Agent[Any], codec: Codec, scope: str, state: State, event: Event) -> tuple[Any, tuple[Output, ...]]:
    """The agent's step; for a rollback of a policy of its own, with the old state in its hands."""
    if isinstance(event, PolicyCommand) and event.command == "ROLLBACK" and \
            (event.policy_id or "").partition("/")[0] == agent.name:
        return agent.rolled_back(state, _old_state(agent, codec, scope, event), event)
    return agent.step(state, event)


def _old_state(agent: Agent[Any], codec: Codec, scope: str, command: PolicyCommand) -> State | Refused:
    """The state that a rollback carries, as the agent has it today; or why there is none."""
    data, name = command.state, f"of version {command.version}"
    if command.version is None:
        return Refused("NO_VERSION", "it names no version")
    if data is None or command.state_format is None:
        return Refused("NO_STATE", f"it carries no state {name}")
    size = len(data) + sum(map(len, command.heavy or ()))
    if size > MAX_STATE_BYTES:
        return Refused("TOO_LARGE", f"the state {name} has {size} bytes; {MAX_STATE_BYTES} are allowed")
    found = hash_of(scope, data)
    if found != command.state_hash:
        return Refused("HASH_MISMATCH", f"the state {name} has the hash {found[:12]}, not {command.state_hash}")
    heavy = {sha256(part).digest(): part for part in command.heavy or ()}
    try:
        return decoded(agent, codec, command.state_format, data, lambda state: _filled(agent, state, heavy, name))
    except Refused as refused:
        return refused


def _filled(agent: Agent[Any], state: Any, heavy: Mapping[bytes, bytes], name: str) -> Any:
    """The state with its heavy fields, which it names by their hash."""
    named = {field: getattr(state, field) for field in agent.heavy if getattr(state, field)}
    lost = [field for field, digest in named.items() if digest not in heavy]
    if lost:
        raise Refused("NO_STATE", f"the state {name} names its {lost[0]} {named[lost[0]].hex()[:12]}, which does not "
                                  f"come with it")
    return msgspec.structs.replace(state, **{f: heavy[digest] for f, digest in named.items()}) if named else state
