"""`quantum why`: the story of one trade, decision or policy version, from the log."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams import story
from streams.cli.exits import Exit
from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.cli.reading import codec_of, reading
from streams.inspecting.shown import one_line
from streams.log import PIECEWISE_MS
from streams.settings import Settings
from streams.story.descended import POLICY_FIELDS
from streams.story.telling import FIELDS, SCHEMA
from streams.story.trader_telling import TRADER_FIELDS
from streams.story.verdict import MEANING
from streams.story.wording import RECORD, Step

_EPILOG = "\n\n".join((
    "\b\nVerdicts:\n" + "\n".join(f"  {word}: {text}" for word, text in MEANING.items()),
    f"\b\nWith --json, one object of the schema {SCHEMA}:\n"
    + "\n".join(f"  {name}: {text}" for name, text in FIELDS.items()) + f"\n  {RECORD}",
    "\b\nFor POLICY@VERSION, instead:\n"
    + "\n".join(f"  {name}: {text}" for name, text in POLICY_FIELDS.items()),
    "\b\nFor a decision of ppo_trader, instead:\n"
    + "\n".join(f"  {name}: {text}" for name, text in TRADER_FIELDS.items()),
    "Exit code 1: no record names the id. With --json, standard output then holds {schema, id, error, near, "
    "looked_at}.",
))


@click.command("why", epilog=_EPILOG)
@click.argument("name", metavar="TRADE_ID|DECISION_ID|POLICY@VERSION")
@click.option("--depth", type=click.IntRange(min=0), default=1, show_default=True, metavar="N",
              help="Versions of the policy to tell what they were learned from: the one applied and its parents.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, metavar="N",
              help="Outcomes of these to show, in all; how many more there are is said.")
@json_option
@settings_options
def command(settings: Settings, name: str, depth: int, limit: int, as_json: bool) -> None:
    """Tell what became of a trade or a decision, and why, each step with the record that shows it.

    A decision leads to the policy version that it applied, to the update that made it, to the outcomes and trades that
    it was learned from; POLICY@VERSION begins there. A decision of the PPO trader leads to the training run that made
    its version. Nothing is asked of any agent: it is read from the log, without joining a group. The arithmetic of a
    trade is done again.
    """
    began, reach = time.monotonic(), story.Reach(depth, limit)
    with reading(settings, PIECEWISE_MS) as log:
        codec = codec_of(settings)
        try:
            told = story.trace_name(log, codec, name, reach)
        except story.Unknown as unknown:
            _unknown(unknown, as_json)
            raise click.exceptions.Exit(Exit.FAILED) from None
    if as_json:
        print_json(story.plain(name, told))
        return
    if isinstance(told, story.PolicyStory):
        _print(data_console(), f"policy {name}", [], story.policy_steps(told))
    elif isinstance(told, story.TraderStory):
        _print(data_console(), f"{told.kind} {told.asked}", [], story.trader_steps(told))
    else:
        verdicts = [Step(v.word.upper(), " ".join(v.places), v.text) for v in told.verdicts]
        _print(data_console(), f"{told.named.kind} {told.named.asked}", verdicts, story.steps(told))
    seconds = time.monotonic() - began
    click.echo(f"looked at {sum(told.looked.values()):,} records in {seconds:.1f} s", err=True)


def _unknown(unknown: story.Unknown, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "id": unknown.asked, "error": "unknown", "near": unknown.near,
                               "looked_at": unknown.looked}, indent=2))
    near = "".join(f"\n  near: {one_line(name)}" for name in unknown.near)
    where = ", ".join(f"{topic} {n:,}" for topic, n in sorted(unknown.looked.items())) or "no record"
    click.echo(f"quantum: no record names {one_line(unknown.asked)}{near}\nlooked at: {where}", err=True)


def _print(console: Console, title: str, verdicts: Sequence[Step], told: Sequence[Step]) -> None:
    """A table on a terminal; elsewhere one line a step, however long."""
    clean = [(one_line(what), one_line(place), one_line(text)) for what, place, text in (*verdicts, *told)]
    head = one_line(title)
    if not console.is_terminal:
        click.echo(head)
        for what, place, text in clean:
            click.echo(f"{what}\t{place}\t{text}")
        return
    table = Table(show_header=False, box=None, title=Text(head), title_justify="left", padding=(0, 2, 0, 0))
    for i, row in enumerate(clean):
        style = "bold" if i < len(verdicts) else "red" if "DOES NOT AGREE" in row[2] else ""
        table.add_row(*(Text(cell) for cell in row), style=style)
    console.print(table)
