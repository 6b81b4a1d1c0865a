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
import numpy.typing as npt

from schemas.codec import SINGLE_OBJECT, SINGLE_PREFIX
from schemas.fast_source import Unsupported, branches_of, plain_type
from schemas.limits import NO_FIELD, Limits, number_limits, text_limits
from schemas.released import fingerprint_of, newest, schema_text

Array = npt.NDArray[Any]

PAD = 8  # bytes behind the last record, so that a word can be read anywhere
MOST_NAMES = 65_536  # texts remembered; beyond, all are forgotten
_SLOTS = 1 << 16
_U = np.uint64
_LOW = np.array([(1 << (8 * n)) - 1 for n in range(9)], _U)  # the first n bytes of a word
_MIX = tuple(_U(n) for n in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xFF51AFD7ED558CCD,
                             0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3))


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


class Texts:
    """Texts of a field by code, in the order in which they came."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.names: list[str] = []
        self._codes: dict[bytes, int] = {}
        self._slots = np.full(_SLOTS, -1, np.int32)
        self._words = np.zeros((len(_MIX), 256), _U)  # of each text, zeros behind its end
        self._sizes = np.full(256, -1, np.int64)

    def lookup(self, data: bytes, start_N: Array, size_N: Array, words: list[Array], wanted_N: Array) -> Array:
        """Codes; -1 for a text that is refused, for one that is not wanted anything.

        Args:
            data: all bytes.
            start_N, size_N: where each text stands.
            words: its bytes eight by eight, zeros behind its end.
            wanted_N: rows that matter.
        """
        if len(size_N) and wanted_N.all() and all((part == part[0]).all() for part in (size_N, *words)):
            return np.full(len(size_N), self._code(data[int(start_N[0]):int(start_N[0] + size_N[0])]))
        hash_N = words[0] * _MIX[0]
        for word, mix in zip(words[1:], _MIX[1:], strict=False):
            hash_N ^= word * mix
        slot_N = (hash_N >> _U(48)).view(np.int64)
        code_N = self._slots.take(slot_N).astype(np.int64)
        same_N = self._sizes.take(code_N) == size_N  # a code of -1 is the last of the sizes, which is none's
        for known, word in zip(self._words, words, strict=False):
            same_N &= known.take(code_N) == word
        rest = np.flatnonzero(wanted_N & ~same_N)
        if len(rest):
            bounds = zip(start_N[rest].tolist(), (start_N + size_N)[rest].tolist(), strict=True)
            code_N[rest] = [self._code(data[start:end]) for start, end in bounds]
            new = slot_N[rest]
            self._slots[new] = code_N[rest]
        return code_N

    def _code(self, raw: bytes) -> int:
        known = self._codes.get(raw)
        if known is not None:
            return known
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            return -1
        if not self.limits.low <= len(name) <= self.limits.high:
            return -1
        code = self._codes[raw] = len(self.names)
        self.names.append(name)
        if code + 1 >= len(self._sizes):  # one place stays free, for the code -1
            self._words = np.concatenate([self._words, np.zeros_like(self._words)], axis=1)
            self._sizes = np.concatenate([self._sizes, np.full_like(self._sizes, -1)])
        self._words[:, code] = np.frombuffer(raw.ljust(8 * len(_MIX), b"\0"), "<u8")
        self._sizes[code] = len(raw)
        return code


class _Reading:
    """A decode under way: where each record has got to, and which are still good."""

    def __init__(self, data: bytes, start_N: Array) -> None:
        self.data = data
        self.bytes = np.frombuffer(data, np.uint8)
        self.words: Array = np.ndarray((len(data) - PAD + 1,), "<u8", data, 0, (1,))  # one begins at every byte
        self.at_N = start_N.astype(np.int64)
        self.good_N = np.ones(len(start_N), bool)

    def byte(self) -> Array:
        """The byte at each position."""
        return self.bytes.take(self.at_N, mode="clip")

    def word(self, at_N: Array) -> Array:
        """Eight bytes from each position."""
        return self.words[np.minimum(at_N, len(self.words) - 1)]

    def long(self) -> tuple[Array, Array, Array]:
        """Zig-zag numbers, the bytes that each takes, and where there are at most eight of these."""
        word_N = self.word(self.at_N)
        ends_N = ~word_N & _U(0x8080808080808080)  # the highest bit of a number's last byte is not set
        last_N = ends_N & (~ends_N + _U(1))
        x = word_N & (last_N - _U(1)) & _U(0x7F7F7F7F7F7F7F7F)
        size_N = (np.bitwise_count(last_N - _U(1)).astype(np.int64) + 1) >> 3
        x = (x & _U(0x007F007F007F007F)) | ((x & _U(0x7F007F007F007F00)) >> _U(1))
        x = (x & _U(0x00003FFF00003FFF)) | ((x & _U(0x3FFF00003FFF0000)) >> _U(2))
        x = (x & _U(0x000000000FFFFFFF)) | ((x & _U(0x0FFFFFFF00000000)) >> _U(4))
        value_N = ((x >> _U(1)) ^ (~(x & _U(1)) + _U(1))).view(np.int64)
        return value_N, size_N, last_N != 0

    def text(self, texts: Texts, wanted_N: Array) -> tuple[Array, Array]:
        """Codes of texts of at most 63 bytes, and the bytes that each takes."""
        length_N = self.byte()
        size_N = (length_N >> 1).astype(np.int64)
        return self.codes(texts, self.at_N + 1, size_N, wanted_N & self.good_N & ((length_N & 0x81) == 0)), size_N + 1

    def codes(self, texts: Texts, start_N: Array, size_N: Array, wanted_N: Array) -> Array:
        """Codes of texts of at most 64 bytes that stand anywhere; -1 where one is refused or not wanted."""
        wanted_N = wanted_N & (start_N + size_N <= len(self.data) - PAD)
        longest = int(size_N[wanted_N].max(initial=1))
        words = [self.word(start_N + skip) & _LOW.take(size_N - skip, mode="clip") for skip in range(0, longest, 8)]
        return np.where(wanted_N, texts.lookup(self.data, start_N, size_N, words, wanted_N), -1)


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
        wanted_N = (size_N >= 0) & (size_N <= 8 * len(_MIX))
        return _Reading(data, start_N).codes(self._texts[field], start_N, size_N, wanted_N)

    def decode(self, data: bytes, start_N: Array, end_N: Array) -> Columns:
        """Records that stand in `data`, with `PAD` bytes or more behind the last.

        Args:
            data: bytes.
            start_N, end_N: where each record begins, with its prefix, and ends.
        """
        for texts in self._texts.values():
            if len(texts.names) > MOST_NAMES:
                texts.forget()
        reading = _Reading(data, start_N)
        reading.good_N &= reading.word(reading.at_N) == _U(self._mark[0])
        reading.good_N &= reading.word(reading.at_N + (SINGLE_PREFIX - 8)) == _U(self._mark[1])
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


def _read(reading: _Reading, kind: str, more: Any, here_N: Array) -> tuple[Array, Any, Array]:
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
