"""Does the Q-learner find a planted edge, and only where there is one?

    python -m benchmarks.planted_edge --seeds 400 --controls 100 --json out.json [--market reversed]

Each seed is a market of its own (`agents.algorithms.market`), driven without a broker through features, decision,
paper execution, experience and Q-learning until 3,000 outcomes are learned. The learner's greedy map is then valued on
the calibrated table of `streams.laboratory`: gain 1 is the best map there is from the same states, 0 is blind choice.

Control: the same seed once more with the rewards of its first run dealt out to other decisions at random, so that
there is nothing to learn. Its mean gain must be about 0.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agents.algorithms import market
from agents.decision.core import DecisionConfig
from agents.paper_execution.layout import PaperConfig
from agents.q_learning.config import QLearningConfig
from agents.roster import ROSTER
from schemas.events import Event, Experience, Instrument, PolicyRecord, Tick
from streams.driver import Driver, ObjectCodec
from streams.ingest.publish import instruments
from streams.ingest.synthetic import synthetic_market
from streams.laboratory import Table, calibrate
from streams.records import Outgoing

OUTCOMES = 3_000
SPARE_BARS = 6_000  # beyond 4 bars an outcome: warm-up, days on which the loss limit stopped trading
TICK_EVERY_BARS = 24
GOOD_GAIN = 0.8
NEEDED_OF_400 = 388
CONTROL_BOUND = 0.15
LEARNER = "q_learning"
CONFIGS: dict[str, dict[str, Any]] = {
    "decision": {"deciders": (LEARNER,)},
    "paper_execution": {"baseline_books": False, "mark_every_bar": False},
}


class _Lesson:
    """Sees every record on its way: counts outcomes, keeps rewards and the newest policy, deals out other rewards."""

    def __init__(self, dealt: Sequence[float] | None) -> None:
        self.rewards: list[float] = []
        self.policy: PolicyRecord | None = None
        self._dealt = dealt

    def tap(self, record: Outgoing) -> Outgoing | None:
        event = record.event
        if isinstance(event, Experience) and event.learnable:
            if len(self.rewards) == OUTCOMES:
                return None
            self.rewards.append(event.reward_r)
            if self._dealt is not None:
                event = msgspec.structs.replace(event, reward_r=self._dealt[len(self.rewards) - 1])
                return record._replace(event=event)
        elif isinstance(event, PolicyRecord) and record.topic == "policy.ledger" and event.agent == LEARNER:
            self.policy = event
        return record


def learn(seed: int, dealt: Sequence[float] | None = None, params: market.Params = market.PLANTED) -> _Lesson:
    """One market, until the learner has its outcomes.

    Args:
        seed: of the market and of every agent.
        dealt: rewards to give instead of the earned ones, in order; None: the earned ones.
        params: what the market is made of.

    Raises:
        RuntimeError: the market ended first.
    """
    lesson = _Lesson(dealt)
    agents = {}
    for name, agent in ROSTER.items():
        if name == "meta_strategy":
            continue
        config_type = {"paper_execution": PaperConfig, "decision": DecisionConfig,
                       "q_learning": QLearningConfig}.get(name, agent.config_type)
        agents[name] = agent(config_type(seed=seed, **CONFIGS.get(name, {})))
    driver = Driver(agents, codec=ObjectCodec(), keep=(), tap=lesson.tap)
    driver.run(_events(seed, lesson, params))
    if len(lesson.rewards) < OUTCOMES or lesson.policy is None or lesson.policy.outcomes != OUTCOMES:
        raise RuntimeError(f"seed {seed}: the market ended after {len(lesson.rewards)} outcomes")
    return lesson


def _events(seed: int, lesson: _Lesson, params: market.Params) -> Iterator[tuple[str, Event]]:
    loaded, costs = synthetic_market(seed, ["CONTROL"], OUTCOMES * 4 + SPARE_BARS, params=params)
    first: list[Instrument] = instruments(loaded, costs)
    for instrument in first:
        yield "market.instruments", instrument
    for number, candle in enumerate(loaded.candles()):
        if len(lesson.rewards) == OUTCOMES:
            return
        yield "market.candles", candle
        if number % TICK_EVERY_BARS == 0:
            yield "system.clock", Tick(ts_ms=candle.ts_ms, writer=f"ingest:{seed}")


def run_seed(seed: int, table: Table, control: bool, params: market.Params) -> dict[str, Any]:
    """Gain of one seed, and of its control where asked for."""
    gc.freeze()
    began = time.perf_counter()
    lesson = learn(seed, params=params)
    assert lesson.policy is not None
    result: dict[str, Any] = {
        "seed": seed, "gain": table.gain_of_policy(lesson.policy), "edge_claim": lesson.policy.edge_claim,
        "mean_r": float(np.mean(lesson.rewards)), "late_mean_r": float(np.mean(lesson.rewards[-500:])),
        "seconds": time.perf_counter() - began,
    }
    if control:
        dealt = np.random.Generator(np.random.PCG64(seed)).permutation(lesson.rewards).tolist()
        other = learn(seed, dealt, params)
        assert other.policy is not None
        result["control_gain"] = table.gain_of_policy(other.policy)
    return result


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares, means and intervals over seeds."""
    gains = np.array([r["gain"] for r in results])
    good = int((gains >= GOOD_GAIN).sum())
    n = len(gains)
    result: dict[str, Any] = {
        "seeds": n, "good": good, "needed": int(np.ceil(NEEDED_OF_400 / 400 * n)),
        "share": good / n, "share_error": float(np.sqrt(good / n * (1 - good / n) / n)),
        "gain_mean": float(gains.mean()), "gain_median": float(np.median(gains)),
        "gain_percentiles_1_5_25": np.percentile(gains, (1, 5, 25)).tolist(),
        "seconds_a_seed": float(np.mean([r["seconds"] for r in results])),
        "edge_claims": sum(bool(r["edge_claim"]) for r in results),
    }
    result["passed"] = good >= result["needed"]
    controls = np.array([r["control_gain"] for r in results if "control_gain" in r])
    if len(controls) > 1:
        error = float(controls.std(ddof=1) / np.sqrt(len(controls)))
        low, high = float(controls.mean() - 1.645 * error), float(controls.mean() + 1.645 * error)
        result |= {
            "controls": len(controls), "control_mean": float(controls.mean()), "control_interval_90": [low, high],
            "control_sd": float(controls.std(ddof=1)),
            "control_passed": low >= -CONTROL_BOUND and high <= CONTROL_BOUND,
        }
    return result


