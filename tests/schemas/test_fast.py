"""The generated fast path against the closures that judge it: where it answers, it answers what they would have said.

The closures are held against the official package in `test_codec` and `test_mutations`; here nothing but the difference
between the two is looked at, down to the types within a value (`repr` tells 1 from 1.0 and True, and -0.0 from 0.0).
"""

from __future__ import annotations

import copy
import math
import random
import sys
from collections.abc import Callable
from decimal import Decimal
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import msgspec
import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.ppo_trader.core import PpoTraderAgent
from agents.roster import ROSTER
from schemas import fast_reading, fast_writing
from schemas.codec import Codec, event_class
from schemas.fast_reading import FastReader, fast_reader
from schemas.fast_source import MEMO, Unsupported
from schemas.fast_writing import FastWriter, fast_writer
from schemas.reading import compile_reader, read_whole
from schemas.refused import Refused
from schemas.released import newest, resolved, schema_names
from schemas.structs import avro_schema_of, direct_schema_of
from schemas.writing import compile_writer, write_whole
from tests.schemas import samples

CODEC = Codec()
class Inner(msgspec.Struct, frozen=True):
    n: int
    side: Literal["LONG", "SHORT"] | None
    names: tuple[str, ...] = ()


class Wide(msgspec.Struct, frozen=True, kw_only=True):
    """One of each kind that a state may hold."""

    a_ms: int
    raw: bytes
    text: str
    kind: Literal["LONG", "SHORT", "é"]
    ons: tuple[bool, ...]
    counts: tuple[int, ...]
    inner: Inner
    kinds: tuple[Literal["LONG", "SHORT"], ...]
    inners: tuple[Inner, ...]
    maybes: tuple[float | None, ...]
    rows: tuple[tuple[float, ...], ...]
    x: float | None
    y: float | None
    again: Inner | None


AGENTS = (*ROSTER.values(), PpoTraderAgent)
STATES: dict[str, type[msgspec.Struct]] = {"one of each kind": Wide} | {
    f"{agent.name} {version}": kept for agent in AGENTS
    for version, kept in [(agent.format_version, agent.state_type), *((v, f[0]) for v, f in agent.former.items())]
}
MUTATIONS = 200


class Pair(NamedTuple):
    """Both ways to do the same, and where the values come from."""

    make: type[msgspec.Struct]
    avro: Any
    read: FastReader
    slow_read: Callable[[bytes, int], Any]
    whole_read: Callable[[bytes], Any]
    write: FastWriter
    slow_write: Callable[[bytes, Any], bytes]
    whole_write: Callable[[Any], bytes]


@cache
def pair_of(name: str) -> Pair:
    """Of a topic, or of an agent's state."""
    return state_pair(STATES[name]) if name in STATES else topic_pair(name)


def topic_pair(topic: str) -> Pair:
    schema = newest(topic)
    current = CODEC._current[topic]
    return Pair(
        current.event, schema, fast_reader(schema, make=event_class),
        partial(read_whole, compile_reader(schema, make=event_class)), lambda data: current.decode(data, 0),
        fast_writer(schema), partial(write_whole, compile_writer(schema)), lambda event: current.encode(b"", event),
    )


def state_pair(kept: type[msgspec.Struct]) -> Pair:
    schema, direct = resolved(avro_schema_of(kept)), direct_schema_of(kept)
    assert direct is not None, "msgspec makes the state: slower, and not what is tested here"
    read = compile_reader(schema, ranges=False)

    def slow_read(data: bytes, at: int) -> Any:
        try:
            return msgspec.convert(read_whole(read, data, at), kept)
        except msgspec.ValidationError as exc:
            raise Refused("INVALID", f"state of {kept.__module__}: {exc}") from exc

    return Pair(
        kept, _enums(direct[0]), fast_reader(direct[0], make=direct[1].__getitem__, ranges=False), slow_read,
        lambda data: CODEC.decode_state(kept, data), fast_writer(schema, ranges=False),
        partial(write_whole, compile_writer(schema, ranges=False)), CODEC.encode_state,
    )


def _enums(schema: Any) -> Any:
    """The schema with Avro's enums for literals, so that values can be drawn from it."""
    if isinstance(schema, dict) and schema.get("type") == "literal":
        return {"type": "enum", "name": "-".join(schema["values"]), "symbols": schema["values"]}
    if isinstance(schema, dict):
        return {k: _enums(v) for k, v in schema.items()}
    return [_enums(v) for v in schema] if isinstance(schema, list) else schema


