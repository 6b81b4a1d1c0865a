"""Candles a second through the whole roster on Kafka, end to end, and where the processor time goes.

    python -m benchmarks.roster_throughput [--workers 2] [--symbols 20] [--bars 150] [--json FILE]

An Apache Kafka of its own, every agent in one to three worker processes, candles of made markets. First as many as it
takes until policies decide, a day of bars ahead of the agents. Then open loop: all candles of the run at once, however
far behind the agents are. Then closed loop: with a lead of one bar, each symbol's next candle waits until all that the
last one led to is done. Candles a second are counted until the last record of the last agent is on the log. Open loop
is a flood: what is decided too late for its bar ends as NOT_EXECUTED; the counts of both loops tell.

Processor time is the operating system's, by process; an agent's share is the time that its fold took of its worker, by
the clock, so that it holds what others took of the processor meanwhile. The rest of a worker is relays, client, loop.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.roster.brokers import place
from benchmarks.roster.processes import Workers, cpu_s
from benchmarks.roster.report import machine, table, write
from schemas.catalogue import built_agents
from schemas.codec import Codec
from schemas.events import Experience
from streams.ingest.merge import Loaded
from streams.ingest.publish import Costs, publish
from streams.ingest.synthetic import synthetic_market
from streams.log import LogReader, Start
from streams.records import readable
from streams.settings import Settings

GROUPS: dict[int, tuple[tuple[str, ...], ...]] = {
    1: (tuple(a.name for a in built_agents()),),
    2: (("bars", "features", "decision", "meta_strategy", "risk_controller"),
        ("paper_execution", "experience", "q_learning", "ppo_trader")),
    3: (("bars", "features", "decision"), ("meta_strategy", "risk_controller", "ppo_trader"),
        ("paper_execution", "experience", "q_learning")),
}
"""Agents by number of worker processes; two are those of `quantum demo`."""
CONFIGS = ('risk_controller={"synthetic": true}', 'ppo_trader={"synthetic": true, "rl_v3.training.enabled": false}')
WARM_BARS = 320  # features are ready after 232, policies begin 20 decisions of 4 bars later
WARM_LEAD = 24
CLOSED_SHARE = 5  # the closed loop takes so many times fewer bars
SETTLE_S = 2.2  # two lines of counters
PATIENCE_S = 300.0
LAST = ("learning.experience", "execution.equity.marked", "rl.q_learning.updated", "rl.meta.updated", "policy.ledger",
        "rl.meta.strategy_selected", "market.features", "rl_v3.decision")


@dataclass
class Bench:
    """What a run works with."""

    settings: Settings
    workers: Workers
    pids: dict[str, int]

    def settled(self) -> dict[str, dict[str, Any]]:
        """Counters once no agent takes anything any more.

        Raises:
            SystemExit: a worker went down, or it took too long.
        """
        before, until = None, time.monotonic() + PATIENCE_S
        while (now := {name: (a["records_in"], a["relayed"]) for name, a in self.workers.counters().items()}) != before:
            if time.monotonic() > until:
                raise SystemExit(f"the agents were not done within {PATIENCE_S:g} s")
            before = now
            time.sleep(SETTLE_S)
            self.workers.check()
        return self.workers.counters()

    def ends(self) -> dict[tuple[str, int], int]:
        """End of every partition that an agent writes last."""
        with LogReader(self.settings) as log:
            return {(name, p): log.bounds(name, p)[1] for name in LAST for p in log.partitions(name)}

    def loop(self, loaded: Loaded, costs: Costs, lead: int | None) -> dict[str, Any]:
        """Publish candles and measure until everything is done."""
        counters, ends = self.settled(), self.ends()
        cpu = {name: cpu_s(pid) for name, pid in self.pids.items()}
        began, began_ms = time.monotonic(), int(time.time() * 1000)
        published = publish(self.settings, loaded, lead=lead, costs=costs)
        sent_s = time.monotonic() - began
        after = self.settled()
        used = {name: cpu_s(pid) - cpu[name] for name, pid in self.pids.items()}
        last_ms = self.last_ms()
        seconds, candles = (last_ms - began_ms) / 1000, published.counts["market.candles"]
        made = Counter[str]()
        for (topic, partition), end in self.ends().items():
            made[topic] += end - ends[topic, partition]
        return {
            "candles": candles, "sent_s": round(sent_s, 2), "seconds": round(seconds, 2),
            "candles_a_second": round(candles / seconds, 1), "made": dict(made),
            "experiences": self.experiences(began_ms), "lost": candles - made["market.features"],
            "cpu_s": {name: round(s, 2) for name, s in used.items()},
            "cpu_us_a_candle": {name: round(s / candles * 1e6) for name, s in used.items()},
            "agents": {name: _agent(row, counters[name], candles) for name, row in after.items()},
        }

    def last_ms(self) -> int:
        """When the last record came onto the log."""
        with LogReader(self.settings) as log:
            return max(r.timestamp_ms or 0 for name in LAST for r in log.read(name, start=Start.last(1)))

    def experiences(self, since_ms: int) -> dict[str, int]:
        """How decisions ended, of the records since then."""
        with LogReader(self.settings) as log:
            events = [e for _, e in readable(Codec(), "learning.experience",
                                             log.read("learning.experience", start=Start("time", since_ms)))]
        return dict(Counter(e.status for e in events if isinstance(e, Experience)))


def _agent(row: dict[str, Any], before: dict[str, Any], candles: int) -> dict[str, Any]:
    """What an agent did in a loop."""
    records, batches = (row[name] - before[name] for name in ("records_in", "batches"))
    fold_s = row["step_s"] - before["step_s"]
    return {"records": records, "relayed": row["relayed"] - before["relayed"], "batches": batches,
            "batch": round(records / batches, 1) if batches else None, "fold_s": round(fold_s, 2),
            "us_a_record": round(fold_s / records * 1e6) if records else None,
            "us_a_candle": round(fold_s / candles * 1e6)}


def run(settings: Settings, folder: Path, broker_pid: int | None, workers: int, symbols: int, bars: int,
        warm_bars: int = WARM_BARS) -> dict[str, Any]:
    """Warm up, open loop, closed loop.

    Args:
        broker_pid: process whose time is watched, too; None: it is somebody else's.
        bars: of each symbol in the open loop; the closed loop takes a fifth of them more.
    """
    closed = max(2, bars // CLOSED_SHARE)
    loaded, costs = synthetic_market(1, [f"SYM{i:03d}" for i in range(symbols)], warm_bars + bars + closed)

    def part(at: int, count: int) -> Loaded:
        return replace(loaded, frame=loaded.frame.slice(at * symbols, count * symbols))

    with ExitStack() as stack:
        flags = [[x for c in CONFIGS if c.partition("=")[0] in group for x in ("--agent-config", c)]
                 for group in GROUPS[workers]]
        running = Workers(settings, folder, GROUPS[workers], flags=flags)
        stack.callback(running.stop)
        running.wait_ready()
        pids = running.pids() | ({} if broker_pid is None else {"broker": broker_pid}) | {"this": os.getpid()}
        bench = Bench(settings, running, pids)
        tell(f"warming up with {warm_bars * symbols} candles")
        if warm_bars:
            publish(settings, part(0, warm_bars), lead=WARM_LEAD, costs=costs)
        tell(f"open loop, {bars * symbols} candles at once")
        report = {"workers": workers, "symbols": symbols, "open": bench.loop(part(warm_bars, bars), costs, None)}
        tell(f"closed loop, {closed * symbols} candles")
        return report | {"closed": bench.loop(part(warm_bars + bars, closed), costs, 1)}


def tell(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    loops = ("open", "closed")
    processes = list(report["open"]["cpu_us_a_candle"])
    table(f"The roster in {report['workers']} workers, {report['symbols']} symbols; processor time in us a candle", (
        "loop", "candles", "s", "candles/s", *processes, "decisions", "traded", "neutral", "not executed"), [
        (name, r["candles"], r["seconds"], r["candles_a_second"], *(r["cpu_us_a_candle"][p] for p in processes),
         r["made"]["rl.meta.strategy_selected"], *(r["experiences"].get(s, 0) for s in (
             "TRADED", "NEUTRAL", "NOT_EXECUTED"))) for name in loops for r in (report[name],)])
    table("By agent: its fold, by the clock", (
        "agent", *(f"{name}: {what}" for name in loops for what in ("records", "a batch", "us a record",
                                                                    "us a candle"))), [
        (agent, *(report[name]["agents"][agent][what] for name in loops for what in (
            "records", "batch", "us_a_record", "us_a_candle"))) for agent in report["open"]["agents"]])


def main() -> int:
    """Measure and print; 0 unless a candle was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roster_throughput", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, choices=sorted(GROUPS), default=2, help="worker processes")
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--bars", type=int, default=150, help="of each symbol in the open loop")
    parser.add_argument("--linger-ms", type=int, default=0, help="of the workers' producers; replays take 5")
    parser.add_argument("--broker", metavar="HOST:PORT", help="use this one instead of an embedded one")
    parser.add_argument("--small", action="store_true", help="few candles: does it still run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    args = parser.parse_args()
    where = machine()
    symbols, bars, warm = (2, 10, 0) if args.small else (args.symbols, args.bars, WARM_BARS)
    with place(args.broker, linger_ms=args.linger_ms) as here:
        report = run(here.settings, here.folder, here.pid, args.workers, symbols, bars, warm)
    show(report)
    write(args.json, {"machine": where, "linger_ms": args.linger_ms, **report})
    return int(any(report[name]["lost"] for name in ("open", "closed")))


if __name__ == "__main__":
    sys.exit(main())
