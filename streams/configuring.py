"""The configuration of a running agent: what `policy.config` says of it, and a change that can be written.

Each event is whole: what it does not name has the value with which the agent was started. So a change is the newest
event that the agent can have taken, with some fields set and others taken out; two people who change at the same moment
do not merge, the later event counts. What the agent refuses counts for nothing, and is passed over here alike.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.contract import Agent, Config
from schemas.catalogue import AGENTS
from schemas.codec import Codec
from schemas.events import PolicyConfig
from schemas.refused import Refused
from streams.commanding import event_now
from streams.log import LogReader

TOPIC = "policy.config"


class CannotConfigure(Exception):
    """Why a configuration is not written."""


@dataclass(frozen=True)
class Standing:
    """What the log says of an agent's configuration.

    Attributes:
        config: as it is in force.
        event: the newest event that holds, None where none does; `place` is where it stands.
        values: what that event names.
        refused: events that the agent refuses, by place, with the reason.
    """

    config: Config
    event: PolicyConfig | None = None
    place: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def configurable() -> list[str]:
    """Agents that read `policy.config`."""
    return [a.name for a in AGENTS.values() if a.built and TOPIC in a.reads]


def standing(log: LogReader, codec: Codec, agent: Agent[Any]) -> Standing:
    """An agent's configuration as the log has it; by event time, of equals the one that stands later.

    Args:
        agent: as the worker runs it: what it was started with is its configuration.
    """
    found, refused = Standing(agent.config), dict[str, str]()
    for record in log.read(TOPIC):
        try:
            event = codec.decode(TOPIC, record.value)
            if not isinstance(event, PolicyConfig) or event.agent != agent.name:
                continue
            config = agent.configured(event.values)
        except Refused as exc:
            if record.key == agent.name.encode():
                refused[record.place] = str(exc)
            continue
        if found.event is None or event.ts_ms >= found.event.ts_ms:
            found = Standing(config, event, record.place, json.loads(event.values))
    return Standing(found.config, found.event, found.place, found.values, refused)


def planned(log: LogReader, codec: Codec, agent: Agent[Any], now: Standing, *, changes: Mapping[str, Any],
            unset: Collection[str] = (), actor: str, reason: str) -> PolicyConfig:
    """The event that changes some fields.

    Args:
        now: as it stands.
        changes: new values by field.
        unset: fields that get back the value with which the agent was started.

    Raises:
        CannotConfigure: the agent would refuse it, or it changes nothing.
    """
    values = {k: v for k, v in now.values.items() if k not in unset} | dict(changes)
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    event = PolicyConfig(config_id=f"config-{uuid.uuid4().hex[:16]}", agent=agent.name, values=text, actor=actor,
                         reason=reason, ts_ms=event_now(log, codec, TOPIC))
    try:
        unknown = sorted(set(unset) - agent.live)
        if unknown:
            raise CannotConfigure(f"{', '.join(unknown)}: not changed while {agent.name} runs")
        config = agent.configured(text)
        codec.encode(TOPIC, event)
    except Refused as refused:
        raise CannotConfigure(str(refused)) from refused
    if config == now.config and values == dict(now.values):
        raise CannotConfigure(f"NO_CHANGE: {agent.name} has that configuration already"
                              f"{f', since {now.place}' if now.place else ''}")
    return event