def drawn(pair: Pair, rng: random.Random) -> msgspec.Struct:
    return msgspec.convert(samples._sample(pair.avro, {}, {}, rng), pair.make)


def said(call: Callable[..., Any], *args: Any) -> str:
    """What came of a call, down to the types."""
    try:
        return repr(call(*args))
    except Refused as refused:
        return f"{refused.reason}: {refused.detail}"
    except ArithmeticError as exc:  # a Decimal that is no number cannot be compared: a caller's fault, told as it is
        return f"{type(exc).__name__}: {exc}"


def answer(call: Callable[..., Any], *args: Any) -> str | None:
    """What a fast path says; None where it gives up."""
    try:
        return repr(call(*args))
    except Exception:  # by any exception, as its caller has it
        return None


NAMES = (*schema_names(), *STATES)


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_values_take_the_fast_path_both_ways(name: str) -> None:
    pair, rng = pair_of(name), random.Random(name)
    for _ in range(30):
        value = drawn(pair, rng)
        data = pair.slow_write(b"begin", value)
        assert pair.write(b"begin", value) == data
        assert repr(pair.read(data, 5)) == repr(pair.slow_read(data, 5)) == repr(value)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_valid_value(name: str, data: st.DataObject) -> None:
    pair = pair_of(name)
    value = msgspec.convert(data.draw(samples._strategy(pair.avro, {}, {})), pair.make)
    written = pair.slow_write(b"", value)
    assert pair.whole_write(value) == written
    assert answer(pair.write, b"", value) in (None, repr(written))
    whole = said(pair.slow_read, written, 0)
    assert said(pair.whole_read, written) == whole
    assert answer(pair.read, written, 0) in (None, whole)


