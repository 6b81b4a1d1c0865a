"""The real meta strategy on candle-true outcomes, beside the Q-learner on the same decisions: gain by outcomes.

    python -m benchmarks.meta_outcomes --market planted --seeds 50 --outcomes 10000
    python -m benchmarks.meta_outcomes --market strong --seeds 50 --outcomes 5000
    python -m benchmarks.meta_outcomes --market planted --dealt --seeds 20 --outcomes 5000

Each seed has a market of its own; its candles go through the features' own fold, and at each decision every strategy is
filled by the arithmetic of paper execution. The agent is stepped with the outcome of the action that was drawn from its
newest policy, as the actor draws. `--dealt`: the rewards of that run once more, dealt out to its decisions at random,
whatever is done there, so that there is nothing to learn.

Gain: on states of other markets, each valued by the mean that its regime and volatility quantile have there; 0 is
blind choice, 1 the best map from regime and volatility tercile, which is the state of the Q-learner. The network sees
more than that, so it may find more than the table values; `gain_on_outcomes` takes the outcomes of those states.
`gain_verified` is what `quantum verify` says of a control: on the table that it keeps, in the states learned from.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from bisect import bisect_right
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.algorithms import market
from agents.algorithms.counter import choose
from agents.algorithms.observation import NAMES, observed
from agents.algorithms.regime import Thresholds
from agents.algorithms.strategies import signals
from agents.decision.networks import held_network
from agents.features.bar import Windows, advance
from agents.meta_strategy import MetaStrategyAgent, MetaStrategyConfig
from agents.paper_execution.layout import PaperConfig
from agents.q_learning import QLearningAgent
from benchmarks.candle_outcomes import of
from schemas.events import REGIME_SYMBOLS, STRATEGY_SYMBOLS, Candle, Experience, PolicyRecord
from streams import calibrated
from streams.gains import gain_of_actions
from streams.laboratory import COSTS, EVERY_BARS, INTERVAL_MS, PARTITION, Table, net_r
from streams.policies.gained import greedy_actions

STRONG = market.Params(
    laws=(market.Law(steady=0.72), market.Law(steady=-0.75), market.Law(pull=0.85), market.Law(chase=0.72, means=0.5)),
    best=market.PLANTED.best)
"""As `market.PLANTED`, and the best strategy of each regime earns one standard deviation a trade."""
MARKETS = {"planted": market.PLANTED, "strong": STRONG}
GOOD = {"planted": 0.8, "strong": 0.9}
CALIBRATION_SEED, CALIBRATION_MARKETS, CALIBRATION_DECISIONS = 10_000_000, 12, 3_125
NEUTRAL = STRATEGY_SYMBOLS.index("neutral")
CURVE = 1_000  # outcomes between two points of a gain curve
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Watched:
    """Decisions in order.

    Attributes:
        states: [N, 20], NaN where absent.
        regimes, volatilities: [N].
        rewards: of each strategy, R, and whether it traded, [N, 4].
    """

    states: Floats
    regimes: NDArray[np.intp]
    volatilities: Floats
    rewards: Floats
    traded: NDArray[np.bool_]


def watch(seed: int, decisions: int, params: market.Params) -> Watched:
    """So many decisions of one market."""
    bars = decisions * EVERY_BARS + 600
    made = market.generate(seed, bars, params)
    open_, high, low, close, volume = (x.tolist() for x in (made.open, made.high, made.low, made.close, made.volume))
    config, thresholds, windows = PaperConfig(), Thresholds(), Windows()
    rows: list[tuple[Any, ...]] = []
    for i in range(bars - config.max_holding_bars):
        windows, seen = advance(windows, Candle(
            symbol="LAB", interval_ms=INTERVAL_MS, open_time_ms=i * INTERVAL_MS, ts_ms=(i + 1) * INTERVAL_MS,
            open=open_[i], high=high[i], low=low[i], close=close[i], volume=volume[i], source=f"synthetic:{seed}",
            origin="SYNTHETIC"), thresholds)
        if not seen["ready"] or (i + 1) % EVERY_BARS:
            continue
        sides = signals(ema_dist_14=seen["ema_dist_14"], ema_dist_50=seen["ema_dist_50"],
                        bollinger_position=seen["bollinger_position"], range_position=seen["range_position"])
        assert sides is not None
        distance = config.stop_atr * seen["atr_14_pct"] * close[i]
        ahead = [(open_[j], high[j], low[j], close[j]) for j in range(i + 1, i + 1 + config.max_holding_bars)]
        rewards = [net_r(s, distance, ahead, COSTS, config.target_r) if s else 0.0 for s in sides]
        state = observed(regime=seen["regime"], **{n: seen.get(n) for n in NAMES[:13]})
        rows.append(([np.nan if x is None else x for x in state], REGIME_SYMBOLS.index(seen["regime"]),
                     seen["volatility_30"], rewards, [s != 0 for s in sides]))
        if len(rows) == decisions:
            break
    states, regimes, volatilities, rewards_N4, traded = (np.array([r[k] for r in rows]) for k in range(5))
    return Watched(states, regimes, volatilities, rewards_N4, traded)


# ---------------------------------------------------------------------- what a policy is worth
@dataclass(frozen=True)
class Worth:
    """States of other markets, and what each strategy earns there in the mean of its cell [N, 4]."""

    watched: Watched
    means: Floats
    blind: float
    best: float
    outcomes_blind: float
    outcomes_best: float

    def gains(self, actions: NDArray[np.intp]) -> tuple[float, float]:
        """Gain on the calibrated table, and on the outcomes themselves."""
        rows = np.arange(len(actions))
        on_table = (self.means[rows, actions].mean() - self.blind) / (self.best - self.blind)
        on_outcomes = ((self.watched.rewards[rows, actions].mean() - self.outcomes_blind)
                       / (self.outcomes_best - self.outcomes_blind))
        return float(on_table), float(on_outcomes)


@lru_cache(maxsize=2)
def worth(name: str) -> Worth:
    """The calibration of a market."""
    parts = [watch(CALIBRATION_SEED + i, CALIBRATION_DECISIONS, MARKETS[name]) for i in range(CALIBRATION_MARKETS)]
    w = Watched(*(np.concatenate([getattr(p, f) for p in parts])
                  for f in ("states", "regimes", "volatilities", "rewards", "traded")))
    means = _cell_means(w, PARTITION)
    own, rows = _cell_means(w, 3).argmax(axis=1), np.arange(len(means))
    return Worth(w, means, float(means.mean()), float(means[rows, own].mean()), float(w.rewards.mean()),
                 float(w.rewards[rows, own].mean()))


def _cell_means(w: Watched, buckets: int) -> Floats:
    """Mean reward of each strategy in the cell of each decision: regime x quantile of volatility."""
    edges = np.quantile(w.volatilities, np.linspace(0, 1, buckets + 1)[1:-1])
    place = w.regimes * buckets + np.searchsorted(edges, w.volatilities, side="right")
    found = np.zeros_like(w.rewards)
    for k in np.unique(place):
        found[place == k] = w.rewards[place == k].mean(axis=0)
    return found


def greedy_of(policy: PolicyRecord, w: Watched) -> NDArray[np.intp]:
    """What a policy holds best at each decision."""
    if policy.tabular is not None:
        best = {c.state_key: STRATEGY_SYMBOLS.index(c.greedy) for c in policy.tabular.cells}  # type: ignore[arg-type]
        buckets = np.searchsorted(policy.tabular.volatility_edges, w.volatilities, side="right")
        return np.array([best[f"{REGIME_SYMBOLS[g]}|vol:{b}"] for g, b in zip(w.regimes, buckets, strict=True)])
    return greedy_actions(policy, w.states)


# ---------------------------------------------------------------------- learning
def learn(agent: Any, seed: int, w: Watched, outcomes: int, table: Worth, dealt: list[float] | None = None,
          kept: Table | None = None) -> dict[str, Any]:
    """One run of an agent; its gain after each `CURVE` outcomes and what it earned."""
    draws = np.random.Generator(np.random.PCG64(seed)).random(len(w.regimes)).tolist()
    state, policy, earned = agent.new("LAB"), None, list[float]()
    curve: list[tuple[float, float]] = []
    verified: list[float] = []
    entropy = None
    for n, draw in enumerate(draws):
        if len(earned) == outcomes:
            break
        event = _experience(agent.name, n, w, policy, draw, dealt[len(earned)] if dealt and policy else None)
        state, outputs = agent.step(state, event)
        if policy is not None:
            earned.append(event.reward_r)
            if len(earned) % CURVE == 0:
                newest = next((o.event for o in outputs if isinstance(o.event, PolicyRecord)), policy)
                curve.append(table.gains(greedy_of(newest, table.watched)))
                if kept is not None:
                    found = gain_of_actions(kept, zip(w.regimes[:n + 1].tolist(), w.volatilities[:n + 1].tolist(),
                                                      greedy_of(newest, w).tolist(), strict=False))
                    verified.append(float("nan") if found is None else found.gain)
        for o in outputs:
            policy = o.event if isinstance(o.event, PolicyRecord) else policy
            entropy = getattr(o.event, "entropy", entropy)
    if policy is None or len(earned) < outcomes:
        raise RuntimeError(f"seed {seed}: {len(earned)} outcomes in {len(draws)} decisions")
    return {"gains": [g for g, _ in curve], "gains_on_outcomes": [g for _, g in curve],
            "gains_verified": verified, "entropy": entropy, "claims": bool(policy.edge_claim),
            "mean_r": float(np.mean(earned)), "rewards": earned}


def _experience(name: str, n: int, w: Watched, policy: PolicyRecord | None, draw: float,
                reward: float | None) -> Experience:
    regime, volatility = REGIME_SYMBOLS[int(w.regimes[n])], float(w.volatilities[n])
    state = tuple([None if np.isnan(x) else float(x) for x in w.states[n]])
    action, key, propensity = NEUTRAL, None, 1.0
    if policy is not None and policy.tabular is not None:
        key = f"{regime}|vol:{bisect_right(policy.tabular.volatility_edges, volatility)}"
        probabilities = next(c for c in policy.tabular.cells if c.state_key == key).probabilities
    elif policy is not None and policy.network is not None:
        applied = _held(policy).applied(policy.network.weights, state, len(policy.actions))
        assert applied is not None
        probabilities = applied.probabilities
    if policy is not None:
        action = choose(probabilities, draw)
        propensity = min(probabilities[action], 1.0)
    return Experience(
        decision_id=f"LAB/{name}/{n}", symbol="LAB", book_id=name, ts_ms=n + 1, decided_ms=n,
        status="TRADED" if w.traded[n, action] else "NEUTRAL", learnable=policy is not None, forced=policy is None,
        action=STRATEGY_SYMBOLS[action], propensity=propensity, state_key=key, regime=regime,  # type: ignore[arg-type]
        policy_version=None if policy is None else policy.version, volatility=volatility, observation=state,
        reward_r=float(w.rewards[n, action]) if reward is None else reward, pnl_usd=0.0, size_multiplier=1.0,
        source="synthetic:laboratory", origin="SYNTHETIC")


@lru_cache(maxsize=4)
def _held(policy: PolicyRecord) -> Any:
    assert policy.network is not None
    return held_network(policy.network, len(policy.actions))


def run_seed(seed: int, name: str, outcomes: int, deal: bool) -> dict[str, Any]:
    """One market: both learners on it."""
    began, w, table = time.process_time(), watch(seed, outcomes + 40, MARKETS[name]), worth(name)
    kept = calibrated.table(name) if name in market.MARKETS else None
    meta = learn(MetaStrategyAgent(MetaStrategyConfig(seed=seed)), seed, w, outcomes, table, kept=kept)
    result = {"seed": seed, "meta_strategy": meta}
    if deal:
        dealt = np.random.Generator(np.random.PCG64(seed)).permutation(meta["rewards"]).tolist()
        result["dealt"] = learn(MetaStrategyAgent(MetaStrategyConfig(seed=seed)), seed, w, outcomes, table, dealt)
    else:
        result["q_learning"] = learn(QLearningAgent(), seed, w, outcomes, table, kept=kept)
    for run in result.values():
        if isinstance(run, dict):
            run.pop("rewards", None)
    return result | {"cpu_s": time.process_time() - began}


def summary(runs: list[dict[str, Any]], learner: str, good: float) -> dict[str, Any]:
    """Shares and means over seeds."""
    some = [r[learner] for r in runs]
    last, n = np.array([s["gains"][-1] for s in some]), len(some)
    error = 1.645 * float(last.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
    return {
        "learner": learner, "seeds": n, f"gain >= {good}": of(int((last >= good).sum()), n),
        "gain_mean": round(float(last.mean()), 3), "interval_90": [round(float(last.mean()) + s * error, 3)
                                                                  for s in (-1, 1)],
        "gain_lowest": np.sort(last)[:5].round(3).tolist(),
        "curve": np.mean([s["gains"] for s in some], axis=0).round(3).tolist(),
        "gain_on_outcomes_mean": round(float(np.mean([s["gains_on_outcomes"][-1] for s in some])), 3),
        "gain_verified_curve": np.mean([s["gains_verified"] for s in some], axis=0).round(3).tolist(),
        "claims_at_end": sum(s["claims"] for s in some),
        "mean_r": round(float(np.mean([s["mean_r"] for s in some])), 4),
    }


def main() -> None:
    """Print a summary for each learner, and append every run to a file where asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meta_outcomes", description=__doc__.split("\n")[0])
    parser.add_argument("--market", choices=MARKETS, default="strong")
    parser.add_argument("--dealt", action="store_true",
                        help="also with rewards dealt out at random, without the Q-learner")
    parser.add_argument("--seeds", type=int, default=4, help="50 for the full size")
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--outcomes", type=int, default=2_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="append each run, one JSON object a line")
    args = parser.parse_args()
    one = partial(run_seed, name=args.market, outcomes=args.outcomes, deal=args.dealt)
    runs = []
    with ProcessPoolExecutor(args.jobs) as pool:
        for run in pool.map(one, range(args.first, args.first + args.seeds)):
            runs.append(run)
            if args.json:
                with args.json.open("a") as file:
                    file.write(json.dumps(run) + "\n")
            print(f"\r{len(runs)} of {args.seeds} seeds", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    told = {"market": args.market, "outcomes": args.outcomes, "cpu_s": round(sum(r["cpu_s"] for r in runs), 1)}
    for learner in [k for k, v in runs[0].items() if isinstance(v, dict)]:
        print(json.dumps(told | summary(runs, learner, GOOD[args.market])))


if __name__ == "__main__":
    main()
