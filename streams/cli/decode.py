"""`quantum decode`: Avro records on standard input to JSON lines on standard output. Needs no broker."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import click
import msgspec

from schemas.catalogue import TOPICS
from schemas.codec import Codec
from schemas.refused import Refused
from streams.cli.exits import Exit
from streams.cli.reading import codec_of
from streams.settings import Settings, SettingsError

LENGTH_BYTES = 4
NULL_LENGTH = -1


class Cut(Exception):
    """The input ends in the middle of a record."""


def records(stream: BinaryIO, layout: str) -> Iterator[bytes | None]:
    """Records of a stream.

    Args:
        stream: binary input.
        layout: `lengths`: each record behind its length, 4 bytes big-endian, -1 for null, as kcat's `-f '%R%s'` writes
            them; `single`: all of the input is one record.

    Raises:
        Cut: the input ends early, or a length is absurd, which is how input of another layout looks.
    """
    if layout == "single":
        yield stream.read()
        return
    while prefix := stream.read(LENGTH_BYTES):
        length = int.from_bytes(prefix, "big", signed=True)
        if len(prefix) < LENGTH_BYTES or length < NULL_LENGTH:
            raise Cut(f"{prefix.hex()} is no length; write records with kcat -f '%R%s', or use --format single")
        if length == NULL_LENGTH:
            yield None
            continue
        data = stream.read(length)
        if len(data) < length:
            raise Cut(f"a record of {length} bytes ends after {len(data)}")
        yield data


def decoded(codec: Codec, topic: str | None, data: bytes | None) -> tuple[dict[str, Any], bool]:
    """A record as a JSON object, and whether it could be taken."""
    try:
        name = topic or codec.name_of(data)
        event = codec.decode(name, data)
    except Refused as refused:
        size = {"bytes": len(data), "begins": data[:16].hex()} if data is not None else {"bytes": None}
        return {"error": refused.reason, "detail": refused.detail, **size}, False
    return {"type": event.SCHEMA_NAME, **msgspec.to_builtins(event)}, True


@click.command(epilog="Records in Confluent framing are read where the settings name a registry (QUANTUM_REGISTRY).")
@click.option("--format", "layout", type=click.Choice(["lengths", "single"]), default="lengths", show_default=True,
              help="lengths: before each record its 4-byte length, as kcat -f '%R%s' writes; single: one record.")
@click.option("--topic", help="Topic of the records; without it each record's schema tells.")
@click.option("--json", "as_json", is_flag=True, help="Output is JSON lines with and without this.")
def command(layout: str, topic: str | None, as_json: bool) -> int:
    """Avro records on standard input to JSON lines.

    \b
        kcat -b 127.0.0.1:19092 -t policy.current -e -f '%R%s' | quantum decode

    A record that cannot be taken gives a line with `error` and `detail`; the exit code is then 1.
    """
    if topic is not None and (topic not in TOPICS or TOPICS[topic].event is None or topic.endswith(".changelog")):
        raise click.UsageError(f"{topic} has no event; leave --topic out to go by the schema that it names")
    try:
        codec, failed = codec_of(Settings.load()), 0
    except SettingsError as exc:
        raise click.UsageError(f"settings: {exc}") from None
    try:
        for data in records(sys.stdin.buffer, layout):
            line, good = decoded(codec, topic, data)
            failed += not good
            click.echo(json.dumps(line, ensure_ascii=False))
    except Cut as cut:
        click.echo(json.dumps({"error": "CUT", "detail": str(cut)}))
        failed += 1
    if failed:
        click.echo(f"quantum decode: {failed} record{'s' * (failed != 1)} could not be decoded", err=True)
    return Exit.FAILED if failed else Exit.GOOD
