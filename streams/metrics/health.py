"""Whether the event loop turns, and whether every app has its partitions with their state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streams.host import AgentHost

BEAT_S = 0.5
STALLED_S = 10.0  # a turn of the loop that takes longer is no slow step any more


@dataclass(frozen=True)
class Answer:
    """An answer to a probe.

    Attributes:
        good: 200 if so, else 503.
        reasons: what is not well, in words; a line each.
    """

    good: bool
    reasons: tuple[str, ...] = ()


class Pulse:
    """Beats in the event loop; read from another thread.

    Args:
        clock: monotonic seconds.

    Attributes:
        late_s: by how much the last beat came too late: how long the loop was busy with other things.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock()
        self.late_s = 0.0

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._due = self._clock() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.late_s = max(0.0, self._clock() - self._due)

    def overdue_s(self) -> float:
        """How long ago the beat that comes next should have come."""
        return max(0.0, self._clock() - self._due)


def alive(pulse: Pulse) -> Answer:
    """Whether the loop turns. A broker that is away is no reason: a restart would not bring it back."""
    overdue_s = pulse.overdue_s()
    if overdue_s < STALLED_S:
        return Answer(True)
    return Answer(False, (f"the event loop has not turned for {overdue_s:.0f} s",))


def ready(hosts: Sequence[AgentHost], pulse: Pulse) -> Answer:
    """Whether the worker is alive and every app has taken up its partitions: none, where others have all."""
    reasons = [*alive(pulse).reasons, *(f"{host.agent.name}: {why}" for host in hosts if (why := _waits(host)))]
    return Answer(not reasons, tuple(reasons))


def _waits(host: AgentHost) -> str | None:
    if host.app.failed.is_set():
        return "failed"
    if host.app.should_stop:
        return "is stopping"
    if host.ready:
        return None
    if (share := host.progress.share) is None:
        return "waits for its partitions"
    return f"restores its state, {share:.0%} of the changelog is read"
