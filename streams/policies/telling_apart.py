"""Two events of one kind told apart, field by field, in words."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.events import Event

SHOWN = 12
"""Fields named at most: past that the two are simply other records."""


def differing(stored: Event, made: Event, names: tuple[str, str] = ("stored", "made again")) -> list[str]:
    """Fields that differ, as `path: stored X, made again Y`; at most `SHOWN`, and how many more there are."""
    if type(stored) is not type(made):
        return [f"{names[0]} {type(stored).__name__}, {names[1]} {type(made).__name__}"]
    found = list(_paths("", msgspec.to_builtins(stored), msgspec.to_builtins(made)))
    lines = [f"{path}: {names[0]} {_short(a)}, {names[1]} {_short(b)}" for path, a, b in found[:SHOWN]]
    return lines + ([f"and {len(found) - SHOWN} more fields"] if len(found) > SHOWN else [])


def bytes_apart(stored: bytes, made: bytes) -> str:
    """Where two byte strings part.

    >>> bytes_apart(b"abc", b"abd")
    'byte 2 of 3: stored 0x63, made again 0x64'
    """
    for i, (a, b) in enumerate(zip(stored, made, strict=False)):
        if a != b:
            return f"byte {i} of {len(stored)}: stored 0x{a:02x}, made again 0x{b:02x}"
    return f"stored {len(stored)} bytes, made again {len(made)}"


def _paths(at: str, a: Any, b: Any) -> Any:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in dict.fromkeys((*a, *b)):
            yield from _paths(f"{at}.{name}" if at else name, a.get(name), b.get(name))
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            label = x.get("state_key", i) if isinstance(x, dict) else i
            yield from _paths(f"{at}[{label}]", x, y)
    elif a != b and not (a != a and b != b):  # two NaN are the same here
        yield at, a, b


def _short(value: Any) -> str:
    text = f"{value!r}"
    return text if len(text) <= 70 else text[:67] + "..."
