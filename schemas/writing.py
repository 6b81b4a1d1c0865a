"""Values to Avro bytes: a schema is compiled once to nested functions `write(out, value)`.

Only the types that our own schemas use: no map, fixed, float, and no union but of null and one type. A value of the
wrong type is refused rather than converted (a long of 3.7, a text for a number), and so is one outside of its range.
The bytes are those that fastavro and the official implementation write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from struct import Struct, error
from typing import Any

from schemas.limits import ANY_DOUBLE, NO_FIELD, Limits, Unfit, number_limits, text_limits

Writer = Callable[[bytearray, Any], None]

_DOUBLE = Struct("<d").pack


def write_whole(writer: Writer, begin: bytes, value: Any) -> bytes:
    """`begin` and the value behind it.

    Raises:
        Refused: INVALID, NOT_FINITE or OUT_OF_RANGE.
    """
    out = bytearray(begin)
    try:
        writer(out, value)
    except Unfit as unfit:
        raise unfit.refused() from None
    return bytes(out)


def compile_writer(schema: Any, ranges: bool = True) -> Writer:
    """Compile a schema that `fastavro.parse_schema` has resolved; records are written from objects with attributes."""
    return _Compiler(ranges).writer(schema, NO_FIELD)


class _Compiler:
    def __init__(self, ranges: bool) -> None:
        self.ranges = ranges
        self.named: dict[str, Writer] = {}

    def writer(self, schema: Any, field: Mapping[str, Any]) -> Writer:
        if isinstance(schema, list):
            null = schema.index("null")
            if len(schema) != 2:
                raise TypeError(f"only a union of null and one type can be written, not {schema}")
            return _nullable(null, self.writer(schema[1 - null], field))
        if isinstance(schema, str):
            return self._primitive(schema, field)
        kind = schema["type"]
        if kind == "record":
            return self._record(schema)
        if kind == "enum":
            self.named[schema["name"]] = _enum(tuple(schema["symbols"]))
            return self.named[schema["name"]]
        if kind == "array":
            limits = number_limits("double", field, self.ranges) if schema["items"] == "double" else None
            return _doubles(limits) if limits else _array(self.writer(schema["items"], field))
        raise TypeError(f"{kind} cannot be written")

    def _primitive(self, kind: str, field: Mapping[str, Any]) -> Writer:
        if kind == "double":
            return _double(number_limits(kind, field, self.ranges))
        if kind in ("int", "long"):
            return _long(number_limits(kind, field, self.ranges))
        if kind == "string":
            return _string(text_limits(field if self.ranges else NO_FIELD))
        if kind in _PLAIN:
            return _PLAIN[kind]
        named = self.named
        return lambda out, value: named[kind](out, value)  # late: a record may hold itself

    def _record(self, schema: Mapping[str, Any]) -> Writer:
        names = tuple(f["name"] for f in schema["fields"])
        writers: list[Writer] = []
        get = _getter(names)

        def write(out: bytearray, record: Any) -> None:
            name, value = "", None
            try:
                for name, field, value in zip(names, writers, get(record), strict=True):  # noqa: B007 - told below
                    field(out, value)
            except Unfit as unfit:
                raise unfit.at(name) from None
            except (TypeError, KeyError, AttributeError, ValueError, error) as exc:
                raise Unfit("INVALID", f"cannot be {value!r:.80}: {type(exc).__name__}").at(name) from exc

        self.named[schema["name"]] = write
        writers += [self.writer(f["type"], f) for f in schema["fields"]]
        return write


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda record: tuple(getattr(record, name) for name in names)


def put_long(out: bytearray, value: int) -> None:
    """Append a zig-zag number; the caller has seen to its 64 bits."""
    n = (value << 1) ^ (value >> 63)
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)


def _boolean(out: bytearray, value: bool) -> None:
    if value is not True and value is not False:
        raise TypeError
    out.append(value)


def _bytes(out: bytearray, value: bytes) -> None:
    if type(value) is not bytes:
        raise TypeError
    put_long(out, len(value))
    out += value


def _double(limits: Limits) -> Writer:
    low, high = limits.low, limits.high
    anything = limits is ANY_DOUBLE

    def write(out: bytearray, value: float) -> None:
        if not (anything or low <= value <= high):
            raise limits.complain(value)
        out += _DOUBLE(value)

    return write


def _long(limits: Limits) -> Writer:
    low, high = limits.low, limits.high

    def write(out: bytearray, value: int) -> None:
        if type(value) is not int:
            raise TypeError
        if not low <= value <= high:
            raise limits.complain(value)
        n = (value << 1) ^ (value >> 63)
        while n > 0x7F:
            out.append(n & 0x7F | 0x80)
            n >>= 7
        out.append(n)

    return write


def _string(limits: Limits) -> Writer:
    low, high = limits.low, limits.high

    def write(out: bytearray, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError
        if not low <= len(value) <= high:
            raise limits.complain(value)
        raw = value.encode()
        put_long(out, len(raw))
        out += raw

    return write


def _enum(symbols: tuple[str, ...]) -> Writer:
    codes: dict[str, bytes] = {}
    for index, symbol in enumerate(symbols):
        code = bytearray()
        put_long(code, index)
        codes[symbol] = bytes(code)

    def write(out: bytearray, value: str) -> None:
        out += codes[value]

    return write


def _nullable(null: int, inner: Writer) -> Writer:
    here, absent = (1 - null) * 2, null * 2

    def write(out: bytearray, value: Any) -> None:
        if value is None:
            out.append(absent)
        else:
            out.append(here)
            inner(out, value)

    return write


def _array(item: Writer) -> Writer:
    def write(out: bytearray, values: tuple[Any, ...]) -> None:
        if not isinstance(values, (tuple, list)):
            raise TypeError
        if values:
            put_long(out, len(values))
            for value in values:
                item(out, value)
        out.append(0)

    return write


def _doubles(limits: Limits) -> Writer:
    """An array of doubles, packed in one go."""
    low, high = limits.low, limits.high
    anything = limits is ANY_DOUBLE

    def write(out: bytearray, values: tuple[float, ...]) -> None:
        if not isinstance(values, (tuple, list)):
            raise TypeError
        if not anything:
            for value in values:
                if not low <= value <= high:
                    raise limits.complain(value)
        if values:
            put_long(out, len(values))
            out += Struct(f"<{len(values)}d").pack(*values)
        out.append(0)

    return write


def _null(out: bytearray, value: None) -> None:
    if value is not None:
        raise TypeError


_PLAIN: dict[str, Writer] = {"null": _null, "boolean": _boolean, "bytes": _bytes}
