"""An agent's state as bytes: its hash, and the way back from any format that the agent still takes up."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from agents.contract import Agent, State
from schemas.codec import Codec
from schemas.refused import Refused


def hash_of(scope: str, state: bytes) -> str:
    """SHA-256 of scope and encoded state, hex: what provenance calls `state_hash`."""
    return sha256(scope.encode() + b"\0" + state).hexdigest()


def decoded(agent: Agent[Any], codec: Codec, format_version: int, data: bytes,
            filled: Callable[[Any], Any] = lambda state: state) -> State:
    """A state of any format that the agent can still take up.

    Args:
        filled: puts the heavy fields into the state as it was written, before it is migrated.

    Raises:
        Refused: OTHER_FORMAT, or the bytes are no such state.
    """
    steps = range(format_version, agent.format_version)
    if format_version > agent.format_version or not set(steps) <= set(agent.former):
        raise Refused("OTHER_FORMAT", f"state of format {format_version}; {agent.name} reads {agent.format_version}")
    state = filled(codec.decode_state(agent.former[format_version][0] if steps else agent.state_type, data))
    for version in steps:
        state = agent.former[version][1](state)
    return state
