"""Named points inside of a worker at which it kills or freezes itself: on the way out, and on the way back.

    publish.*   records of a fold leave: before, half of them sent, all handed over, all acknowledged
    flush.begin a flush begins: what was folded is published, nothing of its state is written
    state.*     the same four places for the changelog's rows; half of them is a torn flush without its head
    commit.*    an offset is marked as finished, about to be committed, committed
    relay.*     copies into an inbox
    takeup.*, restore.*, fence.*   between an assignment and the first record

Only workers of the tests are patched so, in their own process. The places hang on few names of the transport
(`DriverProducer.send_rows` sees everything that is written); where one is gone, `install` fails.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streams import host
from streams.lane import FoldLane
from streams.records import FENCE
from streams.transport.commit import Committer
from streams.transport.poll import PollThread
from streams.transport.produce import DriverProducer

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}


class Trap:
    """The one point that is armed in this process.

    Args:
        orders: file with `action point arrival`, read at SIGUSR1.
        flushes: counts flushes that this process has begun, for the one who watches it.
    """

    def __init__(self, orders: Path, flushes: Any) -> None:
        self._orders = orders
        self.flushes = flushes
        self._point, self._left, self._action = "", 0, "kill"

    def arm(self, *_: object) -> None:
        """Take the order that was written for this process."""
        action, point, arrival = self._orders.read_text().split()
        self._action, self._point, self._left = action, point, int(arrival)

    def due(self, point: str) -> bool:
        """Whether this arrival is the one; counts it."""
        if not point or point != self._point:
            return False
        self._left -= 1
        return self._left <= 0

    def strike(self) -> None:
        """Kill or freeze this process; who is frozen goes on from here when woken."""
        self._point = ""
        os.kill(os.getpid(), SIGNALS[self._action])

    def at(self, point: str) -> None:
        """Arrive at a point."""
        if self.due(point):
            self.strike()


def install(orders: Path, flushes: Any) -> Trap:
    """Put the points into this process."""
    trap = Trap(orders, flushes)
    signal.signal(signal.SIGUSR1, trap.arm)
    _patch_producer(trap)
    _around(FoldLane, "flush", trap, before="flush.begin")
    _around(PollThread, "commit", trap, before="commit.before", after="commit.sent")
    _around(host.AgentHost, "take_up", trap, before="takeup.begin", after="takeup.done")
    mark, restore = Committer.mark, host.restore

    def marked(*args: Any, **kwargs: Any) -> None:
        mark(*args, **kwargs)
        trap.at("commit.marked")

    def restored(*args: Any, **kwargs: Any) -> Any:
        trap.at("restore.before")
        found = restore(*args, **kwargs)
        trap.at("restore.done")
        return found

    Committer.mark = marked  # type: ignore[method-assign]
    host.restore = restored
    return trap


def _around(owner: type, name: str, trap: Trap, *, before: str = "", after: str = "") -> None:
    """Points before and after a coroutine method."""
    original = getattr(owner, name)

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        trap.at(before)
        result = await original(*args, **kwargs)
        trap.at(after)
        return result

    setattr(owner, name, wrapped)


def _patch_producer(trap: Trap) -> None:
    original = DriverProducer.send_rows

    async def send_rows(self: DriverProducer, rows: Sequence[Any]) -> Any:
        if not rows:
            return await original(self, rows)
        what = _what(rows[0])
        trap.at(f"{what}.before")
        if len(rows) > 1 and trap.due(f"{what}.half"):
            some = (len(rows) + 1) // 2  # never all: a changelog's head is the last row
            await (await original(self, rows[:some]))
            trap.strike()
            rows = rows[some:]
        acks = await original(self, rows)
        if what == "state":
            trap.flushes.value += 1
        trap.at(f"{what}.queued")
        if trap.due(f"{what}.acked"):
            await acks
            trap.strike()
        return acks

    DriverProducer.send_rows = send_rows  # type: ignore[method-assign]


def _what(row: Any) -> str:
    """What a row belongs to; rows that are sent together belong to the same."""
    if row.topic.endswith(".changelog"):
        return "state"
    if row.topic.endswith(".inbox"):
        return "fence" if any(name == FENCE for name, _ in row.headers) else "relay"
    return "publish"
