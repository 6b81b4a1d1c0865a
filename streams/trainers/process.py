"""One trainer process, from the host's side: start it, hand it the job, wait for the answer, never leave it behind.

Nothing here blocks the event loop: pipes are asyncio's, and the process is spawned, not forked (the parent may hold
gigabytes, threads and librdkafka's locks).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from agents.contract import Agent, Job
from streams.trainers.child import ORDER_LENGTH_BYTES, Answer, Done, Order, Raised

CHILD = "streams.trainers.child"
NICENESS = 10  # above the starting process's own
TAIL_BYTES = 2_000
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
              "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS")


class TrainerFailed(Exception):
    """A trainer process that gave no result, in words."""


def order_of(agent: Agent[Any], job: Job) -> bytes:
    """A job as a trainer process takes it: the class is imported there and made with the configuration alone."""
    kind = type(agent)
    body = msgspec.msgpack.encode(Order(module=kind.__module__, qualname=kind.__qualname__,
                                        config=msgspec.json.encode(agent.config), job_id=job.job_id,
                                        request=job.request))
    return len(body).to_bytes(ORDER_LENGTH_BYTES, "big") + body


def give_way(pid: int) -> None:
    """Give a process that was just started less of the processor than this one has; nothing, where it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


async def performed(order: bytes, timeout_s: float | None, started: Callable[[int], None] = lambda pid: None) -> Done:
    """Have a job performed in a process of its own; the process has ended when this returns or raises.

    Args:
        order: see `order_of`.
        timeout_s: wall time, after which the process is killed; None: never.
        started: told the process's id.

    Raises:
        TrainerFailed: it raised, crashed or took too long.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", CHILD, str(os.getpid()), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=_environment())
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None
    try:
        give_way(process.pid)  # from here, so that its imports are not in the worker's way
        started(process.pid)
        async with asyncio.timeout(timeout_s):
            answer, tail, _ = await asyncio.gather(stdout.read(), _tail(stderr), _hand(stdin, order))
            code = await process.wait()
    except TimeoutError:
        raise TrainerFailed(f"it was not done within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        stdin.close()
        await asyncio.shield(process.wait())
    return _result(answer, code, tail)


def _result(answer: bytes, code: int, tail: str) -> Done:
    try:
        found = msgspec.msgpack.decode(answer, type=Answer)
    except msgspec.MsgspecError:
        raise TrainerFailed(f"the trainer process {_ended(code)} without a result"
                            f"{f'; it wrote: {tail}' if tail else ''}") from None
    if isinstance(found, Raised):
        raise TrainerFailed(found.reason)
    return found


def _ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _environment() -> dict[str, str]:
    """That of this process, with its import path; one thread for the libraries of mathematics."""
    return os.environ | dict.fromkeys(ONE_THREAD, "1") | {
        "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "0"}


async def _hand(pipe: asyncio.StreamWriter, order: bytes) -> None:
    """Write the order; the pipe stays open, because its end ends the process."""
    with contextlib.suppress(ConnectionError):  # it has ended, which its answer tells
        pipe.write(order)
        await pipe.drain()


async def _tail(pipe: asyncio.StreamReader) -> str:
    """The last lines of what it prints."""
    kept = b""
    while part := await pipe.read(1 << 16):
        kept = (kept + part)[-TAIL_BYTES:]
    return kept.decode(errors="replace").strip()
