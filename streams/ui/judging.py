"""`quantum verify` in the background: in a process of its own, since it reads the whole log and takes a core.

The first report is by a small sample, as in `quantum status`, so that there soon is one; those after it are as deep as
`quantum verify` by default. Each is told together with the moment at which it was made; no cell is ever filled in or
carried on here. A run that fails leaves the last report where it was, and the reason beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

from agents.contract import Agent
from streams.log import PIECEWISE_MS, LogReader
from streams.settings import Settings
from streams.subjects import codec_for

PATIENCE = 3  # a run waits at least so many times what the last one took
NICENESS = 10
Tell = Callable[[str, Any], None]
Judged = Callable[[bool], dict[str, Any]]
"""Makes a report, as `quantum verify --json` prints it; whether from a small sample."""
Roster = Callable[[], Mapping[str, Agent[Any]]]


class Failed(Exception):
    """A run that gave no report, in words."""


class Judge:
    """Runs verify again and again, while somebody watches.

    Args:
        run: makes reports; called in a thread.
        tell: takes an event's name and data.
        every_s: time between the end of a run and the next one; 0: only when asked.
        watched: whether somebody watches.
    """

    def __init__(self, run: Judged, tell: Tell, every_s: float, watched: Callable[[], bool]) -> None:
        self._judged, self._tell, self._every_s, self._watched = run, tell, every_s, watched
        self._asked = asyncio.Event()
        self.state: dict[str, Any] = {"report": None, "small": None, "took_s": None, "running_since_ms": None,
                                      "error": None}

    def ask(self) -> bool:
        """Have it run now; False where it runs already."""
        if self.state["running_since_ms"] is not None:
            return False
        self._asked.set()
        return True

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._once()
            await self._pause()

    async def _once(self) -> None:
        self._asked.clear()
        began, small = time.monotonic(), self.state["report"] is None
        self._say(running_since_ms=int(time.time() * 1000))
        try:
            report = await asyncio.to_thread(self._judged, small)
        except (Failed, OSError) as exc:  # no report, or no process
            self._say(error=str(exc), running_since_ms=None)
        else:
            self._say(report=report, small=small, took_s=time.monotonic() - began, error=None, running_since_ms=None)

    async def _pause(self) -> None:
        """Until the next run is due and somebody watches, or it is asked for."""
        due = time.monotonic() + max(self._every_s, PATIENCE * (self.state["took_s"] or 0.0))
        while not self._asked.is_set():
            left = due - time.monotonic()
            if self._every_s > 0 and left <= 0 and self._watched():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), max(left, 1.0))

    def _say(self, **changes: Any) -> None:
        self.state |= changes
        self._tell("judged", self.state)


class Verifier:
    """Makes reports, each in a process of its own.

    Args:
        settings: broker and names.
        roster: makes the agents as the worker runs them, in that process: it can be pickled.
    """

    def __init__(self, settings: Settings, roster: Roster) -> None:
        self._settings, self._roster = settings, roster
        self._process: multiprocessing.process.BaseProcess | None = None
        self._stopped = False

    def __call__(self, small: bool) -> dict[str, Any]:
        """A report as `quantum verify --json` prints it.

        Args:
            small: from a small sample, the controls left out.

        Raises:
            Failed: it could not be made.
        """
        if self._stopped:
            raise Failed("stopped")
        spawn = multiprocessing.get_context("spawn")  # not forked: there are threads, and librdkafka's locks
        ours, theirs = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_report, args=(self._settings, self._roster, small, theirs), daemon=True)
        self._process = process
        process.start()
        theirs.close()
        try:
            with closing(ours):
                answer = ours.recv()
        except EOFError:
            process.join()
            raise Failed(f"verify ended with exit code {process.exitcode} and no report") from None
        process.join()
        if isinstance(answer, str):
            raise Failed(answer)
        return dict(answer)

    def stop(self) -> None:
        """End the process that runs."""
        self._stopped = True
        if self._process is not None and self._process.is_alive():
            self._process.terminate()


def _report(settings: Settings, roster: Roster, small: bool, to: Connection) -> None:
    """In the process: a report, or why there is none."""
    from streams.inspecting.judged import glance  # these load what the learners need, which the server does without
    from streams.verify.brokered import BrokerLog
    from streams.verify.judge import verify

    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    try:
        with LogReader(settings, wait_ms=PIECEWISE_MS) as reader, closing(BrokerLog(settings, reader)) as log:
            agents, codec = roster(), codec_for(settings)
            report = glance(log, agents, codec) if small else verify(log, agents, codec=codec,
                                                                     sample_seed=secrets.randbits(32))
    except Exception as exc:  # whatever it is, the page has to say it
        to.send(f"{type(exc).__name__}: {exc}")
    else:
        to.send(report.as_dict())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
