"""Whether the PPO trader learns what is there, nothing where nothing is, and what it earns on real candles.

    python -m benchmarks.ppo_trader                      planted pattern and noise, a few seeds
    python -m benchmarks.ppo_trader --seeds 50 --klines FOLDER

- planted: a market whose log price drifts half a standard deviation a bar, up or down, in stays of 300 to 900 bars. The
  oracle knows the hidden regime and holds its side, in the same environment, costs and stops included; as a position
  keeps its size while the account grows, it also closes every so many bars to open anew: the best of some such numbers
  counts. Both are judged on a market of their own.
- noise: a walk that is fair in money, with real costs. Gross is the result before costs; turnover is held against a
  policy that draws among the valid actions. The log price of `market.FAIR` is a martingale, so its price rises by half
  the variance a bar: long positions earn that there, before costs. Here each regime drifts by as much down.
- klines: walk-forward on real candles. Trained on all bars before a part, played greedily through it, weights carried
  on; beside it flat, buy-and-hold unlevered, and a random policy that opens as often and is exposed as much.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import erf, exp, log, sqrt
from pathlib import Path
from statistics import NormalDist
from time import process_time
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from scipy.stats import t as student  # type: ignore[import-untyped]  # it ships no types

from agents.algorithms import market
from agents.algorithms.draws import uniforms
from agents.algorithms.learner import Learner, new_learner
from agents.algorithms.ppo import evaluate, update
from agents.algorithms.ppo_settings import PpoSettings
from agents.algorithms.ppo_train import Gatherer
from agents.algorithms.regime import Thresholds
from agents.algorithms.trading import Action, Rules
from agents.algorithms.trading_fit import trader_settings
from agents.algorithms.trading_many import TradingEnvironments
from agents.algorithms.trading_view import INPUTS, Tape, row
from agents.features.bar import Windows, advance
from schemas.events import Candle

Floats = NDArray[np.float64]
Chooser = Callable[[Floats, NDArray[np.bool_], TradingEnvironments], NDArray[np.intp]]
HOUR_MS, QUARTER_MS = 3_600_000, 900_000
TREND = market.Params(
    laws=(market.Law(steady=0.5), market.Law(steady=-0.5), market.Law(steady=0.5), market.Law(steady=-0.5)),
    best=(), volatile_scale=1.0)
"""Up in two of the four hidden regimes, down in the others, and nothing else that differs."""
FAIR_IN_MONEY = dataclasses.replace(market.FAIR, laws=tuple(
    market.Law(steady=-0.5 * market.FAIR.sigma * (market.FAIR.volatile_scale if place == market.VOLATILE else 1.0))
    for place in range(len(market.REGIMES))))
"""The price is a martingale, not its logarithm: a drift of minus half the variance."""
UP = np.array([law.steady > 0 for law in TREND.laws])
ANEW = (5, 10, 15, 20, 30, 50, 100, 10_000)
"""Bars after which the oracle opens anew; the last: never."""
RANDOMS = 50
EULER = 0.5772156649


def tape_of(bars: Iterator[tuple[int, float, float, float, float, float | None]], interval_ms: int
            ) -> tuple[Tape, list[int]]:
    """A tape of bars (open time, open, high, low, close, volume) whose windows are full, and which bars these are."""
    windows, rows, which = Windows(), [], []
    for i, (ms, o, h, lo, c, v) in enumerate(bars):
        candle = Candle(symbol="B", interval_ms=interval_ms, open_time_ms=ms, ts_ms=ms + interval_ms, open=o, high=h,
                        low=lo, close=c, volume=v, source="bench", origin="SYNTHETIC")
        windows, values = advance(windows, candle, Thresholds())
        if values["ready"]:
            known = {name: values.get(name) for name in INPUTS}
            rows.append(row(ms, interval_ms, o, h, lo, c, values["regime"], known))
            which.append(i)
    return Tape(np.array(rows), interval_ms), which


def made(seed: int, bars: int, params: market.Params) -> tuple[Tape, NDArray[np.int8]]:
    """A made market, and its hidden regime at each row."""
    m = market.generate(seed, bars, params)
    columns = zip(*(x.tolist() for x in (m.open, m.high, m.low, m.close, m.volume)), strict=True)
    tape, which = tape_of(((i * QUARTER_MS, *rest) for i, rest in enumerate(columns)), QUARTER_MS)  # type: ignore[misc]
    return tape, m.regime[which]


def trained(tape: Tape, rules: Rules, settings: PpoSettings, seed: int, updates: int, envs: int,
            learner: Learner | None = None, episode_bars: int = 1000) -> Learner:
    """A learner after some updates of 2048 steps in all."""
    sides = TradingEnvironments(tape, envs, rules, episode_bars=episode_bars)
    if learner is None:
        settings = replace(settings, lr_end=0.0, anneal_updates=updates)
    learner = new_learner(settings, seed, "bench") if learner is None else learner
    gatherer = Gatherer(sides, settings, seed, f"bench/{learner.updates}")
    for _ in range(updates):
        learner, _ = update(learner, gatherer.gather(learner, 2048 // envs), settings, seed, "bench")
    return learner


def greedy(settings: PpoSettings, learner: Learner) -> Chooser:
    """The most probable valid action, as the live adapter takes it."""
    return lambda seen, masks, _: evaluate(settings, learner.parameters, seen, masks).log_probabilities.argmax(axis=1)


def drawn(seed: int, open_p: float | None = None, close_p: float = 0.0) -> Chooser:
    """Valid actions, all equally likely; or: open a random side with one probability, close with another."""
    count = [0]

    def choose(seen: Floats, masks: NDArray[np.bool_], _: TradingEnvironments) -> NDArray[np.intp]:
        count[0] += 1
        u = uniforms((len(masks), 2), seed, "bench", "drawn", count[0])
        if open_p is None:
            return np.array([np.flatnonzero(m)[int(x * m.sum())] for m, x in zip(masks, u[:, 0], strict=True)])
        held = masks[:, Action.CLOSE]
        side = np.where(u[:, 1] < 0.5, int(Action.LONG), int(Action.SHORT))
        found: NDArray[np.intp] = np.where(
            held, np.where(u[:, 0] < close_p, int(Action.CLOSE), 0),
            np.where((u[:, 0] < open_p) & masks[:, Action.LONG], side, 0))
        return found

    return choose


def side_of(up_T: NDArray[np.bool_], starts: list[int], every: int) -> Chooser:
    """The oracle: on the side of the hidden drift at the bar that is seen; closes every so many bars to open anew."""
    at = np.array(starts)

    def choose(seen: Floats, masks: NDArray[np.bool_], envs: TradingEnvironments) -> NDArray[np.intp]:
        wanted = np.where(up_T[at], int(Action.LONG), int(Action.SHORT))
        wanted = np.where(envs.accounts.held_bars >= every, int(Action.CLOSE), wanted)
        at[:] += 1
        found: NDArray[np.intp] = np.where(masks[np.arange(len(at)), wanted], wanted, 0)
        return found

    return choose


def played(tape: Tape, rules: Rules, choose: Chooser, starts: list[int], bars: int) -> dict[str, Any]:
    """Episodes side by side, each once: sums over all, and the log growth of each bar, [bars, N]."""
    envs = TradingEnvironments(tape, len(starts), rules, episode_bars=bars, once=True, starts=starts)
    seen, masks = envs.reset(0)
    growth, held = [], 0
    while not envs.over:
        assert masks is not None
        got = envs.step(choose(seen, masks, envs))
        assert envs.happened is not None
        growth.append(np.where(got.void, 0.0, envs.happened.growth / 100))
        held += int((envs.accounts.side != 0).sum())
        seen, masks = got.observations, got.masks
    return {"growth_TN": np.array(growth), "exposed": held / (len(growth) * len(starts)), **envs.sums}


# ---------------------------------------------------------------------- planted, noise
def planted(seed: int, updates: int) -> dict[str, float]:
    """Share of the oracle's net growth that a trained policy earns out of sample."""
    settings, rules = trader_settings(), Rules(max_leverage=1.0)  # unlevered: what a fixed size loses stays small
    tape, _ = made(1_000 + seed, 9_000, TREND)
    learner = trained(tape, rules, settings, seed, updates, 16)
    test, regime = made(5_000 + seed, 9_000, TREND)
    starts = [i * 1000 for i in range(8)]
    ours = played(test, rules, greedy(settings, learner), starts, 1000)
    oracles = {n: played(test, rules, side_of(UP[regime], starts, n), starts, 1000)["growth"] for n in ANEW}
    best = max(oracles, key=lambda n: oracles[n])
    return {"ours": ours["growth"], "oracle": oracles[best], "anew_every": best, "held": oracles[ANEW[-1]],
            "share": ours["growth"] / oracles[best], "exposed": ours["exposed"]}


