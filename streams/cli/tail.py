"""`quantum tail`: records of a topic, decoded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import click

from streams.cli.options import json_option, settings_options
from streams.cli.reading import codec_of, find_topic, reading
from streams.inspecting.shown import FIELDS, line, show
from streams.log import Record, Start
from streams.settings import Settings


def _start(_ctx: click.Context, _param: click.Parameter, text: str) -> Start:
    try:
        return Start.parse(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


_JSON = "\b\nWith --json, one object a line:\n" + "\n".join(f"  {name}: {text}" for name, text in FIELDS.items())


@click.command("tail", epilog=_JSON)
@click.argument("topic")
@click.option("-o", "--offset", "start", default="beginning", show_default=True, callback=_start, metavar="WHERE",
              help="Where to begin, on each partition: beginning, end, N (an offset), -N (the last N), "
                   "s@MILLISECONDS or s@2026-01-31T12:00:00Z (appended at or after).")
@click.option("-c", "--count", type=click.IntRange(min=1), help="Stop after so many records.")
@click.option("-e", "--exit", "exit_at_end", is_flag=True, help="Stop at the end of the topic: the default.")
@click.option("-k", "--key", help="Only records with this key.")
@click.option("-p", "--partition", "partitions", type=click.IntRange(min=0), multiple=True,
              help="Only this partition; may be given several times.")
@click.option("-f", "--follow", is_flag=True, help="Wait for more at the end, until interrupted.")
@json_option
@settings_options
def command(settings: Settings, topic: str, start: Start, count: int | None, exit_at_end: bool, key: str | None,
            partitions: tuple[int, ...], follow: bool, as_json: bool) -> None:
    """Print records of TOPIC, decoded, one a line.

    Options are those of kcat. TOPIC is a name of the catalogue, with or without the prefix; inboxes, changelogs and
    dead letters are decoded too. Records of a partition come in order; partitions come as the broker serves them.
    What cannot be decoded is printed with the reason and its bytes in hex.
    """
    if follow and exit_at_end:
        raise click.UsageError("-e and --follow exclude each other")
    codec = codec_of(settings)
    with reading(settings) as log:
        name = find_topic(log, settings, topic)
        records = log.read(name, partitions=partitions or None, start=start, follow=follow)
        for record in _some(records, None if key is None else key.encode(), count):
            shown = show(codec, record, settings.topic_prefix)
            click.echo(json.dumps(shown) if as_json else line(shown))


def _some(records: Iterable[Record], key: bytes | None, count: int | None) -> Iterator[Record]:
    """The first `count` records with the key."""
    n = 0
    for record in records:
        if key is not None and record.key != key:
            continue
        yield record
        n += 1
        if n == count:
            return