def main() -> int:
    """Run the seeds; 0 where the targets are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planted_edge", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=8, help="400 for the full size")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--controls", type=int, default=0, help="seeds that are run with permuted rewards as well")
    parser.add_argument("--market", choices=("planted", "reversed"), default="planted")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--trades", type=int, default=200_000, help="trades of the calibration")
    parser.add_argument("--json", type=Path, help="write everything here")
    args = parser.parse_args()
    print("calibrating", file=sys.stderr)
    params = market.MARKETS[args.market]
    table = calibrate(args.trades, jobs=args.jobs, params=params)
    results = []
    with ProcessPoolExecutor(args.jobs) as pool:
        seeds = range(args.first, args.first + args.seeds)
        tasks = [pool.submit(run_seed, s, table, s - args.first < args.controls, params) for s in seeds]
        for task in as_completed(tasks):
            results.append(task.result())
            good = sum(r["gain"] >= GOOD_GAIN for r in results)
            print(f"\r{len(results)} of {args.seeds} seeds, {good} with gain >= {GOOD_GAIN}", end="", file=sys.stderr,
                  flush=True)
    print(file=sys.stderr)
    results.sort(key=lambda r: r["seed"])
    report = {"summary": summary(results), "calibration": table.report}
    if args.json:
        args.json.write_text(json.dumps(report | {"seeds": results}, indent=1))
    print(json.dumps(report, indent=2))
    passed = report["summary"]["passed"] and report["summary"].get("control_passed", True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
