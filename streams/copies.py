"""Headers of copies in an inbox, many at once: which record of which source each of them is.

A relay says it in four headers (`streams.relay`). They are read here as they stand in Kafka's format, in step with each
other; what is not a plain copy, a fence for one, is left to `PartitionFold`, which reads headers one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schemas.limits import Limits
from schemas.lockstep import LONGEST, LOW, Array, Lockstep, Texts
from streams.records import (
    FENCE,
    OFFSET_DIGITS,
    OWNER,
    PARTITION_DIGITS,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    Headers,
)

MOST_HEADERS = 16
MOST_TEXTS = 1_000  # remembered; beyond, all are forgotten
_ANY = Limits(1, LONGEST)
_DIGITS = {SOURCE_PARTITION: PARTITION_DIGITS, SOURCE_OFFSET: OFFSET_DIGITS}
_ZEROS, _SIX, _TENS_PLACE = (np.uint64(int.from_bytes(8 * bytes([n]), "little")) for n in (0x30, 0x06, 0xF0))
_TENS = np.array([10**n for n in range(9)])
_ROLES = (SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET, OWNER)


@dataclass(slots=True)
class Sources:
    """Where records stood before a relay copied them; rows that are not good hold anything.

    Attributes:
        good_N: rows that are copies, by their headers.
        topic_N, owner_N: codes of `topics` and `owners`.
        partition_N, offset_N: of the source.
    """

    good_N: Array
    topic_N: Array
    partition_N: Array
    offset_N: Array
    owner_N: Array
    topics: list[str]
    owners: list[str]

    def of(self, topic: str) -> Array:
        """Rows that are copies from a topic."""
        if topic not in self.topics:
            return np.zeros(len(self.good_N), bool)
        return np.asarray(self.good_N & (self.topic_N == self.topics.index(topic)))


class Copies:
    """Reads the headers of copies; remembers texts from one call to the next."""

    def __init__(self) -> None:
        self._names, self._topics, self._owners = Texts(_ANY), Texts(_ANY), Texts(_ANY)

    def read(self, data: bytes, headers_N: Array) -> Sources:
        """Sources of records.

        Args:
            data: bytes, with `schemas.lockstep.PAD` or more behind the last header.
            headers_N: where the headers of each record begin, in Kafka's format; -1: not known.
        """
        for texts in (self._names, self._topics, self._owners):
            if len(texts.names) > MOST_TEXTS:
                texts.forget()
        step, n = Lockstep(data, headers_N.clip(0)), len(headers_N)
        step.good_N &= headers_N >= 0
        found = {role: np.full(n, -1, np.int64) for role in _ROLES}
        times = {role: np.zeros(n, np.int64) for role in (*_ROLES, FENCE)}
        count_N = _number(step, step.good_N)
        step.good_N &= (count_N >= len(_ROLES)) & (count_N <= MOST_HEADERS)
        for i in range(int(count_N[step.good_N].max(initial=0))):
            self._header(step, step.good_N & (i < count_N), found, times)
        for role in _ROLES:
            step.good_N &= (times[role] == 1) & (found[role] >= 0)
        step.good_N &= times[FENCE] == 0
        return Sources(step.good_N, found[SOURCE_TOPIC], found[SOURCE_PARTITION], found[SOURCE_OFFSET], found[OWNER],
                       self._topics.names, self._owners.names)

    def _header(self, step: Lockstep, here_N: Array, found: dict[str, Array], times: dict[str, Array]) -> None:
        """The next header of each record that has one."""
        size_N = _number(step, here_N)
        code_N = step.codes(self._names, step.at_N, size_N, here_N & (size_N >= 0) & (size_N <= LONGEST))
        step.good_N &= ~here_N | (code_N >= 0)
        here_N = here_N & (code_N >= 0)
        step.at_N += np.where(here_N, size_N, 0)
        size_N = _number(step, here_N)
        for code in np.flatnonzero(np.bincount(code_N[here_N])).tolist():
            role = self._names.names[code]
            if role in times:
                mine_N = here_N & (code_N == code)
                times[role] += mine_N
                if role in found:
                    np.copyto(found[role], self._value(step, role, size_N, mine_N), where=mine_N)
        step.at_N += np.where(here_N, size_N.clip(0), 0)

    def _value(self, step: Lockstep, role: str, size_N: Array, mine_N: Array) -> Array:
        """A number, or the code of a text; -1 for what is none."""
        if role in _DIGITS:
            return _digits(step, size_N, mine_N, _DIGITS[role])
        texts = self._topics if role == SOURCE_TOPIC else self._owners
        return step.codes(texts, step.at_N, size_N, mine_N & (size_N >= 0) & (size_N <= LONGEST))


def _number(step: Lockstep, here_N: Array) -> Array:
    """A number of Kafka's format (zig-zag, as Avro has them) where there is one; those records go beyond it."""
    byte_N = step.byte()
    if not (byte_N & 0x81)[here_N].any():  # one byte each and not negative: nearly always
        step.at_N += here_N
        return np.asarray((byte_N >> 1).astype(np.int64))
    value_N, size_N, fits_N = step.long()
    step.good_N &= fits_N | ~here_N
    step.at_N += np.where(here_N, size_N, 0)
    return value_N


def _digits(step: Lockstep, size_N: Array, wanted_N: Array, most: int) -> Array:
    """Numbers that stand in so many ASCII digits at most; -1 where that is not so."""
    fits_N = wanted_N & (size_N > 0) & (size_N <= most)
    value_N = np.zeros(len(size_N), np.int64)
    for skip in range(0, int(size_N[fits_N].max(initial=0)), 8):
        part_N = np.where(fits_N, size_N - skip, 0).clip(0, 8)
        eight_N, digits_N = eight_digits(step.word(step.at_N + skip), part_N)
        fits_N &= digits_N
        value_N = value_N * _TENS[part_N] + eight_N
    return np.where(fits_N, value_N, -1)


def eight_digits(word_N: Array, size_N: Array) -> tuple[Array, Array]:
    """Numbers in the first ASCII digits, at most eight, of words in memory's order; and where they are digits.

    >>> eight_digits(np.array([int.from_bytes(b"1234567x", "little")], np.uint64), np.array([7]))
    (array([1234567]), array([ True]))
    """
    x = (word_N ^ _ZEROS) & LOW[size_N]
    digits_N = ((x | (x + _SIX)) & _TENS_PLACE) == 0
    x <<= ((8 - size_N) * 8 % 64).astype(np.uint64)  # the last digit in the highest byte, noughts before the first
    x = (x * np.uint64(10) + (x >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    x = (x * np.uint64(100) + (x >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    x = (x * np.uint64(10_000) + (x >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
    return x.view(np.int64), digits_N


def written(headers: Headers) -> bytes:
    """Headers in Kafka's format.

    >>> written((("a", b"1"),))
    b'\\x02\\x02a\\x021'
    """
    parts = [_varint(len(headers))]
    for name, value in headers:
        raw = name.encode()
        parts += [_varint(len(raw)), raw, _varint(len(value)), value]
    return b"".join(parts)


def _varint(n: int) -> bytes:
    """A number that is not negative, in zig-zag."""
    n, out = n << 1, bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes((*out, n))
