"""The trainer process: one job, then the end.

    python -m streams.trainers.child PARENT_PID

The order comes on standard input, the answer leaves on standard output; both are msgpack. What libraries print goes to
standard error. Standard input stays open as a lifeline: its end means that the parent is gone, and so does, on Linux,
the signal that the kernel sends (PR_SET_PDEATHSIG). A process in the middle of a long C call hears the signal only.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
from typing import Any

import msgspec

ORDER_LENGTH_BYTES = 8
PR_SET_PDEATHSIG = 1


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to perform: an agent's class by module and qualified name, its configuration as JSON, the job."""

    module: str
    qualname: str
    config: bytes
    job_id: str
    request: bytes


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """A result as the record that it is published as, without what only the host knows."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class Raised(msgspec.Struct, frozen=True, kw_only=True, tag="raised"):
    """An exception, in words."""

    reason: str


Answer = Done | Raised


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _read(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(0, min(count, 1 << 20))
        if not part:
            os._exit(1)  # the parent is gone
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _lifeline() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def perform(order: Order) -> Answer:
    """Perform a job; whatever goes wrong is an answer."""
    from agents.contract import Job
    from schemas.codec import Codec
    from streams.trainers.jobs import encoded, reason

    try:
        kind: Any = importlib.import_module(order.module)
        for name in order.qualname.split("."):
            kind = getattr(kind, name)
        agent = kind(msgspec.json.decode(order.config, type=kind.config_type))
        job = Job(order.job_id, order.request)
        record = encoded(Codec(), agent, job, agent.perform(job))
        return Done(topic=record.topic, key=record.key or b"", value=record.value or b"", headers=record.headers)
    except BaseException as exc:  # also SystemExit: the host wants to know
        return Raised(reason=reason(exc))


def main(parent: int) -> None:
    """One job of the parent's."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in a terminal is the worker's to obey
    answers = os.dup(1)
    os.dup2(2, 1)
    order = msgspec.msgpack.decode(_read(int.from_bytes(_read(ORDER_LENGTH_BYTES), "big")), type=Order)
    threading.Thread(target=_lifeline, name="lifeline", daemon=True).start()
    with os.fdopen(answers, "wb") as out:
        out.write(msgspec.msgpack.encode(perform(order)))
    sys.stderr.flush()
    os._exit(0)  # without the teardown of libraries


if __name__ == "__main__":
    main(int(sys.argv[1]))
