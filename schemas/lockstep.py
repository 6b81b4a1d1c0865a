"""Many pieces of bytes read in step with each other, in numpy: numbers, texts, words at a position of each.

`schemas.columns` reads the fields of records so, `streams.copies` the headers of what relays copied. Needs numpy, which
the base installation does not have: the extra `agents` brings it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.limits import Limits

Array = npt.NDArray[Any]

PAD = 8  # bytes behind the last record, so that a word can be read anywhere
_SLOTS = 1 << 16
_U = np.uint64
LOW = np.array([(1 << (8 * n)) - 1 for n in range(9)], _U)  # the first n bytes of a word
_MIX = tuple(_U(n) for n in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xFF51AFD7ED558CCD,
                             0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3))
LONGEST = 8 * len(_MIX)  # bytes of a text that has a code


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


class Lockstep:
    """Many records read together, field by field: where each has got to, and which are still good.

    Args:
        data: their bytes, with `PAD` bytes or more behind the last.
        start_N: where each begins.
    """

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
        words = [self.word(start_N + skip) & LOW.take(size_N - skip, mode="clip") for skip in range(0, longest, 8)]
        return np.where(wanted_N, texts.lookup(self.data, start_N, size_N, words, wanted_N), -1)
