"""Whether a process ran on without a gap in which its groups may have given it up.

A worker that the system stops (SIGSTOP, a suspended machine) wakes up in the middle of whatever it was about to do, and
hears only later that its partitions went to others. State that it wrote then would stand behind theirs. So whoever is
about to write state asks here first; the first to ask after a gap notes it, and it stays noted until the group has
given partitions anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Awake:
    """Notes gaps between two calls of `beat`, from whatever thread.

    Args:
        limit_s: shortest gap that counts.
        clock: seconds; it must go on while the process is stopped, as the monotonic clock does under SIGSTOP.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._last = clock()
        self._woke: float | None = None

    def beat(self) -> bool:
        """Whether there was no gap since `renew`; to be called more often than the limit."""
        now = self._clock()
        if now - self._last > self._limit_s:
            self._woke = now
        self._last = now
        return self._woke is None

    def since_gap_s(self) -> float | None:
        """Seconds since the process woke up from a gap; None where there was none."""
        return None if self._woke is None else self._clock() - self._woke

    def renew(self) -> None:
        """The group has given partitions anew: what was before counts no more."""
        self._woke = None
