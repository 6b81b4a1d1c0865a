"""Many records of one topic to columns, in numpy: a fast path that the row codec judges.

    columns = ColumnDecoder("market.trades").decode(joined, start_N, end_N)
    columns.good_N                      # which rows were read; of the others nothing is said
    columns.values["price"]             # float64 [N]
    columns.names["symbol"][columns.values["symbol"][i]]   # texts and symbols of enums by code

All records are read together, field by field: `at_N` is where each has got to. A row that is read has the values that
`Codec.decode` gives; every other row (another writer's schema, Confluent framing, a number of more than eight bytes, a
text longer than 63, whatever is out of range or damaged) is left to the codec, which refuses or reads it. Positions
only rise, so that a row which ran beyond its end, or ended before it, shows in the last line.

Not for records within records, arrays, maps, bytes or unions of more than null and one type. Needs numpy, which the
base installation does not have: the extra `agents` brings it, and no other module of `schemas` imports this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.codec import SINGLE_OBJECT, SINGLE_PREFIX
from schemas.fast_source import Unsupported, branches_of, plain_type
from schemas.limits import NO_FIELD, number_limits, text_limits
from schemas.lockstep import LONGEST, Array, Lockstep, Texts
from schemas.released import fingerprint_of, newest, schema_text

MOST_NAMES = 65_536  # texts remembered; beyond, all are forgotten


@dataclass(slots=True)
class Columns:
    """Records as columns; rows that are not good hold anything.

    Attributes:
        good_N: rows that were read.
        values: by field: int64, float64 or bool; for texts and enums int64 codes.
        present: by nullable field: where it is not null.
        names: by field, for texts and enums: what each code stands for.
    """

    good_N: Array
    values: dict[str, Array]
    present: dict[str, Array]
    names: Mapping[str, list[str]]


class ColumnDecoder:
    """Reads records of a topic's newest schema in single-object encoding.

    Raises:
        Unsupported: the schema is none of flat records.
    """

    def __init__(self, topic: str) -> None:
        schema = newest(topic)
        mark = SINGLE_OBJECT + fingerprint_of(json.loads(schema_text(topic)))
        self._mark = int.from_bytes(mark[:8], "little"), int.from_bytes(mark[SINGLE_PREFIX - 8:], "little")
        self._enums: dict[str, list[str]] = {}
        self._texts: dict[str, Texts] = {}
        self._plan = [(f["name"], *self._field(f)) for f in schema["fields"]]

    def _field(self, field: Mapping[str, Any]) -> tuple[str, int | None, Any]:
        """(kind, index of null in its union, limits or symbols or texts)."""
        kind, null = plain_type(field["type"]), None
        if isinstance(kind, list):
            null, kind = branches_of(kind)
        name = str(kind.get("name")) if isinstance(kind, dict) else kind
        if isinstance(kind, dict) and kind["type"] == "enum" and len(kind["symbols"]) <= 64:
            self._enums[name] = list(kind["symbols"])
        if name in self._enums:
            return "enum", null, self._enums[name]
        if kind in ("int", "long", "double"):
            return kind, null, number_limits(kind, field)
        if kind == "string":
            texts = self._texts[field["name"]] = Texts(text_limits(field))
            return kind, null, texts
        if kind == "boolean":
            return kind, null, NO_FIELD
        raise Unsupported(f"{field['name']}: {kind}")

    def codes(self, field: str, data: bytes, start_N: Array, size_N: Array) -> Array:
        """Codes that texts standing elsewhere (record keys) have in a field of the newest `decode`; else -1."""
        wanted_N = (size_N >= 0) & (size_N <= LONGEST)
        return Lockstep(data, start_N).codes(self._texts[field], start_N, size_N, wanted_N)

    def decode(self, data: bytes, start_N: Array, end_N: Array) -> Columns:
        """Records that stand in `data`, with `PAD` bytes or more behind the last.

        Args:
            data: bytes.
            start_N, end_N: where each record begins, with its prefix, and ends.
        """
        for texts in self._texts.values():
            if len(texts.names) > MOST_NAMES:
                texts.forget()
        reading = Lockstep(data, start_N)
        reading.good_N &= reading.word(reading.at_N) == np.uint64(self._mark[0])
        reading.good_N &= reading.word(reading.at_N + (SINGLE_PREFIX - 8)) == np.uint64(self._mark[1])
        reading.at_N += SINGLE_PREFIX
        values: dict[str, Array] = {}
        present: dict[str, Array] = {}
        for name, kind, null, more in self._plan:
            here_N = reading.good_N
            if null is not None:
                branch_N = reading.byte()
                here_N = present[name] = branch_N == (1 - null) * 2
                reading.good_N &= here_N | (branch_N == null * 2)
                reading.at_N += 1
            values[name], size_N, fits_N = _read(reading, kind, more, here_N)
            if null is None:
                reading.good_N &= fits_N
                reading.at_N += size_N
            else:
                reading.good_N &= fits_N | ~here_N
                reading.at_N += np.where(here_N, size_N, 0)
        reading.good_N &= reading.at_N == end_N
        names = {name: texts.names for name, texts in self._texts.items()}
        names |= {name: more for name, kind, _, more in self._plan if kind == "enum"}
        return Columns(reading.good_N, values, present, names)


def _read(reading: Lockstep, kind: str, more: Any, here_N: Array) -> tuple[Array, Any, Array]:
    """Values of a field, the bytes that each takes, and whether each is within its limits."""
    if kind == "double":
        value_N = reading.word(reading.at_N).view(np.float64)
        return value_N, 8, (value_N >= more.low) & (value_N <= more.high)
    if kind in ("int", "long"):
        value_N, size_N, fits_N = reading.long()
        return value_N, size_N, fits_N & (value_N >= int(more.low)) & (value_N <= int(more.high))
    if kind == "string":
        code_N, size_N = reading.text(more, here_N)
        return code_N, size_N, code_N >= 0
    byte_N = reading.byte()
    if kind == "boolean":
        return byte_N == 1, 1, np.ones(len(byte_N), bool)
    code_N = (byte_N >> 1).astype(np.int64)
    return code_N, 1, ((byte_N & 0x81) == 0) & (code_N < len(more))
