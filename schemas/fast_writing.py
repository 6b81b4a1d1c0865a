"""Values to Avro bytes, the fast path: a schema becomes the source of one function, `run(begin, record) -> bytes`.

Whenever it returns, the closures of `schemas.writing` would have made the same bytes. It gives up, by any exception, on
whatever they refuse, and on a few things that they take: subclasses of str, tuple and list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Any

from schemas.fast_source import MEMO, RUN, GiveUp, Source, Unsupported, branches_of, named, outside, plain_type
from schemas.limits import ANY_DOUBLE, NO_FIELD, Limits, number_limits, text_limits
from schemas.writing import put_long

FastWriter = Callable[[bytes, Any], bytes]

_NUMBERS: dict[int, bytes] = {}  # numbers with their bytes: time stamps, lengths of bars, versions


def fast_writer(schema: Any, ranges: bool = True) -> FastWriter:
    """The function for a record's schema; arguments as of `writing.compile_writer`.

    Raises:
        Unsupported: the schema holds what the fast path does not know.
    """
    if not isinstance(schema, dict) or schema["type"] != "record":
        raise Unsupported("only records are written so")
    compiler = _Compiler(ranges)
    pieces = compiler.node(schema, "record", NO_FIELD)
    compiler.source.put(f"return {_joined(['begin', *pieces])}")
    run: FastWriter = compiler.source.function(f"writer of {schema['name']}")
    return run


def _listed(pieces: list[str]) -> str:
    inside = ", ".join(pieces)
    return f"({inside},)" if len(pieces) < 30 else f"[{inside}]"  # Python makes a longer tuple by way of a list


def _joined(pieces: list[str]) -> str:
    return f"join({_listed(pieces)})" if len(pieces) > 1 else pieces[0]


class _Compiler:
    """A node puts lines that check a value and gives expressions for its bytes, in order."""

    def __init__(self, ranges: bool) -> None:
        self.ranges = ranges
        self.source = Source("def run(begin, record):")
        self.source.constants |= {"W": _NUMBERS, "number": _number, "join": b"".join, "L": _LENGTHS, "H": _TAGGED,
                                  "maybe": _maybe, "doubles": _doubles, "up": _up,
                                  "tagged": _tagged, "Q": _PACK}
        self.types: dict[str, Any] = {}
        self.open: set[str] = set()

    def node(self, schema: Any, value: str, field: Mapping[str, Any]) -> list[str]:
        """Lines for the value in a variable; gives the expressions of its bytes."""
        schema = plain_type(schema)
        if isinstance(schema, list):
            null, inner = branches_of(schema)
            return self._nullable(null, inner, value, field)
        if isinstance(schema, str):
            return self._primitive(schema, value, field)
        kind = schema["type"]
        if kind == "record":
            return self._record(schema, value)
        if kind == "enum":
            self.types[schema["name"]] = schema
            codes = {symbol: number_bytes(n) for n, symbol in enumerate(schema["symbols"])}
            return [f"{self.source.constant('E', schema['name'], codes)}[{value}]"]
        if kind == "array":
            return self._array(plain_type(schema["items"]), value, field)
        raise Unsupported(kind)

    def _primitive(self, kind: str, value: str, field: Mapping[str, Any]) -> list[str]:
        if kind in self.types:
            return self.node(self.types[kind], value, field)
        put = self.source.put
        if kind == "double":
            return [self._doubles([value], [number_limits(kind, field, self.ranges)])]
        if kind == "boolean":
            piece = self.source.new()
            put(f"if {value} is True: {piece} = b'\\1'", f"elif {value} is False: {piece} = b'\\0'", "else: raise UP")
            return [piece]
        if kind in ("int", "long"):
            limits = number_limits(kind, field, self.ranges)
            inside = "" if _whole(limits) else f" or not {limits.low!r} <= {value} <= {limits.high!r}"
            put(f"if type({value}) is not int{inside}: raise UP")
            return [f"W.get({value}) or number({value})"]
        if kind == "string":
            raw, size = self._string(value, text_limits(field if self.ranges else NO_FIELD))
            return [f"L[{size}] if {size} < 128 else number({size})", raw]
        if kind == "bytes":
            size = self.source.new()
            put(f"if type({value}) is not bytes: raise UP", f"{size} = len({value})")
            return [f"L[{size}] if {size} < 128 else number({size})", value]
        raise Unsupported(kind)

    def _string(self, value: str, limits: Limits) -> tuple[str, str]:
        """Variables of the bytes of a text and of their number."""
        raw, size = self.source.new(), self.source.new()
        self.source.put(f"if type({value}) is not str: raise UP", f"{raw} = {value}.encode()", f"{size} = len({raw})")
        if limits.low == 1:
            self.source.put(f"if not {size}: raise UP")
        elif limits.low > 1:
            self.source.put(f"if len({value}) < {limits.low!r}: raise UP")
        if limits.high < 2**63:  # a text has not more characters than bytes
            self.source.put(f"if {size} > {limits.high!r} and len({value}) > {limits.high!r}: raise UP")
        return raw, size

    def _doubles(self, values: list[str], limits: list[Limits], tag: int | None = None) -> str:
        """Doubles one behind the other, each behind the byte `tag` if there is one."""
        if test := outside(values, limits):
            self.source.put(f"if {test}: raise UP")
        layout = Struct("<" + ("d" if tag is None else "Bd") * len(values))
        pack = self.source.constant("P", (tag is None, len(values)), layout.pack)
        return f"{pack}({', '.join(values if tag is None else [f'{tag}, {v}' for v in values])})"

    def _nullable(self, null: int, inner: Any, value: str, field: Mapping[str, Any]) -> list[str]:
        here, absent = bytes([(1 - null) * 2]), bytes([null * 2])
        first, second = self.source.new(), self.source.new()
        self.source.put(f"if {value} is None: {first} = {absent!r}; {second} = b''")
        with self.source.block("else:"):
            if inner == "string" and null == 0:
                raw, size = self._string(value, text_limits(field if self.ranges else NO_FIELD))
                self.source.put(f"{first} = H[{size}] if {size} < 128 else {here!r} + number({size})",
                                f"{second} = {raw}")
            elif inner == "double":
                limits = number_limits("double", field, self.ranges)
                self.source.put(f"{first} = {self._doubles([value], [limits], here[0])}", f"{second} = b''")
            else:
                self.source.put(f"{first} = {here!r}", f"{second} = {_joined(self.node(inner, value, field))}")
        return [first, second]

    def _nullable_run(self, values: list[str], null: int, fields: list[Mapping[str, Any]]) -> str:
        """Nullable doubles one behind the other: all there, all null, or one by one."""
        piece, here, absent = self.source.new(), (1 - null) * 2, null * 2
        limits = [number_limits("double", f, self.ranges) for f in fields]
        with self.source.block(f"if {' or '.join(f'{v} is None' for v in values)}:"):
            self.source.put(f"if {' is '.join(values)}: {piece} = {bytes([absent]) * len(values)!r}")
            each = [f"maybe({v}, {limit.low!r}, {limit.high!r}, {here}, {absent})" if limit is not ANY_DOUBLE
                    else f"maybe({v}, None, None, {here}, {absent})" for v, limit in zip(values, limits, strict=True)]
            self.source.put(f"else: {piece} = {_joined(each)}")
        with self.source.block("else:"):
            self.source.put(f"{piece} = {self._doubles(values, limits, here)}")
        return piece

    def _record(self, schema: Mapping[str, Any], value: str) -> list[str]:
        name, fields = schema["name"], schema["fields"]
        if not fields or name in self.open or not all(named(f["name"]) for f in fields):
            raise Unsupported(f"record {name}: empty, within itself or of fields without a Python name")
        self.open.add(name)
        values = [self.source.new() for _ in fields]
        for field, variable in zip(fields, values, strict=True):
            self.source.put(f"{variable} = {value}.{field['name']}")
        pieces: list[str] = []
        done = 0
        while done < len(fields):
            count, more = self._together(fields[done:], values[done:])
            pieces += more
            done += count
        self.open.remove(name)
        self.types[name] = schema
        return pieces

    def _together(self, fields: list[Mapping[str, Any]], values: list[str]) -> tuple[int, list[str]]:
        """Write the first field, and those behind it of the same kind where they go together; tells how many."""
        kind = plain_type(fields[0]["type"])
        run = [fields[0]]
        for field in fields[1:]:
            if plain_type(field["type"]) != kind or (isinstance(kind, list) and len(run) == RUN):
                break
            run.append(field)
        values = values[: len(run)]
        if kind == "double":
            return len(run), [self._doubles(values, [number_limits("double", f, self.ranges) for f in run])]
        if isinstance(kind, list) and len(run) > 1:
            null, inner = branches_of(kind)
            if inner == "double":
                return len(run), [self._nullable_run(values, null, run)]
        return 1, self.node(kind, values[0], run[0])

    def _array(self, items: Any, value: str, field: Mapping[str, Any]) -> list[str]:
        put, first, second = self.source.put, self.source.new(), self.source.new()
        put(f"if type({value}) is not tuple and type({value}) is not list: raise UP",
            f"if not {value}: {first} = b'\\0'; {second} = b''")
        with self.source.block("else:"):
            put(f"o = len({value})", f"{first} = L[o] if o < 128 else number(o)")
            if items == "double":
                self._check_all(value, number_limits("double", field, self.ranges))
                put(f"{second} = Q[o](*{value}) if o < 64 else doubles({value})")
            else:
                made = self._items(items, value, field)
                put(f"{made}.append(b'\\0')", f"{second} = join({made})")
        return [first, second]

    def _items(self, items: Any, value: str, field: Mapping[str, Any]) -> str:
        """Lines that make a list of the bytes of an array's items; gives its variable."""
        put, made, item = self.source.put, self.source.new(), self.source.new()
        if items in ("int", "long") and _whole(number_limits(items, field, self.ranges)):
            put(f"{made} = [W.get({item}) or number({item}) if type({item}) is int else up() for {item} in {value}]")
            return made
        null, inner = branches_of(items) if isinstance(items, list) else (0, None)
        if inner == "double":
            limits, here = number_limits("double", field, self.ranges), (1 - null) * 2
            with self.source.block(f"if None not in {value}:"):
                self._check_all(value, limits)
                put(f"{made} = [{here}] * (2 * o)", f"{made}[1::2] = {value}", f"{made} = [tagged(o)(*{made})]")
            bounds = "None, None" if limits is ANY_DOUBLE else f"{limits.low!r}, {limits.high!r}"
            put(f"else: {made} = [maybe({item}, {bounds}, {here}, {null * 2}) for {item} in {value}]")
            return made
        put(f"{made} = []")
        with self.source.block(f"for {item} in {value}:"):
            put(f"{made} += {_listed(self.node(items, item, field))}")
        return made

    def _check_all(self, value: str, limits: Limits) -> None:
        if limits is not ANY_DOUBLE:
            self.source.put(f"for x in {value}:", f" if not {limits.low!r} <= x <= {limits.high!r}: raise UP")


