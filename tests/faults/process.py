"""A worker process of the real roster that can be struck: started by a server that has imported everything once.

Importing what a worker needs costs four seconds of processor time; a fork of a process that has done so costs
milliseconds. The server (Python's own `forkserver`) ends with the test run.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from streams.settings import Settings

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["streams.worker", "streams.cli.agents", "agents.roster"])
STOP_S = 10.0  # the promise of a worker that is told to stop
AGENT_CONFIG = ('ppo_trader={"synthetic": true, "rl_v3.training.interval_minutes": 10080, "episode_bars": 100, '
                '"rl_v3.training.episodes_per_run": 1, "window_rows": 128, "min_rows": 16, "epochs": 1, '
                '"hidden": [16]}',)
"""The market is made, and the trader trains on it all the same: short runs, one in 168 bars, which are struck."""
_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def prepare() -> None:
    """Start the server, unless it runs; it imports while its caller does other things."""
    with mock.patch.dict(os.environ, _THREADS):  # workers inherit them
        forkserver.ensure_running()


def serve_roster(values: dict[str, Any], orders: str, armed: bool, flushes: Any, log: str) -> None:
    """Run all agents in this process until a signal; exit code 1 after a failure."""
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.register(signal.SIGUSR2)  # where its threads are, if it does not stop
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {os.getpid()} %(name)s %(levelname)s %(message)s")
    logging.getLogger("faust").setLevel(logging.WARNING)
    logging.getLogger("mode").setLevel(logging.WARNING)
    from agents.roster import ROSTER
    from streams.cli.agents import configured
    from streams.worker import serve
    from tests.faults.points import install

    trap = install(Path(orders), flushes)
    if armed:
        trap.arm()
    settings = Settings(**values)
    if not serve(settings, configured(settings, AGENT_CONFIG, list(ROSTER))):
        raise SystemExit(1)


class Slot:
    """One place in which a worker runs: at most one process at a time.

    Args:
        settings: of the worker.
        folder: for its log and orders.
        name: of log and orders.
    """

    def __init__(self, settings: Settings, folder: Path, name: str) -> None:
        self._values = {n: getattr(settings, n) for n in settings.model_fields_set}
        self.log = folder / f"{name}.log"
        self._orders = folder / f"{name}.orders"
        self._flushes = CONTEXT.RawValue("q", 0)
        self._flushes_before = 0
        self._process: Any = None

    @property
    def flushes(self) -> int:
        """Flushes that the workers of this place have begun so far."""
        return int(self._flushes.value)

    @property
    def begun(self) -> bool:
        """Whether the present worker has flushed: before that it may not even listen to signals yet."""
        return self.flushes > self._flushes_before

    @property
    def pid(self) -> int:
        """Process id."""
        return int(self._process.pid)

    @property
    def running(self) -> bool:
        """Whether a worker is here."""
        return self._process is not None and self.exit_code() is None

    def start(self, order: tuple[str, str, int] | None = None) -> None:
        """A new worker, with a point armed from the start if there is an order."""
        if order is not None:
            self._write(*order)
        prepare()
        self._flushes_before = self.flushes
        self._process = CONTEXT.Process(
            target=serve_roster, daemon=True,
            args=(self._values, str(self._orders), order is not None, self._flushes, str(self.log)))
        self._process.start()

    def order(self, action: str, point: str, arrival: int) -> None:
        """Arm a point in the running worker."""
        self._write(action, point, arrival)
        self.send(signal.SIGUSR1)

    def _write(self, action: str, point: str, arrival: int) -> None:
        self._orders.write_text(f"{action} {point} {arrival}")

    def send(self, number: signal.Signals) -> None:
        """A signal, if it lives."""
        if self.exit_code() is None:
            os.kill(self.pid, number)

    def exit_code(self) -> int | None:
        """None while it lives; minus the signal that killed it."""
        code = self._process.exitcode
        return None if code is None else int(code)

    def frozen(self) -> bool:
        """Whether it is stopped by a signal."""
        return self.exit_code() is None and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def kill(self) -> None:
        """SIGKILL, and until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def terminate(self) -> int | None:
        """SIGTERM; its exit code, None where it did not end in time (it is killed then)."""
        self.send(signal.SIGTERM)
        self._process.join(STOP_S)
        code = self.exit_code()
        if code is None:
            self.send(signal.SIGUSR2)
            time.sleep(0.2)
            self.kill()
        return code

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for a condition; whether it came true in time."""
        give_up = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > give_up:
                return False
            time.sleep(0.01)
        return True

    def at_work(self, seconds: float) -> bool:
        """Wait until it flushes from now on."""
        before = self.flushes
        return self.until(lambda: self.flushes > before or self.exit_code() is not None, seconds)
