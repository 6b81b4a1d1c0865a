"""Stream engines side by side: the same trades, the same windows, one run, on an Apache Kafka of its own.

    python -m benchmarks.stream_engines [--small] [--rounds 5] [--only ENGINE ...] [--json] [--out FILE]

Each engine decodes Avro trades and keeps count, sum and last of each symbol's tumbling windows, first in memory, then
with state that outlives it. Each run is a process of its own, rounds interleave the engines, and the answer of each is
held against the trades. Slow engines take a part of the topic. quixstreams and bytewax run in environments that uv
makes, at pinned versions; where that fails, the row says so. Ratios are ours over theirs, median of the rounds.

Ctrl-C ends the rounds, and what was measured by then is printed. Exit codes: 0, or 1 where an engine's answer is wrong
or it fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.engines.environments import NotInstalled, python_of
from benchmarks.engines.task import Job, Report, digest
from benchmarks.engines.trades import Trades
from benchmarks.engines.window import installed
from schemas.released import schema_text
from streams import broker as embedded
from streams import topics
from streams.settings import Settings

ROOT = Path(__file__).parents[1]
TOPIC = "market.trades"
PATIENCE_S = 600
MODES = ("memory", "durable")
OURS = "ours"


@dataclass(frozen=True)
class Engine:
    """A program of `benchmarks.engines`.

    Attributes:
        module: its module.
        env: environment in `environments.PINS`; empty: this one.
        share: part of the records that it takes, by mode, for a run of seconds; none: it has not that mode.
        columns: see `Job`.
        goal: least ratio of ours to it, by mode.
    """

    module: str
    share: Mapping[str, float]
    env: str = ""
    goal: Mapping[str, float] = field(default_factory=dict)
    columns: bool = True


ENGINES: Mapping[str, Engine] = {
    OURS: Engine("ours", {"memory": 1.0, "durable": 1.0}),
    "ours, by the record": Engine("ours", {"memory": 0.3, "durable": 0.2}, columns=False),
    "bare client, columns": Engine("bare_columns", {"memory": 1.0}, goal={"memory": 1.5}),
    "bare client, fastavro": Engine("bare", {"memory": 0.5}, goal={"memory": 4}),
    "bytewax": Engine("wax", {"memory": 1.0, "durable": 1.0}, "bytewax", {"memory": 5, "durable": 3}),
    "quixstreams": Engine("quix", {"memory": 0.1, "durable": 0.05}, "quixstreams", {"memory": 14, "durable": 15}),
    "stock Faust": Engine("stock_faust", {"memory": 0.02, "durable": 0.006}, goal={"memory": 120, "durable": 150}),
}


@dataclass
class Row:
    """Runs of one engine in one mode."""

    engine: str
    mode: str
    goal: float | None
    runs: list[Report] = field(default_factory=list)
    trouble: str = ""
    ratios: list[float] = field(default_factory=list)
    cpu_ratios: list[float] = field(default_factory=list)

    def middle(self, of: Callable[[Report], float]) -> float | None:
        """Median of a figure over the runs."""
        return median(map(of, self.runs)) if self.runs else None

    def figures(self) -> dict[str, Any]:
        """For people and JSON."""
        rate, cpu, rss = self.middle(speed), self.middle(cpu_us), self.middle(lambda r: r.rss_mb)
        return {
            "engine": self.engine, "mode": self.mode, "records": self.runs[0].records if self.runs else None,
            "records_per_s": None if rate is None else round(rate),
            "cpu_s_per_million": None if cpu is None else round(cpu, 3), "rss_mb": rss, "goal": self.goal,
            "ratio": round(median(self.ratios), 2) if self.ratios else None,
            "cpu_ratio": round(median(self.cpu_ratios), 2) if self.cpu_ratios else None,
            "trouble": self.trouble, "runs": [asdict(run) for run in self.runs],
        }


def speed(run: Report) -> float:
    """Records a second."""
    return run.records / run.seconds


def cpu_us(run: Report) -> float:
    """Processor seconds a million records: microseconds a record."""
    return run.cpu_s / run.records * 1e6


def run_engine(engine: Engine, python: Path, job: Job) -> Report:
    """One run in a process of its own.

    Raises:
        RuntimeError: it failed; with the last line that it said.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run([python, "-m", f"benchmarks.engines.{engine.module}", json.dumps(asdict(job))],
                              env=environment, cwd=job.folder, capture_output=True, text=True, timeout=PATIENCE_S,
                              check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done within {PATIENCE_S} s") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200])
    return Report(**json.loads(lines[-1]))


def wrong(trades: Trades, report: Report) -> str:
    """What is wrong with an answer; empty: nothing."""
    expected = trades.windows({int(p): n for p, n in report.taken.items()}, report.closed)
    if report.digest == digest(expected):
        return ""
    return f"wrong answer: {report.windows} windows of {report.records} records, expected are {len(expected)} others"


def measure(rows: Sequence[Row], trades: Trades, settings: Settings, records: int, rounds: int,
            folder: Path) -> None:
    """Run every row in every round; what fails is left out of the next."""
    pythons: dict[str, Path] = {"": Path(sys.executable)}
    for turn in range(rounds):
        for row in turned(rows, turn):
            engine = ENGINES[row.engine]
            if row.trouble:
                continue
            try:
                if engine.env not in pythons:
                    pythons[engine.env] = python_of(engine.env, settings.cache_dir)
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    run = run_engine(engine, pythons[engine.env], job_for(engine, row.mode, settings, records, own))
            except NotInstalled as exc:
                row.trouble = f"not installed: {exc}"
                continue
            except RuntimeError as exc:
                row.trouble = f"failed: {exc}"
                continue
            row.trouble = wrong(trades, run)
            row.runs.append(run)


def compare(rows: Sequence[Row]) -> None:
    """Ratios of ours to each, round by round."""
    for mode in MODES:
        ours = next((r for r in rows if r.engine == OURS and r.mode == mode), None)
        for row in rows:
            if ours is not None and row.mode == mode and row is not ours:
                pairs = list(zip(ours.runs, row.runs, strict=False))
                row.ratios = [speed(a) / speed(b) for a, b in pairs]
                row.cpu_ratios = [cpu_us(b) / cpu_us(a) for a, b in pairs]


def turned(rows: Sequence[Row], turn: int) -> Iterator[Row]:
    """The rows, beginning with another one each turn."""
    at = turn % len(rows)
    yield from (*rows[at:], *rows[:at])


def job_for(engine: Engine, mode: str, settings: Settings, records: int, folder: str) -> Job:
    """A job under names of its own; the changelog of an agent of ours is made for it."""
    name = f"w{uuid.uuid4().hex[:10]}"
    if engine.module == "ours" and mode == "durable":
        with installed(name) as io:
            topics.apply(settings, only=(io.changelog,))
    return Job(broker=settings.broker, topic=settings.topic(TOPIC), group=name,
               records=int(records * engine.share[mode]), durable=mode == "durable",
               schema=json.loads(schema_text(TOPIC)), folder=folder, name=name, prefix=settings.topic_prefix,
               columns=engine.columns)


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(title="Avro trades to tumbling windows: count, sum, last; medians")
    for name in ("engine", "state", "records/s", "ours / it", "goal", "CPU s a million", "ours / it, CPU", "RSS, MB",
                 "records"):
        table.add_column(name, justify="left" if name in ("engine", "state") else "right")
    for row in rows:
        f = row.figures()
        cells = ["" if f[k] is None else f"{f[k]:,}" for k in (
            "records_per_s", "ratio", "goal", "cpu_s_per_million", "cpu_ratio", "rss_mb", "records")]
        table.add_row(row.engine, row.mode, *([row.trouble] if row.trouble else cells))
    Console(width=140).print(table)


@click.command(help=__doc__)
@click.option("--small", is_flag=True, help="Few records, one round: does everything still run, and answer alike?")
@click.option("--records", default=1_000_000, show_default=True, help="Trades on the topic.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--only", multiple=True, metavar="ENGINE", help="This engine and ours; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of the table.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the JSON to this file.")
def main(small: bool, records: int, rounds: int, only: tuple[str, ...], as_json: bool, out: Path | None) -> None:
    """Measure and print."""
    if small:
        records, rounds = 20_000, 1
    chosen = [OURS, *only] if only else list(ENGINES)
    if unknown := set(chosen) - set(ENGINES):
        raise click.UsageError(f"unknown {', '.join(sorted(unknown))}; engines are {'; '.join(ENGINES)}")
    rows = [Row(name, mode, ENGINES[name].goal.get(mode)) for mode in MODES for name in ENGINES
            if name in chosen and mode in ENGINES[name].share]
    with tempfile.TemporaryDirectory(prefix="quantum-engines-") as folder:
        settings = Settings(data_dir=Path(folder))
        running = embedded.up(settings, ephemeral_dir=Path(folder))
        try:
            settings = settings.replace(broker=running.address)
            topics.apply(settings, only=(TOPIC, f"{TOPIC}.dlq", "state.blobs", "system.health.alert"))
            trades = Trades.drawn(records)
            trades.publish(settings)
            try:
                measure(rows, trades, settings, records, rounds, Path(folder))
            except KeyboardInterrupt:
                print("interrupted: this is what was measured until now", file=sys.stderr)
            compare(rows)
        finally:
            embedded.down(settings, ephemeral_dir=Path(folder))
    result = {"records": records, "rounds": max(len(row.runs) for row in rows), "rows": [row.figures() for row in rows]}
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        show(rows)
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if any(row.trouble and not row.trouble.startswith("not installed") for row in rows) else 0)


if __name__ == "__main__":
    main()
