"""Made markets: four hidden regimes, heavy-tailed noise, and in each regime one strategy that pays, or none.

They are controls for the machinery, not models of any market: a learner that cannot find this edge finds none, one
that finds the same in its twin learns nothing, and one that finds an edge in the fair walk invents it. The edge is in
the prices alone. Where it comes from in `PLANTED`:

- bull, bear: a steady drift, for trend following;
- sideways: a close that leaves the middle of its Bollinger bands is drawn back for a few bars, for mean reversion;
- volatile: `volatile_scale` times the noise; a close beyond the range of the 20 bars before it draws the price on for
  a few bars, for breakout; where nothing broke out lately, the price falls back to its means, against trend following.

`REVERSED`, its twin, pays another strategy in each regime. Where it is not volatile it answers to its own trend, as
the regime is detected by: while the last 30 bars show none, a breakout draws the price on; once they do, a close
outside of the bands is drawn back. In volatile stays the price runs away from its means, for trend following. `FAIR`
has the same noise and changes of volatility and no drift at all: nothing can be learned there.

The noise of a bar is Student's t with 5 degrees of freedom (Praetz 1972; Blattberg and Gonedes 1974, stock returns as
Student's t), made as a normal path of `SUBSTEPS` steps with one random scale a bar, so that high and low belong to a
path that was really walked. Each bar opens at the close before it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.algorithms.regime import Label, Thresholds
from agents.algorithms.regime import regime as label_of

REGIMES: tuple[Label, ...] = ("bull", "bear", "sideways", "volatile")
BULL, BEAR, SIDEWAYS, VOLATILE = range(4)

SUBSTEPS = 6
DEGREES = 5
WINDOW = 20  # bars of the range that breakout looks at, and of the bands that mean reversion looks at
TREND_BARS = 30  # bars of the trend score that the regime is detected by
THRESHOLDS = Thresholds()
FAST, SLOW = 14, 50  # the exponential means that trend following looks at
FIRST_PRICE = 100.0

FEE_BPS, HALF_SPREAD_BPS, SLIPPAGE_BPS = 9.5, 1.0, 1.0
"""Costs of a fill that leave the planted edge its size."""


class Law(NamedTuple):
    """What drives the price in one regime, in the regime's own standard deviations a bar.

    Attributes:
        steady: drift where nothing else draws, up above 0.
        means: drift back to both exponential means where nothing else draws; below 0: away from them.
        pull: drift back after a close outside of the bands, for `lasting_bars`; 0: such a close means nothing.
        chase: drift on after a close outside of the range, for `lasting_bars`; 0: means nothing. Not with a pull.
    """

    steady: float = 0.0
    means: float = 0.0
    pull: float = 0.0
    chase: float = 0.0


NO_LAW = Law()


@dataclass(frozen=True, kw_only=True)
class Params:
    """What the market is made of.

    Attributes:
        laws: what drives the price, in the order of `REGIMES`.
        best: strategy that pays most a decision in each regime, in the same order; empty where none pays.
        sigma: standard deviation of a bar's noise, log price, in the quiet regimes.
        volatile_scale: times sigma in the volatile regime.
        lasting_bars: how long a pull or a chase lasts.
        answering: bull, bear and sideways are not stays but what the trend score of the bars so far says, and a pull
            or a chase ends before the next begins, whatever the regime has become.
        unbroken: high and low are those of an unbroken path, not of its `SUBSTEPS` steps.
        dwell_min, dwell_max: length of a stay in a regime, bars, uniform.
    """

    laws: tuple[Law, Law, Law, Law]
    best: tuple[str, ...]
    sigma: float = 0.0025
    volatile_scale: float = 2.5
    lasting_bars: int = 4
    answering: bool = False
    unbroken: bool = False
    dwell_min: int = 300
    dwell_max: int = 900


PLANTED = Params(
    laws=(Law(steady=0.5), Law(steady=-0.5), Law(pull=0.55), Law(chase=0.385, means=0.3)),
    best=("trend_following", "trend_following", "mean_reversion", "breakout"),
)
"""In each regime one strategy earns .5 of its standard deviation a trade, after all costs."""

REVERSED = Params(
    laws=(Law(pull=0.75), Law(pull=0.75), Law(chase=0.93, means=0.2), Law(means=-0.355)),
    answering=True,
    best=("mean_reversion", "mean_reversion", "breakout", "trend_following"),
)
"""The same regimes and noise, and in each of them another strategy pays than in `PLANTED`."""

FAIR = Params(laws=(NO_LAW, NO_LAW, NO_LAW, NO_LAW), best=(), unbroken=True)
"""A fair walk: the same noise and changes of volatility, the log price a martingale. Nothing pays, even without costs:
its path is unbroken, so a stop that is filled at its level gains nothing over the walk (`docs/decisions/0063`)."""

MARKETS = {"planted": PLANTED, "reversed": REVERSED, "fair": FAIR}


class Market(NamedTuple):
    """Bars of a made market.

    Attributes:
        regime: hidden regime of each bar, index into `REGIMES` [T].
        open, high, low, close: prices, quote currency [T].
        volume: base currency [T].
    """

    regime: NDArray[np.int8]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]


def generate(seed: int, bars: int, params: Params = PLANTED) -> Market:
    """Make a market.

    Args:
        seed: the same seed, bars and parameters make the same market.
        bars: number of bars.
        params: what it is made of.

    Raises:
        ValueError: bars below 1 or a negative seed.
    """
    if bars < 1 or seed < 0:
        raise ValueError(f"bars must be at least 1 and seed at least 0, not {bars} and {seed}")
    rng = np.random.Generator(np.random.PCG64(seed))
    regime = _regimes(rng, bars, params)
    scale_T = params.sigma * np.where(regime == VOLATILE, params.volatile_scale, 1.0)
    # t_v = normal / sqrt(chi2_v / v); times sqrt((v - 2) / v) it has variance 1
    heavy_T = np.sqrt((DEGREES - 2) / rng.chisquare(DEGREES, bars))
    steps_TK = rng.standard_normal((bars, SUBSTEPS)) * (scale_T * heavy_T / np.sqrt(SUBSTEPS))[:, None]
    path_TK = np.cumsum(steps_TK, axis=1)
    regime, drift_T, close_T = _drifts(regime, path_TK, scale_T, params)
    log_open_T = np.concatenate(([0.0], close_T[:-1]))
    walked_TK = path_TK + drift_T[:, None] * (np.arange(1, SUBSTEPS + 1) / SUBSTEPS)
    open_T = FIRST_PRICE * np.exp(log_open_T)
    close = FIRST_PRICE * np.exp(close_T)
    volume = 1000.0 * heavy_T * scale_T / params.sigma * np.exp(0.3 * rng.standard_normal(bars))
    top_T, bottom_T = walked_TK.max(axis=1), walked_TK.min(axis=1)
    if params.unbroken:
        top_T, bottom_T = _extremes(rng, walked_TK, scale_T * heavy_T / np.sqrt(SUBSTEPS))
    high = np.maximum(FIRST_PRICE * np.exp(log_open_T + top_T), np.maximum(open_T, close))
    low = np.minimum(FIRST_PRICE * np.exp(log_open_T + bottom_T), np.minimum(open_T, close))
    return Market(regime, open_T, high, low, close, volume)


def _extremes(
    rng: np.random.Generator, path_TK: NDArray[np.float64], step_T: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Highest and lowest point of each bar's walk, between its steps too.

    Between two points a Brownian path is a bridge, and the law of a bridge's maximum is known in closed form
    (Karatzas and Shreve 1991, chapter 2.8): (a + b + sqrt((b - a)^2 - 2 v ln U)) / 2 with variance v and U uniform.
    Maximum and minimum of one step are drawn apart, which matters only where one step holds both a stop and a target.

    Args:
        path_TK: the walk at its steps, from 0 at the open.
        step_T: standard deviation of a step.
    """
    from_TK = np.concatenate((np.zeros((len(path_TK), 1)), path_TK[:, :-1]), axis=1)
    sum_TK, gap_TK = path_TK + from_TK, (path_TK - from_TK) ** 2
    spread_T1 = -2.0 * step_T[:, None] ** 2
    up_TK = np.sqrt(gap_TK + spread_T1 * np.log1p(-rng.random(path_TK.shape)))
    down_TK = np.sqrt(gap_TK + spread_T1 * np.log1p(-rng.random(path_TK.shape)))
    return ((sum_TK + up_TK) / 2).max(axis=1), ((sum_TK - down_TK) / 2).min(axis=1)


