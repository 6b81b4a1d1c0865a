"""Memory over many events, which must stay what it is, and by number of symbols, which must grow in a line.

    python -m benchmarks.long_run_memory [--events 10000000] [--candles 20000] [--symbols 100,1000] [--json FILE]

Three parts, each in a process of its own. A fold of the agent `bars` over so many trades of 100 symbols. The whole
roster in memory over so many candles of two symbols, as `benchmarks.roster.inputs` has them. Every agent's states for
so many symbols. Sampled are the process's resident memory and the blocks that Python's allocator has given out, after a
collection; and for each agent the bytes of its states in Avro, which tell whose memory it is that grows. Growth is the
slope of a straight line through the samples after the warm-up.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from agents.bars import Bars
from benchmarks.roster.inputs import WARM_BARS, market_events, name_of, roster, tapes
from benchmarks.roster.report import machine, table, write
from schemas.codec import Codec
from schemas.events import Event, MarketTrade
from streams.driver import Driver
from streams.fold import PartitionFold
from streams.records import Incoming, Source

SYMBOLS = (100, 1_000)
BARS_SYMBOLS = 100
ROSTER_SYMBOLS = 2
SAMPLES = 24
WARM_SHARE = 0.25  # of the trades; every bar that is open at once is open by then
WARM_CANDLES = 0.4  # of the candles: the trader keeps 2,048 bars of a symbol, 232 later they are full
FLUSH_EVERY = 5_000  # records, about as a host does it
TRADE_EVERY_MS = 1_000
PAGE = os.sysconf("SC_PAGE_SIZE")
FLAT_KB = 64.0  # growth of resident memory a million events that is told from none


def resident_kb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1024


def sampled(events: int) -> dict[str, float]:
    """A sample behind so many events."""
    gc.collect()
    return {"events": events, "rss_kb": round(resident_kb()), "blocks": sys.getallocatedblocks()}


def growth(samples: Sequence[dict[str, Any]], of: str, warm_share: float) -> float:
    """Slope a million events, after the warm-up."""
    rest = [s for s in samples if s["events"] >= warm_share * samples[-1]["events"]]
    x, y = (np.array([s[name] for s in rest], dtype=float) for name in ("events", of))
    if len(rest) < 3 or not np.ptp(x):  # an agent that had nothing to do
        return 0.0
    return round(float(np.polyfit(x / 1e6, y, 1)[0]), 1)


# ---------------------------------------------------------------------- one agent, many events
def of_bars(events: int) -> dict[str, Any]:
    """Fold trades, one a second of each symbol."""
    codec, names = Codec(), [name_of(i) for i in range(BARS_SYMBOLS)]
    fold, keys = PartitionFold(Bars(), 0, codec), [name.encode() for name in names]
    every, samples = max(1, events // SAMPLES), [sampled(0)]
    source = Source("market.trades", 0, 0)
    for offset in range(events):
        number, i = divmod(offset, BARS_SYMBOLS)
        trade = MarketTrade(symbol=names[i], trade_id=number + 1, ts_ms=number * TRADE_EVERY_MS,
                            price=100.0 + number % 7, quantity=1.0, source="made", origin="SYNTHETIC")
        fold.apply(Incoming(offset, keys[i], codec.encode("market.trades", trade), (), None, source))
        if offset % FLUSH_EVERY == 0:
            fold.flush()
        if (offset + 1) % every == 0:
            samples.append(sampled(offset + 1) | {"state": state_bytes([fold])})
    return _summed(samples, WARM_SHARE) | {"candles": fold.made["market.candles"], "refused": fold.counters.refused}


def state_bytes(folds: Sequence[PartitionFold]) -> int:
    """Bytes of all states in Avro."""
    return sum(len(fold.codec.encode_state(entry.state)) for fold in folds for entry in fold.scopes.values())


def _summed(samples: list[dict[str, Any]], warm_share: float) -> dict[str, Any]:
    return {"events": samples[-1]["events"], "samples": samples,
            "rss_kb": [samples[0]["rss_kb"], samples[-1]["rss_kb"]],
            "rss_kb_a_million": growth(samples, "rss_kb", warm_share),
            "blocks_a_million": growth(samples, "blocks", warm_share)}


# ---------------------------------------------------------------------- the roster
def of_roster(candles: int) -> dict[str, Any]:
    """Run the whole roster."""
    driver = Driver(roster(), keep=())
    bars = max(SAMPLES, candles // ROSTER_SYMBOLS)
    every, samples = bars // SAMPLES, []
    for ticks, part in enumerate(_by_bar(market_events(ROSTER_SYMBOLS, bars)), 1):
        driver.run(part)
        for folds in driver.folds.values():
            if ticks % (FLUSH_EVERY // 100) == 0:
                folds[0].flush()
        if ticks % every == 0:
            taken = {name: folds[0].counters.applied for name, folds in driver.folds.items()}
            state = {name: state_bytes(folds) for name, folds in driver.folds.items()}
            samples.append(sampled(sum(taken.values())) | {"taken": taken, "state": state})
    by_agent = {name: {"events": samples[-1]["taken"][name], **_of_agent(samples, name)} for name in driver.folds}
    return _summed(samples, WARM_CANDLES) | {"candles": bars * ROSTER_SYMBOLS, "by_agent": by_agent}


def _by_bar(events: Iterator[tuple[str, Event]]) -> Iterator[list[tuple[str, Event]]]:
    part = []
    for pair in events:
        part.append(pair)
        if pair[0] == "system.clock":
            yield part
            part = []


def _of_agent(samples: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    rows = [{"events": s["taken"][name], "state": s["state"][name]} for s in samples]
    warm = next(r["state"] for r in rows if r["events"] >= WARM_CANDLES * rows[-1]["events"])
    return {"state_warm": warm, "state_end": rows[-1]["state"],
            "state_a_million": growth(rows, "state", WARM_CANDLES)}


# ---------------------------------------------------------------------- by number of symbols
def of_symbols(symbols: Sequence[int], warm_bars: int) -> dict[str, dict[int, float]]:
    """Bytes a symbol that a fold holds in memory, by agent and number of symbols, after a bar of each."""
    found: dict[str, dict[int, float]] = {}
    for name, tape in tapes(10, warm_bars, 4).items():
        found[name] = {}
        for n in symbols:
            records = [record for _, record in tape.copies(n)]
            gc.collect()
            tracemalloc.start()
            fold = tape.fold(tape.scopes(n))
            for record in records:
                fold.apply(record)
            fold.flush()
            gc.collect()
            found[name][n] = round(tracemalloc.get_traced_memory()[0] / n)
            tracemalloc.stop()
    return found


# ---------------------------------------------------------------------- the run
def alone(function: Any, *args: Any) -> Any:
    """What a function comes to in a fresh process."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(function, args)


