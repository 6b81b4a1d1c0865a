"""What every engine does, in the standard library alone, so that any environment can run it.

Trades of `market.trades`, in Avro behind a prefix of ten bytes; for each symbol and tumbling window of event time the
count of trades, the sum of their quantities and the last price. An engine is a program: a `Job` as JSON is its
argument, its last line of standard output a `Report`. It reads the first records of each partition, as many as
`records` in all or more, and says how many of each: the answer for these is known.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

WINDOW_MS = 10_000
SYMBOLS = 200
PARTITIONS = 4
PREFIX = 10  # bytes of single-object encoding before the record
GROUP_S = 60.0  # longest wait for the first record

Windows = dict[tuple[str, int], list[Any]]
"""(symbol, number of the window) to [count, sum of quantities, last price]."""


@dataclass(frozen=True)
class Job:
    """What to do.

    Attributes:
        broker, topic, group: where; the group is one of its own.
        records: how many records to take at least; the topic has as many or more.
        durable: whether state has to outlive the process.
        schema: the writer's schema.
        folder: for files of the engine; it is removed afterwards.
        name: of the agent, where it has one.
        columns: False to have ours take a record at a time.
        prefix: before the names of topics of ours, that of `topic` included.
    """

    broker: str
    topic: str
    group: str
    records: int
    durable: bool
    schema: Any
    folder: str
    name: str
    prefix: str
    columns: bool

    @classmethod
    def given(cls) -> Job:
        """The argument of this program."""
        return cls(**json.loads(sys.argv[1]))


@dataclass
class Report:
    """What came of it.

    Attributes:
        seconds: from the first record in the engine's hands to the last one done; where state is durable, stored.
        cpu_s: processor time of this process meanwhile, all threads.
        rss_mb: peak memory of the process.
        taken: records by partition.
        closed: True where only windows count that a later record of their symbol closed.
        windows: how many, and `digest` of them.
    """

    records: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    rss_mb: int = 0
    taken: dict[str, int] = field(default_factory=dict)
    closed: bool = False
    windows: int = 0
    digest: str = ""


class Watch:
    """Clock of an engine; `start` may be called at every record and counts once."""

    def __init__(self) -> None:
        self._began = self._ended = 0.0
        self._cpu_began = self._cpu_ended = 0.0

    def start(self) -> None:
        """The first record is here."""
        if not self._began:
            gc.collect()
            gc.freeze()
            self._began, self._cpu_began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """The last record is done."""
        self._ended, self._cpu_ended = time.perf_counter(), time.process_time()

    def report(self, taken: Mapping[int, int], windows: Windows, closed: bool = False) -> None:
        """Print the report."""
        report = Report(
            records=sum(taken.values()), seconds=self._ended - self._began, cpu_s=self._cpu_ended - self._cpu_began,
            rss_mb=_peak_mb(),
            taken={str(p): n for p, n in taken.items()}, closed=closed, windows=len(windows), digest=digest(windows),
        )
        print(json.dumps(asdict(report)), flush=True)


def _peak_mb() -> int:
    """Peak memory of this program; getrusage would count what its parent had when it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def add(windows: Windows, symbol: str, ts_ms: int, quantity: float, price: float) -> None:
    """One trade more."""
    key = (symbol, ts_ms // WINDOW_MS)
    held = windows.get(key)
    if held is None:
        windows[key] = [1, quantity, price]
    else:
        held[0] += 1
        held[1] += quantity
        held[2] = price


def digest(windows: Windows) -> str:
    """SHA-256 of the windows, whatever their order. Sums are exact: quantities are multiples of 1/64."""
    lines = sorted(f"{symbol}|{window}|{int(n)}|{float(total)!r}|{float(last)!r}"
                   for (symbol, window), (n, total, last) in windows.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
