"""`quantum topics`: the broker's topics against the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import click
from rich.table import Table
from rich.text import Text

from schemas.catalogue import built_topics
from streams import topics
from streams.cli.exits import Exit
from streams.cli.main import Unreachable
from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.settings import Settings

R = TypeVar("R")


@click.group()
def command() -> None:
    """Partitions, retention, size limits and every other config of the catalogue, held against the broker."""


@command.command()
@settings_options
@json_option
@click.pass_context
def check(ctx: click.Context, settings: Settings, as_json: bool) -> None:
    """Say what differs; change nothing. Exit code 5 where something does."""
    differences = _ask(lambda: topics.check(settings))
    if as_json:
        print_json({"broker": settings.broker, "topics": len(built_topics()),
                    "differences": [asdict(d) for d in differences]})
    elif differences:
        _table(("topic", "setting", "catalogue", "broker"),
               [(settings.topic(d.topic), d.setting, d.expected, d.found or "missing") for d in differences])
        click.echo("`quantum topics apply` creates and sets what it safely can.", err=True)
    else:
        click.echo(f"{len(built_topics())} topics at {settings.broker} are as the catalogue says")
    if differences:
        ctx.exit(Exit.TOPICS_DIFFER)


@command.command()
@settings_options
@json_option
@click.pass_context
def apply(ctx: click.Context, settings: Settings, as_json: bool) -> None:
    """Create what is missing, set configs; delete nothing. Exit code 5 where something had to be left."""
    changes = _ask(lambda: topics.apply(settings))
    if as_json:
        print_json({"broker": settings.broker, "topics": len(built_topics()), "changes": [asdict(c) for c in changes]})
    elif changes:
        _table(("topic", "action", "setting", "before", "after", "why"),
               [(settings.topic(c.topic), c.action, c.setting, c.before or "", c.after, c.reason) for c in changes])
    else:
        click.echo(f"{len(built_topics())} topics at {settings.broker} were as the catalogue says")
    if any(change.action == "left" for change in changes):
        ctx.exit(Exit.TOPICS_DIFFER)


def _ask(question: Callable[[], R]) -> R:
    try:
        return question()
    except topics.BrokerUnreachable as exc:
        raise Unreachable(str(exc)) from exc
    except topics.TopicsError as exc:
        raise click.ClickException(str(exc)) from exc


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # not read as markup
    data_console().print(table)
