"""Values that fit a schema, drawn from its `.avsc` alone: by a seeded generator, and as a hypothesis strategy."""

from __future__ import annotations

import math
import random
from typing import Any

from hypothesis import strategies as st

from tests.schemas.judge import schema_json

WIDE = 1e12
LETTERS = "BTCUSDTabcé→:/|0123456789"


def sample(topic: str, rng: random.Random) -> dict[str, Any]:
    """One valid value of a topic's schema."""
    value = _sample(schema_json(topic), {}, {}, rng)
    assert isinstance(value, dict)
    return value


def values(topic: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any valid value of a topic's schema."""
    return _strategy(schema_json(topic), {}, {})


def _bounds(kind: str, field: dict[str, Any]) -> tuple[float, float]:
    bits = 31 if kind == "int" else 63
    low = field.get("minimum", -(2**bits) if kind != "double" else -WIDE)
    high = field.get("maximum", 2**bits - 1 if kind != "double" else WIDE)
    if "exclusiveMinimum" in field:
        low = field["exclusiveMinimum"] + 1 if kind != "double" else math.nextafter(field["exclusiveMinimum"], math.inf)
    return low, high


def _lengths(field: dict[str, Any], most: int) -> tuple[int, int]:
    """Shortest and longest text to draw: short ones, where the field allows it."""
    low = field.get("minLength", 0)
    return low, max(low, min(field.get("maxLength", most), most))


def _sample(avro: Any, field: dict[str, Any], named: dict[str, Any], rng: random.Random) -> Any:
    if isinstance(avro, list):
        (inner,) = [t for t in avro if t != "null"]
        value = _sample(inner, field, named, rng)  # always visited: it may define a name
        return None if rng.random() < 0.3 else value
    if isinstance(avro, dict):
        kind = avro["type"]
        if kind == "record":
            named[avro["name"]] = avro
            return {f["name"]: _sample(f["type"], f, named, rng) for f in avro["fields"]}
        if kind == "enum":
            named[avro["name"]] = avro
            return rng.choice(avro["symbols"])
        return [_sample(avro["items"], field, named, rng) for _ in range(rng.randrange(1, 4))]
    if avro == "boolean":
        return rng.random() < 0.5
    if avro == "string":
        low, high = _lengths(field, 12)
        length = rng.randrange(low, high + 1)
        return "".join(rng.choice(LETTERS) for _ in range(length))
    if avro == "bytes":
        return rng.randbytes(rng.randrange(20))
    if avro == "double":
        low, high = _bounds(avro, field)
        return rng.uniform(low, min(high, low + 1e5))
    if avro in ("int", "long"):
        low, high = _bounds(avro, field)
        return rng.randint(int(low), int(high))
    return _sample(named[avro], field, named, rng)


def _strategy(avro: Any, field: dict[str, Any], named: dict[str, Any]) -> st.SearchStrategy[Any]:
    if isinstance(avro, list):
        (inner,) = [t for t in avro if t != "null"]
        return st.none() | _strategy(inner, field, named)
    if isinstance(avro, dict):
        kind = avro["type"]
        if kind == "record":
            named[avro["name"]] = avro
            return st.fixed_dictionaries({f["name"]: _strategy(f["type"], f, named) for f in avro["fields"]})
        if kind == "enum":
            named[avro["name"]] = avro
            return st.sampled_from(avro["symbols"])
        return st.lists(_strategy(avro["items"], field, named), max_size=4)
    if avro == "boolean":
        return st.booleans()
    if avro == "string":
        low, high = _lengths(field, 20)
        return st.text(min_size=low, max_size=high)
    if avro == "bytes":
        return st.binary(max_size=20)
    if avro == "double":
        return st.floats(min_value=field.get("minimum"), max_value=field.get("maximum"), allow_nan=False,
                         allow_infinity=False).filter(lambda x: x > field.get("exclusiveMinimum", -math.inf))
    if avro in ("int", "long"):
        low, high = _bounds(avro, field)
        return st.integers(int(low), int(high))
    return _strategy(named[avro], field, named)
