"""`quantum dlq`: dead letters: list, show, redrive."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import click
from rich.table import Table

from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.cli.reading import codec_of, find_topic, reading
from streams.inspecting.deadletters import (
    Letter,
    Plan,
    dead_letter_topics,
    letter_of,
    letters,
    original_headers,
    plan,
    redrive,
    tally,
)
from streams.inspecting.shown import DLQ, brief, hexdump, iso, line, show
from streams.log import LogReader, Record, Start
from streams.settings import Settings

SHOWN = 10
HEX_BYTES = 256


@click.group("dlq")
def command() -> None:
    """Dead letters: records that were refused, with the reason, their bytes intact.

    Every input topic of an agent has a dead-letter topic <topic>.dlq.
    """


def _dlq(log: LogReader, settings: Settings, topic: str) -> str:
    return find_topic(log, settings, topic if topic.endswith(DLQ) else topic + DLQ)


def _place(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> list[tuple[int, int]]:
    """`P@O` or `O` as partition and offset; dead-letter topics have one partition, so P is 0 where it is left out."""
    out = []
    for text in texts:
        match = re.fullmatch(r"(?:([0-9]{1,9})@)?([0-9]{1,18})", text)
        if match is None:
            raise click.BadParameter(f"{text!r} is neither OFFSET nor PARTITION@OFFSET")
        out.append((int(match[1] or 0), int(match[2])))
    return out


def _time(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return Start.parse("s@" + text).value
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


_offset_option = click.option("-o", "--offset", "places", multiple=True, callback=_place, metavar="[P@]O",
                              help="This dead letter; may be given several times.")
_reason_option = click.option("-r", "--reason", "reasons", multiple=True, help="Only letters with this reason.")


# ---------------------------------------------------------------------- list
_LIST_JSON = """\b
With --json: a list of
  topic: dead-letter topic
  records: how many it holds
  reasons: list of {reason, by, records, newest: {partition, offset, timestamp_ms}}"""


@command.command("list", epilog=_LIST_JSON)
@json_option
@settings_options
def list_command(settings: Settings, as_json: bool) -> None:
    """Count dead letters of every topic by reason and by the agent that refused them."""
    with reading(settings) as log:
        found = {topic: letters(log, topic) for topic in dead_letter_topics(log)}
    rows = {topic: tally(some) for topic, some in found.items()}
    if as_json:
        print_json([{"topic": settings.topic(topic), "records": len(found[topic]),
                     "reasons": [row.as_dict() for row in rows[topic]]} for topic in rows])
        return
    console = data_console()
    if not any(rows.values()):
        console.print(f"No dead letters on {len(rows)} topics.")
        return
    table = Table("topic", "reason", "refused by", "records", "newest", "appended", box=None, pad_edge=False)
    for topic, some in rows.items():
        for row in some:
            assert row.newest is not None
            table.add_row(settings.topic(topic), row.reason, row.by, str(row.records),
                          f"{row.newest.partition}@{row.newest.offset}", iso(row.newest.timestamp_ms))
    console.print(table)


# ---------------------------------------------------------------------- show
@command.command("show", epilog="With --json: one object a line, as 'quantum tail' prints; hex always holds all bytes.")
@click.argument("topic")
@_offset_option
@_reason_option
@click.option("-n", "--last", default=SHOWN, show_default=True, type=click.IntRange(min=1),
              help="How many, the newest, where no offset is given.")
@click.option("--bytes", "n_bytes", default=HEX_BYTES, show_default=True, type=click.IntRange(min=0),
              help="How many bytes of the value to print; 0 is all.")
@json_option
@settings_options
def show_command(settings: Settings, topic: str, places: list[tuple[int, int]], reasons: tuple[str, ...], last: int,
                 n_bytes: int, as_json: bool) -> None:
    """Show dead letters of TOPIC: reason, source, headers, bytes, and what a decoder makes of them.

    TOPIC is the source topic or its dead-letter topic.
    """
    codec = codec_of(settings)
    with reading(settings) as log:
        chosen = _chosen(log, _dlq(log, settings, topic), places, reasons, last)
    for letter in chosen:
        shown = show(codec, letter.record, settings.topic_prefix)
        value = letter.record.value
        if as_json:
            click.echo(json.dumps(shown | {"hex": None if value is None else value.hex()}))
        else:
            click.echo("\n".join(_page(letter, shown, n_bytes)) + "\n")


def _chosen(log: LogReader, topic: str, places: list[tuple[int, int]], reasons: tuple[str, ...],
            last: int) -> list[Letter]:
    if places:
        found = [_at(log, topic, partition, offset) for partition, offset in places]
        return [letter_of(r) for r in found]
    some = [letter for letter in letters(log, topic) if not reasons or letter.reason in reasons]
    return some[-last:]


def _at(log: LogReader, topic: str, partition: int, offset: int) -> Record:
    for record in log.read(topic, start={partition: offset}):
        if record.offset == offset:
            return record
        break
    raise click.ClickException(f"{topic} has no record at {partition}@{offset}")


def _page(letter: Letter, shown: dict[str, Any], n_bytes: int) -> list[str]:
    record = letter.record
    source = "unknown" if letter.source is None else "{}-{}@{}".format(*letter.source)
    lines = [
        f"{shown['topic']}-{record.partition}@{record.offset}",
        f"  reason    {letter.reason}",
        f"  detail    {brief_text(letter.detail)}",
        f"  by        {letter.by}",
        f"  source    {source}",
        f"  appended  {iso(record.timestamp_ms)}",
        f"  key       {brief_text(brief(shown['key']))}",
    ]
    own = {name for name, _ in original_headers(record.headers)}
    lines += [f"  header    {brief_text(name)}: {brief_text(brief(text))}" for name, text in shown["headers"]
              if name in own]
    if shown["error"] is None:
        lines.append(f"  decoded   {line(shown | {'dead_letter': None, 'source': None}).partition('  ')[2]}")
    else:
        lines.append(f"  decoded   no: {shown['error']['reason']}: {brief_text(shown['error']['detail'])}")
    if record.value is None:
        return [*lines, "  value     null"]
    lines.append(f"  value     {len(record.value)} bytes")
    return lines + hexdump(record.value, n_bytes)


def brief_text(text: str) -> str:
    """Text with control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# ---------------------------------------------------------------------- redrive
