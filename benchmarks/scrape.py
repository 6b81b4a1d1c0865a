"""What a scrape of `/metrics` costs while a worker holds many symbols, at rest and under load.

    python -m benchmarks.scrape --symbols 10,1000

An embedded Apache Kafka of its own and one worker with the full roster. Candles of so many symbols are published; each
scrape is a connection of its own, timed from the connection until the last byte, on the same machine. What it costs is
the worker's processor time: with scrapes, less without, over the same seconds at rest. With more symbols nothing but
the values may change: the series are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from streams import broker as embedded
from streams import topics
from streams.broker.node import free_port
from streams.ingest.publish import publish
from streams.ingest.synthetic import synthetic_market
from streams.settings import Settings

BOUND_MS = 5.0
BARS = 12
PAUSE_S = 0.02
SETTLE_S = 3.0
START_S = 90.0


class Worker:
    """A worker process that serves metrics."""

    def __init__(self, settings: Settings) -> None:
        self.url = f"http://127.0.0.1:{settings.metrics_port}"
        flags = ["--broker", settings.broker, "--topic-prefix", settings.topic_prefix, "--app-id", settings.app_id,
                 "--data-dir", str(settings.data_dir), "--log-level", "warning", "--until-eof",
                 "--metrics-port", str(settings.metrics_port)]
        self.process = subprocess.Popen([sys.executable, "-m", "streams.cli.main", "worker", *flags],
                                        stdin=subprocess.PIPE,
                                        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})

    def stop(self) -> None:
        """End it; it finishes what it began."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def get(self, path: str) -> tuple[float, bytes]:
        """Milliseconds and body."""
        began = time.perf_counter()
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            body = answer.read()
        return (time.perf_counter() - began) * 1000, body

    def wait_ready(self) -> None:
        """Until every app has its partitions."""
        until = time.monotonic() + START_S
        while True:
            try:
                self.get("/readyz")
                return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > until or self.process.poll() is not None:
                    raise SystemExit("the worker did not start") from None
                time.sleep(0.1)

    def total(self, name: str) -> float:
        """Sum of a family's samples."""
        return sum(float(line.rpartition(b" ")[2]) for line in self.get("/metrics")[1].splitlines()
                   if line.startswith(name.encode() + b"{"))

    def cpu_s(self) -> float:
        """Processor time so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def scrapes(self, enough: int, busy: threading.Event | None) -> list[float]:
        """Times of scrapes, ms: so many, or as long as `busy` is set."""
        found: list[float] = []
        while (busy.is_set() if busy is not None else len(found) < enough):
            found.append(self.get("/metrics")[0])
            time.sleep(PAUSE_S)
        return found


def figures(times_ms: list[float]) -> dict[str, float]:
    """Quantiles, ms."""
    if not times_ms:
        return {"n": 0}
    p50, p99 = np.percentile(times_ms, (50, 99)).tolist()
    return {"n": len(times_ms), "p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "max_ms": round(max(times_ms), 2)}


def run(settings: Settings, symbols: int, scrapes: int) -> dict[str, Any]:
    """One worker, so many symbols."""
    loaded, costs = synthetic_market(1, [f"SYM{i:04d}" for i in range(symbols)], BARS)
    with ExitStack() as stack:
        worker = Worker(settings)
        stack.callback(worker.stop)
        worker.wait_ready()
        busy = threading.Event()
        busy.set()

        def feed() -> None:
            try:
                publish(settings, loaded, costs=costs)
                folded = -1.0
                while (now := worker.total("quantum_step_seconds_count")) != folded:
                    folded = now
                    time.sleep(SETTLE_S)
            finally:
                busy.clear()

        feeding = threading.Thread(target=feed)
        feeding.start()
        loaded_ms = worker.scrapes(scrapes, busy)
        feeding.join()
        scopes, body = worker.total("quantum_scopes"), worker.get("/metrics")[1]
        began, before = time.monotonic(), worker.cpu_s()
        rest_ms = worker.scrapes(scrapes, None)
        took_s, with_s = time.monotonic() - began, worker.cpu_s() - before
        before = worker.cpu_s()
        time.sleep(took_s)
        cost_ms = (with_s - (worker.cpu_s() - before)) / scrapes * 1000
    return {"symbols": symbols, "scopes": int(scopes), "series": sum(not x.startswith(b"#") for x in body.splitlines()),
            "bytes": len(body), "processor_ms": round(cost_ms, 2), "at_rest": figures(rest_ms),
            "under_load": figures(loaded_ms)}


def main() -> int:
    """Run; 0 where a scrape costs less than the bound at every number of symbols."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scrape", description=__doc__.split("\n")[0])
    parser.add_argument("--symbols", default="10,1000", help="numbers of symbols, with commas between")
    parser.add_argument("--scrapes", type=int, default=300, help="at rest")
    parser.add_argument("--bound-ms", type=float, default=BOUND_MS, help="most that a scrape may cost; inf: whatever")
    parser.add_argument("--json", type=Path, help="write everything here")
    args = parser.parse_args()
    report = []
    with tempfile.TemporaryDirectory(prefix="quantum-bench-") as folder, ExitStack() as stack:
        base = Settings.load(data_dir=Path(folder))
        stack.callback(embedded.down, base, ephemeral_dir=Path(folder))
        base = base.replace(broker=embedded.up(base, ephemeral_dir=Path(folder)).address)
        for symbols in map(int, args.symbols.split(",")):
            settings = base.replace(topic_prefix=f"s{symbols}.", app_id=f"s{symbols}", metrics_port=free_port())
            topics.apply(settings)
            report.append(run(settings, symbols, args.scrapes))
            print(report[-1], flush=True)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))
    return int(any(row["processor_ms"] > args.bound_ms for row in report))


if __name__ == "__main__":
    sys.exit(main())
