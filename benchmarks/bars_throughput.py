"""Trades to bars through the broker: the hottest topic on its way through an agent of the roster.

    python -m benchmarks.bars_throughput [--small] [--trades 500000] [--rounds 5] [--json] [--out FILE]

`market.trades` -> relay -> inbox -> `bars` -> `market.candles`, in one worker process that begins at the full topic and
ends when the state behind the last trade is stored: a record at a time, and in columns (`Bars.step_many`). Every run
has topics of its own, and its candles are held against the trades. Ratios are medians of those of each round.

Exit codes: 0, or 1 where candles are wrong or a run fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from agents.bars import Bars, BarsConfig
from benchmarks.engines.task import PARTITIONS, WINDOW_MS
from benchmarks.engines.trades import Trades
from schemas.catalogue import AGENTS
from schemas.codec import Codec
from streams import broker as embedded
from streams import topics
from streams.host import AgentHost
from streams.log import LogReader
from streams.settings import Settings
from streams.worker import GC_THRESHOLDS, SWITCH_INTERVAL_S, Worker, quiet_libraries

PATIENCE_S = 600
IO = AGENTS["bars"]
TOPICS = (*IO.reads, *IO.writes, IO.input_topic, IO.changelog, "market.trades.dlq", "state.blobs",
          "system.health.alert")
WAYS = ("by the record", "in columns")


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        seconds: from the partitions taken up to the state stored.
        relay_s: to the last trade copied.
        cpu_s: processor time of the worker meanwhile.
    """

    seconds: float
    relay_s: float
    cpu_s: float


async def worked(settings: Settings, count: int) -> Run:
    """Run the agent over so many trades."""
    host = AgentHost(Bars(BarsConfig(interval_ms=WINDOW_MS, lateness_ms=0)), settings, Codec())
    worker = Worker([host])
    await worker.start()
    try:
        while not host.ready:
            await asyncio.sleep(0.005)
        began, cpu, relayed = time.perf_counter(), time.process_time(), 0.0
        while sum(lane.fold.counters.applied for lane in host.lanes.values()) < count and not worker.failed:
            await asyncio.sleep(0.005)
            if not relayed and host.stats.relayed >= count:
                relayed = time.perf_counter()
        while any(host.stats.flushed_offset.get(tp.partition, -1) < lane.fold.offset
                  for tp, lane in host.lanes.items()) and not worker.failed:
            await asyncio.sleep(0.005)
        now = time.perf_counter()
        return Run(now - began, (relayed or now) - began, time.process_time() - cpu)
    finally:
        await worker.stop()


def work(job: dict[str, Any]) -> None:
    """In a process of its own."""
    settings = Settings(broker=job["broker"], app_id=job["prefix"], topic_prefix=job["prefix"],
                        data_dir=Path(job["folder"]))
    quiet_libraries()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if not job["columns"]:
        Bars.in_columns = frozenset()
    print(json.dumps(asdict(asyncio.run(worked(settings, job["trades"])))))


def wrong(settings: Settings, trades: Trades) -> str:
    """What is wrong with the candles; empty: nothing. A symbol's first bar and the open one are left out."""
    expected = trades.windows(dict.fromkeys(range(PARTITIONS), len(trades.symbol_N)), closed=True)
    first: dict[str, int] = {}
    for symbol, window in sorted(expected):
        first.setdefault(symbol, window)
    left = {key: value for key, value in expected.items() if first[key[0]] != key[1]}
    codec = Codec()
    with LogReader(settings) as log:
        candles: list[Any] = [codec.decode("market.candles", r.value) for r in log.read("market.candles")]
    found = {(c.symbol, c.open_time_ms // WINDOW_MS, c.trades, c.volume, c.close) for c in candles}
    wanted = {(*key, *value) for key, value in left.items()}
    if found == wanted:
        return ""
    return f"wrong candles: {len(found)}, {len(wanted)} are expected, {len(found & wanted)} of them agree"


def measure(settings: Settings, trades: Trades, columns: bool, folder: Path) -> tuple[Run, str]:
    """One run on topics of its own, and what is wrong with it."""
    own = settings.replace(topic_prefix=f"b{uuid.uuid4().hex[:8]}.", partitions=PARTITIONS)
    topics.apply(own, only=TOPICS)
    trades.publish(own)
    job = {"broker": own.broker, "prefix": own.topic_prefix, "folder": str(folder), "trades": len(trades.symbol_N),
           "columns": columns}
    done = subprocess.run([sys.executable, "-m", "benchmarks.bars_throughput", "--job", json.dumps(job)],
                          capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if done.returncode or not done.stdout.strip():
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300])
    return Run(**json.loads(done.stdout.strip().splitlines()[-1])), wrong(own, trades)


def figures(runs: dict[str, list[Run]], count: int) -> dict[str, Any]:
    """Medians, and the ratio of the rounds."""
    rows = {way: {"trades_per_s": round(median(count / run.seconds for run in done)),
                  "relayed_per_s": round(median(count / run.relay_s for run in done)),
                  "cpu_us_per_trade": round(median(run.cpu_s / count * 1e6 for run in done), 2),
                  "runs": [asdict(run) for run in done]} for way, done in runs.items()}
    pairs = list(zip(*runs.values(), strict=True))
    return {"trades": count, "rounds": len(pairs), "ways": rows,
            "ratio": round(median(a.seconds / b.seconds for a, b in pairs), 2),
            "cpu_ratio": round(median(a.cpu_s / b.cpu_s for a, b in pairs), 2)}


@click.command(help=__doc__)
@click.option("--small", is_flag=True, help="Few trades, one round: does it still run, and are the candles right?")
@click.option("--trades", "count", default=500_000, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of the table.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the JSON to this file.")
@click.option("--job", hidden=True)
def main(small: bool, count: int, rounds: int, as_json: bool, out: Path | None, job: str | None) -> None:
    """Measure and print."""
    if job is not None:
        work(json.loads(job))
        return
    if small:
        count, rounds = 150_000, 1
    runs: dict[str, list[Run]] = {way: [] for way in WAYS}
    trades, troubles = Trades.drawn(count), []
    with tempfile.TemporaryDirectory(prefix="quantum-bars-") as folder, contextlib.ExitStack() as stack:
        settings = Settings(data_dir=Path(folder))
        settings = settings.replace(broker=embedded.up(settings, ephemeral_dir=Path(folder)).address)
        stack.callback(embedded.down, settings, ephemeral_dir=Path(folder))
        for turn in range(rounds):
            for way in WAYS[::-1] if turn % 2 else WAYS:
                run, trouble = measure(settings, trades, way == WAYS[1], Path(folder))
                runs[way].append(run)
                troubles += [f"{way}: {trouble}"] if trouble else []
    result = figures(runs, count) | {"trouble": troubles}
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        table = Table("way", "trades/s", "relayed/s", "CPU us a trade",
                      title=f"{count:,} trades to bars, medians of {rounds}")
        for way, row in result["ways"].items():
            table.add_row(way, *(f"{row[k]:,}" for k in ("trades_per_s", "relayed_per_s", "cpu_us_per_trade")))
        Console().print(table, f"in columns: {result['ratio']}x the speed, {result['cpu_ratio']}x fewer CPU seconds",
                        *troubles, sep="\n")
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if troubles else 0)


if __name__ == "__main__":
    main()
