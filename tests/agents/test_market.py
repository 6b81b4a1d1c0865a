"""The made market: consistent bars, determinism, no drift from the future, and the effects that it promises."""

from __future__ import annotations

from dataclasses import replace
from math import gamma, pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.algorithms.market import (
    BEAR,
    BULL,
    FAIR,
    PLANTED,
    REGIMES,
    REVERSED,
    SIDEWAYS,
    VOLATILE,
    Law,
    Params,
    generate,
)
from agents.algorithms.regime import Thresholds, regime


@given(st.integers(0, 2**40), st.integers(1, 700), st.sampled_from([PLANTED, REVERSED, FAIR]))
@settings(max_examples=30, deadline=None)
def test_bars_are_consistent(seed: int, bars: int, params: Params) -> None:
    made = generate(seed, bars, params)
    assert all(len(column) == bars for column in made)
    assert (made.high >= np.maximum(made.open, made.close)).all()
    assert (made.low <= np.minimum(made.open, made.close)).all()
    assert (made.low > 0).all()
    assert (made.volume > 0).all()
    np.testing.assert_allclose(made.open[1:], made.close[:-1], rtol=1e-12)
    assert set(made.regime.tolist()) <= set(range(len(REGIMES)))
    assert made.regime[0] != VOLATILE


def test_the_seed_is_all() -> None:
    one, again, other = generate(5, 500), generate(5, 500), generate(6, 500)
    for name in one._fields:
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert np.any(one.close != other.close)
    with pytest.raises(ValueError, match="seed"):
        generate(-1, 10)
    with pytest.raises(ValueError, match="bars"):
        generate(1, 0)


def test_regimes_stay_and_all_come() -> None:
    hidden = generate(3, 20_000).regime
    changes = np.flatnonzero(np.diff(hidden)) + 1
    stays = np.diff(changes)
    assert stays.min() >= PLANTED.dwell_min
    assert stays.max() <= PLANTED.dwell_max
    first_deck = [int(hidden[0]), *(int(hidden[c]) for c in changes[:3])]
    assert sorted(first_deck) == [0, 1, 2, 3]


def test_noise_is_heavy_tailed_of_the_stated_size_and_without_edge_a_martingale() -> None:
    made = generate(1, 200_000, FAIR)
    returns = np.log(made.close / made.open)
    for place in range(4):
        inside = returns[made.regime == place]
        sigma = FAIR.sigma * (FAIR.volatile_scale if place == VOLATILE else 1)
        assert abs(inside.std() / sigma - 1) < 0.05
        assert abs(inside.mean()) < 4 * sigma / np.sqrt(len(inside))
        kurtosis = ((inside - inside.mean()) ** 4).mean() / inside.var() ** 2
        assert kurtosis > 4.5  # normal: 3; Student's t with 5 degrees: 9, reached slowly
    ranges = np.log(made.high / made.low)[made.regime == BULL]
    # mean range of a Brownian path is sqrt(8 / pi) of its scale (Feller 1951); sqrt(3 / 2) gamma(2) / gamma(2.5) is the
    # mean scale of a bar where its sum is Student's t with 5 degrees and variance 1
    assert abs(ranges.mean() / FAIR.sigma - sqrt(8 / pi) * sqrt(3 / 2) * gamma(2) / gamma(2.5)) < 0.02


def test_each_regime_moves_as_it_says() -> None:
    made = generate(2, 200_000)
    returns = np.log(made.close / made.open) / PLANTED.sigma
    assert abs(returns[made.regime == BULL].mean() - 0.5) < 0.03
    assert abs(returns[made.regime == BEAR].mean() + 0.5) < 0.03
    ahead = np.convolve(returns, np.ones(4), "full")[3:]  # sum of a bar and the three after it
    close = made.close
    for place, sign in ((SIDEWAYS, -1), (VOLATILE, 1)):
        signal, later = [], []
        for t in np.flatnonzero(made.regime == place)[30:-30]:
            if t < 30 or t + 5 > len(close) or not (made.regime[t - 25:t + 5] == place).all():
                continue
            if place == SIDEWAYS:  # outside of the band, written anew
                window = close[t - 19:t + 1]
                out = (close[t] - window.mean()) / window.std()
                side = int(np.sign(out)) if abs(out) > 1 else 0
            else:  # outside of the range
                top, bottom = made.high[t - 20:t].max(), made.low[t - 20:t].min()
                side = 1 if close[t] > top else -1 if close[t] < bottom else 0
            if side:
                signal.append(side)
                later.append(ahead[t + 1])
        toward = np.mean(np.array(signal) * np.array(later)) * sign
        assert toward > 0.5, REGIMES[place]


def test_what_comes_later_changes_nothing_before() -> None:
    """A parameter that matters in one regime only: bars before its first appearance stay as they are."""
    base, changed = generate(4, 3_000), generate(4, 3_000, replace(PLANTED, laws=(*PLANTED.laws[:3], Law())))
    first = int(np.flatnonzero(base.regime == VOLATILE)[0])
    np.testing.assert_array_equal(base.close[:first], changed.close[:first])
    assert np.any(base.close[first:] != changed.close[first:])


def test_the_regime_of_an_answering_market_is_its_own_trend() -> None:
    """Bull, bear and sideways are what the features' trend score says of the bars before; nothing else sets them."""
    made = generate(9, 4_000, REVERSED)
    returns = np.diff(np.log(made.close), prepend=np.log(100.0))
    label = "sideways"
    for t in range(40, 4_000):
        window = returns[t - 30:t]
        score = window.sum() / (window.std(ddof=1) * sqrt(30))
        quiet = made.regime[t] != VOLATILE
        label = REGIMES[made.regime[t - 1]]
        assert not quiet or REGIMES[made.regime[t]] == regime(label, score, 0.0, Thresholds())  # type: ignore[arg-type]


def test_an_unbroken_path_reaches_farther_and_moves_nothing_else() -> None:
    steps, unbroken = generate(2, 5_000, replace(FAIR, unbroken=False)), generate(2, 5_000, FAIR)
    for name in ("regime", "open", "close", "volume"):
        np.testing.assert_array_equal(getattr(steps, name), getattr(unbroken, name))
    assert (unbroken.high >= steps.high - 1e-9).all()
    assert (unbroken.low <= steps.low + 1e-9).all()
    assert np.mean(unbroken.high > steps.high) > 0.9