def measure(events: int, candles: int, symbols: Sequence[int], warm_bars: int = WARM_BARS) -> dict[str, Any]:
    """All three parts."""
    report = {}
    for name, function, args in (("bars", of_bars, (events,)), ("roster", of_roster, (candles,)),
                                 ("by_symbols", of_symbols, (list(symbols), warm_bars))):
        print(f"measuring {name}", file=sys.stderr, flush=True)
        report[name] = alone(function, *args)
    return report


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    table("Memory over events, growth after the warm-up", (
        "fold", "events", "RSS at first, KB", "at last, KB", "KB a million events", "blocks a million"), [
        (name, report[name]["events"], *report[name]["rss_kb"], report[name]["rss_kb_a_million"],
         report[name]["blocks_a_million"]) for name in ("bars", "roster")])
    table(f"States of {ROSTER_SYMBOLS} symbols over {report['roster']['candles']:,} candles, bytes in Avro", (
        "agent", "events", "warm", "at the end", "bytes a million events"), [
        (name, r["events"], r["state_warm"], r["state_end"], r["state_a_million"])
        for name, r in report["roster"]["by_agent"].items()])
    rows = report["by_symbols"]
    numbers = sorted(next(iter(rows.values())))
    table("Memory of a fold by number of symbols, bytes a symbol", (
        "agent", *(f"at {n:,}" for n in numbers), "last / first"), [
        (name, *(by[n] for n in numbers), round(by[numbers[-1]] / by[numbers[0]], 2)) for name, by in rows.items()])


def main() -> int:
    """Measure and print; 1 where the fold of `bars` grows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_run_memory", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000, help="trades that the agent bars folds")
    parser.add_argument("--candles", type=int, default=20_000, help="candles that the roster takes")
    parser.add_argument("--symbols", default=",".join(map(str, SYMBOLS)), help="numbers, with commas between")
    parser.add_argument("--small", action="store_true", help="few events: does it still run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    args = parser.parse_args()
    where = machine()
    report = measure(20_000, 96, [2, 4], 8) if args.small else measure(
        args.events, args.candles, [int(n) for n in args.symbols.split(",")])
    show(report)
    write(args.json, {"machine": where, **report})
    return int(not args.small and report["bars"]["rss_kb_a_million"] > FLAT_KB)


if __name__ == "__main__":
    sys.exit(main())