def noise(seed: int, updates: int) -> dict[str, float]:
    """Gross result and turnover of a policy trained on a fair walk, out of sample, and turnover of a random one."""
    settings, rules = trader_settings(), Rules()
    tape, _ = made(10_000 + seed, 9_000, FAIR_IN_MONEY)
    learner = trained(tape, rules, settings, seed, updates, 16)
    test, _ = made(20_000 + seed, 2_300, FAIR_IN_MONEY)
    starts = [0, 1000]
    ours = played(test, rules, greedy(settings, learner), starts, 1000)
    other = played(test, rules, drawn(seed), starts, 1000)
    return {"gross": ours["gross"] / 2, "growth": ours["growth"] / 2, "turnover": ours["turnover"],
            "random_turnover": other["turnover"], "exposed": ours["exposed"]}


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval, Student's t."""
    x = np.array(values)
    wide = float(student.ppf(0.975, len(x) - 1)) if len(x) > 1 else float("nan")
    half = wide * float(x.std(ddof=1)) / sqrt(len(x)) if len(x) > 1 else float("nan")
    return float(x.mean()), float(x.mean()) - half, float(x.mean()) + half


# ---------------------------------------------------------------------- real candles
def real(path: Path) -> tuple[Tape, int]:
    """A tape of a file of candles."""
    import polars

    frame = polars.read_ipc(path)
    interval_ms = int(np.median(np.diff(frame["open_time"].to_numpy()[:1000])))
    rows = zip(*(frame[c].to_list() for c in ("open_time", "open", "high", "low", "close", "volume")), strict=True)
    return tape_of(rows, interval_ms)[0], interval_ms


