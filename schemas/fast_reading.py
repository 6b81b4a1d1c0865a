"""Avro bytes to values, the fast path: a schema becomes the source of one Python function, `run(data, at) -> value`.

Whenever it returns, the closures of `schemas.reading` would have returned an equal value. It gives up, by any
exception, on whatever they refuse, and on a few things that they take: arrays in several blocks, a sum of doubles
beyond the largest one.

That a text or an array does not reach beyond the end is not looked at each time: positions only rise, so it shows at
the end, where the position is not the length of the data. Every item of an array takes a byte at least, so no count
can run on for long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Any

from schemas.fast_source import MEMO, MOST, RUN, GiveUp, Source, Unsupported, branches_of, named, outside, plain_type
from schemas.limits import ANY_DOUBLE, NO_FIELD, Limits, number_limits, text_limits
from schemas.reading import Make, read_long

FastReader = Callable[[bytes, int], Any]

_SMALL = tuple((n >> 1) ^ -(n & 1) for n in range(128))  # the number of one byte
_LONGS: dict[bytes, int] = {}  # numbers of three to six bytes: lengths of bars and time stamps, which come again


def fast_reader(schema: Any, make: Make | None = None, ranges: bool = True) -> FastReader:
    """The function for a record's schema; arguments as of `reading.compile_reader`.

    A schema may have a type of its own that Avro has not: {"type": "literal", "values": [...]}, a text that is one of
    the values.

    Raises:
        Unsupported: the schema holds what the fast path does not know.
    """
    if not isinstance(schema, dict) or schema["type"] != "record":
        raise Unsupported("only records are read so")
    compiler = _Compiler(make, ranges)
    source = compiler.source
    value = compiler.node(schema, NO_FIELD)
    compiler.settle()
    source.put("if at != len(data): raise UP", f"return {value}")
    run: FastReader = source.function(f"reader of {schema['name']}")
    return run


class _Compiler:
    """`offset` bytes lie between the variable `at` and the next byte to read: what has a fixed length moves only it."""

    def __init__(self, make: Make | None, ranges: bool) -> None:
        self.make, self.ranges = make, ranges
        self.source = Source("def run(data, at):")
        self.source.constants |= {"Z": _SMALL, "M": _LONGS, "long": _long, "text": _text, "raw": _raw, "count": _count,
                                  "doubles": _doubles, "Zget": _SMALL.__getitem__, "tagged": _tagged}
        self.offset = 0
        self.types: dict[str, Any] = {}
        self.open: set[str] = set()

    def at(self, more: int = 0) -> str:
        """The position `more` bytes from here."""
        offset = self.offset + more
        return f"at + {offset}" if offset else "at"

    def settle(self, more: int = 0) -> None:
        """Move the variable `at` to where we are, and `more` bytes on."""
        if self.offset + more:
            self.source.put(f"at += {self.offset + more}")
        self.offset = 0

    def node(self, schema: Any, field: Mapping[str, Any]) -> str:
        """Lines that read a value; gives the name of its variable."""
        schema = plain_type(schema)
        if isinstance(schema, list):
            null, inner = branches_of(schema)
            return self._nullable(null, inner, field)
        if isinstance(schema, str):
            return self._primitive(schema, field)
        kind = schema["type"]
        if kind == "record":
            return self._record(schema)
        if kind == "enum":
            self.types[schema["name"]] = schema
            symbols = {2 * n: symbol for n, symbol in enumerate(schema["symbols"]) if n < 64}
            table = self.source.constant("E", schema["name"], symbols)
            value = self.source.new()
            self.source.put(f"{value} = {table}[data[{self.at()}]]")
            self.offset += 1
            return value
        if kind == "array":
            return self._array(plain_type(schema["items"]), field)
        if kind == "literal":
            return self._literal(tuple(schema["values"]))
        raise Unsupported(kind)

    def _primitive(self, kind: str, field: Mapping[str, Any]) -> str:
        if kind in self.types:
            return self.node(self.types[kind], field)
        put, value = self.source.put, self.source.new()
        if kind == "double":
            self._doubles([value], [number_limits(kind, field, self.ranges)])
        elif kind == "boolean":
            put(f"{value} = data[{self.at()}] == 1")
            self.offset += 1
        elif kind in ("int", "long"):
            self._long(value, kind, field)
        elif kind == "string":
            self._string(value, text_limits(field if self.ranges else NO_FIELD))
        elif kind == "bytes":
            self._sized(value, "raw(data, at)", "data[o:at]")
        else:
            raise Unsupported(kind)
        return value

    def _doubles(self, variables: list[str], limits: list[Limits], tagged: str = "") -> None:
        """Doubles that stand one behind the other, each behind as many ignored bytes as `tagged` has `x`."""
        layout = Struct("<" + (tagged + "d") * len(variables))
        unpack = self.source.constant("U", (tagged, len(variables)), layout.unpack_from)
        self.source.put(f"{', '.join(variables)}, = {unpack}(data, {self.at()})")
        self.offset += layout.size
        pairs = list(zip(variables, limits, strict=True))
        finite = [v for v, limit in pairs if (limit.low, limit.high) == (-MOST, MOST)]
        if finite:  # a sum is finite only where all of its terms are
            self.source.put(f"if not {-MOST!r} <= {' + '.join(finite)} <= {MOST!r}: raise UP")
        rest = [(v, limit) for v, limit in pairs if v not in finite]
        if test := outside([v for v, _ in rest], [limit for _, limit in rest]):
            self.source.put(f"if {test}: raise UP")

    def _long(self, value: str, kind: str, field: Mapping[str, Any]) -> None:
        put, limits = self.source.put, number_limits(kind, field, self.ranges)
        self.settle()
        first, second = (6, 5) if limits.high >= 2**34 else (4, 3)
        memo = (f"if ({value} := M.get(data[at:at + {first}])) is not None: at += {first}",
                f"elif ({value} := M.get(data[at:at + {second}])) is not None: at += {second}",
                f"else: {value}, at = long(data, at)")
        if str(field.get("name", "")).endswith("_ms"):  # likely to be long and to have come before
            put(*memo)
        else:
            put("b = data[at]", f"if b < 128: {value} = Z[b]; at += 1", "elif (c := data[at + 1]) < 128:",
                f" b += (c << 7) - 128; {value} = (b >> 1) ^ -(b & 1); at += 2", "else:", *(f" {m}" for m in memo))
        if (limits.low, limits.high) != (-(2**63), 2**63 - 1):
            put(f"if not {limits.low!r} <= {value} <= {limits.high!r}: raise UP")

    def _sized(self, value: str, long: str, short: str) -> None:
        """A length of one byte and as many bytes, which are data[o:at]; or a call for any other length."""
        self.source.put(f"b = data[{self.at()}]", "if b & 129:")
        offset = self.offset
        self.source.put(*([f" at += {offset}"] if offset else []), f" {value}, at = {long}",
                        f"else: o = at + {offset + 1}; at = o + (b >> 1); {value} = {short}")
        self.offset = 0

    def _string(self, value: str, limits: Limits) -> None:
        low, high = limits.low, limits.high
        most = 2**63 if high > 2**63 else high
        self._sized(value, f"text(data, at, {low!r}, {most!r})", "data[o:at].decode()")
        if low > 1 or high < 63:
            self.source.put(f"if not {low!r} <= len({value}) <= {most!r}: raise UP")
        elif low == 1:
            self.source.put(f"if not {value}: raise UP")

    def _literal(self, values: tuple[str, ...]) -> str:
        value = self.source.new()
        table = self.source.constant("T", values, {v.encode(): v for v in values})
        self._sized(value, "text(data, at, -1, -1)", f"{table}[data[o:at]]")
        return value

    def _nullable(self, null: int, inner: Any, field: Mapping[str, Any]) -> str:
        value, here, absent = self.source.new(), (1 - null) * 2, null * 2
        self.settle()
        with self.source.block(f"if data[at] == {here}:"):
            self.offset = 1
            name = self.node(inner, field)
            self.settle()
            self.source.put(f"{value} = {name}")
        self.source.put(f"elif data[at] != {absent}: raise UP", f"else: {value} = None; at += 1")
        return value

    def _nullable_run(self, variables: list[str], null: int, fields: list[Mapping[str, Any]]) -> None:
        """Nullable doubles one behind the other: all there, all null, or one by one."""
        size, here, absent = len(variables), (1 - null) * 2, null * 2
        self.settle()
        with self.source.block(f"if data[at:at + {9 * size}:9] == {bytes([here]) * size!r}:"):
            self._doubles(variables, [number_limits("double", f, self.ranges) for f in fields], "x")
            self.settle()
        self.source.put(f"elif data[at:at + {size}] == {bytes([absent]) * size!r}:",
                        f" {' = '.join(variables)} = None; at += {size}")
        with self.source.block("else:"):
            for variable, field in zip(variables, fields, strict=True):
                self.source.put(f"{variable} = {self._nullable(null, 'double', field)}")

    def _record(self, schema: Mapping[str, Any]) -> str:
        name, fields = schema["name"], schema["fields"]
        if not fields or name in self.open or not all(named(f["name"]) for f in fields):
            raise Unsupported(f"record {name}: empty, within itself or of fields without a Python name")
        self.open.add(name)
        values: list[str] = []
        while len(values) < len(fields):
            values += self._some(fields, len(values))
        self.open.remove(name)
        self.types[name] = schema
        value = self.source.new()
        pairs = [(f["name"], v) for f, v in zip(fields, values, strict=True)]
        if self.make is None:
            self.source.put(f"{value} = {{{', '.join(f'{n!r}: {v}' for n, v in pairs)}}}")
        else:
            construct = self.source.constant("R", name, self.make(name))
            self.source.put(f"{value} = {construct}({', '.join(f'{n}={v}' for n, v in pairs)})")
        return value

    def _some(self, fields: list[Mapping[str, Any]], start: int) -> list[str]:
        """Read the field at `start`, and those behind it of the same kind where they go together."""
        kind = plain_type(fields[start]["type"])
        run = [fields[start]]
        for field in fields[start + 1:]:
            if plain_type(field["type"]) != kind or (isinstance(kind, list) and len(run) == RUN):
                break
            run.append(field)
        variables = [self.source.new() for _ in run]
        if kind == "double":
            self._doubles(variables, [number_limits("double", f, self.ranges) for f in run])
            return variables
        if isinstance(kind, list) and len(run) > 1:
            null, inner = branches_of(kind)
            if inner == "double":
                self._nullable_run(variables, null, run)
                return variables
        return [self.node(kind, run[0])]

    def _array(self, items: Any, field: Mapping[str, Any]) -> str:
        put, value = self.source.put, self.source.new()
        put(f"b = data[{self.at()}]")
        self.settle(1)
        with self.source.block("if b:"):
            size = self.source.new()
            if items == "double":
                self._double_items(value, number_limits("double", field, self.ranges))
            else:
                put(f"if b & 129: {size}, at = count(data, at - 1)", f"else: {size} = b >> 1")
                if items in ("int", "long"):
                    self._small_items(value, size, items, field)
                elif isinstance(items, list) and branches_of(items)[1] == "double":
                    self._nullable_items(value, size, items, field)
                else:
                    self._any_items(value, size, items, field)
            put("if data[at]: raise UP")  # another block
            self.settle(1)
        put(f"else: {value} = ()")
        return value

    def _double_items(self, value: str, limits: Limits) -> None:
        table = self.source.constant("D", None, _UNPACK)
        self.source.put(f"if b & 129: {value}, at = doubles(data, at - 1)",
                        f"else: {value} = {table}[b](data, at); at += b << 2")
        self._check_all(value, limits)

    def _check_all(self, value: str, limits: Limits) -> None:
        """Hold a tuple of doubles against the limits: a sum is finite only where all of its terms are."""
        if limits is not ANY_DOUBLE:
            tests = [f"{-MOST!r} <= sum({value}) <= {MOST!r}"]
            tests += [f"min({value}) >= {limits.low!r}"] if limits.low > -MOST else []
            tests += [f"max({value}) <= {limits.high!r}"] if limits.high < MOST else []
            self.source.put(f"if not ({' and '.join(tests)}): raise UP")

    def _small_items(self, value: str, size: str, kind: str, field: Mapping[str, Any]) -> None:
        limits = number_limits(kind, field, self.ranges)
        self.source.put(f"o = data[at:at + {size}]")
        with self.source.block("if o.isascii():"):  # each number in one byte
            self.source.put(f"{value} = tuple(map(Zget, o)); at += {size}")
            if limits.low > -64 or limits.high < 63:
                self.source.put(f"if min({value}) < {limits.low!r} or max({value}) > {limits.high!r}: raise UP")
        with self.source.block("else:"):
            self._any_items(value, size, kind, field)

    def _nullable_items(self, value: str, size: str, items: list[Any], field: Mapping[str, Any]) -> None:
        here = bytes([(1 - branches_of(items)[0]) * 2])
        with self.source.block(f"if data[at:at + 9 * {size}:9] == {here!r} * {size}:"):  # none is null
            self.source.put(f"{value} = tagged({size})(data, at); at += 9 * {size}")
            self._check_all(value, number_limits("double", field, self.ranges))
        with self.source.block("else:"):
            self._any_items(value, size, items, field)

    def _any_items(self, value: str, size: str, items: Any, field: Mapping[str, Any]) -> None:
        made = self.source.new()
        self.source.put(f"{made} = []")
        with self.source.block(f"for _ in range({size}):"):
            item = self.node(items, {k: v for k, v in field.items() if k != "name"})
            self.settle()
            self.source.put(f"{made}.append({item})")
        self.source.put(f"{value} = tuple({made})")


def _long(data: bytes, at: int) -> tuple[int, int]:
    value, end = read_long(data, at)
    if 3 <= end - at <= 6:
        if len(_LONGS) >= MEMO:
            _LONGS.clear()
        _LONGS[data[at:end]] = value
    return value, end


def _raw(data: bytes, at: int) -> tuple[bytes, int]:
    low, high = data[at], data[at + 1]
    if not low & 1 and high < 128:
        start, length = at + 2, (low & 0x7E) >> 1 | high << 6  # of two bytes
    else:
        length, start = read_long(data, at)
    if low < 128 or length < 0:
        raise GiveUp
    end = start + length
    return data[start:end], end


def _text(data: bytes, at: int, low: int, high: int) -> tuple[str, int]:
    raw, at = _raw(data, at)
    value = raw.decode()
    if not low <= len(value) <= high:
        raise GiveUp
    return value, at


def _count(data: bytes, at: int) -> tuple[int, int]:
    count, at = read_long(data, at)
    if not 0 < count <= len(data) - at:
        raise GiveUp
    return count, at


def _doubles(data: bytes, at: int) -> tuple[tuple[float, ...], int]:
    count, at = _count(data, at)
    return Struct(f"<{count}d").unpack_from(data, at), at + 8 * count


@lru_cache(256)
def _tagged(size: int) -> Callable[[bytes, int], tuple[float, ...]]:
    """Takes so many doubles, each behind a byte that it ignores."""
    return Struct("<" + "xd" * size).unpack_from


_UNPACK = {2 * n: Struct(f"<{n}d").unpack_from for n in range(1, 64)}  # by the byte that stands for the count
