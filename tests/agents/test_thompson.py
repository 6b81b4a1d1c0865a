"""Thompson's probabilities against closed forms and against sampling."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.algorithms.thompson import best_probabilities, normal_posterior, with_floor

MEAN = st.floats(-3, 3)
SD = st.floats(0.05, 5)


@given(MEAN, MEAN, SD, SD)
def test_two_actions_have_a_closed_form(a: float, b: float, s: float, t: float) -> None:
    """P(A > B) = Phi((a - b) / sqrt(s^2 + t^2))."""
    exact = 0.5 * (1 + erf((a - b) / sqrt(s * s + t * t) / sqrt(2)))
    assert best_probabilities((a, b), (s, t))[0] == pytest.approx(exact, abs=1e-3)


def test_four_actions_against_sampling() -> None:
    rng, n = np.random.default_rng(3), 400_000
    for _ in range(20):
        means, sds = rng.normal(size=4), np.exp(rng.normal(size=4))
        drawn = (means + sds * rng.normal(size=(n, 4))).argmax(axis=1)
        sampled = np.bincount(drawn, minlength=4) / n
        error = 4.5 * np.sqrt(sampled * (1 - sampled) / n) + 1e-3
        assert (np.abs(sampled - best_probabilities(means.tolist(), sds.tolist())) < error).all()


@given(st.lists(st.tuples(MEAN, SD), min_size=2, max_size=6), st.randoms())
def test_a_distribution_that_knows_no_order(posteriors: list[tuple[float, float]], rng: object) -> None:
    p = best_probabilities(*zip(*posteriors, strict=True))
    assert sum(p) == pytest.approx(1)
    assert min(p) >= 0
    backwards = best_probabilities(*zip(*reversed(posteriors), strict=True))
    assert backwards[::-1] == pytest.approx(p, abs=1e-9)


@given(st.lists(MEAN, min_size=2, max_size=5), SD, st.floats(-10, 10), st.floats(0.1, 10))
def test_shift_and_scale_change_nothing(means: list[float], sd: float, shift: float, scale: float) -> None:
    plain = best_probabilities(means, [sd] * len(means))
    bent = best_probabilities([m * scale + shift for m in means], [sd * scale] * len(means))
    assert bent == pytest.approx(plain, abs=1e-6)


def test_equal_posteriors_are_equally_likely() -> None:
    assert best_probabilities((1.0,) * 4, (0.3,) * 4) == pytest.approx((0.25,) * 4)


def test_a_certain_action_beside_an_uncertain_one() -> None:
    assert best_probabilities((0.0, 0.0, -0.5), (1e-6, 1.0, 1e-6))[1] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("sds", [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_what_is_no_posterior_is_refused(sds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="needed"):
        best_probabilities((0.0, 0.0), sds)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda x: sum(x) > 0))
def test_the_floor_holds_and_the_sum_stays(weights: list[float]) -> None:
    p = with_floor([w / sum(weights) for w in weights], 0.02)
    assert min(p) >= 0.02
    assert sum(p) == pytest.approx(1)


def test_a_floor_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to choose"):
        with_floor((0.5, 0.5), 0.5)


@given(MEAN, st.integers(0, 1000), SD, st.floats(0.1, 10))
def test_the_posterior_is_bayes_rule(mean: float, n: int, sd: float, prior_n: float) -> None:
    """Against the textbook: precisions add, means weigh by precision."""
    prior_precision, data_precision = prior_n / sd**2, n / sd**2
    got_mean, got_sd = normal_posterior(mean, n, sd, prior_n)
    assert got_sd == pytest.approx((prior_precision + data_precision) ** -0.5)
    assert got_mean == pytest.approx(mean * data_precision / (prior_precision + data_precision))
