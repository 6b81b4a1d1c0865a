"""The story of whatever a name stands for: a policy version, a decision of the PPO trader, a trade or a decision."""

from __future__ import annotations

from typing import Any

from schemas.codec import Codec
from streams.log import LogReader
from streams.story.descended import policy_dict
from streams.story.descent import PolicyStory, Reach, trace_named_version
from streams.story.telling import as_dict
from streams.story.tracing import Story, trace
from streams.story.trader import TraderStory, trace_trader
from streams.story.trader_telling import trader_dict

AnyStory = Story | PolicyStory | TraderStory


def trace_name(log: LogReader, codec: Codec, name: str, reach: Reach) -> AnyStory:
    """The story that a name has.

    Args:
        name: a trade id, a decision id or POLICY@VERSION.
        reach: how far the story goes.

    Raises:
        Unknown: no record names it.
    """
    return (trace_named_version(log, codec, name, reach) or trace_trader(log, codec, name, reach)
            or trace(log, codec, name, reach))


def plain(name: str, told: AnyStory) -> dict[str, Any]:
    """A story as JSON takes it; `name` as it was asked for."""
    if isinstance(told, PolicyStory):
        return policy_dict(name, told)
    return trader_dict(told) if isinstance(told, TraderStory) else as_dict(told)
