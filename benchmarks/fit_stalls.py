"""Stalls of a worker's event loop while fits run: how late a callback comes that is due every two milliseconds.

    python -m benchmarks.fit_stalls --fits 12 --seconds 2

The same loop, first with nothing, then with trainer processes that start, take their request, burn a processor and hand
their result over, one after the other. The process holds `--ballast-mb` of memory, since what a stall hangs on is how a
process is started: spawning copies no page tables, forking does, and `--fork` measures that beside it.

`own max` is the processor time of the loop's thread between two callbacks. What is late beyond it, others held: the
processor, and how long its thread was ready and waited for one the kernel says (`schedstat`), so that `less waiting` is
what is left of lateness without that; or Python's lock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from agents.contract import Agent, Event, Job, Output, State
from schemas.events import Tick
from streams.trainers.process import order_of, performed

EVERY_S = 0.002
SETTLE_S = 0.5
REQUEST_BYTES = 4 << 20
RESULT_CHARS = 60


class Burner(Agent[State]):
    """Burns a processor for as many seconds as its job says."""

    name = "features"
    state_type = State

    def new(self, scope: str) -> State:
        return State()

    def step(self, state: State, event: Event) -> tuple[State, tuple[Output, ...]]:
        return state, ()

    def perform(self, job: Job) -> Output:
        until = time.monotonic() + float(job.job_id.split("/")[1])
        while time.monotonic() < until:
            np.linalg.qr(np.random.default_rng(0).normal(size=(200, 200)))
        return Output("system.clock", Tick(ts_ms=0, writer="x" * RESULT_CHARS))


def _waited_ms(thread: int) -> float:
    """How long a thread of this process was ready to run and waited for a processor so far; 0 where nobody says."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1]) / 1e6
    except (OSError, IndexError):
        return 0.0


class Watch:
    """Notes how late each callback is, and what of it the loop's thread computed, or waited for a processor."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self.blocked_ms: list[float] = []
        self.waited_ms: list[float] = []

    async def run(self) -> None:
        """Until cancelled."""
        thread = threading.get_native_id()
        waited = _waited_ms(thread)
        while True:
            wall, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(EVERY_S)
            self.late_ms.append((time.perf_counter() - wall - EVERY_S) * 1000)
            self.blocked_ms.append((time.thread_time() - cpu) * 1000)
            before, waited = waited, _waited_ms(thread)
            self.waited_ms.append(waited - before)

    def figures(self) -> dict[str, float]:
        """Milliseconds; the maximum, and the 99.9 % quantile."""
        late, blocked, waited = (np.array(x) for x in (self.late_ms, self.blocked_ms, self.waited_ms))
        left = late - waited
        return {"callbacks": len(late), "late p99.9": round(float(np.quantile(late, 0.999)), 2),
                "late max": round(float(late.max()), 2), "over 50 ms": int((late > 50).sum()),
                "less waiting max": round(float(left.max()), 2), "less waiting over 50 ms": int((left > 50).sum()),
                "own max": round(float(blocked.max()), 2)}


async def measured(work: Any) -> dict[str, float]:
    """Run something beside the watch."""
    watch = Watch()
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(SETTLE_S)
    await work
    task.cancel()
    return watch.figures()


async def fits(n: int, seconds: float) -> None:
    """Fits, one after the other."""
    from benchmarks.fit_stalls import Burner as Imported  # not __main__'s: the trainer process imports it by its name

    request = bytes(REQUEST_BYTES)
    for i in range(n):
        order = order_of(Imported(), Job(f"{i}/{seconds}", request))
        await performed(order, 600)


async def forks(n: int) -> None:
    """What a fork of this process would cost the loop."""
    for _ in range(n):
        pid = os.fork()
        if not pid:
            os._exit(0)
        await asyncio.to_thread(os.waitpid, pid, 0)
        await asyncio.sleep(0.1)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each fit")
    parser.add_argument("--ballast-mb", type=int, default=1024, help="memory that this process holds")
    parser.add_argument("--fork", action="store_true", help="also measure forks of this process")
    given = parser.parse_args()
    ballast = np.ones(given.ballast_mb << 17)
    began = time.perf_counter()
    alone = asyncio.run(measured(asyncio.sleep(given.fits * given.seconds)))
    rows = {"nothing": alone, "fits": asyncio.run(measured(fits(given.fits, given.seconds)))}
    if given.fork:
        rows["forks"] = asyncio.run(measured(forks(given.fits)))
    print(json.dumps({"fits": given.fits, "ballast_mb": int(ballast.nbytes >> 20), "load": os.getloadavg()[0],
                      "seconds": round(time.perf_counter() - began), **rows}, indent=2))


if __name__ == "__main__":
    main()
