"""Which numbers came before, kept as ranges: a feed that numbers its trades without gaps needs one.

    seen = Seen()
    seen.has(7), (seen := seen.with_(7)).has(7)

A missing number costs a range. Beyond `MOST` the oldest ranges are forgotten, and `forgotten` says up to where nothing
is known any more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import lt

import msgspec

MOST = 256  # ranges; some 5 KiB of state at most


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that came: ranges with both ends, ascending, no two of them touching.

    Attributes:
        first, last: ends of the ranges, inclusive.
        forgotten: no number up to here can be told from one that never came; -1 where all can.
    """

    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    forgotten: int = -1

    def has(self, number: int) -> bool:
        """Whether a number above `forgotten` came.

        >>> Seen(first=(3, 9), last=(5, 9)).has(4), Seen(first=(3, 9), last=(5, 9)).has(6)
        (True, False)
        """
        i = bisect_right(self.first, number) - 1
        return i >= 0 and number <= self.last[i]

    def with_(self, number: int) -> Seen:
        """These and a number above `forgotten` that they do not have.

        >>> Seen(first=(3, 9), last=(5, 9)).with_(6).last
        (6, 9)
        """
        first, last = self.first, self.last
        if last and number == last[-1] + 1:  # by far the most
            return Seen(first=first, last=(*last[:-1], number), forgotten=self.forgotten)
        i = bisect_right(first, number)  # ranges before i begin below the number
        joins_before = i > 0 and last[i - 1] + 1 == number
        joins_behind = i < len(first) and first[i] - 1 == number
        if joins_before and joins_behind:
            first, last = first[:i] + first[i + 1:], last[:i - 1] + last[i:]
        elif joins_before:
            last = (*last[:i - 1], number, *last[i:])
        elif joins_behind:
            first = (*first[:i], number, *first[i + 1:])
        else:
            first, last = (*first[:i], number, *first[i:]), (*last[:i], number, *last[i:])
        if len(first) <= MOST:
            return Seen(first=first, last=last, forgotten=self.forgotten)
        return Seen(first=first[1:], last=last[1:], forgotten=last[0])

    def with_all(self, first: Sequence[int], last: Sequence[int]) -> Seen | None:
        """These and runs of numbers, exactly as `with_` takes one number after the other.

        Args:
            first, last: ends of each run, inclusive, in order of arrival; at least one, and none that begins right
                behind the end of the one before it.

        Returns:
            None where a number came before or was forgotten by then; also where a run makes the ranges one too many
            until it reaches the next one, which ends alone do not tell.

        >>> Seen(first=(3,), last=(5,)).with_all((6, 12, 10), (8, 12, 11))
        Seen(first=(3, 10), last=(8, 12), forgotten=-1)
        """
        newest = self.last[-1] if self.last else self.forgotten
        if newest < first[0] and all(map(lt, last, first[1:])):  # by far the most
            joins = int(bool(self.last) and first[0] == newest + 1)
            starts = (*self.first, *first[joins:])
            ends = (*self.last[:len(self.last) - joins], *last)
            over = max(len(starts) - MOST, 0)
            return Seen(first=starts[over:], last=ends[over:], forgotten=ends[over - 1] if over else self.forgotten)
        return self._with_any(first, last)

    def _with_any(self, first: Sequence[int], last: Sequence[int]) -> Seen | None:
        starts, ends, forgotten = list(self.first), list(self.last), self.forgotten
        for a, b in zip(first, last, strict=True):
            i = bisect_right(starts, a)
            if a <= forgotten or (i > 0 and ends[i - 1] >= a) or (i < len(starts) and starts[i] <= b):
                return None
            joins_behind = i < len(starts) and starts[i] - 1 == b
            if i > 0 and ends[i - 1] + 1 == a:
                ends[i - 1] = b
                if joins_behind:
                    del starts[i], ends[i - 1]
            elif joins_behind:
                if a < b and len(starts) == MOST:
                    return None
                starts[i] = a
            else:
                starts.insert(i, a)
                ends.insert(i, b)
                if len(starts) > MOST:
                    forgotten = ends[0]
                    del starts[0], ends[0]
        return Seen(first=tuple(starts), last=tuple(ends), forgotten=forgotten)
