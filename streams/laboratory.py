"""The made market measured: what each strategy earns where, the best that can be done, and how much of it was learned.

    python -m streams.laboratory --trades 200000 [--market reversed]

Candles of `agents.algorithms.market` go through the features' own fold, the strategies' own signals and the arithmetic
of paper execution, with all costs; at each decision every strategy is tried on the same bars. The result is a table of
net means by observable cell. Gain is measured on that table, not on the money that a run happened to make:

    gain = (V(greedy) - V(uniform)) / (V(oracle) - V(uniform))

where the oracle is the best fixed map from the learner's own state (regime as detected, volatility bucket by the
learner's own edges) to an action.
"""

from __future__ import annotations

import argparse
import json
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.algorithms import fills, market
from agents.algorithms.regime import Thresholds
from agents.algorithms.strategies import STRATEGIES, signals
from agents.features.bar import Windows, advance
from agents.paper_execution.layout import PaperConfig
from schemas.events import REGIME_SYMBOLS, Candle, PolicyRecord

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COSTS = fills.Costs(market.FEE_BPS, market.HALF_SPREAD_BPS, market.SLIPPAGE_BPS)
INTERVAL_MS = 3_600_000
EVERY_BARS = 4
PARTITION = 24  # volatility quantiles of the table: fine enough for any learner's own three buckets
BARS_A_MARKET = 12_500  # about what a learner meets in 3,000 outcomes, so that its regimes come in the same shares
AT_ONCE = 4  # markets between two looks at the number of trades, whatever the number of processes: one table a number
FIRST_SEED = 10_000_000  # calibration markets are not those that a learner is tried on


class Trials(NamedTuple):
    """Decisions, and what every strategy made of them.

    Attributes:
        hidden: hidden regime at the decision [N].
        observed: regime as detected [N].
        volatility: volatility_30 [N].
        sides: direction of each strategy; 0: no trade [N, 4].
        rewards: net result, R; 0 without a trade [N, 4].
        confusion: bars by hidden and observed regime [4, 4].
    """

    hidden: Ints
    observed: Ints
    volatility: Floats
    sides: Ints
    rewards: Floats
    confusion: Ints

    @property
    def trades(self) -> int:
        """Trades made."""
        return int((self.sides != 0).sum())


def try_market(seed: int, bars: int, params: market.Params = market.PLANTED, costs: fills.Costs = COSTS) -> Trials:
    """Every strategy at every decision of one market.

    Args:
        seed: of the market.
        bars: its length.
        params: what it is made of.
        costs: of a fill.
    """
    return try_costs(seed, bars, params, (costs,))[0]


def try_costs(seed: int, bars: int, params: market.Params, several: Sequence[fills.Costs]) -> list[Trials]:
    """As `try_market`, the same decisions under several costs."""
    made = market.generate(seed, bars, params)
    open_, high, low, close = (x.tolist() for x in (made.open, made.high, made.low, made.close))
    config, thresholds, windows = PaperConfig(), Thresholds(), Windows()
    rows: list[tuple[int, int, float, tuple[int, ...]]] = []
    results: list[list[tuple[float, ...]]] = [[] for _ in several]
    confusion = np.zeros((4, 4), dtype=np.int64)
    for i, hidden in enumerate(made.regime.tolist()):
        candle = Candle(
            symbol="LAB", interval_ms=INTERVAL_MS, open_time_ms=i * INTERVAL_MS, ts_ms=(i + 1) * INTERVAL_MS,
            open=open_[i], high=high[i], low=low[i], close=close[i], source=f"synthetic:{seed}", origin="SYNTHETIC",
        )
        windows, seen = advance(windows, candle, thresholds)
        if not seen["ready"]:
            continue
        observed = REGIME_SYMBOLS.index(seen["regime"])
        confusion[hidden, observed] += 1
        if (i + 1) % EVERY_BARS or i + config.max_holding_bars >= bars:
            continue
        sides = signals(
            ema_dist_14=seen["ema_dist_14"], ema_dist_50=seen["ema_dist_50"],
            bollinger_position=seen["bollinger_position"], range_position=seen["range_position"],
        )
        assert sides is not None
        distance = config.stop_atr * seen["atr_14_pct"] * close[i]
        ahead = [(open_[j], high[j], low[j], close[j]) for j in range(i + 1, i + 1 + config.max_holding_bars)]
        rows.append((hidden, observed, seen["volatility_30"], sides))
        for costs, rewards in zip(several, results, strict=True):
            rewards.append(tuple(net_r(s, distance, ahead, costs, config.target_r) if s else 0.0 for s in sides))
    hidden_N, observed_N, volatility_N, sides_N = (np.array([r[i] for r in rows]) for i in range(4))
    return [Trials(hidden_N, observed_N, volatility_N, sides_N, np.array(r), confusion) for r in results]


