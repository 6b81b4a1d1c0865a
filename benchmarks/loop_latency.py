"""The chain under load: latency of the whole loop and of its hops, batch sizes, processor time when nothing comes in.

    python -m benchmarks.loop_latency --rates 1,20,100,1000

An embedded Apache Kafka of its own, the full roster in the two worker processes of `quantum demo`, and candles of made
markets: first fast, until policies decide; then at each rate in turn, one candle after the other. The loop is the time
from handing the candle that ends a decision to the producer, until the policy version that learned from it is in the
hands of a consumer. Between them are the broker's append times (whole milliseconds, the same machine's clock).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer

from benchmarks.roster.hands import Hands
from benchmarks.roster.processes import Workers, cpu_s, shares
from schemas.catalogue import TOPICS, built_agents
from schemas.codec import Codec
from schemas.events import Candle
from streams import broker as embedded
from streams import topics
from streams.cli.demo import WORKERS
from streams.ingest.publish import candle_id, publish
from streams.ingest.synthetic import synthetic_market
from streams.log import LogReader, Record, Start
from streams.records import SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, encode_event, header
from streams.settings import Settings
from streams.transport.logs import LIBRDKAFKA

SYMBOLS = 60
WARM_BARS = 347  # features are ready after 232, and policies begin after 20 decisions of 4 bars; the next bar decides
SECONDS = {1: 50, 20: 30, 100: 12, 1000: 10}  # about 50 loops or more at each rate
OTHER_SECONDS = 20
SETTLE_S = 1.2  # longer than from one line of counters to the next
IDLE_S = 20.0
SLOWEST = 0.05
LATE_MS = 1_000.0  # candles without features so long after they were sent are a backlog

FEATURES = ("candle sent", "market.candles", "features.inbox", "market.features")
DECISION = (*FEATURES, "decision.inbox", "rl.meta.strategy_selected")
LOOP = ("candle sent", "market.candles", "paper_execution.inbox", "decision.outcome", "experience.inbox",
        "learning.experience", "policy.ledger", "policy seen")
READ = dict.fromkeys(name for name in (*DECISION, *LOOP, "execution.trade.closed") if name in TOPICS)

Bar = tuple[str, int]  # symbol and event time
Times = dict[str, dict[Bar, float]]  # by place in the chain: when each bar got there, ms since 1970


# ---------------------------------------------------------------------- feeding and seeing
def feed(settings: Settings, candles: Sequence[Candle], rate: float) -> dict[Bar, float]:
    """Send candles evenly; when each was handed to the producer."""
    producer, codec = Producer({**settings.producer(), "linger.ms": 0}, logger=LIBRDKAFKA), Codec()
    topic, sent = settings.topic("market.candles"), {}
    records = [(c, encode_event(codec, "market.candles", c, candle_id(c), c.source)) for c in candles]
    producer.list_topics(topic, timeout=10)
    began = time.monotonic() + 0.2
    for n, (candle, record) in enumerate(records):
        time.sleep(max(0.0, began + n / rate - time.monotonic()))
        sent[candle.symbol, candle.ts_ms] = time.time() * 1000
        producer.produce(topic, record.value, record.key, headers=list(record.headers))
        producer.poll(0)
    producer.flush(30)
    return sent


# ---------------------------------------------------------------------- what the log says
def read_times(settings: Settings, sent: dict[Bar, float], since_ms: int, seen: Hands) -> Times:
    """Follow each bar that was sent through the log."""
    codec, bars = Codec(), {}
    seen_ms = {(came.partition, came.offset): came.at_s * 1000 for came in list(seen.came)}
    times: Times = {name: {} for name in READ} | {"candle sent": sent, "policy seen": {}}
    copies: list[Record] = []
    with LogReader(settings) as log:
        for name in READ:
            for record in log.read(name, start=Start("time", since_ms)):
                if name.endswith(".inbox"):
                    copies.append(record)
                    continue
                event: Any = codec.decode(name, record.value or b"")
                bar = (getattr(event, "symbol", None) or event.scope, event.ts_ms)
                if bar not in sent or not getattr(event, "learnable", True) or not getattr(event, "decision_id", bar):
                    continue
                bars[name, record.partition, record.offset] = bar
                times[name][bar] = float(record.timestamp_ms or 0)
                if name == "policy.ledger" and (record.partition, record.offset) in seen_ms:
                    times["policy seen"][bar] = seen_ms[record.partition, record.offset]
    sources = {"features.inbox": "market.candles", "decision.inbox": "market.features",
               "paper_execution.inbox": "market.candles"}
    for copy in copies:
        source = header(copy.headers, SOURCE_TOPIC)
        partition, offset = header(copy.headers, SOURCE_PARTITION), header(copy.headers, SOURCE_OFFSET)
        bar = bars.get((source, int(partition or 0), int(offset or 0)))
        if bar is None or sources.get(copy.topic, source) != source or source == "rl.meta.strategy_selected":
            continue
        if source != "decision.outcome" or bar not in times["execution.trade.closed"]:
            times[copy.topic][bar] = float(copy.timestamp_ms or 0)
    times["decision.outcome"] |= times["execution.trade.closed"]  # where there is a trade, the experience waits for it
    return times


def chain(times: Times, places: Sequence[str]) -> np.ndarray:
    """Times of the bars that went all the way, one row a bar."""
    last = times[places[-1]]
    rows = [[times[place].get(bar, np.nan) for place in places] for bar in last]
    table = np.array(rows, dtype=float).reshape(-1, len(places))
    return table[~np.isnan(table).any(axis=1)]


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Figures of a latency, ms."""
    if not len(values):
        return {"n": 0}
    p50, p99, p999 = np.percentile(values, (50, 99, 99.9)).tolist()
    return {"n": len(values), "p50": round(p50, 1), "p99": round(p99, 1), "p99.9": round(p999, 1),
            "max": round(float(values.max()), 1)}


