"""`quantum topics`: the broker's topics, and the subjects of the schema registry, against the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import click
from rich.table import Table
from rich.text import Text

from schemas.catalogue import built_topics
from streams import subjects, topics
from streams.acls import acl_commands, acls, internal, topic_command, topics_of
from streams.cli.agents import agents_named
from streams.cli.exits import Exit
from streams.cli.main import Unreachable
from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.settings import Settings

R = TypeVar("R")


@click.group()
def command() -> None:
    """Partitions, retention, size limits and every other config of the catalogue, held against the broker.

    Where a schema registry is set (QUANTUM_REGISTRY), its subjects as well: the newest schema of every topic with an
    event under <topic>-value, and the level BACKWARD_TRANSITIVE.
    """


partitions_option = click.option(
    "--partitions", type=click.IntRange(1, 1000),
    help="Of topics that are spread by symbol: as many workers can share an agent. Default: QUANTUM_PARTITIONS, else "
         "as market.candles has, else 4.")


@command.command()
@settings_options
@partitions_option
@click.option("--acls", "show_acls", is_flag=True,
              help="Print the least rights that a worker needs, and the topics, as commands; asks no broker.")
@click.option("--agents", metavar="NAMES", help="With --acls: of these agents. Default: all that are built.")
@click.option("--clock", is_flag=True, help="With --acls: the worker also writes system.clock.")
@click.option("--principal", default="User:quantum", show_default=True, help="With --acls: who gets the rights.")
@json_option
@click.pass_context
def check(ctx: click.Context, settings: Settings, partitions: int | None, show_acls: bool, agents: str | None,
          clock: bool, principal: str, as_json: bool) -> None:
    """Say what differs; change nothing. Exit code 5 where something does."""
    settings = settings.replace(partitions=partitions or settings.partitions)
    if show_acls:
        _acls(settings, agents_named(agents), clock, principal, as_json)
        return
    differences = _ask(lambda: topics.check(settings)) + subjects.check(settings)
    if as_json:
        print_json({"broker": settings.broker, "registry": settings.registry, "topics": len(built_topics()),
                    "differences": [asdict(d) for d in differences]})
    elif differences:
        _table(("topic", "setting", "catalogue", "found"),
               [(settings.topic(d.topic), d.setting, d.expected, d.found or "missing") for d in differences])
        click.echo("`quantum topics apply` creates and sets what it safely can.", err=True)
    else:
        click.echo(f"{len(built_topics())} topics at {settings.broker} are as the catalogue says{_subjects(settings)}")
    if differences:
        ctx.exit(Exit.TOPICS_DIFFER)


@command.command()
@settings_options
@partitions_option
@json_option
@click.pass_context
def apply(ctx: click.Context, settings: Settings, partitions: int | None, as_json: bool) -> None:
    """Create what is missing, set configs; delete nothing. Exit code 5 where something had to be left."""
    settings = settings.replace(partitions=partitions or settings.partitions)
    changes = _ask(lambda: topics.apply(settings)) + subjects.apply(settings)
    if as_json:
        print_json({"broker": settings.broker, "registry": settings.registry, "topics": len(built_topics()),
                    "changes": [asdict(c) for c in changes]})
    elif changes:
        _table(("topic", "action", "setting", "before", "after", "why"),
               [(settings.topic(c.topic), c.action, c.setting, c.before or "", c.after, c.reason) for c in changes])
    else:
        click.echo(f"{len(built_topics())} topics at {settings.broker} were as the catalogue says{_subjects(settings)}")
    if any(change.action == "left" for change in changes):
        ctx.exit(Exit.TOPICS_DIFFER)


def _acls(settings: Settings, agents: Sequence[str], clock: bool, principal: str, as_json: bool) -> None:
    rights = acls(settings, agents, clock=clock)
    needed = topics_of(rights, settings)
    if as_json:
        print_json({
            "principal": principal, "acls": [asdict(right) for right in rights],
            "groups": [settings.group(name) for name in agents],
            "topics": [{"name": settings.topic(t.name), "internal": internal(t), "partitions": t.partitions,
                        "configs": t.configs()} for t in needed]})
        return
    click.echo("# Topics: nothing makes them but this, or `quantum topics apply` as a user who may create")
    for kind, ours in (("ours alone", True), ("shared with others", False)):
        click.echo(f"# {kind}")
        for topic in needed:
            if internal(topic) == ours:
                click.echo(topic_command(topic, settings))
    for who in (*agents, *(["clock"] if clock else [])):
        click.echo(f"# Rights of {who}")
        for line in acl_commands([right for right in rights if right.agent == who], principal, settings.broker):
            click.echo(line)

def _subjects(settings: Settings) -> str:
    return "" if settings.registry is None else f", and {len(subjects.event_topics())} subjects at {settings.registry}"


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
