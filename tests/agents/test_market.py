"""The made market: consistent bars, determinism, no drift from the future, and the effects that it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.algorithms.market import (
    BEAR,
    BULL,
    EDGELESS,
    PLANTED,
    REGIMES,
    SIDEWAYS,
    VOLATILE,
    Params,
    generate,
)


@given(st.integers(0, 2**40), st.integers(1, 700), st.sampled_from([PLANTED, EDGELESS]))
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
    regime = generate(3, 20_000).regime
    changes = np.flatnonzero(np.diff(regime)) + 1
    stays = np.diff(changes)
    assert stays.min() >= PLANTED.dwell_min
    assert stays.max() <= PLANTED.dwell_max
    first_deck = [int(regime[0]), *(int(regime[c]) for c in changes[:3])]
    assert sorted(first_deck) == [0, 1, 2, 3]


def test_noise_is_heavy_tailed_of_the_stated_size_and_without_edge_a_martingale() -> None:
    made = generate(1, 200_000, EDGELESS)
    returns = np.log(made.close / made.open)
    for regime in range(4):
        inside = returns[made.regime == regime]
        sigma = EDGELESS.sigma * (EDGELESS.volatile_scale if regime == VOLATILE else 1)
        assert abs(inside.std() / sigma - 1) < 0.05
        assert abs(inside.mean()) < 4 * sigma / np.sqrt(len(inside))
        kurtosis = ((inside - inside.mean()) ** 4).mean() / inside.var() ** 2
        assert kurtosis > 4.5  # normal: 3; Student's t with 5 degrees: 9, reached slowly
    ranges = np.log(made.high / made.low)[made.regime == BULL]
    # mean range of a normal walk of 6 steps whose ends sum to 1: about 1.3 (1.6 in the limit of many steps)
    assert 1.0 < ranges.mean() / EDGELESS.sigma < 1.6


def test_each_regime_moves_as_it_says() -> None:
    made = generate(2, 200_000)
    returns = np.log(made.close / made.open) / PLANTED.sigma
    assert abs(returns[made.regime == BULL].mean() - PLANTED.drift) < 0.03
    assert abs(returns[made.regime == BEAR].mean() + PLANTED.drift) < 0.03
    ahead = np.convolve(returns, np.ones(4), "full")[3:]  # sum of a bar and the three after it
    close = made.close
    for regime, sign in ((SIDEWAYS, -1), (VOLATILE, 1)):
        signal, later = [], []
        for t in np.flatnonzero(made.regime == regime)[30:-30]:
            if t < 30 or t + 5 > len(close) or not (made.regime[t - 25:t + 5] == regime).all():
                continue
            if regime == SIDEWAYS:  # outside of the band, written anew
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
        assert toward > 0.5, REGIMES[regime]


def test_what_comes_later_changes_nothing_before() -> None:
    """A parameter that matters in one regime only: bars before its first appearance stay as they are."""
    base, changed = generate(4, 3_000), generate(4, 3_000, Params(chase=0.0, fade=0.0))
    first = int(np.flatnonzero(base.regime == VOLATILE)[0])
    np.testing.assert_array_equal(base.close[:first], changed.close[:first])
    assert np.any(base.close[first:] != changed.close[first:])