def hops(table: np.ndarray, places: Sequence[str]) -> list[dict[str, Any]]:
    """Each hop's quantiles, and how much longer it takes in the slowest loops than in the middle one."""
    steps, whole = np.diff(table, axis=1), table[:, -1] - table[:, 0]
    if not len(whole):
        return []
    slow = steps[whole >= np.quantile(whole, 1 - SLOWEST)].mean(axis=0) - np.median(steps, axis=0)
    return [{"to": places[i + 1], **quantiles(steps[:, i]), "more_in_slowest": round(float(slow[i]), 1)}
            for i in range(steps.shape[1])]


def batches(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Batches of each fold: how many, mean size, and the power of two at or above the size of 99 in 100."""
    found = {}
    for agent, row in after.items():
        count = row["batches"] - before[agent]["batches"]
        sizes = Counter({int(k): v for k, v in row["batch_sizes"].items()})
        sizes.subtract({int(k): v for k, v in before[agent]["batch_sizes"].items()})
        p99 = next((size for size in sorted(sizes) if sum(v for k, v in sizes.items() if k <= size) >= 0.99 * count), 0)
        records = row["records_in"] - before[agent]["records_in"]
        found[agent] = {"records": records, "batches": count, "mean": round(records / max(1, count), 2), "p99": p99}
    return found


# ---------------------------------------------------------------------- the run
@dataclass
class Bench:
    """What a run works with."""

    settings: Settings
    workers: Workers
    pids: dict[str, int]
    seen: Hands

    def cpu(self) -> dict[str, float]:
        """Processor time so far, by process."""
        return {name: cpu_s(pid) for name, pid in self.pids.items()}

    def settled(self) -> None:
        """Wait until no agent takes anything any more."""
        before: Any = None
        while (now := [(a["records_in"], a["relayed"]) for a in self.workers.counters().values()]) != before:
            before = now
            time.sleep(SETTLE_S)

    def at_rate(self, rate: int, candles: Sequence[Candle]) -> dict[str, Any]:
        """Feed at a rate and measure."""
        self.settled()
        gc.collect()
        before, cpu, since_ms, began = self.workers.counters(), self.cpu(), int(time.time() * 1000), time.monotonic()
        sent = feed(self.settings, candles, rate)
        took_s = time.monotonic() - began
        cpu_percent = shares(self.pids, cpu, took_s)
        self.settled()
        times = read_times(self.settings, sent, since_ms, self.seen)
        done, end_ms = times["market.features"], max(sent.values())
        loop = chain(times, LOOP)
        return {
            "rate": rate, "candles": len(sent), "candles_a_second": round(len(sent) / took_s, 1),
            "lost": len(sent) - len(done),
            "late_at_the_end": sum(at_ms < end_ms - LATE_MS and done.get(bar, np.inf) > end_ms
                                   for bar, at_ms in sent.items()),
            "drained_ms": round(max((at for place in times.values() for at in place.values()), default=0) - end_ms, 1),
            "candle_to_features": quantiles(np.ptp(chain(times, FEATURES), axis=1)),
            "candle_to_decision": quantiles(np.ptp(chain(times, DECISION), axis=1)),
            "loop": quantiles(loop[:, -1] - loop[:, 0]), "hops": hops(loop, LOOP),
            "batches": batches(before, self.workers.counters()), "cpu_percent": cpu_percent,
        }

    def idle(self) -> dict[str, float]:
        """Processor time of everything while nothing comes in, percent of a core."""
        time.sleep(SETTLE_S)
        before, began = self.cpu(), time.monotonic()
        time.sleep(IDLE_S)
        return shares(self.pids, before, time.monotonic() - began)


def run(settings: Settings, folder: Path, broker_pid: int | None, rates: Iterable[int], seconds: float | None,
        together: bool) -> dict[str, Any]:
    """Warm up, feed at each rate, idle; everything measured."""
    rates = list(rates)
    groups = [tuple(name for group in WORKERS for name in group)] if together else WORKERS
    counts = [max(2, round(rate * (seconds or SECONDS.get(rate, OTHER_SECONDS)))) for rate in rates]
    loaded, costs = synthetic_market(1, [f"SYM{i:03d}" for i in range(SYMBOLS)],
                                     WARM_BARS + -(-sum(counts) // SYMBOLS))
    warm = SYMBOLS * WARM_BARS
    rest = list(replace(loaded, frame=loaded.frame.slice(warm)).candles())
    watched = {} if broker_pid is None else {"broker": broker_pid}
    report: dict[str, Any] = {"symbols": SYMBOLS, "workers": len(groups), "rates": []}
    with ExitStack() as stack:
        workers = Workers(settings, folder, groups)
        stack.callback(workers.stop)
        workers.wait_ready()
        tell(f"warming up with {warm} candles")
        began = time.monotonic()
        publish(settings, loaded, limit=warm, costs=costs)
        report["warm_up_candles_a_second"] = round(warm / (time.monotonic() - began), 1)
        seen = Hands(settings, [settings.topic("policy.ledger")], time.time)
        stack.callback(seen.stop)
        bench = Bench(settings, workers, workers.pids() | watched | {"this": os.getpid()}, seen)
        at = 0
        for rate, count in zip(rates, counts, strict=True):
            tell(f"{count} candles at {rate}/s")
            report["rates"].append(bench.at_rate(rate, rest[at:at + count]))
            show(report["rates"][-1])
            at += count
        tell(f"idle for {IDLE_S:.0f} s")
        report["idle_percent"] = bench.idle()
    with ExitStack() as stack:
        workers = Workers(settings, folder, groups, clock=True, name="stats-clock")
        stack.callback(workers.stop)
        workers.wait_ready()
        bench = replace(bench, workers=workers, pids=workers.pids() | watched)
        time.sleep(SETTLE_S)
        tell(f"idle for {IDLE_S:.0f} s with a tick a second")
        report["idle_percent_with_clock"] = bench.idle()
    for name in ("idle_percent", "idle_percent_with_clock"):
        agents = sum(share for process, share in report[name].items() if process.startswith("worker"))
        print(f"{name.replace('_', ' ')} of a core: workers together {agents:.1f}, {report[name]}")
    return report


def tell(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def show(row: dict[str, Any]) -> None:
    """One rate, for people."""
    print(f"\n{row['rate']}/s: {row['candles']} candles, {row['lost']} lost, {row['late_at_the_end']} late at the end, "
          f"drained after {row['drained_ms']:.0f} ms; percent of a core {row['cpu_percent']}")
    for name in ("candle_to_features", "candle_to_decision", "loop"):
        print(f"  {name.replace('_', ' '):38} {row[name]}")
    for hop in row["hops"]:
        print(f"    to {hop['to']:33} p50 {hop['p50']:7} p99 {hop['p99']:7}  more in the slowest {SLOWEST:.0%}: "
              f"{hop['more_in_slowest']}")
    print("  records a batch, mean and p99:", ", ".join(
        f"{agent} {b['mean']} {b['p99']}" for agent, b in row["batches"].items()), flush=True)


def main() -> int:
    """Run; 0 unless a candle was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop_latency", description=__doc__.split("\n")[0])
    parser.add_argument("--rates", default="1,20,100,1000", help="candles a second, with commas between")
    parser.add_argument("--seconds", type=float, help="at each rate; default 50, 30, 12 and 10")
    parser.add_argument("--workers", type=int, choices=(1, 2), default=2, help="worker processes")
    parser.add_argument("--broker", help="an empty broker to use instead of an embedded one: HOST:PORT")
    parser.add_argument("--json", type=Path, help="write everything here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quantum-bench-") as folder, ExitStack() as stack:
        settings, pid = Settings.load(data_dir=Path(folder), broker=args.broker), None
        if args.broker is None:
            stack.callback(embedded.down, settings, ephemeral_dir=Path(folder))
            running = embedded.up(settings, ephemeral_dir=Path(folder))
            settings, pid = settings.replace(broker=running.address), running.pid
        topics.apply(settings)
        rates = [int(rate) for rate in args.rates.split(",")]
        report = run(settings, Path(folder), pid, rates, args.seconds, args.workers == 1)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))
    return int(any(row["lost"] for row in report["rates"]))


if __name__ == "__main__":
    assert {a.name for a in built_agents()} - {"bars"} == {name for group in WORKERS for name in group}
    sys.exit(main())
