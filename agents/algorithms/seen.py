"""Which numbers came before, kept as ranges: a feed that numbers its trades without gaps needs one.

    seen = Seen()
    seen.has(7), (seen := seen.with_(7)).has(7)

A missing number costs a range. Beyond `MOST` the oldest ranges are forgotten, and `forgotten` says up to where nothing
is known any more.
"""

from __future__ import annotations

from bisect import bisect_right

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
