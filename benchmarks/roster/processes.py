"""Worker processes with a file of counters each, and the processor time of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streams.settings import Settings

START_S = 180.0  # it only ever gives up then
STOP_S = 20.0


class Workers:
    """Processes of `quantum worker`; they end with this one.

    Args:
        settings: broker, prefix and names.
        folder: for the counters.
        groups: agents of each process.
        clock: whether the first owns `system.clock`.
        name: of the counters' files; another one for every start in a folder.
        flags: further arguments of each process.
    """

    def __init__(self, settings: Settings, folder: Path, groups: Sequence[Sequence[str]], *, clock: bool = False,
                 name: str = "stats", flags: Sequence[Sequence[str]] = ()) -> None:
        self.stats = [folder / f"{name}-{i}.jsonl" for i in range(len(groups))]
        given = ["--broker", settings.broker, "--topic-prefix", settings.topic_prefix, "--app-id", settings.app_id,
                 "--data-dir", str(settings.data_dir), "--log-level", "warning", "--until-eof"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
                                    "QUANTUM_LINGER_MS": str(settings.linger_ms)}
        self.processes = [
            subprocess.Popen([sys.executable, "-m", "streams.cli.main", "worker", "--agents", ",".join(group),
                              "--stats", str(stats), *given, *(flags[i] if flags else ()),
                              *(["--clock"] if clock and i == 0 else [])],
                             env=environment, stdin=subprocess.PIPE, start_new_session=True)
            for i, (group, stats) in enumerate(zip(groups, self.stats, strict=True))
        ]

    def wait_ready(self) -> None:
        """Until each has its partitions.

        Raises:
            SystemExit: one did not come up.
        """
        until = time.monotonic() + START_S
        while not all(path.exists() and path.stat().st_size for path in self.stats):
            self.check()
            if time.monotonic() > until:
                raise SystemExit(f"a worker was not ready within {START_S:g} s")
            time.sleep(0.1)

    def check(self) -> None:
        """Hold that all run.

        Raises:
            SystemExit: one has ended.
        """
        if any(process.poll() is not None for process in self.processes):
            raise SystemExit("a worker went down; it said why above")

    def counters(self) -> dict[str, dict[str, Any]]:
        """Newest counters by agent."""
        rows = [json.loads(path.read_text().rpartition("\n")[0].splitlines()[-1]) for path in self.stats]
        return {agent["agent"]: agent for row in rows for agent in row["agents"]}

    def pids(self) -> dict[str, int]:
        """Process of each worker, by name."""
        return {f"worker {i + 1}": process.pid for i, process in enumerate(self.processes)}

    def stop(self) -> None:
        """End them; they finish what they began."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def cpu_s(pid: int) -> float:
    """Processor time of a process's threads, as the scheduler counted it: /proc/PID/stat may only be sampled."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def shares(pids: dict[str, int], before: dict[str, float], seconds: float) -> dict[str, float]:
    """Percent of one core by process."""
    return {name: round(100 * (cpu_s(pid) - before[name]) / seconds, 2) for name, pid in pids.items()}
