"""The regime detector: hysteresis, symmetry, and that it finds hidden regimes again."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agents.algorithms.regime import Label, Thresholds, regime
from agents.features import Features
from schemas.events import Features as FeaturesEvent
from tests.agents.check import run
from tests.agents.test_features import candle

T = Thresholds()
LABELS: tuple[Label, ...] = ("bull", "bear", "sideways", "volatile")
labels = st.none() | st.sampled_from(LABELS)
trends = st.floats(-10, 10)
ratios = st.floats(0, 5)


def test_a_label_is_left_later_than_it_is_entered() -> None:
    between = (T.volatile_enter + T.volatile_exit) / 2
    assert [regime(p, 0.0, between, T) for p in ("volatile", "sideways")] == ["volatile", "sideways"]
    weak = (T.trend_enter + T.trend_exit) / 2
    assert [regime(p, weak, 1.0, T) for p in ("bull", "bear", "sideways", None)] == ["bull"] + ["sideways"] * 3
    assert [regime(p, -weak, 1.0, T) for p in ("bear", "bull", "sideways", None)] == ["bear"] + ["sideways"] * 3


def test_trends_turn_at_once_and_volatile_goes_before_them() -> None:
    assert regime("bull", -2.0, 1.0, T) == "bear"
    assert regime("bull", 5.0, 2.0, T) == "volatile"
    assert regime("volatile", 5.0, 1.0, T) == "bull"


@given(labels, trends, ratios)
def test_it_is_symmetric_and_settles(previous: Label | None, trend: float, ratio: float) -> None:
    mirror: dict[Label | None, Label | None] = {"bull": "bear", "bear": "bull"}
    label = regime(previous, trend, ratio, T)
    assert regime(mirror.get(previous, previous), -trend, ratio, T) == mirror.get(label, label)
    assert regime(label, trend, ratio, T) == label


def test_hidden_regimes_are_found_again() -> None:
    """At least 90 % of the bars, detection delays included, on regimes of 150 to 650 bars."""
    g = np.random.default_rng(5)
    hidden: list[str] = []
    price, bars, away = 100.0, [], 0.0
    order = ["sideways", "bull", "volatile", "bear", "sideways", "bear", "bull", "volatile"] * 3
    for name in order:
        away = 0.0
        for _ in range(int(g.integers(150, 650))):
            e = 0.005 * g.standard_normal()
            r = {"bull": 0.0025 + e, "bear": -0.0025 + e, "sideways": e - 0.15 * away, "volatile": 2.5 * e}[name]
            away += r
            close = price * float(np.exp(r))
            bars.append(candle(len(bars), price, max(price, close), min(price, close), close))
            hidden.append(name)
            price = close
    rows = [e for row in run(Features(), bars).rows for _, e in row if isinstance(e, FeaturesEvent)]
    pairs = [(r.regime, h) for r, h in zip(rows, hidden, strict=True) if r.ready]
    right = sum(a == b for a, b in pairs)
    assert right >= 0.9 * len(pairs), f"{right} of {len(pairs)}"
