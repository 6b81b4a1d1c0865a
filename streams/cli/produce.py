"""`quantum produce`: JSON lines on standard input to records of a topic."""

from __future__ import annotations

import sys
from typing import Any

import click

from schemas.codec import Codec
from streams.cli.exits import Exit
from streams.cli.main import Unreachable
from streams.cli.options import json_option, print_json, settings_options
from streams.cli.reading import HINT, codec_of, find_topic, reading
from streams.log import NoBroker
from streams.producing import Judged, Sender, external_topics, judged, writable
from streams.settings import Settings

SCHEMA = "quantum.produced/1"
_EPILOG = """\b
Exit codes:
  0: every line was sent and acknowledged (--dry-run: would be)
  1: lines were refused; each is named on standard error with its field
  2: TOPIC is none that people may write
  4: the broker cannot be reached, or did not acknowledge

\b
With --json, one object of the schema quantum.produced/1:
  topic; dry_run; lines, sent: numbers
  places: topic-partition@offset of each record sent, by line
  refused: [{line, reason, detail}]"""


@click.command("produce", epilog=_EPILOG)
@click.argument("topic")
@click.option("--dry-run", is_flag=True, help="Only judge; needs no broker and writes nothing.")
@json_option
@settings_options
def command(settings: Settings, topic: str, dry_run: bool, as_json: bool) -> int:
    """Send JSON lines from standard input to TOPIC.

    \b
        quantum produce execution.trade.closed --dry-run < trades.jsonl

    One object a line, its fields those of the topic's event (docs/topics.md has an example of each); what
    'quantum decode' printed can be sent again. Each line is judged as the agents will judge the record. A refused line
    is not sent, and the others are.
    """
    topic = topic.removeprefix(settings.topic_prefix)
    problem = writable(topic)
    if problem is not None:
        raise click.UsageError(f"{problem}; you may write: {', '.join(external_topics())}")
    lines = judged(Codec() if dry_run else codec_of(settings, writes=True), topic, sys.stdin)
    if dry_run:
        return _told(topic, list(lines), None, as_json)
    with reading(settings) as log:
        find_topic(log, settings, topic)
    sender, seen = Sender(settings), []
    try:
        for line in lines:
            seen.append(line)
            if line.record is not None:
                sender.send(line.line, line.record)
            else:
                _complain(line)
        sender.done()
    except NoBroker as exc:
        raise Unreachable(f"{exc}; {HINT}") from exc
    return _told(topic, seen, sender, as_json)


def _complain(line: Judged) -> None:
    click.echo(f"line {line.line}: {line.reason}: {line.detail}", err=True)


def _told(topic: str, lines: list[Judged], sender: Sender | None, as_json: bool) -> int:
    bad = [line for line in lines if line.record is None]
    if sender is None:
        for line in bad:
            _complain(line)
    places: dict[Any, str] = {} if sender is None else sender.places
    if as_json:
        print_json({
            "schema": SCHEMA, "topic": topic, "dry_run": sender is None, "lines": len(lines), "sent": len(places),
            "places": places,
            "refused": [{"line": b.line, "reason": b.reason, "detail": b.detail} for b in bad],
        })
    elif sender is None:
        click.echo(f"{len(lines) - len(bad)} of {len(lines)} lines would be sent to {topic}")
    else:
        last = f", the last to {places[max(places)]}" if places else ""
        click.echo(f"{len(places)} of {len(lines)} lines sent to {topic}{last}")
    return Exit.FAILED if bad else Exit.GOOD
