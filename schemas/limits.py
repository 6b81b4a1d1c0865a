"""The ranges that schemas state, beside each field of an `.avsc` file, and how a value that leaves them is named.

Known attributes: `minimum`, `maximum`, `exclusiveMinimum` for numbers, `minLength`, `maxLength` (in characters) for
text. Numbers are finite, an int has 32 bits and a long 64, whether a field says more or not. On an array they hold for
each item.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.refused import Refused

NUMBER_LIMITS = frozenset({"minimum", "maximum", "exclusiveMinimum"})
TEXT_LIMITS = frozenset({"minLength", "maxLength"})
_WORDS = {"exclusiveMinimum": ">", "minimum": ">=", "maximum": "<=", "minLength": ">=", "maxLength": "<="}
_BITS = {"int": 31, "long": 63}


class Unfit(Exception):
    """A value that does not fit; records on the way out put their field's name in front of `path`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason, self.text = reason, text
        self.path: list[str] = []

    def at(self, step: str) -> Unfit:
        """This, as seen from one level further out."""
        self.path.insert(0, step)
        return self

    def refused(self) -> Refused:
        """As the codec raises it."""
        return Refused(self.reason, " ".join(filter(None, (".".join(self.path), self.text)))[:500])


@dataclass(frozen=True, slots=True)
class Limits:
    """An inclusive interval, of a number or of a text's length, and the words for it."""

    low: float
    high: float
    words: str = ""

    def complain(self, value: Any) -> Unfit:
        """The error for a value outside."""
        if isinstance(value, float) and not math.isfinite(value):
            return Unfit("NOT_FINITE", f"is {value!r}")
        what = f"has {len(value)} characters" if isinstance(value, str) else f"is {value!r}"
        return Unfit("OUT_OF_RANGE", f"{what}; allowed is {self.words or f'{self.low} to {self.high}'}")


def number_limits(kind: str, field: Mapping[str, Any], ranges: bool = True) -> Limits:
    """Interval of a field of the Avro type int, long or double.

    Args:
        ranges: False to leave out what the field says, and to take any double.
    """
    if not ranges:
        return ANY_DOUBLE if kind == "double" else number_limits(kind, NO_FIELD)
    if kind in _BITS:
        bound = 2 ** _BITS[kind]
        low, high = -bound, bound - 1
        above = field["exclusiveMinimum"] + 1 if "exclusiveMinimum" in field else low
    else:
        high = sys.float_info.max
        low = -high
        above = math.nextafter(field["exclusiveMinimum"], math.inf) if "exclusiveMinimum" in field else low
    words = _words(field, NUMBER_LIMITS)
    return Limits(max(low, above, field.get("minimum", low)), min(high, field.get("maximum", high)), words)


def text_limits(field: Mapping[str, Any]) -> Limits:
    """Interval of the length of a field of the Avro type string."""
    return Limits(field.get("minLength", 0), field.get("maxLength", math.inf), _words(field, TEXT_LIMITS))


def _words(field: Mapping[str, Any], names: frozenset[str]) -> str:
    return " and ".join(f"{sign} {field[name]}" for name, sign in _WORDS.items() if name in names and name in field)


NO_FIELD: Mapping[str, Any] = {}
ANY_DOUBLE = Limits(-math.inf, math.inf)
