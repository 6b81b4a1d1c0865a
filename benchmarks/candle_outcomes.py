"""The real Q-learner on candle-true outcomes: what it claims and learns where there is an edge, and where none is.

    python -m benchmarks.candle_outcomes --market fair --seeds 1000 --outcomes 10000 --costs both
    python -m benchmarks.candle_outcomes --market planted --seeds 400 --outcomes 3000

Each seed has a market of its own. Its candles go through the features' own fold and the strategies' own signals; at
each decision every strategy is filled by the arithmetic of paper execution (`streams.laboratory.try_market`), and the
agent is stepped with the outcome of the action that was drawn from its newest policy. What is not in it, compared with
the whole chain: no daily loss limit, no open position at a decision, no event on a log, and an outcome is learned
before the next decision. `benchmarks.planted_edge` runs the whole chain and takes ten times as long.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from bisect import bisect_right
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from agents.algorithms import fills, market
from agents.q_learning import QLearningAgent
from agents.q_learning.table import BUCKETS
from schemas.events import REGIME_SYMBOLS, STRATEGY_SYMBOLS, DriftDetected, Experience, PolicyRecord
from streams.laboratory import COSTS, EVERY_BARS, Table, Trials, calibrate, try_costs

FREE = fills.Costs(0.0, 0.0, 0.0)
SPARE_BARS = 600  # features warm up, forced decisions come before the first policy
NEUTRAL = STRATEGY_SYMBOLS.index("neutral")
CURVE = 250  # outcomes between two points of a gain curve
GOOD_GAIN = 0.8


def learn(seed: int, trials: Trials, outcomes: int, table: Table | None = None) -> dict[str, Any]:
    """One run of the agent.

    Args:
        seed: of the draws.
        trials: decisions in order, and what every strategy makes of them.
        outcomes: outcomes to learn.
        table: calibrated means, to value the greedy map on; None: it is not valued.

    Raises:
        RuntimeError: there were too few decisions.
    """
    agent, draws = QLearningAgent(), np.random.Generator(np.random.PCG64(seed)).random(len(trials.hidden)).tolist()
    state, policy, done = agent.new("LAB"), None, 0
    claims: list[int] = []
    alarms: list[int] = []
    gains: list[float] = []
    for n, draw in enumerate(draws):
        if done == outcomes:
            break
        state, outputs = agent.step(state, _experience(n, trials, policy, draw))
        done += policy is not None
        for output in outputs:
            if isinstance(output.event, PolicyRecord):
                policy = output.event
            elif isinstance(output.event, DriftDetected):
                alarms.append(done)
        if policy is not None and policy.edge_claim:
            claims.append(done)
        if table is not None and policy is not None and done and done % CURVE == 0:
            gains.append(table.gain_of_policy(policy))
    if policy is None or done < outcomes:
        raise RuntimeError(f"seed {seed}: {done} outcomes in {len(draws)} decisions")
    edge = policy.edge
    return {"seed": seed, "first_claim": claims[0] if claims else None, "claims_at_end": bool(policy.edge_claim),
            "versions_claiming": len(claims), "alarms": alarms, "gains": gains,
            "mean_r": None if edge is None else edge.mean_r, "smallest_r": None if edge is None else edge.smallest_r}


def _experience(n: int, trials: Trials, policy: PolicyRecord | None, draw: float) -> Experience:
    """The n-th decision, drawn from the policy, and its outcome; forced where there is no policy yet."""
    regime, volatility = int(trials.observed[n]), float(trials.volatility[n])
    action, key, propensity = NEUTRAL, None, 1.0
    if policy is not None:
        assert policy.tabular is not None
        cell = policy.tabular.cells[regime * BUCKETS + bisect_right(policy.tabular.volatility_edges, volatility)]
        action = min(bisect_right(list(accumulate(cell.probabilities)), draw), NEUTRAL)
        key, propensity = cell.state_key, cell.probabilities[action]
    return Experience(
        decision_id=f"LAB/q_learning/{n}", symbol="LAB", book_id="q_learning", ts_ms=n + 1, decided_ms=n,
        status="TRADED" if trials.sides[n, action] else "NEUTRAL", learnable=policy is not None, forced=policy is None,
        action=STRATEGY_SYMBOLS[action], propensity=propensity, state_key=key, regime=REGIME_SYMBOLS[regime],
        policy_version=None if policy is None else policy.version, volatility=volatility,
        reward_r=float(trials.rewards[n, action]), pnl_usd=0.0, size_multiplier=1.0, source="synthetic:laboratory",
        origin="SYNTHETIC")


def run_seed(seed: int, params: market.Params, several: dict[str, fills.Costs], outcomes: int,
             table: Table | None) -> dict[str, dict[str, Any]]:
    """One market, learned from under each of the costs."""
    trials = try_costs(seed, outcomes * EVERY_BARS + SPARE_BARS, params, tuple(several.values()))
    return {name: learn(seed, t, outcomes, table) for name, t in zip(several, trials, strict=True)}


def of(k: int, n: int) -> str:
    """A rate with its exact 95 % interval (Clopper and Pearson 1934)."""
    low = 0.0 if k == 0 else beta.ppf(0.025, k, n - k + 1)
    high = 1.0 if k == n else beta.ppf(0.975, k + 1, n - k)
    return f"{k} of {n} [{low:.4f}, {high:.4f}]"


def summary(runs: list[dict[str, Any]], *, valued: bool) -> dict[str, Any]:
    """Shares and medians over seeds."""
    n, first = len(runs), [r["first_claim"] for r in runs if r["first_claim"] is not None]
    result: dict[str, Any] = {
        "ever_claimed": of(len(first), n), "claims_at_end": of(sum(r["claims_at_end"] for r in runs), n),
        "median_first_claim": float(np.median(first)) if first else None,
        "runs_with_alarm": of(sum(bool(r["alarms"]) for r in runs), n),
        "mean_r": round(float(np.mean([r["mean_r"] for r in runs])), 4),
        "smallest_r_median": round(float(np.median([r["smallest_r"] for r in runs])), 4),
    }
    if valued:
        last = np.array([r["gains"][-1] for r in runs])
        result |= {
            "gain_good": of(int((last >= GOOD_GAIN).sum()), n),
            "gain_good_and_claimed": of(sum(g >= GOOD_GAIN and r["first_claim"] is not None
                                            for g, r in zip(last, runs, strict=True)), n),
            "gain_curve_mean": {(i + 1) * CURVE: round(float(np.mean([r["gains"][i] for r in runs])), 3)
                                for i in range(len(runs[0]["gains"]))},
        }
    return result


def main() -> None:
    """Print a summary for each costs, and append every run to a file where asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candle_outcomes", description=__doc__.split("\n")[0])
    parser.add_argument("--market", choices=market.MARKETS, default="fair")
    parser.add_argument("--costs", choices=("full", "none", "both"), default="full")
    parser.add_argument("--seeds", type=int, default=8, help="1000 for false claims, 400 for true ones")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--outcomes", type=int, default=3_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no market after so long")
    parser.add_argument("--trades", type=int, default=200_000, help="trades of the calibration")
    parser.add_argument("--json", type=Path, help="append each run, one JSON object a line")
    args = parser.parse_args()
    params, began = market.MARKETS[args.market], time.monotonic()
    several = {name: c for name, c in (("full", COSTS), ("none", FREE)) if args.costs in (name, "both")}
    table = calibrate(args.trades, jobs=args.jobs, params=params) if params.best else None
    one = partial(run_seed, params=params, several=several, outcomes=args.outcomes, table=table)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in several}
    with ProcessPoolExecutor(args.jobs) as pool:
        for start in range(args.first, args.first + args.seeds, 2 * args.jobs):
            if time.monotonic() - began > 60 * args.minutes:
                break
            seeds = range(start, min(start + 2 * args.jobs, args.first + args.seeds))
            for done in pool.map(one, seeds):
                for name, run in done.items():
                    runs[name].append(run)
                if args.json:
                    with args.json.open("a") as file:
                        file.write(json.dumps({"market": args.market, "outcomes": args.outcomes} | done) + "\n")
            print(f"\r{len(runs[next(iter(runs))])} of {args.seeds} seeds", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for name, several_runs in runs.items():
        told = {"market": args.market, "costs": name, "outcomes": args.outcomes}
        print(json.dumps(told | summary(several_runs, valued=table is not None)))


if __name__ == "__main__":
    main()
