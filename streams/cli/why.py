"""`quantum why`: the story of one trade or decision, from the log."""

from __future__ import annotations

import json
import time

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.codec import Codec
from streams import story
from streams.cli.exits import Exit
from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.cli.reading import reading
from streams.inspecting.shown import one_line
from streams.settings import Settings
from streams.story.telling import FIELDS, RECORD, SCHEMA
from streams.story.verdict import MEANING

_EPILOG = "\n\n".join((
    "\b\nVerdicts:\n" + "\n".join(f"  {word}: {text}" for word, text in MEANING.items()),
    f"\b\nWith --json, one object of the schema {SCHEMA}:\n"
    + "\n".join(f"  {name}: {text}" for name, text in FIELDS.items()) + f"\n  {RECORD}",
    "Exit code 1: no record names the id. With --json, standard output then holds {schema, id, error, near, "
    "looked_at}.",
))


@click.command("why", epilog=_EPILOG)
@click.argument("name", metavar="TRADE_ID|DECISION_ID")
@json_option
@settings_options
def command(settings: Settings, name: str, as_json: bool) -> None:
    """Tell what became of a trade or a decision, and why, each step with the record that shows it.

    Nothing is asked of any agent: it is read from the log, without joining a group. A trade's arithmetic is done again.
    """
    began = time.monotonic()
    with reading(settings) as log:
        try:
            told = story.trace(log, Codec(), name)
        except story.Unknown as unknown:
            _unknown(unknown, as_json)
            raise click.exceptions.Exit(Exit.FAILED) from None
    if as_json:
        print_json(story.as_dict(told))
        return
    _print(data_console(), told)
    seconds = time.monotonic() - began
    click.echo(f"looked at {sum(told.looked.values()):,} records in {seconds:.1f} s", err=True)


def _unknown(unknown: story.Unknown, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "id": unknown.asked, "error": "unknown", "near": unknown.near,
                               "looked_at": unknown.looked}, indent=2))
    near = "".join(f"\n  near: {one_line(name)}" for name in unknown.near)
    where = ", ".join(f"{topic} {n:,}" for topic, n in sorted(unknown.looked.items())) or "no record"
    click.echo(f"quantum: no record names {one_line(unknown.asked)}{near}\nlooked at: {where}", err=True)


def _print(console: Console, told: story.Story) -> None:
    """A table on a terminal; elsewhere one line a step, however long."""
    named = told.named
    rows = [(v.word.upper(), " ".join(v.places), v.text) for v in told.verdicts]
    rows += [(step.what, step.place, step.text) for step in story.steps(told)]
    clean = [(one_line(what), one_line(place), one_line(text)) for what, place, text in rows]
    head = one_line(f"{named.kind} {named.asked}")
    if not console.is_terminal:
        click.echo(head)
        for what, place, text in clean:
            click.echo(f"{what}\t{place}\t{text}")
        return
    table = Table(show_header=False, box=None, title=Text(head), title_justify="left", padding=(0, 2, 0, 0))
    for i, row in enumerate(clean):
        style = "bold" if i < len(told.verdicts) else "red" if "DOES NOT AGREE" in row[2] else ""
        table.add_row(*(Text(cell) for cell in row), style=style)
    console.print(table)
