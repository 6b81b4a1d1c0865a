"""The claim of an edge: by hand, against simulation of the published medians, on outcomes without an edge."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.algorithms.edge import ALPHA, MIN_OUTCOMES, RHO, shown, smallest
from agents.algorithms.sequential import two_sided

Floats = NDArray[np.float64]
OUTCOMES = 10_000


def claimed(outcomes_RN: Floats) -> NDArray[np.bool_]:
    """Whether a run claims, at each number of outcomes from `MIN_OUTCOMES` [R, N]; written anew, on sums."""
    n_N = np.arange(1.0, outcomes_RN.shape[1] + 1)
    bound_N = np.array([two_sided(n + 1, RHO, ALPHA) for n in n_N])
    sums = np.cumsum(outcomes_RN, axis=1) - 1.0
    squares = np.cumsum(outcomes_RN**2, axis=1) + 1.0
    return (sums > bound_N * np.sqrt(squares / (n_N + 1))) & (n_N >= MIN_OUTCOMES)


def test_by_hand() -> None:
    assert shown(99, 1.0, 1.0) is None
    outcomes = np.tile([2.0, -1.0, 0.0, 0.0], 50)
    result = shown(200, float(outcomes.mean()), float(((outcomes - outcomes.mean()) ** 2).sum()))
    assert result is not None
    assert (result.n, result.mean_r, result.sd_r) == pytest.approx((200, 0.25, outcomes.std(ddof=1)))
    with_loss = np.append(outcomes, -1.0)
    b = two_sided(201, RHO, 0.01)
    lower = with_loss.mean() - with_loss.std() * b / sqrt(201**2 - b**2)
    assert result.lower_r == pytest.approx(lower)
    assert result.claim == (lower > 0)
    assert not result.claim


@given(st.integers(100, 20_000), st.floats(0.01, 3.0))
def test_the_smallest_edge_is_where_the_claim_turns(n: int, sd: float) -> None:
    squares = n * sd * sd
    least = smallest(n, squares)
    above, below = shown(n, least * 1.0001, squares), shown(n, least * 0.9999, squares)
    assert above is not None
    assert below is not None
    assert above.claim
    assert not below.claim
    assert above.smallest_r == pytest.approx(least)


def test_neutral_only_is_no_edge() -> None:
    result = shown(5000, 0.0, 0.0)
    assert result is not None
    assert not result.claim


def test_the_vectorised_claim_is_the_same() -> None:
    outcomes = np.random.default_rng(1).normal(0.2, 1, 600)
    flags = claimed(outcomes[None, :])[0]
    for n in range(1, 601, 7):
        part = outcomes[:n]
        result = shown(n, float(part.mean()), float(((part - part.mean()) ** 2).sum()))
        assert flags[n - 1] == (result is not None and result.claim)


@pytest.mark.parametrize(("edge", "median"), [(0.1, 1104), (0.15, 494), (0.2, 292), (0.3, 150)])
def test_a_real_edge_is_claimed_after_as_many_outcomes_as_stated(edge: float, median: int) -> None:
    """Outcomes of deviation 1 R; medians of 600 runs within a tenth."""
    runs = claimed(np.random.default_rng(2).normal(edge, 1.0, (600, 4000)))
    first = np.where(runs.any(axis=1), runs.argmax(axis=1) + 1, OUTCOMES)
    assert float(np.median(first)) == pytest.approx(median, rel=0.1)


@pytest.mark.parametrize("share", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("kind", ["t5", "stops and targets", "small wins"])
def test_without_an_edge_fewer_than_one_in_a_hundred_ever_claims(kind: str, share: float) -> None:
    """500 runs of 10,000 outcomes, a share of which are trades and the others 0; 11 is 1 % and 2.7 errors."""
    rng = np.random.default_rng(3)
    false = 0
    for _ in range(5):
        shape = (100, OUTCOMES)
        if kind == "t5":
            trades = rng.standard_t(5, shape)
        elif kind == "stops and targets":
            trades = np.where(rng.random(shape) < 1 / 3, 2.0, -1.0)
        else:
            trades = np.where(rng.random(shape) < 5 / 6, 0.2, -1.0)
        false += int(claimed(np.where(rng.random(shape) < share, trades, 0.0)).any(axis=1).sum())
    assert false <= 11