def _regimes(rng: np.random.Generator, bars: int, params: Params) -> NDArray[np.int8]:
    """Hidden regimes: decks of all four in random order, no regime twice in a row, never volatile first.

    Decks, so that a market of some thousand bars has met them all. A detector of volatility needs to have seen the
    usual before it can tell the unusual.
    """
    regime = np.empty(bars, dtype=np.int8)
    at, last = 0, VOLATILE
    while at < bars:
        deck = rng.permutation(len(REGIMES))
        while deck[0] == last:
            deck = rng.permutation(len(REGIMES))
        for label in deck:
            stay = int(rng.integers(params.dwell_min, params.dwell_max + 1))
            regime[at:at + stay] = label
            at += stay
        last = int(deck[-1])
    return regime


def _drifts(
    regime: NDArray[np.int8], path_TK: NDArray[np.float64], scale_T: NDArray[np.float64], params: Params
) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64]]:
    """Regime of each bar, its drift and the log close after it. All of a bar rests on the bars before it only."""
    stays, noises, scales = regime.tolist(), path_TK[:, -1].tolist(), scale_T.tolist()
    tops, bottoms = path_TK.max(axis=1).tolist(), path_TK.min(axis=1).tolist()
    memory, draw = _Memory(), _Draw(params)
    labels, drifts, closes = [], [], []
    log_price, label = 0.0, SIDEWAYS
    for stay, sigma, noise, top, bottom in zip(stays, scales, noises, tops, bottoms, strict=True):
        label = _answered(label, stay, memory) if params.answering else stay
        drift = sigma * draw.next(label, memory)
        opened = log_price
        log_price += drift + noise
        labels.append(label)
        drifts.append(drift)
        closes.append(log_price)
        # the drift moves the turning points of the path a little; for the memory of the range that is near enough
        high, low = opened + max(top, 0.0) + max(drift, 0.0), opened + min(bottom, 0.0) + min(drift, 0.0)
        memory.add(max(high, log_price), min(low, log_price), log_price)
    return np.array(labels, dtype=np.int8), np.array(drifts), np.array(closes)


