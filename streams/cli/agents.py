"""The agents as options configure them: one place, because what verifies a run must configure it as the worker did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from agents.contract import Agent
from streams.settings import Settings


def configured(settings: Settings, given: Sequence[str], names: Sequence[str]) -> dict[str, Agent[Any]]:
    """Agents of the roster with the configuration of `--agent-config`; their seed is the settings' unless it is given.

    Args:
        settings: for the seed.
        given: texts AGENT=JSON.
        names: which agents, all on the roster.

    Raises:
        click.UsageError: a text names none of them, or its JSON is no configuration of that agent.
    """
    from agents.roster import ROSTER  # here, because it loads what every agent needs

    texts = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in names:
            raise click.UsageError(f"--agent-config: {text!r} is not AGENT=JSON with one of {', '.join(names)}")
        texts[name] = value
    return {name: _one(ROSTER[name], texts.get(name, "{}"), settings.seed) for name in names}


def _one(kind: type[Agent[Any]], text: str, seed: int) -> Agent[Any]:
    try:
        config = msgspec.json.decode(text, type=kind.config_type)
    except msgspec.MsgspecError as exc:
        raise click.UsageError(f"--agent-config of {kind.name}: {exc}") from None
    if "seed" not in msgspec.json.decode(text):
        config = msgspec.structs.replace(config, seed=seed)
    return kind(config)