_REDRIVE_JSON = """\b
With --json:
  topic: source topic
  dry_run: true where nothing was sent
  redriven: list of {from, to, reason, for}; to is null in a dry run
  skipped: list of {from, reason, why}"""


@command.command("redrive", epilog=_REDRIVE_JSON)
@click.argument("topic")
@_offset_option
@_reason_option
@click.option("--since", callback=_time, metavar="TIME", help="Only letters appended at or after this time "
                                                              "(2026-01-31T12:00:00Z or milliseconds).")
@click.option("--until", callback=_time, metavar="TIME", help="Only letters appended before this time.")
@click.option("--all", "everything", is_flag=True, help="All letters of the topic.")
@click.option("--again", is_flag=True, help="Also what was redriven before, or refused again.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent; send nothing.")
@json_option
@settings_options
def redrive_command(settings: Settings, topic: str, places: list[tuple[int, int]], reasons: tuple[str, ...],
                    since: int | None, until: int | None, everything: bool, again: bool, dry_run: bool,
                    as_json: bool) -> None:
    """Send dead letters of TOPIC to their source topic again, byte for byte.

    Key, value and original headers are kept, and so is the partition; redriven_from and redriven_for are added. A
    letter that stands on the source topic already is skipped, so the command can be repeated, and so is one of a
    record that was refused again, unless --offset names it. Choose letters by offset, reason or time, or --all. A
    redriven record is late: each agent states what it does with late events.
    """
    if not (places or reasons or since is not None or until is not None or everything):
        raise click.UsageError("choose letters by --offset, --reason, --since or --until, or take --all")
    choose = _selection(places, reasons, since, until)
    with reading(settings) as log:
        dlq = _dlq(log, settings, topic)
        source = dlq.removesuffix(DLQ)
        todo = plan(log, source, letters(log, dlq), choose, again, named=bool(places))
        missing = set(places) - {letter.record[1:3] for letter, _ in (*todo.send, *todo.skip)}
        if missing:
            names = ", ".join(f"{p}@{o}" for p, o in sorted(missing))
            raise click.ClickException(f"{dlq} has no letter at {names} that the selection allows; nothing was sent")
        try:
            done: list[tuple[Letter, str | None]] = [(letter, None) for letter, _ in todo.send]
            if not dry_run:
                done = [*redrive(settings, source, todo)]
        except TimeoutError as exc:
            raise click.ClickException(f"{exc}; run the command again: it skips what arrived") from exc
    _report(settings.topic(source), todo, {letter.record.place: place for letter, place in done}, dry_run, as_json)


def _selection(places: list[tuple[int, int]], reasons: tuple[str, ...], since: int | None,
               until: int | None) -> Callable[[Letter], bool]:
    def chosen(letter: Letter) -> bool:
        at_ms = letter.record.timestamp_ms or 0
        return ((not places or letter.record[1:3] in places) and (not reasons or letter.reason in reasons)
                and (since is None or at_ms >= since) and (until is None or at_ms < until))

    return chosen


def _report(source: str, todo: Plan, places: dict[str, str | None], dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"topic": source, "dry_run": dry_run, **todo.as_dict(places)})
        return
    for letter, refusers in todo.send:
        to = places[letter.record.place] or f"{source}-{letter.source[1] if letter.source else '?'} (dry run)"
        click.echo(f"{letter.record.place} -> {to}  {letter.reason}  for {', '.join(refusers)}")
    for letter, why in todo.skip:
        click.echo(f"{letter.record.place} skipped: {why}")
    verb = "would be sent" if dry_run else "sent"
    click.echo(f"{len(todo.send)} {verb}, {len(todo.skip)} skipped", err=True)
