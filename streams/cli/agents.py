"""The agents as options configure them: one place, because what verifies a run must configure it as the worker did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from agents.contract import Agent
from agents.roster import ROSTER
from streams.settings import Settings


def agents_named(text: str | None) -> list[str]:
    """Names in an option, with commas between; without one, all that are built.

    Raises:
        click.UsageError: one is not built, or there is none.
    """
    names = list(ROSTER) if text is None else [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(ROSTER))
    if unknown or not names:
        raise click.UsageError(f"--agents: {', '.join(unknown) or 'none'} is not built; there are {', '.join(ROSTER)}")
    return list(dict.fromkeys(names))


def configured(settings: Settings, given: Sequence[str], names: Sequence[str]) -> dict[str, Agent[Any]]:
    """Agents of the roster with the configuration of `--agent-config`; their seed is the settings' unless it is given.

    Args:
        settings: for the seed.
        given: texts AGENT=JSON.
        names: which agents, all on the roster.

    Raises:
        click.UsageError: a text names none of them, or its JSON is no configuration of that agent.
    """
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
