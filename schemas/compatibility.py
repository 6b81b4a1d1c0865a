"""BACKWARD_TRANSITIVE: the newest schema must read every record that any release before it may have written.

The official `avro` package judges the Avro part (it is in the extra `dev`: releasing needs it, running does not).
Ranges are no part of Avro, so they are compared here: a released range may only be widened, or records that lie on
people's logs would turn into dead letters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from schemas.limits import NO_FIELD, number_limits, text_limits

_NUMBERS = ("int", "long", "double")


def problems(reader: str, writers: Sequence[str]) -> list[str]:
    """Why records of the writers could not be read; empty where they can.

    Args:
        reader: text of the newest schema.
        writers: texts of all that were released before, oldest first.
    """
    found: list[str] = []
    for number, writer in enumerate(writers, 1):
        found += [f"release {number:04}: {problem}" for problem in _avro_problems(reader, writer)]
        found += [f"release {number:04}: {problem}" for problem in _narrowed(json.loads(reader), json.loads(writer))]
    return found


def _avro_problems(reader: str, writer: str) -> list[str]:
    from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
    from avro.schema import parse

    judge = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # the package is typed in parts
    result = judge.get_compatibility(parse(reader), parse(writer))
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return [f"{message} at {place}" for message, place in zip(result.messages, result.locations, strict=False)] or [
        "incompatible, and the judge gives no reason"
    ]


def _narrowed(reader: Any, writer: Any) -> Iterator[str]:
    new, old = dict(_intervals(reader)), dict(_intervals(writer))
    for path in new.keys() & old.keys():
        if new[path][0] > old[path][0] or new[path][1] < old[path][1]:
            yield f"{path} allowed {_told(old[path])} and now allows only {_told(new[path])}"


def _told(interval: tuple[float, float]) -> str:
    return f"{interval[0]:g} to {interval[1]:g}"


def _intervals(schema: Any, path: str = "") -> Iterator[tuple[str, tuple[float, float]]]:
    for field in schema["fields"]:
        yield from _of_type(field["type"], field, f"{path}{field['name']}")


def _of_type(avro: Any, field: Mapping[str, Any], path: str) -> Iterator[tuple[str, tuple[float, float]]]:
    for branch in avro if isinstance(avro, list) else [avro]:
        if isinstance(branch, dict) and branch["type"] == "record":
            yield from _intervals(branch, path + ".")
        elif isinstance(branch, dict) and branch["type"] == "array":
            yield from _of_type(branch["items"], field, path + "[]")
        elif branch == "string":
            limits = text_limits(field)
            yield path, (limits.low, limits.high)
        elif branch in _NUMBERS:
            # The bounds of the Avro type itself are no stated range: an int that becomes a long is a promotion.
            limits, bare = number_limits(branch, field), number_limits(branch, NO_FIELD)
            yield path, (-math.inf if limits.low == bare.low else limits.low,
                         math.inf if limits.high == bare.high else limits.high)
