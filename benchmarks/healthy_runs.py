"""Does verify ever accuse a healthy run?

    python -m benchmarks.healthy_runs --runs 1000 --json out.json

Each run is the whole roster in memory on one to three of the controls' markets, one to four partitions, 350 to 900
bars, all drawn from the run's number. Verify is called ten times while it goes on, each time with another sample, the
last time with the key of the controls; a run is red if any cell or control is FAIL or STALE in any of the ten.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from random import Random
from typing import Any

from schemas.codec import Codec
from schemas.events import ControlReveal, Event, Tick
from streams import controls
from streams.driver import Driver
from streams.identity import identity_of
from streams.ingest.publish import instruments
from streams.records import encode_event
from streams.verify.cells import RED
from streams.verify.judge import verify
from streams.verify.planted.stage import honest
from streams.verify.tape import Tape

LOOKS = 10
CODEC = Codec()


def run(number: int) -> dict[str, Any]:
    """One healthy run, looked at ten times."""
    random = Random(number)
    bars, partitions = random.randrange(350, 900), random.choice((1, 2, 4))
    lab = controls.draw(number, bars=bars)
    symbols = set(random.sample(lab.symbols, random.randrange(1, 4)))
    roster = honest()
    tape = Tape(partitions)
    driver = Driver(roster, partitions=partitions, codec=CODEC, tap=tape,
                    identities={name: identity_of(agent) for name, agent in roster.items()})
    driver.run(("market.instruments", i) for i in instruments(lab.loaded, lab.costs) if i.symbol in symbols)
    candles = [c for c in lab.loaded.candles() if c.symbol in symbols]
    states: Counter[str] = Counter()
    red: list[str] = []
    for look in range(LOOKS):
        part = candles[len(candles) * look // LOOKS:len(candles) * (look + 1) // LOOKS]
        events: list[tuple[str, Event]] = [("market.candles", c) for c in part]
        driver.run([*events, ("system.clock", Tick(ts_ms=part[-1].ts_ms, writer="bench"))])
        tape.flush(driver)
        if look == LOOKS - 1:
            key = controls.revealed(lab, Counter(c.symbol for c in candles))
            _reveal(tape, key, symbols)
        report = verify(tape.log, roster, sample_seed=number * LOOKS + look, codec=CODEC)
        for whose, which, cell in report.every:
            states[cell.state] += 1
            if cell.state in RED:
                red.append(f"look {look}: {whose} {which} {cell.state}: {cell.why}")
    return {"run": number, "bars": bars, "partitions": partitions, "symbols": len(symbols), "red": red,
            "states": dict(states)}


def _reveal(tape: Tape, key: ControlReveal, symbols: set[str]) -> None:
    from msgspec.structs import replace

    shown = replace(key, controls=tuple(c for c in key.controls if c.symbol in symbols))
    row = encode_event(CODEC, controls.REVEAL, shown, "reveal", shown.source)
    tape.log.append(controls.REVEAL, 0, row.key, row.value, row.headers, tape.log.now_ms)


def main() -> int:
    """Run them; 0 where at most 2 of 1,000 are red."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.healthy_runs",
                                     description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=12, help="1000 for the full size")
    parser.add_argument("--first", type=int, default=1, help="number of the first run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write everything here")
    args = parser.parse_args()
    began, results = time.monotonic(), []
    with ProcessPoolExecutor(args.jobs) as pool:
        tasks = [pool.submit(run, n) for n in range(args.first, args.first + args.runs)]
        for task in as_completed(tasks):
            results.append(task.result())
            bad = sum(bool(r["red"]) for r in results)
            print(f"\r{len(results)} of {args.runs} runs, {bad} red", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    states: Counter[str] = sum((Counter(r["states"]) for r in results), Counter())
    red = [r for r in results if r["red"]]
    summary = {"runs": args.runs, "looks": LOOKS, "red": len(red), "allowed": 2 * max(1, args.runs // 1000),
               "states": dict(states), "first_red": [r["red"][0] for r in red[:5]],
               "seconds": round(time.monotonic() - began, 1)}
    if args.json:
        args.json.write_text(json.dumps({"summary": summary, "runs": results}, indent=1))
    print(json.dumps(summary, indent=2))
    return 0 if summary["red"] <= summary["allowed"] else 1


if __name__ == "__main__":
    sys.exit(main())
