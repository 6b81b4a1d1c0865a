"""What a trading policy sees: one function for the simulator, for training and for live.

A tape holds, for each bar, its prices and `COLUMNS` that follow from its features: returns in units of volatility,
never price levels, on fixed scales, so that nothing of the future is in them and nothing has to be learned before they
can be used. What a feed lacks is NaN. A column that is mostly absent is dropped: it counts as 0 for everyone, and the
policy says so. Where another column is absent the only valid action is HOLD.

The spread is one of the numbers that the policy was meant to see; no feed has it yet, so it always stands among the
dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, log, log1p, nan, pi, sin, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.algorithms.fills import grid_points

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

REGIMES = ("bull", "bear", "sideways", "volatile")
INPUTS = ("return_1", "return_5", "return_15", "volatility_30", "volatility_ratio", "rsi_14", "macd", "trend_strength",
          "volume_ratio_20", "atr_14_pct")
"""Fields of the features that a row is made of, beside prices, time and regime."""
PRICES = ("open_ms", "open", "high", "low", "close", "atr_pct", "volatility")
COLUMNS = ("return_1", "return_5", "return_15", "volatility", "rsi", "macd", "trend", "volume", "time_sin", "time_cos",
           *REGIMES)
POSITION = ("side", "size", "equity_over_balance", "unrealised")
FEATURES = len(COLUMNS) + len(POSITION)
"""F, numbers in an observation."""
ROW = len(PRICES) + len(COLUMNS)
NO_FEED = ("spread",)
DAY_MS = 86_400_000
LIMIT = 5.0
MOSTLY = 0.5
EQUITY_SCALE, UNREALISED_SCALE = 20.0, 5.0
"""A stop at 1 % of equity is .2; a move of 5 bars' deviations is 1."""


def row(
    open_ms: int, interval_ms: int, open_: float, high: float, low: float, close: float, regime: str | None,
    values: Mapping[str, Any],
) -> tuple[float, ...]:
    """A row of a tape, [ROW].

    Args:
        open_ms: start of the bar.
        interval_ms: its length.
        values: `INPUTS` of the bar at its close; None or absent: not known.
    """
    v: dict[str, float] = {name: nan if values.get(name) is None else values[name] for name in INPUTS}
    deviation = v["volatility_30"]
    unit = deviation if deviation > 0 else nan
    angle = 2 * pi * ((open_ms + interval_ms) % DAY_MS) / DAY_MS
    columns = (
        v["return_1"] / unit, v["return_5"] / (unit * sqrt(5)), v["return_15"] / (unit * sqrt(15)),
        log(v["volatility_ratio"]) if v["volatility_ratio"] > 0 else nan,
        v["rsi_14"] / 25 - 2, v["macd"] / unit, v["trend_strength"] / 2, log1p(v["volume_ratio_20"]) - log(2),
        sin(angle), cos(angle), *(nan if regime is None else float(regime == label) for label in REGIMES),
    )
    clipped = (min(max(c, -LIMIT), LIMIT) if c == c else nan for c in columns)
    return (float(open_ms), open_, high, low, close, v["atr_14_pct"], deviation, *clipped)


@dataclass(frozen=True, eq=False)
class Tape:
    """Bars in order of time, T of them, at least 2.

    Attributes:
        rows: of `row`, [T, ROW].
        interval_ms: length of a bar.
    """

    rows: Floats
    interval_ms: int

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != ROW or len(self.rows) < 2:
            raise ValueError(f"rows {self.rows.shape}; [T, {ROW}] is needed, T at least 2")
        if not (np.diff(self.rows[:, 0]) > 0).all():
            raise ValueError("rows are not in order of time")
        if not (np.isfinite(self.rows[:, :5]).all() and (self.rows[:, 1:5] > 0).all()):
            raise ValueError("prices must be finite numbers above 0")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> Floats:
        """[T, C]; NaN where absent."""
        return self.rows[:, len(PRICES):]

    @property
    def follows(self) -> Flags:
        """Whether a bar begins where the one before it ended, [T]; the first does not."""
        opened = self.rows[:, 0]
        return np.concatenate(([False], np.diff(opened) == self.interval_ms))

    def funding_points(self, every_ms: int) -> NDArray[np.int64]:
        """Funding times after each bar's open up to its close, [T]."""
        opened = self.rows[:, 0].astype(np.int64).tolist()
        return np.array([grid_points(t + 1, t + self.interval_ms + 1, every_ms) for t in opened], np.int64)

    def distances(self, stop_atr: float) -> Floats:
        """Distance of a stop, in price, as known at each close, [T]; 0 where the true range is not known."""
        found: Floats = np.nan_to_num(stop_atr * self.rows[:, 5] * self.rows[:, 4], nan=0.0)
        return found


def dropped(tape: Tape) -> tuple[str, ...]:
    """Columns that are absent in most rows, and those that no feed has."""
    absent = np.isnan(tape.columns).mean(axis=0) > MOSTLY
    return (*NO_FEED, *(name for name, gone in zip(COLUMNS, absent, strict=True) if gone))


def seen(columns: Floats, mask: Sequence[str]) -> tuple[Floats, Flags]:
    """Columns as a policy sees them, 0 where dropped or absent, [.., C]; and whether no other is absent, [..]."""
    kept = np.array([name not in mask for name in COLUMNS])
    absent = np.isnan(columns)
    return np.where(absent | ~kept, 0.0, columns), ~(absent & kept).any(axis=-1)


def observation(
    columns: Floats, volatility: Any, close: Any, side: Any, quantity: Any, entry_price: Any, balance: Any,
    equity: Any, max_leverage: float,
) -> Floats:
    """What the networks get, [.., F]: the market, then the account. Everything but the columns is [..].

    Args:
        columns: of `seen`, [.., C].
        volatility: standard deviation of a bar's log return; NaN or 0 where not known.
        close: of the bar.
        side, quantity, entry_price, balance, equity: of the account at that close.
        max_leverage: of the rules.
    """
    held = side != 0
    known = held & (volatility > 0)
    money = np.maximum(balance, 1e-9)
    moved = np.where(known, side * (close / np.where(held, entry_price, 1.0) - 1.0), 0.0)
    account = (
        side,
        np.clip(quantity * close / money / max_leverage, 0.0, 2.0),
        np.clip((equity / money - 1.0) * EQUITY_SCALE, -LIMIT, LIMIT),
        np.clip(moved / np.where(known, volatility, 1.0) / UNREALISED_SCALE, -LIMIT, LIMIT),
    )
    return np.concatenate((columns, np.stack(np.broadcast_arrays(*account), axis=-1)), axis=-1)
