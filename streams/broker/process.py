"""Start, find and stop the embedded broker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from rich.console import Console

from streams.broker import node
from streams.broker.errors import BrokerError, StartFailed
from streams.broker.jars import class_path
from streams.broker.java import find_java
from streams.broker.node import Layout
from streams.broker.probe import answers
from streams.settings import LOOPBACK, Settings, state_path

START_TIMEOUT_S = 120.0  # 4 s on an idle machine of 2 cores, 30 s on one with six times the work it can do
STOP_TIMEOUT_S = 30.0
FORMAT_TIMEOUT_S = 60.0
LOCK_TIMEOUT_S = 180.0
TAIL_LINES = 25
_ATTEMPTS = 3
_children: dict[int, subprocess.Popen[bytes]] = {}  # brokers that this process started, to be reaped


@dataclass(frozen=True, kw_only=True)
class RunningBroker:
    """A broker that runs.

    Attributes:
        address: HOST:PORT.
        pid: its process.
        data_dir: the directory it keeps everything in.
        log_path: its log.
        cluster_id: Kafka's id of the data directory.
        started_s: when its process was made, seconds since 1970, as the system tells it.
        already_running: True where `up` found it running.
    """

    address: str
    pid: int
    data_dir: Path
    log_path: Path
    cluster_id: str
    started_s: float
    already_running: bool = False


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is known of the embedded broker: `running`, `starting` (lives, does not answer yet) or `stopped`."""

    state: str
    broker: RunningBroker | None
    log_path: Path


def _layout(settings: Settings, ephemeral_dir: Path | None) -> Layout:
    return Layout(state_path(ephemeral_dir.absolute() if ephemeral_dir else settings.data_dir).parent)


def up(settings: Settings, *, ephemeral_dir: Path | None = None, console: Console | None = None) -> RunningBroker:
    """Start the broker, unless it runs; returns when it answers.

    Args:
        settings: data and cache directories, first port, heap.
        ephemeral_dir: directory to use instead of `settings.data_dir`, for a run of minutes: a port that the system
            chooses, and little compilation. The caller removes it.
        console: where the progress of a fetch is shown; default standard error.

    Raises:
        NoJava, FetchFailed, JarRefused, StartFailed: it cannot run; the message says what can be done.
    """
    layout = _layout(settings, ephemeral_dir)
    layout.home.mkdir(parents=True, exist_ok=True)
    with _locked(layout):
        found = _find(layout)
        if found is not None:
            _wait(layout, found)
            return replace(found, already_running=True)
        java, path = find_java(), class_path(settings, console)
        command = node.java_command(java, path, layout, settings.broker_heap_mb, ephemeral_dir is not None)
        layout.log4j.write_text(node.log4j_properties(layout))
        shutil.rmtree(layout.scratch, ignore_errors=True)
        layout.scratch.mkdir()
        first = None if ephemeral_dir else settings.broker_port
        for attempt in range(_ATTEMPTS):
            try:
                return _start(layout, command, first)
            except StartFailed as exc:
                if attempt == _ATTEMPTS - 1 or "Address already in use" not in str(exc):
                    raise
    raise AssertionError("unreachable")


def down(settings: Settings, *, ephemeral_dir: Path | None = None) -> bool:
    """Stop the broker if it runs, cleanly if it does so within `STOP_TIMEOUT_S`; returns whether it ran."""
    layout = _layout(settings, ephemeral_dir)
    if not layout.home.is_dir():
        return False
    with _locked(layout):
        found = _find(layout)
        if found is not None:
            _end(found.pid)
        layout.state.unlink(missing_ok=True)
        layout.pid.unlink(missing_ok=True)
    return found is not None


