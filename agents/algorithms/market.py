"""A made market: four hidden regimes, heavy-tailed noise, and in each regime one strategy that pays.

It is a positive control for the machinery, not a model of any market: if a learner cannot find this edge, it finds
none. The edge is in the prices alone. Where it comes from:

- bull, bear: a steady drift, for trend following;
- sideways: a close that leaves the middle of its Bollinger bands is drawn back for a few bars, for mean reversion;
- volatile: `volatile_scale` times the noise; a close beyond the range of the 20 bars before it draws the price on for
  a few bars, for breakout; where nothing broke out lately, the price falls back to its means, against trend following.

The noise of a bar is Student's t with 5 degrees of freedom (Praetz 1972; Blattberg and Gonedes 1974, stock returns as
Student's t), made as a normal path of `SUBSTEPS` steps with one random scale a bar, so that high and low belong to a
path that was really walked. Each bar opens at the close before it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

REGIMES = ("bull", "bear", "sideways", "volatile")
BULL, BEAR, SIDEWAYS, VOLATILE = range(4)
BEST = ("trend_following", "trend_following", "mean_reversion", "breakout")
"""Strategy that pays in each regime, in the order of `REGIMES`."""

SUBSTEPS = 6
DEGREES = 5
WINDOW = 20  # bars of the range that breakout looks at, and of the bands that mean reversion looks at
FAST, SLOW = 14, 50  # the exponential means that trend following looks at
FIRST_PRICE = 100.0

FEE_BPS, HALF_SPREAD_BPS, SLIPPAGE_BPS = 9.5, 1.0, 1.0
"""Costs of a fill that leave the planted edge its size."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """What the market is made of.

    Attributes:
        sigma: standard deviation of a bar's noise, log price, in the quiet regimes.
        volatile_scale: times sigma in the volatile regime.
        drift: of bull and bear, in sigma a bar.
        pull: sideways drift back after a close outside of the band, in sigma a bar.
        chase: volatile drift on after a close outside of the range, in volatile sigma a bar.
        lasting_bars: how long a pull or a chase lasts.
        fade: drift back to the means without a breakout, in volatile sigma a bar.
        dwell_min, dwell_max: length of a stay in a regime, bars, uniform.
    """

    sigma: float = 0.0025
    volatile_scale: float = 2.5
    drift: float = 0.5
    pull: float = 0.55
    chase: float = 0.385
    lasting_bars: int = 4
    fade: float = 0.3
    dwell_min: int = 300
    dwell_max: int = 900


PLANTED = Params()
EDGELESS = Params(drift=0.0, pull=0.0, chase=0.0, fade=0.0)


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
    drift_T, close_T = _drifts(regime, path_TK, scale_T, params)
    log_open_T = np.concatenate(([0.0], close_T[:-1]))
    walked_TK = path_TK + drift_T[:, None] * (np.arange(1, SUBSTEPS + 1) / SUBSTEPS)
    open_T = FIRST_PRICE * np.exp(log_open_T)
    close = FIRST_PRICE * np.exp(close_T)
    high = np.maximum(FIRST_PRICE * np.exp(log_open_T + walked_TK.max(axis=1)), np.maximum(open_T, close))
    low = np.minimum(FIRST_PRICE * np.exp(log_open_T + walked_TK.min(axis=1)), np.minimum(open_T, close))
    volume = 1000.0 * heavy_T * scale_T / params.sigma * np.exp(0.3 * rng.standard_normal(bars))
    return Market(regime, open_T, high, low, close, volume)


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
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Drift of each bar and log close after it. The drift of a bar rests on the bars before it only."""
    labels, noises, scales = regime.tolist(), path_TK[:, -1].tolist(), scale_T.tolist()
    tops, bottoms = path_TK.max(axis=1).tolist(), path_TK.min(axis=1).tolist()
    memory = _Memory()
    drifts, closes = [], []
    log_price, before, lasting = 0.0, -1, params.lasting_bars
    for label, sigma, noise, top, bottom in zip(labels, scales, noises, tops, bottoms, strict=True):
        if label != before:
            before, side, since = label, 0, lasting
        if label == BULL:
            drift = params.drift * sigma
        elif label == BEAR:
            drift = -params.drift * sigma
        elif label == SIDEWAYS:
            side, since = (-outside, 0) if (outside := memory.outside_band()) else (side, since + 1)
            drift = params.pull * sigma * side if since < lasting else 0.0
        else:
            side, since = (memory.broke, 0) if memory.broke else (side, since + 1)
            drift = sigma * (params.chase * side if since < lasting else params.fade * memory.to_means())
        opened = log_price
        log_price += drift + noise
        drifts.append(drift)
        closes.append(log_price)
        # the drift moves the turning points of the path a little; for the memory of the range that is near enough
        high, low = opened + max(top, 0.0) + max(drift, 0.0), opened + min(bottom, 0.0) + min(drift, 0.0)
        memory.add(max(high, log_price), min(low, log_price), log_price)
    return np.array(drifts), np.array(closes)


class _Memory:
    """What the strategies see of the bars so far: the bands, the range, the exponential means. Prices are logs."""

    def __init__(self) -> None:
        self.closes, self.highs, self.lows = deque([0.0]), deque([0.0]), deque([0.0])
        self.broke = 0  # 1 or -1 where the newest close left the range of the bars before it
        self._fast = self._slow = 1.0
        self._price = 1.0

    def add(self, high: float, low: float, close: float) -> None:
        """A bar more."""
        self.broke = 1 if close > max(self.highs) else -1 if close < min(self.lows) else 0
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

    def to_means(self) -> int:
        """Direction back to both means; 0 between them."""
        if self._price > self._fast and self._price > self._slow:
            return -1
        return 1 if self._price < self._fast and self._price < self._slow else 0