def net_r(
    side: int, distance: float, ahead: Sequence[tuple[float, float, float, float]], costs: fills.Costs,
    target_r: float | None,
) -> float:
    """Net result of one trade in units of risk, as paper execution reckons it.

    Args:
        side: 1 or -1.
        distance: of the stop from the entry, quote currency.
        ahead: (open, high, low, close) of the bars that the position may see; it enters at the first open.
        costs: of a fill.
        target_r: distance of the target in distances of the stop.
    """
    first = ahead[0][0]
    entry = fills.fill(first, side, 1.0, costs)
    stop = entry.price - side * distance
    target = None if target_r is None else entry.price + side * target_r * distance
    leave = ahead[-1][3]
    for open_, high, low, _ in ahead:
        touched = fills.exit_in_bar(side, stop, target, open_, high, low)
        if touched is not None:
            leave = touched.price
            break
    result = fills.settle(side, entry, 1.0, 0.0, distance, fills.fill(leave, -side, 1.0, costs))
    assert result.r_multiple is not None
    return result.r_multiple


@dataclass(frozen=True)
class Table:
    """Net results by cell of the reference partition: regime as detected x quantile of volatility.

    Attributes:
        edges: inner edges of the volatility quantiles, ascending [K - 1].
        middles: median volatility of each quantile [K].
        weight: share of decisions in each cell; sums to 1 [4, K].
        mean: net mean of each action, R, decisions without a signal counted as 0 [4, K, 4].
        hidden_value: value of the best map from the hidden regime (and the quantile) to an action, R.
        report: what was measured beside it: edge sizes, shares, the detector's confusion.
    """

    edges: Floats
    middles: Floats
    weight: Floats
    mean: Floats
    hidden_value: float
    report: dict[str, Any]

    def value(self, action_of: Callable[[int, float], Sequence[float]]) -> float:
        """Expected net result of a decision, R.

        Args:
            action_of: probabilities of the actions, given regime and volatility.
        """
        total = 0.0
        for g in range(4):
            for k, volatility in enumerate(self.middles.tolist()):
                total += float(self.weight[g, k] * np.dot(self.mean[g, k], action_of(g, volatility)))
        return total

    def uniform(self) -> float:
        """Value of choosing blindly."""
        return self.value(lambda g, v: (0.25,) * 4)

    def oracle(self, edges: Sequence[float]) -> dict[tuple[int, int], int]:
        """Best action of each state, as the learner with these volatility edges sees states."""
        sums: dict[tuple[int, int], Floats] = {}
        for g in range(4):
            for k, volatility in enumerate(self.middles.tolist()):
                state = (g, bisect_right(edges, volatility))
                sums[state] = sums.get(state, np.zeros(4)) + self.weight[g, k] * self.mean[g, k]
        return {state: int(np.argmax(values)) for state, values in sums.items()}

    def value_of_map(self, edges: Sequence[float], actions: dict[tuple[int, int], int]) -> float:
        """Value of a fixed map from (regime, bucket) to an action; what it leaves out is neutral, so 0."""
        def chosen(g: int, volatility: float) -> Sequence[float]:
            action = actions.get((g, bisect_right(edges, volatility)), len(STRATEGIES) - 1)
            return [float(a == action) for a in range(4)]

        return self.value(chosen)

    def gain(self, edges: Sequence[float], greedy: dict[tuple[int, int], int]) -> float:
        """Share of the way from choosing blindly to the oracle; 1 is the oracle, 0 as good as blind."""
        blind = self.uniform()
        best = self.value_of_map(edges, self.oracle(edges))
        return (self.value_of_map(edges, greedy) - blind) / (best - blind)

    def gain_of_policy(self, policy: PolicyRecord) -> float:
        """Gain of a tabular policy's greedy actions.

        Raises:
            ValueError: the policy is not tabular.
        """
        if policy.tabular is None:
            raise ValueError(f"{policy.policy_id} version {policy.version} is not tabular")
        greedy = {}
        for cell in policy.tabular.cells:
            regime, _, bucket = cell.state_key.partition("|vol:")
            greedy[REGIME_SYMBOLS.index(regime), int(bucket)] = STRATEGIES.index(cell.greedy)
        return self.gain(policy.tabular.volatility_edges, greedy)