def _answered(before: int, stay: int, memory: _Memory) -> int:
    """Regime of a market that answers to its own trend: volatile where it is made so, else by the bars before."""
    if stay == VOLATILE:
        return VOLATILE
    score = memory.trend_strength()
    return REGIMES.index(label_of(REGIMES[before], score, 0.0, THRESHOLDS))


class _Draw:
    """Where the price is drawn to, and for how long yet."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._label = -1
        self._strength, self._left = 0.0, 0

    def next(self, label: int, memory: _Memory) -> float:
        """Drift of the next bar, in the regime's standard deviations."""
        law, lasting = self._params.laws[label], self._params.lasting_bars
        if label != self._label and not self._params.answering:
            self._left = 0
        self._label = label
        self._left -= 1
        if self._left <= 0 or not self._params.answering:
            if law.pull and (side := memory.outside_band()):
                self._strength, self._left = -side * law.pull, lasting
            elif law.chase and memory.broke:
                self._strength, self._left = memory.broke * law.chase, lasting
        if self._left > 0:
            return self._strength
        return law.steady + (law.means * memory.to_means() if law.means else 0.0)


class _Memory:
    """What the strategies see of the bars so far: the bands, the range, the exponential means. Prices are logs."""

    def __init__(self) -> None:
        self.closes, self.highs, self.lows = deque([0.0]), deque([0.0]), deque([0.0])
        self.broke = 0  # 1 or -1 where the newest close left the range of the bars before it
        self._returns = deque([0.0])
        self._fast = self._slow = 1.0
        self._price = 1.0

    def add(self, high: float, low: float, close: float) -> None:
        """A bar more."""
        self.broke = 1 if close > max(self.highs) else -1 if close < min(self.lows) else 0
        self._returns.append(close - self.closes[-1])
        if len(self._returns) > TREND_BARS:
            self._returns.popleft()
        for window, value in ((self.closes, close), (self.highs, high), (self.lows, low)):
            window.append(value)
            if len(window) > WINDOW:
                window.popleft()
        self._price = exp(close)
        self._fast += (self._price - self._fast) * (2.0 / (FAST + 1))
        self._slow += (self._price - self._slow) * (2.0 / (SLOW + 1))

    def outside_band(self) -> int:
        """1 or -1 where the newest close is above or below the middle by more than one standard deviation."""
        n = len(self.closes)
        middle = sum(self.closes) / n
        away = self.closes[-1] - middle
        if away * away * n <= sum([(x - middle) ** 2 for x in self.closes]):
            return 0
        return 1 if away > 0 else -1

    def trend_strength(self) -> float:
        """Sum of the last returns over its standard deviation without a drift, as `market.features` defines it."""
        n = len(self._returns)
        total = sum(self._returns)
        squares = sum([x * x for x in self._returns]) - total * total / n
        return total / sqrt(squares / (n - 1) * n) if n == TREND_BARS and squares > 0 else 0.0

    def to_means(self) -> int:
        """Direction back to both means; 0 between them."""
        if self._price > self._fast and self._price > self._slow:
            return -1
        return 1 if self._price < self._fast and self._price < self._slow else 0
