"""What the two generators of Python source share: lines with their indentation, constants by name, variables.

Generated functions are a fast path only. They give up by any exception where a value or a byte is not of the ordinary
kind, and the closures of `schemas.reading` and `schemas.writing` decide then, from the beginning.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from keyword import iskeyword
from typing import Any

from schemas.limits import ANY_DOUBLE, Limits

MOST = sys.float_info.max
MEMO = 4096  # numbers kept with their bytes, in each direction; then all are forgotten
RUN = 8  # most nullable doubles that are taken together: a null among them costs the others of its run


class GiveUp(Exception):
    """The fast path is not for this value or these bytes."""


class Unsupported(Exception):
    """No fast path is made for a schema: the closures do all of the work."""


class Source:
    """Source text of one function in the making."""

    def __init__(self, head: str) -> None:
        self.lines = [head]
        self.depth = 1
        self.constants: dict[str, Any] = {"UP": GiveUp}
        self._names: dict[Any, str] = {}
        self._count = 0

    def put(self, *lines: str) -> None:
        """Append lines at the present depth."""
        self.lines += [" " * self.depth + line for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """A statement that others stand in."""
        self.put(head)
        self.depth += 1
        yield
        self.depth -= 1

    def new(self) -> str:
        """A variable that no other line uses."""
        self._count += 1
        return f"v{self._count}"

    def constant(self, prefix: str, key: Any, value: Any) -> str:
        """Name of a global; values of one prefix and key are one global."""
        name = self._names.setdefault((prefix, key), f"{prefix}{len(self._names)}")
        self.constants.setdefault(name, value)
        return name

    def function(self, title: str) -> Any:
        """The function that the lines make, named `run`."""
        names = dict(self.constants)
        exec(compile("\n".join(self.lines), f"<generated: {title}>", "exec"), names)
        return names["run"]


def plain_type(schema: Any) -> Any:
    """A primitive in long form, e.g. {"type": "string"}, in short form; anything else as it is."""
    if isinstance(schema, dict) and isinstance(schema["type"], str) and schema["type"] in _PRIMITIVES:
        return schema["type"]
    return schema


_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def branches_of(schema: list[Any]) -> tuple[int, Any]:
    """(index of null, the other type) of a union of null and one type.

    Raises:
        Unsupported: it is another union.
    """
    if len(schema) != 2 or "null" not in schema:
        raise Unsupported(f"union {schema}")
    null = schema.index("null")
    return null, plain_type(schema[1 - null])


def named(name: str) -> bool:
    """Whether a field's name can stand in Python source."""
    return name.isidentifier() and not iskeyword(name)


def outside(variables: list[str], limits: list[Limits]) -> str:
    """Condition that holds where one of the numbers lies outside of its limits or is not a number; empty: none can."""
    terms = [f"{limit.low!r} <= {name} <= {limit.high!r}"
             for name, limit in zip(variables, limits, strict=True) if limit is not ANY_DOUBLE]
    return f"not ({' and '.join(terms)})" if terms else ""