def deflated(growth_T: Floats, trials: int) -> tuple[float, float]:
    """Sharpe ratio a bar, and the probability that it is above the best of so many trials without skill.

    Bailey and Lopez de Prado 2014, The deflated Sharpe ratio; the variance among trials is taken as 1 / n, that of a
    Sharpe ratio of 0.
    """
    n, sd = len(growth_T), float(growth_T.std(ddof=1))
    if sd == 0:
        return 0.0, float("nan")
    z = (growth_T - growth_T.mean()) / sd
    sharpe, skew, kurt = float(growth_T.mean()) / sd, float((z**3).mean()), float((z**4).mean())
    at_most, best = NormalDist().inv_cdf, 0.0
    if trials > 1:
        best = sqrt(1 / n) * ((1 - EULER) * at_most(1 - 1 / trials) + EULER * at_most(1 - 1 / (trials * exp(1))))
    at = (sharpe - best) * sqrt(n - 1) / sqrt(1 - skew * sharpe + (kurt - 1) / 4 * sharpe**2)
    return sharpe, 0.5 * (1 + erf(at / sqrt(2)))


def walked(path: Path, seed: int, updates: int, folds: int, trials: int) -> dict[str, Any]:
    """Walk-forward: learn from all before a part, play it, go on."""
    tape, interval_ms = real(path)
    settings, rules = trader_settings(), Rules()
    first = len(tape) // 2
    edges = np.linspace(first, len(tape) - 1, folds + 1).astype(int).tolist()
    learner, parts, randoms = None, [], []
    for begin, end in pairwise(edges):
        past = Tape(tape.rows[:begin], interval_ms)  # nothing at or after the part
        learner = trained(past, rules, settings, seed, updates if learner is None else max(1, updates // folds), 16,
                          learner)
        part = played(tape, rules, greedy(settings, learner), [begin], end - begin)
        parts.append(part)
        opened = part["turnover"] / 2 / rules.equity / max(rules.max_leverage, 1)
        held = part["exposed"] * (end - begin)
        rate = min(1.0, max(opened, 1.0) / max(held, 1.0)) if held else 0.0
        idle = max((end - begin) - held, 1.0)
        chance = min(1.0, max(opened, 1.0) / idle) if held else 0.0
        randoms.append(played(tape, rules, drawn(begin, chance, rate), [begin] * RANDOMS, end - begin))
    growth = np.concatenate([p["growth_TN"][:, 0] for p in parts])
    sharpe, probability = deflated(growth, trials)
    a_year = 365 * 24 * HOUR_MS / interval_ms
    chance_growth = sum(r["growth_TN"].sum(axis=0) for r in randoms)
    closes = tape.rows[:, 4]
    return {
        "file": path.stem, "n_bars": len(growth), "growth": float(growth.sum()),
        "gross": sum(p["gross"] for p in parts),
        "fees": sum(p["fees"] + p["spread_cost"] + p["slippage"] for p in parts),
        "exposed": float(np.mean([p["exposed"] for p in parts])), "turnover": sum(p["turnover"] for p in parts),
        "buy_and_hold": log(closes[edges[-1]] / closes[first]) - 2 * 6.5e-4, "flat": 0.0,
        "random": float(np.mean(chance_growth)), "random_sd": float(np.std(chance_growth, ddof=1)),
        "random_exposed": float(np.mean([r["exposed"] for r in randoms])),
        "sharpe_a_year": sharpe * sqrt(a_year), "deflated_sharpe_probability": probability, "trials": trials,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6, help="seeds of noise; a tenth of it, at least 2, of planted")
    parser.add_argument("--planted-updates", type=int, default=90, help="updates of 2048 steps on the planted market")
    parser.add_argument("--noise-updates", type=int, default=25, help="updates of 2048 steps on a fair walk")
    parser.add_argument("--klines", type=Path, help="folder of candles in Feather files")
    parser.add_argument("--klines-updates", type=int, default=40, help="updates of 2048 steps before the first part")
    parser.add_argument("--folds", type=int, default=6, help="parts of the second half")
    parser.add_argument("--file", help="one of them, such as BTCUSDT-15m; all count as trials nevertheless")
    parser.add_argument("--only", choices=("planted", "noise", "klines"))
    args = parser.parse_args()
    begun = process_time()
    if args.only in (None, "planted"):
        for seed in range(max(2, args.seeds // 10)):
            print(json.dumps({"planted": seed, **planted(seed, args.planted_updates)}), flush=True)
    if args.only in (None, "noise"):
        rows = []
        for seed in range(args.seeds):
            rows.append(noise(seed, args.noise_updates))
            print(json.dumps({"noise": seed, **rows[-1]}), flush=True)
        turned = sum(r["turnover"] for r in rows) / sum(r["random_turnover"] for r in rows)
        print(json.dumps({"noise": "all", "seeds": len(rows), "gross": interval([r["gross"] for r in rows]),
                          "growth": interval([r["growth"] for r in rows]), "turnover_of_random": turned}), flush=True)
    if args.klines is not None and args.only in (None, "klines"):
        files = sorted(args.klines.glob("*.feather"))
        for path in [f for f in files if args.file in (None, f.stem)]:
            print(json.dumps(walked(path, 1, args.klines_updates, args.folds, len(files))), flush=True)
    print(f"{process_time() - begun:.0f} s of processor", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