def _whole(limits: Limits) -> bool:
    return (limits.low, limits.high) == (-(2**63), 2**63 - 1)


def _up() -> bytes:
    raise GiveUp


def number_bytes(value: int) -> bytes:
    """A zig-zag number of at most 64 bits."""
    out = bytearray()
    put_long(out, value)
    return bytes(out)


def _number(value: int) -> bytes:
    if not -(2**63) <= value < 2**63:
        raise GiveUp
    if len(_NUMBERS) >= MEMO:
        _NUMBERS.clear()
    _NUMBERS[value] = made = number_bytes(value)
    return made


def _maybe(value: float | None, low: float | None, high: float | None, here: int, absent: int) -> bytes:
    if value is None:
        return bytes((absent,))
    if low is not None and high is not None and not low <= value <= high:
        raise GiveUp
    return _TAGGED_DOUBLE(here, value)


def _doubles(values: tuple[float, ...]) -> bytes:
    return Struct(f"<{len(values)}dx").pack(*values)


@lru_cache(256)
def _tagged(size: int) -> Callable[..., bytes]:
    """Packs so many doubles, each behind a byte."""
    return Struct("<" + "Bd" * size).pack


_LENGTHS = tuple(number_bytes(n) for n in range(128))
_TAGGED = tuple(b"\x02" + length for length in _LENGTHS)  # behind the branch of a nullable text
_TAGGED_DOUBLE = Struct("<Bd").pack
_PACK = (None, *(Struct(f"<{n}dx").pack for n in range(1, 64)))  # items and the block that ends the array