def damaged(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Bytes of a record gone bad."""
    at, out = rng.randrange(len(data) + 1), bytearray(data)
    kind = rng.randrange(6)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + other[rng.randrange(len(other) + 1):]
    if kind == 2:
        return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
    if kind == 3:  # a number of up to 70 bits, or one byte made two that say the same
        number = bytes(rng.randrange(0x80, 0x100) for _ in range(rng.randrange(1, 10))) + bytes([rng.randrange(0x80)])
        same = bytes([data[at] | 0x80, 0]) if at < len(data) and data[at] < 0x80 else b""
        return data[:at] + (same or number) + data[at + 1:] if rng.random() < 0.5 else data[:at] + number + data[at:]
    for _ in range(rng.randrange(1, 4)):
        where = rng.randrange(len(out))
        flipped = out[where] ^ 1 << rng.randrange(8)
        out[where] = flipped if kind == 4 else rng.choice((0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF))
    return bytes(out)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_bytes(name: str) -> None:
    pair, rng = pair_of(name), random.Random(f"bytes of {name}")
    agreed = 0
    for _ in range(MUTATIONS):
        one, two = (pair.slow_write(b"", drawn(pair, rng)) for _ in range(2))
        data = damaged(one, two, rng)
        judged = said(pair.slow_read, data, 0)
        assert said(pair.whole_read, data) == judged, data
        fast = answer(pair.read, data, 0)
        assert fast in (None, judged), data
        agreed += fast is not None
    assert 0 < agreed < MUTATIONS, "both were tried: damage that is seen, and damage that makes another record"


class Text(str):
    """A text that is encoded in its own way."""

    def encode(self, *_: Any) -> bytes:
        return b"own"


class Posing:
    """No text, though it can be encoded."""

    def __len__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "posing"

    def encode(self) -> bytes:
        return b"x"


class Two(NamedTuple):
    a: Any = 1.0
    b: Any = 2.0


SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 63, 64, -64, -65, 8191, 8192, 2**31, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**400,
    0.0, -0.0, 1.0, -1.0, 3.7, 5e-324, math.nan, math.inf, -math.inf, sys.float_info.max, int(sys.float_info.max) + 1,
    "", "x", "é" * 64, "x" * 63, "x" * 64, "x" * 65, "x" * 512, "x" * 513, "\ud800", Text("x"), "LONG", b"", b"raw",
    b"r" * 200, bytearray(b"raw"), numpy.float64(1.5), numpy.int64(3), numpy.bool_(True), Decimal(1), Decimal("NaN"),
    object, {}, {1}, SimpleNamespace(), Two(), Posing(),
)


def spoilt(value: msgspec.Struct, rng: random.Random) -> Any:
    """A copy with one field, item or nested field of another value, which msgspec does not look at."""
    name = rng.choice(value.__struct_fields__)
    held = getattr(value, name)
    if isinstance(held, msgspec.Struct) and rng.random() < 0.8:
        bad = spoilt(held, rng)
    elif isinstance(held, tuple) and rng.random() < 0.8:
        items: list[Any] = list(held) or [rng.choice(SCALARS)]
        at = rng.randrange(len(items))
        nested = isinstance(items[at], msgspec.Struct) and rng.random() < 0.8
        items[at] = spoilt(items[at], rng) if nested else rng.choice(SCALARS)
        bad = rng.choice((tuple, list, iter))(items * rng.choice((1, 1, 1, 70, 140)))
    else:
        bad = rng.choice(SCALARS)
    return msgspec.structs.replace(value, **{name: bad})


@pytest.mark.parametrize("name", NAMES)
def test_values_that_do_not_fit(name: str) -> None:
    pair, rng = pair_of(name), random.Random(f"values of {name}")
    agreed = 0
    for _ in range(MUTATIONS):
        value = spoilt(drawn(pair, rng), rng)
        judged = said(pair.slow_write, b"", value)
        assert said(pair.whole_write, value) == judged, value
        fast = answer(pair.write, b"", value)
        assert fast in (None, judged), value
        agreed += fast is not None
    assert agreed < MUTATIONS


@pytest.mark.parametrize("topic", schema_names())
def test_values_outside_of_their_ranges_when_read(topic: str) -> None:
    """Written by one who knows no ranges: numbers that are none, texts too long, arrays of such."""
    pair, rng = pair_of(topic), random.Random(f"ranges of {topic}")
    loose, read = compile_writer(newest(topic), ranges=False), 0
    for _ in range(2 * MUTATIONS):
        try:
            data = write_whole(loose, b"", spoilt(drawn(pair, rng), rng))
        except Refused:
            continue
        judged = said(pair.slow_read, data, 0)
        assert said(pair.whole_read, data) == judged, data
        assert answer(pair.read, data, 0) in (None, judged), data
        read += 1
    assert read


@pytest.mark.parametrize(
    "name", ["market.features", "execution.trade.closed", "rl.meta.strategy_selected", "policy.ledger"],
)
def test_each_value_in_each_field(name: str) -> None:
    pair, rng = pair_of(name), random.Random(name)
    for field in pair.make.__struct_fields__:
        for bad in SCALARS:
            value = msgspec.structs.replace(drawn(pair, rng), **{field: copy.copy(bad)})
            judged = said(pair.slow_write, b"", value)
            assert said(pair.whole_write, value) == judged, value
            assert answer(pair.write, b"", value) in (None, judged), value


WIDE = Wide(a_ms=1_700_000_000_000, raw=b"raw", text="text", kind="é", ons=(True, False),
            counts=(1, -1, 64, -65, 2**40), inner=Inner(1, None, ("a", "b")), kinds=("LONG",),
            inners=(Inner(2, "LONG"), Inner(3, "SHORT", ("c",))), maybes=(1.0, None), rows=((1.0,), (), (math.nan,)),
            x=math.inf, y=None, again=Inner(4, None))
EMPTY = msgspec.structs.replace(WIDE, raw=b"", text="", ons=(), counts=(), kinds=(), inners=(), maybes=(), rows=(),
                                inner=Inner(0, None), again=None)


FEW = msgspec.structs.replace(EMPTY, rows=((), ()), inners=(Inner(1, None),))


@pytest.mark.parametrize("state", [WIDE, EMPTY, FEW])
def test_every_byte_put_as_two_that_say_the_same_number(state: Wide) -> None:
    """80 00 is 0: it ends an array that has not begun, and no block follows it."""
    pair = pair_of("one of each kind")
    data, agreed = pair.slow_write(b"", state), 0
    for at, byte in enumerate(data):
        for more in (b"\x00", b"\x00\x00", b"\x80\x00"):
            longer = data[:at] + bytes([byte | 0x80]) + more + data[at + 1:]
            judged = said(pair.slow_read, longer, 0)
            assert said(pair.whole_read, longer) == judged, at
            assert answer(pair.read, longer, 0) in (None, judged), at
            agreed += judged == repr(state)
    assert agreed


SIZES = (0, 1, 2, 62, 63, 64, 65, 126, 127, 128, 129, 200, 8191, 8192, 20_000)


@pytest.mark.parametrize("size", SIZES)
def test_lengths_around_the_bytes_that_they_take(size: int) -> None:
    pair = pair_of("one of each kind")
    for changes in (
        {"raw": b"r" * size}, {"text": "t" * size}, {"text": "é" * (size // 2)}, {"ons": (True,) * size},
        {"counts": tuple(range(size))}, {"counts": (-(2**62),) * size}, {"maybes": (1.5,) * size},
        {"maybes": (None, 2.5) * size}, {"rows": ((1.0,) * size,)}, {"rows": ((),) * size},
        {"inners": (Inner(1, "LONG"),) * size}, {"kinds": ("SHORT",) * size},
    ):
        state = msgspec.structs.replace(WIDE, **changes)
        data = pair.slow_write(b"", state)
        assert pair.write(b"", state) == data
        assert repr(pair.read(data, 0)) == repr(state) == repr(pair.slow_read(data, 0))


def test_numbers_of_every_length_before_and_after_they_are_remembered() -> None:
    pair = pair_of("one of each kind")
    numbers = {n for s in range(64) for n in (2**s - 1, -(2**s), max(-(2**63), -(2**s) - 1), min(2**s, 2**63 - 1))}
    for number in sorted(numbers):
        state = msgspec.structs.replace(WIDE, a_ms=number, counts=(number, number), inner=Inner(number, None))
        data = pair.slow_write(b"", state)
        for _ in range(2):
            assert pair.write(b"", state) == data
            assert repr(pair.read(data, 0)) == repr(state)


def test_what_is_remembered_stays_small() -> None:
    pair = pair_of("one of each kind")
    for start in range(0, 3 * MEMO, 512):
        state = msgspec.structs.replace(WIDE, counts=tuple(range(10**12 + start, 10**12 + start + 512)))
        assert repr(pair.read(pair.write(b"", state), 0)) == repr(state)
        assert len(fast_reading._LONGS) <= MEMO
        assert len(fast_writing._NUMBERS) <= MEMO


def test_texts_that_are_no_literal_are_refused_as_ever() -> None:
    pair = pair_of("one of each kind")
    for bad in (msgspec.structs.replace(WIDE, kind="HOLD"), msgspec.structs.replace(WIDE, inner=Inner(1, "NONE")),
                msgspec.structs.replace(WIDE, kind="x" * 70), msgspec.structs.replace(WIDE, kinds=("",))):
        data = pair.whole_write(bad)
        assert answer(pair.read, data, 0) is None
        with pytest.raises(Refused, match=r"INVALID: state of .*Invalid enum value"):
            pair.whole_read(data)


def _limited(*kinds: tuple[Any, dict[str, Any]]) -> Any:
    fields = [{"name": f"f{n}", "type": kind, **limits} for n, (kind, limits) in enumerate(kinds)]
    return {"type": "record", "name": "Limited", "fields": fields}


SMALL, SHARE = {"minimum": -5, "maximum": 9}, {"exclusiveMinimum": 0, "maximum": 1}
TEXT = {"minLength": 2, "maxLength": 70}
LIMITED = _limited(
    ({"type": "array", "items": "int"}, SMALL), ({"type": "array", "items": "long"}, SMALL),
    ({"type": "array", "items": "double"}, SHARE), ({"type": "array", "items": ["null", "double"]}, SHARE),
    ({"type": "array", "items": "string"}, TEXT), ("int", SMALL), ("long", {"minimum": 100, "maximum": 2**40}),
    (["double", "null"], SHARE), (["double", "null"], SHARE), (["null", "double"], SHARE), (["null", "double"], {}),
    (["string", "null"], TEXT), (["long", "null"], SMALL), ("string", {"minLength": 1, "maxLength": 3}),
    ("double", SHARE), ("double", {}), ("double", {"minimum": 0}),
)
GOOD = ((1, -5, 9), (0,), (0.5, 1.0), (None, 0.25), ("ab", "x" * 70), 9, 100, 0.5, None, 1.0, None, "é" * 40, None,
        "abc", 0.25, -1.5, 0.0)


def test_limits_that_no_topic_has_and_unions_that_end_in_null() -> None:
    write, read = compile_writer(LIMITED), compile_reader(LIMITED)
    loose, fast_write, fast_read = compile_writer(LIMITED, ranges=False), fast_writer(LIMITED), fast_reader(LIMITED)
    names = [field["name"] for field in LIMITED["fields"]]
    good = SimpleNamespace(**dict(zip(names, GOOD, strict=True)))
    data = write_whole(write, b"", good)
    assert fast_write(b"", good) == data
    assert repr(fast_read(data, 0)) == repr(read_whole(read, data, 0)) == repr(vars(good))
    fits = 0
    for name in names:
        items = isinstance(getattr(good, name), tuple)
        numbers = (*SCALARS, -6, -5, 9, 10, 99, 100, 2**40, 2**40 + 1, 0.5, 1.5, "xx", "xxxx", "x" * 70, "x" * 71)
        for bad in ((b,) * n for b in numbers for n in (1, 2, 100)) if items else numbers:
            value = SimpleNamespace(**vars(good) | {name: bad})
            judged = said(write_whole, write, b"", value)
            assert answer(fast_write, b"", value) in (None, judged), value
            try:
                data = write_whole(loose, b"", value)
            except (Refused, ArithmeticError):
                continue
            judged = said(read_whole, read, data, 0)
            assert answer(fast_read, data, 0) in (None, judged), value
            fits += judged[0] == "{"
    assert fits > 50


class Guarded(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("below zero")


class Renamed(msgspec.Struct, rename="camel"):
    so_many: int


class Listed(msgspec.Struct, array_like=True):
    n: int


class Within(msgspec.Struct):
    guarded: tuple[Guarded | None, ...]


@pytest.mark.parametrize("kept", [Guarded, Renamed, Listed, Within])
def test_structs_that_are_more_than_their_fields_are_left_to_msgspec(kept: type[msgspec.Struct]) -> None:
    assert direct_schema_of(kept) is None


def test_a_state_that_checks_itself_still_does() -> None:
    assert CODEC.decode_state(Guarded, b"\x02") == Guarded(1)
    with pytest.raises(Refused, match=r"INVALID: state of .*below zero"):
        CODEC.decode_state(Guarded, b"\x01")



@pytest.mark.parametrize("odd", [
    "null", "float", "One", {"type": "map", "values": "long"}, {"type": "fixed", "name": "F", "size": 2},
    ["null", "long", "string"], {"type": "array", "items": {"type": "record", "name": "Empty", "fields": []}},
    {"type": "array", "items": "null"},
])
def test_schemas_beyond_the_fast_path_are_left_to_the_closures(odd: Any) -> None:
    """An item without a byte above all: a count alone would make as many as it says."""
    schema = {"type": "record", "name": "One", "fields": [{"name": "x", "type": odd}]}
    for make in (fast_reader, fast_writer):
        with pytest.raises(Unsupported):
            make(schema)


def test_names_that_python_reserves_are_left_to_the_closures() -> None:
    schema = {"type": "record", "name": "One", "fields": [{"name": "class", "type": "long"}]}
    for make in (fast_reader, fast_writer):
        with pytest.raises(Unsupported):
            make(schema)


def test_the_first_use_generates_and_the_codec_itself_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr("schemas.codec.fast_reader", lambda *a, **k: made.append("read") or fast_reader(*a, **k))
    monkeypatch.setattr("schemas.codec.fast_writer", lambda *a, **k: made.append("write") or fast_writer(*a, **k))
    codec = Codec()
    assert made == []
    event = drawn(pair_of("system.clock"), random.Random(1))
    for _ in range(3):
        assert codec.decode("system.clock", codec.encode("system.clock", event)) == event
    assert sorted(made) == ["read", "write"]


def test_what_is_prepared_is_not_generated_at_the_first_record(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr("schemas.codec.fast_reader", lambda *a, **k: made.append("read") or fast_reader(*a, **k))
    monkeypatch.setattr("schemas.codec.fast_writer", lambda *a, **k: made.append("write") or fast_writer(*a, **k))
    codec, agent = Codec(), ROSTER["features"]()
    codec.prepare(("system.clock", "system.clock.dlq"), (agent.state_type,))
    assert sorted(made) == ["read"] * 2 + ["write"] * 2
    made.clear()
    event, state = drawn(pair_of("system.clock"), random.Random(1)), agent.new("A")
    codec.prepare(("system.clock",), (agent.state_type,))
    assert codec.decode("system.clock", codec.encode("system.clock", event)) == event
    assert codec.decode_state(agent.state_type, codec.encode_state(state)) == state
    assert made == []
