"""Avro bytes to values: a schema is compiled once to nested functions `read(data, position) -> (value, position)`.

It refuses what the Avro specification and the official implementation refuse: negative or unknown branches and symbols,
numbers over 64 bits, lengths beyond the data (before anything is allocated), text that is not UTF-8. fastavro takes
several of these, and its booleans other than 0 and 1 are true where the official decoder says false; so it is not used
to read what comes from outside. Ranges that the schema states are checked in the same pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct, error
from typing import Any

from schemas.limits import ANY_DOUBLE, NO_FIELD, Limits, Unfit, number_limits, text_limits

Reader = Callable[[bytes, int], tuple[Any, int]]
Make = Callable[[str], Callable[..., Any]]

_DOUBLE = Struct("<d").unpack_from
_FLOAT = Struct("<f").unpack_from
_ITEM_BYTES = {"float": 4, "double": 8}  # least size of an item; any other is taken for 1


def read_whole(reader: Reader, data: bytes, start: int) -> Any:
    """The one value that fills `data` from `start` to its end.

    Raises:
        Refused: UNDECODABLE, TRAILING_BYTES, NOT_FINITE or OUT_OF_RANGE.
    """
    try:
        value, end = reader(data, start)
        if end != len(data):
            raise Unfit("TRAILING_BYTES", f"{len(data) - end} bytes after the record")
    except Unfit as unfit:
        raise unfit.refused() from None
    except RecursionError:
        raise Unfit("UNDECODABLE", "nested too deep").refused() from None
    return value


def compile_reader(schema: Any, make: Make | None = None, ranges: bool = True) -> Reader:
    """Compile a schema that `fastavro.parse_schema` has resolved.

    Args:
        schema: the writer's schema; every name in it is a full name.
        make: gives the constructor of a record by the record's full name; None makes dicts.
        ranges: False to take any double, text and 64-bit number, for writers whose ranges are not ours.
    """
    return _Compiler(make or (lambda _: dict), ranges).reader(schema, NO_FIELD)


class _Compiler:
    def __init__(self, make: Make, ranges: bool) -> None:
        self.make, self.ranges = make, ranges
        self.named: dict[str, Reader] = {}

    def reader(self, schema: Any, field: Mapping[str, Any]) -> Reader:
        if isinstance(schema, list):
            return self._union(schema, field)
        if isinstance(schema, str):
            return self._primitive(schema, field)
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._record(schema)
        if kind == "enum":
            return self._remember(schema, _enum(tuple(schema["symbols"])))
        if kind == "fixed":
            return self._remember(schema, _fixed(schema["size"]))
        if kind == "array":
            limits = number_limits("double", field, self.ranges) if schema["items"] == "double" else None
            return _doubles(limits) if limits else _array(self.reader(schema["items"], field), schema["items"])
        if kind == "map":
            return _map(self.reader(schema["values"], field))
        return self.reader(kind, field)  # a primitive in long form, e.g. {"type": "string"}

    def _remember(self, schema: Mapping[str, Any], reader: Reader) -> Reader:
        self.named[schema["name"]] = reader
        return reader

    def _primitive(self, kind: str, field: Mapping[str, Any]) -> Reader:
        if kind == "double":
            return _double(number_limits(kind, field, self.ranges))
        if kind in ("int", "long"):
            return _long(number_limits(kind, field, self.ranges))
        if kind == "string":
            return _string(text_limits(field if self.ranges else NO_FIELD))
        if kind in _PLAIN:
            return _PLAIN[kind]
        named = self.named
        return lambda data, at: named[kind](data, at)  # late: a record may hold itself

    def _union(self, branches: list[Any], field: Mapping[str, Any]) -> Reader:
        if len(branches) == 2 and "null" in branches:
            null = branches.index("null")
            other = branches[1 - null]
            if other == "double":
                return _nullable_double(null, number_limits("double", field, self.ranges))
            return _nullable(null, self.reader(other, field))
        readers = [self.reader(branch, field) for branch in branches]

        def read(data: bytes, at: int) -> tuple[Any, int]:
            index, at = read_long(data, at)
            if not 0 <= index < len(readers):
                raise Unfit("UNDECODABLE", f"takes branch {index} of a union of {len(readers)}")
            return readers[index](data, at)

        return read

    def _record(self, schema: Mapping[str, Any]) -> Reader:
        plan: list[tuple[str, Reader]] = []
        construct = self.make(schema["name"])

        def read(data: bytes, at: int) -> tuple[Any, int]:
            values: dict[str, Any] = {}
            name = ""
            try:
                for name, field in plan:
                    values[name], at = field(data, at)
            except Unfit as unfit:
                raise unfit.at(name) from None
            except (IndexError, error):
                raise Unfit("UNDECODABLE", "is cut off: the bytes end").at(name) from None
            except UnicodeDecodeError as exc:
                raise Unfit("UNDECODABLE", f"is not UTF-8: {exc.reason}").at(name) from None
            return construct(**values), at

        self.named[schema["name"]] = read
        plan += [(f["name"], self.reader(f["type"], f)) for f in schema["fields"]]
        return read


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """A zig-zag number of at most 64 bits."""
    byte = data[at]
    at += 1
    n = byte & 0x7F
    shift = 7
    while byte & 0x80:
        byte = data[at]
        at += 1
        if shift == 63 and byte & 0xFE:  # the tenth byte has room for one bit, and none follows it
            raise Unfit("UNDECODABLE", "has a number of more than 64 bits")
        n |= (byte & 0x7F) << shift
        shift += 7
    return (n >> 1) ^ -(n & 1), at


def _null(data: bytes, at: int) -> tuple[None, int]:
    return None, at


def _boolean(data: bytes, at: int) -> tuple[bool, int]:
    return data[at] == 1, at + 1  # any other byte is false, as the official decoder has it


def _read_float(data: bytes, at: int) -> tuple[float, int]:
    return _FLOAT(data, at)[0], at + 4


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = read_long(data, at)
    end = at + length
    if not at <= end <= len(data):
        raise Unfit("UNDECODABLE", f"claims {length} bytes where {len(data) - at} are left")
    return data[at:end], end


def _double(limits: Limits) -> Reader:
    low, high = limits.low, limits.high
    if limits is ANY_DOUBLE:
        return lambda data, at: (_DOUBLE(data, at)[0], at + 8)

    def read(data: bytes, at: int) -> tuple[float, int]:
        value = _DOUBLE(data, at)[0]
        if not low <= value <= high:
            raise limits.complain(value)
        return value, at + 8

    return read


def _nullable_double(null: int, limits: Limits) -> Reader:
    low, high, inner = limits.low, limits.high, _double(limits)
    here, absent = (1 - null) * 2, null * 2
    if limits is ANY_DOUBLE:
        return _nullable(null, inner)

    def read(data: bytes, at: int) -> tuple[float | None, int]:
        branch = data[at]
        if branch == here:
            value = _DOUBLE(data, at + 1)[0]
            if not low <= value <= high:
                raise limits.complain(value)
            return value, at + 9
        if branch == absent:
            return None, at + 1
        return _branch(null, inner, data, at)

    return read


def _nullable(null: int, inner: Reader) -> Reader:
    here, absent = (1 - null) * 2, null * 2

    def read(data: bytes, at: int) -> tuple[Any, int]:
        branch = data[at]
        if branch == here:
            return inner(data, at + 1)
        if branch == absent:
            return None, at + 1
        return _branch(null, inner, data, at)

    return read


def _branch(null: int, inner: Reader, data: bytes, at: int) -> tuple[Any, int]:
    index, at = read_long(data, at)
    if index not in (0, 1):
        raise Unfit("UNDECODABLE", f"takes branch {index} of a union of 2")
    return (None, at) if index == null else inner(data, at)


def _long(limits: Limits) -> Reader:
    low, high = limits.low, limits.high

    def read(data: bytes, at: int) -> tuple[int, int]:
        byte = data[at]
        if byte < 0x80:
            value, at = (byte >> 1) ^ -(byte & 1), at + 1
        else:
            value, at = read_long(data, at)
        if not low <= value <= high:
            raise limits.complain(value)
        return value, at

    return read


def _string(limits: Limits) -> Reader:
    low, high = limits.low, limits.high

    def read(data: bytes, at: int) -> tuple[str, int]:
        byte = data[at]
        if byte & 0x81:  # longer than 63 bytes, or negative
            raw, at = _bytes(data, at)
        else:
            start, at = at + 1, at + 1 + (byte >> 1)
            raw = data[start:at]
            if at > len(data):
                raise Unfit("UNDECODABLE", f"claims {byte >> 1} bytes where {len(raw)} are left")
        value = str(raw, "utf-8")
        if not low <= len(value) <= high:
            raise limits.complain(value)
        return value, at

    return read


def _enum(symbols: tuple[str, ...]) -> Reader:
    count = len(symbols)
    by_byte = {2 * index: symbol for index, symbol in enumerate(symbols) if index < 0x40}

    def read(data: bytes, at: int) -> tuple[str, int]:
        symbol = by_byte.get(data[at])
        if symbol is not None:
            return symbol, at + 1
        index, at = read_long(data, at)
        if not 0 <= index < count:
            raise Unfit("UNDECODABLE", f"takes symbol {index} of {count}")
        return symbols[index], at

    return read


def _fixed(size: int) -> Reader:
    def read(data: bytes, at: int) -> tuple[bytes, int]:
        if at + size > len(data):
            raise IndexError
        return data[at : at + size], at + size

    return read


def _block(data: bytes, at: int, item_bytes: int) -> tuple[int, int]:
    """Count of items in the block that begins here; 0 ends the array. A count that cannot be true is refused."""
    count, at = read_long(data, at)
    if count < 0:  # then the block's size in bytes follows, for readers that skip it
        count = -count
        while data[at] & 0x80:
            at += 1
        at += 1
    if count * item_bytes > len(data) - at:
        raise Unfit("UNDECODABLE", f"claims {count} items where {len(data) - at} bytes are left")
    return count, at


def _array(item: Reader, schema: Any) -> Reader:
    item_bytes = _ITEM_BYTES.get(schema, 1) if isinstance(schema, str) else 1

    def read(data: bytes, at: int) -> tuple[tuple[Any, ...], int]:
        values: list[Any] = []
        count, at = _block(data, at, item_bytes)
        while count:
            for _ in range(count):
                value, at = item(data, at)
                values.append(value)
            count, at = _block(data, at, item_bytes)
        return tuple(values), at

    return read


def _doubles(limits: Limits) -> Reader:
    """An array of doubles, a block at a time."""
    low, high = limits.low, limits.high
    anything = limits is ANY_DOUBLE

    def read(data: bytes, at: int) -> tuple[tuple[float, ...], int]:
        values: tuple[float, ...] = ()
        count, at = _block(data, at, 8)
        while count:
            values += Struct(f"<{count}d").unpack_from(data, at)
            at += 8 * count
            count, at = _block(data, at, 8)
        if not anything:
            for value in values:
                if not low <= value <= high:
                    raise limits.complain(value)
        return values, at

    return read


def _map(value_of: Reader) -> Reader:
    key_of = _string(text_limits(NO_FIELD))

    def read(data: bytes, at: int) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        count, at = _block(data, at, 1)
        while count:
            for _ in range(count):
                key, at = key_of(data, at)
                values[key], at = value_of(data, at)
            count, at = _block(data, at, 1)
        return values, at

    return read


_PLAIN: dict[str, Reader] = {"null": _null, "boolean": _boolean, "float": _read_float, "bytes": _bytes}
