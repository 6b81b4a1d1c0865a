"""What a step costs: every agent's fold on real records, by number of symbols, in processor time of one thread.

    python -m benchmarks.step_cost --symbols 1,10,100,1000 [--agents features,decision] [--profile AGENT] [--json FILE]

The whole roster runs in memory on made markets of ten symbols (`benchmarks.roster.inputs`), tapped at every fold; then
each agent folds what was tapped, and copies of it under more names. So the records are those that it gets, and the
states those that it has. A fold is decoding, step, provenance and encoding of what comes out, and nothing of Kafka. An
event is counted once for each scope that it reaches. Flat: at 1,000 symbols within a fifth of the cost at 10.

Beside it what a flush costs: by scope where all have changed, and as a whole where one has.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import Any

from benchmarks.roster.inputs import WARM_BARS, Tape, tapes
from benchmarks.roster.report import machine, table, write
from streams.fold import PartitionFold, Scope
from streams.records import Incoming
from streams.worker import GC_THRESHOLDS

SYMBOLS = (1, 10, 100, 1_000)
TAPED = 10
BARS = 12
LED_IN = 3  # an agent that spans symbols meets all of them in a third of the bars first
FLAT = 1.2
ROUNDS = 3
LEAST_S = 0.5  # processor time at each number of symbols in a round, at least
FLUSHES = 9


@dataclass
class Case:
    """One agent with so many symbols.

    Attributes:
        scopes: states that each turn begins with; `offset`: of the last input in them.
        records: what a turn folds.
    """

    tape: Tape
    scopes: dict[str, Scope]
    records: list[Incoming]

    @classmethod
    def of(cls, tape: Tape, symbols: int) -> Case:
        """The case of a tape."""
        records = tape.copies(symbols)
        if not tape.spans_symbols:
            return cls(tape, tape.scopes(symbols), [r for _, r in records])
        times = sorted({at_ms for at_ms, _ in records})
        from_ms = times[len(times) // LED_IN] if times else 0
        fold = tape.fold({})
        for at_ms, record in records:
            if at_ms < from_ms:
                fold.apply(record)
        return cls(tape, dict(fold.scopes), [r for at_ms, r in records if at_ms >= from_ms])

    def fold(self) -> PartitionFold:
        """A fold before the turn."""
        return self.tape.fold(self.scopes)


def turn(case: Case) -> tuple[PartitionFold, float]:
    """Fold the records once; the fold and the processor seconds."""
    fold = case.fold()
    apply = fold.apply
    began = thread_time()
    for record in case.records:
        apply(record)
    return fold, thread_time() - began


def mean_us(case: Case, least_s: float) -> float:
    """Microseconds an event over as many turns as take so long."""
    spent, events = 0.0, 0
    while spent < least_s:
        fold, took = turn(case)
        spent, events = spent + took, events + fold.counters.applied
    return spent / events * 1e6


def measured(cases: dict[int, Case], rounds: int, least_s: float) -> tuple[dict[int, dict[str, Any]], float | None]:
    """Figures by number of symbols, and the flatness.

    Rounds go from one number of symbols to the next, so that what else the machine does meanwhile falls on all; figures
    are medians of the rounds, the flatness is the median of theirs.
    """
    gc.collect()
    gc.freeze()
    by: dict[int, dict[str, Any]] = {}
    for n, case in cases.items():
        fold, _ = turn(case)
        by[n] = {"records": len(case.records), "events": fold.counters.applied, "refused": fold.counters.refused,
                 "made": dict(sorted(fold.made.items())), "scopes": len(fold.scopes), "us": None}
        by[n] |= flushed(fold) if fold.scopes else {}
    found = [{n: mean_us(case, least_s) for n, case in cases.items() if by[n]["events"]} for _ in range(rounds)]
    gc.unfreeze()
    for n in found[0]:
        by[n]["us"] = round(median(one[n] for one in found), 2)
    few, many = 10 if 10 in cases else min(cases), max(cases)
    return by, round(median(one[many] / one[few] for one in found), 2) if found[0].keys() >= {few, many} else None


def flushed(fold: PartitionFold) -> dict[str, Any]:
    """Microseconds of a flush, by scope where all have changed, and of one after a single record."""
    began = thread_time()
    rows = len(fold.flush().rows)
    all_us = (thread_time() - began) * 1e6
    scope = next(iter(fold.scopes))
    ones = []
    for _ in range(FLUSHES):
        fold.keeper.touch(scope, True)
        fold.offset += 1
        began = thread_time()
        fold.flush()
        ones.append((thread_time() - began) * 1e6)
    return {"flush_us_a_scope": round(all_us / rows, 1), "flush_one_us": round(min(ones), 1)}


def costs(taped: dict[str, Tape], agents: Sequence[str], symbols: Sequence[int], rounds: int = ROUNDS,
          least_s: float = LEAST_S) -> list[dict[str, Any]]:
    """A row for each agent: figures by number of symbols, and the cost at the most over that at ten (or the fewest)."""
    rows = []
    for name in agents:
        by, flatness = measured({n: Case.of(taped[name], n) for n in symbols}, rounds, least_s)
        rows.append({"agent": name, "by_symbols": by, "flatness": flatness})
        print(f"{name} done", file=sys.stderr, flush=True)
    return rows


def profiled(case: Case) -> None:
    """Print where the time of a turn goes."""
    profile = cProfile.Profile()
    profile.enable()
    turn(case)
    profile.disable()
    pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(25)


def show(rows: Sequence[dict[str, Any]], symbols: Sequence[int]) -> None:
    """Print the table."""
    columns = ["agent", *(f"us at {n:,}" for n in symbols), "flatness", "flush, us a scope", "one scope flushed, us at "
               f"{min(symbols):,}", f"at {max(symbols):,}", "events"]
    table("Cost of an event by number of symbols, processor time", columns, [
        (row["agent"], *(row["by_symbols"][n]["us"] for n in symbols), row["flatness"],
         row["by_symbols"][max(symbols)].get("flush_us_a_scope"), row["by_symbols"][min(symbols)].get("flush_one_us"),
         row["by_symbols"][max(symbols)].get("flush_one_us"), row["by_symbols"][max(symbols)]["events"])
        for row in rows])


def main() -> int:
    """Measure and print; 0 where every agent is flat, or few symbols were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_cost", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", default=",".join(map(str, SYMBOLS)), help="numbers, with commas between")
    parser.add_argument("--agents", help="names with commas between; default all")
    parser.add_argument("--bars", type=int, default=BARS, help="bars that are folded")
    parser.add_argument("--small", action="store_true", help="few symbols: does it still run?")
    parser.add_argument("--profile", metavar="AGENT", help="print where its time goes at the most symbols, and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here")
    args = parser.parse_args()
    symbols = [1, 3] if args.small else [int(n) for n in args.symbols.split(",")]
    began, where = perf_counter(), machine()
    gc.set_threshold(*GC_THRESHOLDS)
    taped = tapes(2 if args.small else TAPED, WARM_BARS, args.bars)
    agents = list(taped) if args.agents is None else args.agents.split(",")
    if unknown := {*agents, args.profile or agents[0]} - set(taped):
        parser.error(f"unknown {', '.join(sorted(unknown))}; agents are {', '.join(taped)}")
    if args.profile:
        profiled(Case.of(taped[args.profile], max(symbols)))
        return 0
    rows = costs(taped, agents, symbols, *((1, 0.01) if args.small else ()))
    show(rows, symbols)
    write(args.json, {"machine": where, "seconds": round(perf_counter() - began), "bars": args.bars, "rows": rows})
    return int(max(symbols) >= max(SYMBOLS) and any((row["flatness"] or 0) > FLAT for row in rows))


if __name__ == "__main__":
    sys.exit(main())
