"""Records gone bad: seeded mutations of valid ones, of the kinds that a stream meets."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.schemas.judge import schema_json, write
from tests.schemas.samples import sample

ABSURD_DOUBLES = (math.nan, math.inf, -math.inf, -1.0, 0.0, -0.0, 1e308, -1e308, 5e-324)
ABSURD_LONGS = (-(2**63), 2**63 - 1, -1, 0, 4_102_444_800_001, 2**31, -(2**31) - 1)
ABSURD_INTS = (-(2**31), 2**31 - 1, -1, 0)
BIG = 2 * 1024 * 1024


class Mutation(NamedTuple):
    """A record and what was done to it."""

    kind: str
    value: bytes | None


def mutate(topic: str, other: str, rng: random.Random, big: bool = False) -> Mutation:
    """One mutation of a fresh valid record of `topic`; `other` is the topic of foreign records.

    Args:
        big: whether records of 2 MB may come too.
    """
    kinds = list(_KINDS) + (["big"] if big and rng.random() < 0.02 else [])
    kind = rng.choice(kinds)
    if kind == "big":
        return Mutation(kind, write(topic, sample(topic, rng)) + rng.randbytes(BIG))
    return Mutation(kind, _KINDS[kind](topic, other, rng))


def _good(topic: str, other: str, rng: random.Random) -> bytes:
    return write(topic, sample(topic, rng))


def _truncate(topic: str, other: str, rng: random.Random) -> bytes:
    data = _good(topic, other, rng)
    return data[: rng.randrange(len(data))]


def _flip_bit(topic: str, other: str, rng: random.Random) -> bytes:
    data = bytearray(_good(topic, other, rng))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _flip_body(topic: str, other: str, rng: random.Random) -> bytes:
    data = bytearray(_good(topic, other, rng))
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(10, len(data))] = rng.choice((0, 1, 2, 3, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(data)


def _splice(topic: str, other: str, rng: random.Random) -> bytes:
    one, two = _good(topic, other, rng), _good(topic, other, rng)
    return one[: rng.randrange(len(one))] + two[rng.randrange(len(two)) :]


def _insert(topic: str, other: str, rng: random.Random) -> bytes:
    data = _good(topic, other, rng)
    at = rng.randrange(10, len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 12)) + data[at:]


def _append(topic: str, other: str, rng: random.Random) -> bytes:
    return _good(topic, other, rng) + rng.randbytes(rng.randrange(1, 12))


def _huge_number(topic: str, other: str, rng: random.Random) -> bytes:
    """A length, count or number of up to 70 bits put over the bytes somewhere."""
    data = _good(topic, other, rng)
    at = rng.randrange(10, len(data))
    number = bytes(rng.randrange(0x80, 0x100) for _ in range(rng.randrange(3, 10))) + bytes([rng.randrange(0x80)])
    return data[:at] + number + data[at + rng.randrange(0, 10) :]


def _wrong_schema(topic: str, other: str, rng: random.Random) -> bytes:
    foreign = write(other, sample(other, rng))
    return foreign if rng.random() < 0.5 else _good(topic, other, rng)[:10] + foreign[10:]


def _framing(topic: str, other: str, rng: random.Random) -> bytes:
    body = _good(topic, other, rng)[10:]
    registered = b"\x00" + rng.randbytes(4) + body
    return rng.choice((registered, b"\x00", b"\xc3", b"\xc3\x01", b'{"symbol": "BTCUSDT"}', body))


def _absurd(topic: str, other: str, rng: random.Random) -> bytes:
    value = copy.deepcopy(sample(topic, rng))
    places = list(_numbers(schema_json(topic), value))
    if places:
        put, kind = rng.choice(places)
        put(rng.choice({"double": ABSURD_DOUBLES, "long": ABSURD_LONGS, "int": ABSURD_INTS}[kind]))
    return write(topic, value)


def _text(topic: str, other: str, rng: random.Random) -> bytes:
    value = sample(topic, rng)
    names = [f["name"] for f in schema_json(topic)["fields"] if f["type"] == "string"]
    if names:
        value[rng.choice(names)] = rng.choice(("", "x" * 64, "x" * 65, "é" * 512, "x" * 513, "\0", "\ud7ff"))
    return write(topic, value)


def _numbers(record: Any, value: dict[str, Any]) -> list[tuple[Callable[[Any], None], str]]:
    found: list[tuple[Callable[[Any], None], str]] = []
    for field in record["fields"]:
        branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
        for branch in branches:
            if branch in ("double", "long", "int"):
                found.append((lambda x, name=field["name"]: value.__setitem__(name, x), branch))
            elif isinstance(branch, dict) and branch["type"] == "record" and value[field["name"]] is not None:
                found += _numbers(branch, value[field["name"]])
    return found


_KINDS: dict[str, Callable[[str, str, random.Random], bytes | None]] = {
    "good": _good,
    "truncated": _truncate,
    "bit flipped": _flip_bit,
    "body flipped": _flip_body,
    "spliced": _splice,
    "inserted": _insert,
    "appended": _append,
    "huge number": _huge_number,
    "wrong schema": _wrong_schema,
    "framing": _framing,
    "absurd": _absurd,
    "text": _text,
    "empty": lambda topic, other, rng: b"",
    "null": lambda topic, other, rng: None,
}
