"""An independent judge of records: the official `avro` decoder, then the schema, then the ranges the `.avsc` states.

It shares no code with `schemas`: it reads the `.avsc` files as text. What it refuses must become a dead letter, and
what it accepts must be processed with the value that it gives.
"""

from __future__ import annotations

import io
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import avro.io
import avro.schema

AVSC = Path(__file__).parents[2] / "schemas" / "avsc"


class Rejected(Exception):
    """The record is refused; the text says by what."""


@cache
def schema_json(topic: str) -> Any:
    """The `.avsc` of a topic as plain JSON."""
    return json.loads((AVSC / f"{topic}.avsc").read_text())


@cache
def official(topic: str) -> Any:
    """The schema as the official package has it."""
    return avro.schema.parse(json.dumps(schema_json(topic)))


@cache
def mark(topic: str) -> bytes:
    """First ten bytes of a record in single-object encoding."""
    return b"\xc3\x01" + bytes(official(topic).fingerprint("CRC-64-AVRO"))


def judge(topic: str, data: bytes | None) -> dict[str, Any]:
    """The value of a record.

    Raises:
        Rejected: by the framing, the decoder, the schema or the ranges.
    """
    if data is None or data[:10] != mark(topic):
        raise Rejected("not a record of this schema")
    stream = io.BytesIO(data[10:])
    try:
        value = avro.io.DatumReader(official(topic)).read(avro.io.BinaryDecoder(stream))
    except Exception as exc:  # the official decoder raises many kinds
        raise Rejected(f"decoder: {type(exc).__name__}: {exc}") from exc
    if stream.tell() != len(data) - 10:
        raise Rejected("bytes are left")
    if not avro.io.validate(official(topic), value):
        raise Rejected("the value does not validate")
    _hold(schema_json(topic), value, {}, {}, "")
    return value  # type: ignore[no-any-return]


def _hold(avro_type: Any, value: Any, field: dict[str, Any], named: dict[str, Any], where: str) -> None:
    if isinstance(avro_type, list):
        if value is not None:
            (inner,) = [t for t in avro_type if t != "null"]
            _hold(inner, value, field, named, where)
        return
    if isinstance(avro_type, str) and avro_type in named:
        avro_type = named[avro_type]
    kind = avro_type if isinstance(avro_type, str) else avro_type["type"]
    if kind == "record":
        named[avro_type["name"]] = avro_type
        for inner_field in avro_type["fields"]:
            name = inner_field["name"]
            _hold(inner_field["type"], value[name], inner_field, named, f"{where}/{name}")
    elif kind == "array":
        for item in value:
            _hold(avro_type["items"], item, field, named, where)
    elif kind == "double":
        _in_range(math.isfinite(value), where, value)
        _hold_number(value, field, where)
    elif kind in ("int", "long"):
        bits = 32 if kind == "int" else 64
        _in_range(-(2 ** (bits - 1)) <= value < 2 ** (bits - 1), where, value)
        _hold_number(value, field, where)
    elif kind == "string":
        _in_range(len(value) >= field.get("minLength", 0), where, value)
        _in_range("maxLength" not in field or len(value) <= field["maxLength"], where, value)


def _hold_number(value: float, field: dict[str, Any], where: str) -> None:
    _in_range("minimum" not in field or value >= field["minimum"], where, value)
    _in_range("maximum" not in field or value <= field["maximum"], where, value)
    _in_range("exclusiveMinimum" not in field or value > field["exclusiveMinimum"], where, value)


def _in_range(good: bool, where: str, value: Any) -> None:
    if not good:
        raise Rejected(f"range: {where} is {value!r:.60}")


def write(topic: str, value: dict[str, Any]) -> bytes:
    """A record as the official package writes it; ranges are not looked at."""
    out = io.BytesIO()
    avro.io.DatumWriter(official(topic)).write(value, avro.io.BinaryEncoder(out))
    return mark(topic) + out.getvalue()