def status(settings: Settings, *, ephemeral_dir: Path | None = None) -> Status:
    """Whether the broker runs and answers. Takes no lock and changes nothing."""
    layout = _layout(settings, ephemeral_dir)
    found = _find(layout)
    if found is None:
        return Status(state="stopped", broker=None, log_path=layout.log)
    ready = answers(found.address, found.cluster_id)
    return Status(state="running" if ready else "starting", broker=found, log_path=layout.log)


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    try:
        with FileLock(layout.lock, timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout:
        raise BrokerError(f"another process has been starting or stopping the broker for {LOCK_TIMEOUT_S:.0f} s "
                          f"({layout.lock})") from None


def _find(layout: Layout) -> RunningBroker | None:
    """The running broker by its state file; None where the file is stale, whoever has its pid now."""
    try:
        state = json.loads(layout.state.read_text())
        found = RunningBroker(**state | {"data_dir": Path(state["data_dir"]), "log_path": Path(state["log_path"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if _is_ours(found.pid, layout) else None


def _is_ours(pid: int, layout: Layout) -> bool:
    """Whether the process lives and is the broker of this directory, and not another that got its pid later."""
    child = _children.get(pid)
    if child is not None:
        if child.poll() is None:
            return True
        del _children[pid]  # poll has reaped it
        return False
    try:
        process = psutil.Process(pid)
        for _ in range(20):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            command = process.cmdline()
            if command:
                return str(layout.properties) in command
            time.sleep(0.01)  # no command line: it is between fork and exec
    except psutil.Error:
        pass
    return False


def _start(layout: Layout, command: list[str], first: int | None) -> RunningBroker:
    last = layout.last_port()
    port = last if last is not None and node.port_is_free(last) else node.free_port(first)
    controller_port = port
    while controller_port == port:
        controller_port = node.free_port()
    layout.properties.write_text(node.server_properties(layout, port, controller_port))
    if not layout.formatted:
        _format(layout, command)
    log_from = layout.log.stat().st_size if layout.log.exists() else 0
    with layout.console.open("wb") as output:
        child = subprocess.Popen(
            [*command, "kafka.Kafka", str(layout.properties)], cwd=layout.home, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )
    _children[child.pid] = child
    running = RunningBroker(
        address=f"{LOOPBACK}:{port}", pid=child.pid, data_dir=layout.home, log_path=layout.log,
        cluster_id=_cluster_id(layout), started_s=psutil.Process(child.pid).create_time(),
    )
    _write_state(layout, running)  # before it is ready, so that a starter who dies leaves no stranger behind
    try:
        _wait(layout, running, log_from)
    except BaseException:
        _end(running.pid)
        layout.state.unlink(missing_ok=True)
        layout.pid.unlink(missing_ok=True)
        raise
    return running


def _format(layout: Layout, command: list[str]) -> None:
    arguments = ["kafka.tools.StorageTool", "format", "-t", node.new_cluster_id(), "-c", str(layout.properties)]
    try:
        run = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S,
                             check=False, cwd=layout.home)
    except subprocess.TimeoutExpired:
        raise StartFailed(f"formatting {layout.logs} took more than {FORMAT_TIMEOUT_S:.0f} s") from None
    if run.returncode != 0 or not layout.formatted:
        raise StartFailed(f"{layout.logs} could not be formatted:\n{run.stdout}{run.stderr}".rstrip())


def _cluster_id(layout: Layout) -> str:
    for line in (layout.logs / "meta.properties").read_text().splitlines():
        if line.startswith("cluster.id="):
            return line.partition("=")[2].replace("\\", "")
    raise StartFailed(f"{layout.logs / 'meta.properties'} names no cluster.id")


def _write_state(layout: Layout, running: RunningBroker) -> None:
    state = asdict(running)
    del state["already_running"]
    arriving = layout.state.with_suffix(".arriving")
    arriving.write_text(json.dumps(state, default=str, indent=1))
    os.replace(arriving, layout.state)
    layout.pid.write_text(f"{running.pid}\n")


def _wait(layout: Layout, running: RunningBroker, log_from: int = 0) -> None:
    """Until the broker answers a metadata request as the one whose data these are."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if not _is_ours(running.pid, layout):
            raise StartFailed("Apache Kafka ended while it started; the end of its log:\n" + tail(layout, log_from))
        if answers(running.address, running.cluster_id):
            return
        time.sleep(0.1)
    raise StartFailed(f"Apache Kafka did not answer at {running.address} within {START_TIMEOUT_S:.0f} s; the end of "
                      "its log:\n" + tail(layout, log_from))


def tail(layout: Layout, log_from: int = 0, lines: int = TAIL_LINES) -> str:
    """Last lines of the log from a place on, behind what Java itself printed."""
    text = ""
    for path, start in ((layout.console, 0), (layout.log, log_from)):
        if path.exists():
            with path.open("rb") as file:
                size = path.stat().st_size
                file.seek(max(start if start <= size else 0, size - 200_000))
                text += file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def _end(pid: int) -> None:
    """SIGTERM, time to close its logs, then SIGKILL."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
    child = _children.pop(pid, None)
    if child is not None:
        child.poll()