def tabulate(trials: Trials) -> Table:
    """The table of many trials."""
    quantiles = np.linspace(0, 1, PARTITION + 1)[1:-1]
    edges = np.quantile(trials.volatility, quantiles)
    place = np.searchsorted(edges, trials.volatility, side="right")
    middles = np.array([np.median(trials.volatility[place == k]) for k in range(PARTITION)])
    weight, mean = _cells(trials.observed, place, trials.rewards)
    hidden_weight, hidden_mean = _cells(trials.hidden, place, trials.rewards)
    best = float((hidden_weight * hidden_mean.max(axis=2)).sum())
    return Table(edges, middles, weight, mean, best, _report(trials, best, weight, mean))


def _cells(regime: Ints, place: Ints, rewards: Floats) -> tuple[Floats, Floats]:
    weight, mean = np.zeros((4, PARTITION)), np.zeros((4, PARTITION, 4))
    for g in range(4):
        for k in range(PARTITION):
            inside = (regime == g) & (place == k)
            weight[g, k] = inside.mean()
            if inside.any():
                mean[g, k] = rewards[inside].mean(axis=0)
    return weight, mean


def _report(trials: Trials, hidden_value: float, weight: Floats, mean: Floats) -> dict[str, Any]:
    right = trials.confusion.trace() / trials.confusion.sum()
    rows = trials.confusion / np.maximum(trials.confusion.sum(axis=1, keepdims=True), 1)
    return {
        "decisions": len(trials.hidden), "trades": trials.trades,
        "by_hidden_regime": _by_regime(trials, trials.hidden),
        "by_observed_regime": _by_regime(trials, trials.observed),
        "detector_right": round(float(right), 4),
        "detector_confusion": {h: dict(zip(REGIME_SYMBOLS, row, strict=True))
                               for h, row in zip(REGIME_SYMBOLS, rows.round(4).tolist(), strict=True)},
        "value_uniform_r": round(float((weight * mean.mean(axis=2)).sum()), 5),
        "value_best_per_cell_r": round(float((weight * mean.max(axis=2)).sum()), 5),
        "value_hidden_oracle_r": round(hidden_value, 5),
    }


def _by_regime(trials: Trials, regime: Ints) -> dict[str, Any]:
    """Per regime and strategy that traded: trades, their mean, deviation and d, and the mean of all decisions."""
    result: dict[str, Any] = {}
    for g, name in enumerate(REGIME_SYMBOLS):
        inside = regime == g
        entry: dict[str, Any] = {"share": round(float(inside.mean()), 4)}
        for a, strategy in enumerate(STRATEGIES[:3]):
            traded = trials.rewards[inside & (trials.sides[:, a] != 0), a]
            if len(traded) < 2:
                continue
            mean, sd = float(traded.mean()), float(traded.std(ddof=1))
            entry[strategy] = {
                "trades": len(traded), "mean_r": round(mean, 4), "sd_r": round(sd, 4), "d": round(mean / sd, 4),
                "d_error": round(1 / float(np.sqrt(len(traded))), 4),
                "mean_r_of_a_decision": round(float(trials.rewards[inside, a].mean()), 4),
            }
        result[name] = entry
    return result


def calibrate(
    trades: int, *, jobs: int = 2, params: market.Params = market.PLANTED, costs: fills.Costs = COSTS,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    """Generate at least so many trades and tabulate them.

    Args:
        trades: trades of all strategies.
        jobs: processes.
        params: of the market.
        costs: of a fill.
        progress: called with trades so far and in all.
    """
    parts: list[Trials] = []
    done, seed = 0, FIRST_SEED
    with ProcessPoolExecutor(jobs) as pool:
        while done < trades:
            several = range(seed, seed + AT_ONCE)
            seed += len(several)
            n = len(several)
            parts += pool.map(try_market, several, [BARS_A_MARKET] * n, [params] * n, [costs] * n)
            done = sum(p.trades for p in parts)
            if progress is not None:
                progress(done, trades)
    return tabulate(Trials(
        np.concatenate([p.hidden for p in parts]), np.concatenate([p.observed for p in parts]),
        np.concatenate([p.volatility for p in parts]), np.concatenate([p.sides for p in parts]),
        np.concatenate([p.rewards for p in parts]), np.sum([p.confusion for p in parts], axis=0),
    ))


def main() -> int:
    """Print the calibration as JSON."""
    parser = argparse.ArgumentParser(prog="python -m streams.laboratory", description=__doc__.split("\n")[0])
    parser.add_argument("--trades", type=int, default=200_000, help="trades to generate (default 200000)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--market", choices=market.MARKETS, default="planted", help="default planted")
    args = parser.parse_args()
    table = calibrate(args.trades, jobs=args.jobs, params=market.MARKETS[args.market],
                      progress=lambda n, of: print(f"\r{n} of {of} trades", end="", file=sys.stderr, flush=True))
    print(file=sys.stderr)
    print(json.dumps(table.report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
