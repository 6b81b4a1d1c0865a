"""Indicators against numbers worked out by hand and against the statistics module."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.algorithms import indicators as ind

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60).map(tuple)


def test_push_keeps_the_newest() -> None:
    window: ind.Window = ()
    for x in range(5):
        window = ind.push(window, float(x), 3)
    assert window == (2.0, 3.0, 4.0)


@given(values)
def test_mean_and_deviation_are_those_of_the_statistics_module(window: tuple[float, ...]) -> None:
    scale = max(map(abs, window))
    assert ind.mean(window) == pytest.approx(statistics.fmean(window), rel=1e-12, abs=1e-12 * scale)
    assert ind.deviation(window) == pytest.approx(statistics.stdev(window), rel=1e-9, abs=1e-12 * scale)
    assert ind.deviation(window, ddof=0) == pytest.approx(statistics.pstdev(window), rel=1e-9, abs=1e-12 * scale)


def test_wilder_is_a_plain_mean_at_first() -> None:
    level = 0.0
    for count, x in enumerate((1.0, 2.0, 6.0), start=1):
        level = ind.wilder(level, x, count, 3)
    assert level == pytest.approx(3.0)
    assert ind.wilder(3.0, 6.0, 4, 3) == pytest.approx(4.0)


def test_directional_movement_takes_the_larger_side_only() -> None:
    assert ind.directional(12, 9, 10, 8.5) == (2, 0.0)
    assert ind.directional(10, 6, 9.5, 8) == (0.0, 2)
    assert ind.directional(10, 8, 10, 8) == ind.directional(11, 7, 10, 8) == (0.0, 0.0)
    assert ind.directional_index(0.0, 0.0) == 0.0
    assert ind.directional_index(3.0, 1.0) == 50.0


def test_true_range_sees_gaps() -> None:
    assert [ind.true_range(11, 9, c) for c in (10, 5, 20)] == [2, 6, 11]


def test_undefined_is_none() -> None:
    assert ind.relative_strength(0.0, 0.0) is ind.position(1, 1, 1) is ind.ratio(1, 0) is None
    assert (ind.relative_strength(1.0, 0.0), ind.position(3, 1, 5)) == (100.0, 0.5)


@given(st.lists(st.floats(1e-9, 1e9), min_size=300, max_size=300), st.floats(1e-12, 1e12))
def test_one_wild_value_moves_the_usual_level_by_a_bounded_step(series: list[float], wild: float) -> None:
    level = 0.0
    for count, x in enumerate(series, start=1):
        level = ind.usual_level(level, x, count, 3000, 0.1, 0.3)
    after = ind.usual_level(level, wild, 301, 3000, 0.1, 0.3)
    assert -0.3 * 2 / 302 - 1e-12 <= after - level <= 0.1 * 2 / 302 + 1e-12
