"""The schedule: which slots end at a bar, and what a slot that ended asks for. Times are event times in milliseconds.

A slot is [start, end) on the UTC grid. A bar belongs to the slot that its event time, its close, lies in.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_SINGLE = 96
"""Empty slots that are told one by one, at most; a longer silence is one record more."""


class Ended(NamedTuple):
    """Slots that ended: one, or a run of empty ones. `slots`: their number; start and end are those of the last."""

    start_ms: int
    end_ms: int
    bars: int
    rows: int
    slots: int = 1


def slot_of(ts_ms: int, slot_ms: int) -> tuple[int, int]:
    """Start and end of the slot that an event time lies in.

    >>> slot_of(1_800_000, 1_800_000), slot_of(1_799_999, 1_800_000)
    ((1800000, 3600000), (0, 1800000))
    """
    start = ts_ms // slot_ms * slot_ms
    return start, start + slot_ms


def recut(start_ms: int, now_ms: int, slot_ms: int) -> tuple[int, int]:
    """The slot that is being filled, after the length of slots changed: it does not reach back into ended ones.

    The first slot after a change may be shorter than the others; it ends on the new grid, and after `now_ms`.
    """
    start, end = slot_of(now_ms, slot_ms)
    return max(start, start_ms), end


def ended(start_ms: int, end_ms: int, bars: int, rows: int, ts_ms: int, slot_ms: int) -> list[Ended]:
    """The slots that a bar at `ts_ms` shows to be over, oldest first; none where it lies in the one being filled."""
    if ts_ms < end_ms:
        return []
    found = [Ended(start_ms, end_ms, bars, rows)]
    empty = (slot_of(ts_ms, slot_ms)[0] - end_ms) // slot_ms
    for i in range(min(empty, MAX_SINGLE)):
        found.append(Ended(end_ms + i * slot_ms, end_ms + (i + 1) * slot_ms, 0, 0))
    if empty > MAX_SINGLE:
        last = end_ms + empty * slot_ms
        found.append(Ended(last - slot_ms, last, 0, 0, empty - MAX_SINGLE))
    return found
