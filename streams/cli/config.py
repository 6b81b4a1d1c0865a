"""`quantum config show|set`: the configuration of agents that run, on `policy.config`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
import msgspec
from rich.table import Table

from agents.contract import Agent
from schemas.events import PolicyConfig
from streams import configuring
from streams.cli.agents import configured
from streams.cli.options import (
    actor_option,
    agent_config_option,
    data_console,
    json_option,
    print_json,
    settings_options,
)
from streams.cli.reading import codec_of, find_topic, reading
from streams.commanding import CLOCK, said
from streams.configuring import TOPIC, CannotConfigure, Standing
from streams.policy_view import utc
from streams.records import encode_event
from streams.settings import Settings

SCHEMA = "quantum.config/1"
_EPILOG = """\b
Exit codes: 0 good; 1 the agent would refuse it, or it changes nothing; 2 wrong
usage; 4 the broker cannot be reached.

\b
With --json, one object of the schema quantum.config/1:
  agent; outcome: shown, planned or written; place: of what was written, or null
  fields: list of {name, live, started, now}; with set also {becomes}
  event: null, or {config_id, ts_ms, actor, reason, values, place}: in force
  refused: {place: reason}: events that the agent refuses"""


@click.group("config")
def command() -> None:
    """Show and change the configuration of agents while they run."""


@command.command("show", epilog=_EPILOG)
@click.argument("name", metavar="AGENT")
@agent_config_option
@json_option
@settings_options
def show(settings: Settings, name: str, agent_config: tuple[str, ...], as_json: bool) -> None:
    """Show the configuration of AGENT: as it was started, and as policy.config has it now.

    What it was started with is what --agent-config and --seed say here, as for the worker.
    """
    agent, codec = _agent(settings, name, agent_config), codec_of(settings)
    with reading(settings) as log:
        find_topic(log, settings, TOPIC)
        now = configuring.standing(log, codec, agent)
    if as_json:
        print_json(as_dict(agent, now, "shown"))
    else:
        _tell(agent, now)


@command.command("set", epilog=_EPILOG)
@click.argument("name", metavar="AGENT")
@click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--unset", multiple=True, metavar="KEY", help="Back to what the agent was started with.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it stands on the log for ever.")
@actor_option
@click.option("--dry-run", is_flag=True, help="Say what would be written and what it would change; write nothing.")
@agent_config_option
@json_option
@settings_options
def set_(settings: Settings, name: str, changes: tuple[str, ...], unset: tuple[str, ...], reason: str, actor: str,
         dry_run: bool, agent_config: tuple[str, ...], as_json: bool) -> None:
    """Change fields of the configuration of AGENT while it runs.

    VALUE is JSON (4, 0.5, true, null, "text", [1,2]); what is no JSON is taken as text. The change is held against the
    agent's own type; one that it would refuse is not written.
    """
    agent, codec = _agent(settings, name, agent_config), codec_of(settings, writes=True)
    given = _values(changes)
    if not given and not unset:
        raise click.UsageError("nothing to change: give KEY=VALUE or --unset KEY")
    with reading(settings) as log:
        for topic in (TOPIC, CLOCK):
            find_topic(log, settings, topic)
        now = configuring.standing(log, codec, agent)
        try:
            event = configuring.planned(log, codec, agent, now, changes=given, unset=unset, actor=actor, reason=reason)
        except CannotConfigure as exc:
            raise click.ClickException(str(exc)) from exc
        place = None if dry_run else said(settings, encode_event(codec, TOPIC, event, event.config_id, actor))
    if as_json:
        print_json(as_dict(agent, now, "planned" if dry_run else "written", event, place))
        return
    _tell(agent, now, event)
    click.echo("written   nothing (--dry-run)" if place is None else f"written   {place}")


def _agent(settings: Settings, name: str, agent_config: Sequence[str]) -> Agent[Any]:
    names = configuring.configurable()
    if name not in names:
        raise click.UsageError(f"{name} does not read {TOPIC}; these agents do: {', '.join(names) or 'none'}")
    return configured(settings, agent_config, [name])[name]


def _values(changes: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{text!r} is not KEY=VALUE")
        if key in values:
            raise click.UsageError(f"{key} is given twice")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


def as_dict(agent: Agent[Any], now: Standing, outcome: str, event: PolicyConfig | None = None,
            place: str | None = None) -> dict[str, Any]:
    """A configuration as plain data, schema `quantum.config/1`."""
    held = now.event
    return {
        "schema": SCHEMA, "agent": agent.name, "outcome": outcome, "place": place, "fields": _fields(agent, now, event),
        "event": None if held is None else {
            "config_id": held.config_id, "ts_ms": held.ts_ms, "actor": held.actor, "reason": held.reason,
            "values": dict(now.values), "place": now.place},
        "refused": dict(now.refused),
    }


def _fields(agent: Agent[Any], now: Standing, event: PolicyConfig | None) -> list[dict[str, Any]]:
    started, current = msgspec.to_builtins(agent.config), msgspec.to_builtins(now.config)
    rows = [{"name": k, "live": k in agent.live, "started": v, "now": current[k]} for k, v in started.items()]
    if event is not None:
        becomes = msgspec.to_builtins(agent.configured(event.values))
        rows = [row | {"becomes": becomes[row["name"]]} for row in rows]
    return rows


def _tell(agent: Agent[Any], now: Standing, event: PolicyConfig | None = None) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("field", "started", "now", *(("becomes",) if event is not None else ()), "changed live"):
        table.add_column(title)
    for row in _fields(agent, now, event):
        values = [row["started"], row["now"], *([row["becomes"]] if event is not None else [])]
        style = "bold" if any(v != values[0] for v in values) else ""
        table.add_row(row["name"], *map(json.dumps, values), "yes" if row["live"] else "no", style=style)
    console = data_console()
    console.print(table)
    if now.event is not None:
        console.print(f"since     {utc(now.event.ts_ms)} by {now.event.actor}: {now.event.reason}  ({now.place})",
                      markup=False, highlight=False)
    for place, why in now.refused.items():
        console.print(f"refused   {place}  {why}", markup=False, highlight=False)
