"""docs/operating.md: its commands run, its time-outs are the ones in force, its messages the ones that are said."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streams.broker.node import free_port
from streams.settings import Settings
from streams.transport import timeouts
from tests.patience import PATIENCE_S
from tests.streams.hosting import FEATURES, WorkerProcess, until
from tests.streams.test_alerts import TOPIC, Alerts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text()
LINES = [line for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
         for line in block.splitlines()]
SAYING = ("samelog.py", "logcheck.py", "restore.py", "fold.py")


@pytest.fixture
def shell(prefix: Settings, tmp_path: Path) -> dict[str, str]:
    """Environment in which `quantum` is ours and topics are the test's."""
    (tmp_path / "quantum").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streams.cli.main "$@"\n')
    (tmp_path / "quantum").chmod(0o755)
    return os.environ | {"QUANTUM_BROKER": prefix.broker, "QUANTUM_TOPIC_PREFIX": prefix.topic_prefix,
                         "QUANTUM_APP_ID": prefix.app_id, "PATH": f"{tmp_path}:{os.environ['PATH']}",
                         "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}


def test_every_line_runs_and_prints(prefix: Settings, shell: dict[str, str]) -> None:
    said = Alerts(prefix, "features")
    said.critical("features", "for the page")
    assert said.deliver(20)
    assert len(LINES) >= 5
    for line in LINES:
        line = line.replace("--metrics-port 9464", f"--metrics-port {free_port()}")
        whole = f"{line} --until-eof --json < /dev/null" if line.startswith("quantum worker") else line
        done = subprocess.run(["bash", "-o", "pipefail", "-c", whole], cwd=ROOT, env=shell, capture_output=True,
                              text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert done.stdout.strip(), line
        if TOPIC in line:
            assert "for the page" in done.stdout


@pytest.mark.topics(*FEATURES)
def test_pages_of_a_worker_answer(prefix: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.search(r"^```sh\n((?:curl .*\n)+)```$", PAGE, re.MULTILINE)
    assert lines is not None
    if shutil.which("curl") is None:
        pytest.skip("curl is not there")
    port = free_port()
    monkeypatch.setenv("QUANTUM_METRICS_PORT", str(port))
    worker = WorkerProcess(prefix, "features", tmp_path / "log")
    try:
        def ready() -> bool:
            return subprocess.run(["curl", "-sf", f"http://127.0.0.1:{port}/readyz"], capture_output=True,
                                  check=False).returncode == 0

        asyncio.run(until(ready, "readiness"))
        for line in lines[1].splitlines():
            done = subprocess.run(["bash", "-c", line.replace("9464", str(port))], capture_output=True, text=True,
                                  check=True)
            assert done.stdout, line
            if line.endswith("/metrics"):
                named = re.findall(r"^\| (`(?:quantum|process)_.*?) \|", PAGE, re.MULTILINE)
                names = [n for cell in named for n in re.findall(r"`(\w+)", cell)]
                families = set(re.findall(r"^# TYPE (\w+)", done.stdout, re.MULTILINE))
                assert sorted(f for f in families if f.startswith("quantum_")) == sorted(
                    n for n in names if n.startswith("quantum_"))
            else:
                assert done.stdout == "ok\n"
        assert worker.terminate() == 0
    finally:
        worker.kill()


def test_time_outs_are_those_in_force() -> None:
    rows = dict(re.findall(r"^\| ([A-Z_]+_M?S) \| (\d+) \|", PAGE, re.MULTILINE))
    assert {name: float(value) for name, value in rows.items()} == {name: getattr(timeouts, name) for name in rows}
    assert len(rows) == 12
    assert rows.keys() >= {n for n in vars(timeouts) if re.fullmatch(r"[A-Z_]+_M?S", n)} - {
        "CLOSE_S", "BROKER_MIN_SESSION_MS", "BROKER_RESTART_MS"}


def test_messages_are_those_that_are_said() -> None:
    table = PAGE.partition("| it says |")[2].partition("\n\n")[0]
    phrases = re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", table, re.MULTILINE)
    phrases = [p for p in phrases if not p.startswith("what happened")]
    sources = " ".join((ROOT / "streams" / name).read_text() for name in SAYING)
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)
    assert len(phrases) == 11
    assert [p for p in phrases if p not in joined] == []
