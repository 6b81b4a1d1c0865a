"""Advantages against an oracle written from the definition, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.algorithms.gae import advantages

UNIT = st.floats(0, 1)


def slow(r: list[float], v: list[float], follow: list[float], term: list[bool], cut: list[bool], t: int,
         gamma: float, lam: float) -> float:
    """Sum of (gamma lam)^l delta_(t+l) over the rest of the episode, as the paper writes it."""
    total, weight = 0.0, 1.0
    for i in range(t, len(r)):
        total += weight * (r[i] + (0.0 if term[i] else gamma * follow[i]) - v[i])
        if term[i] or cut[i]:
            break
        weight *= gamma * lam
    return total


@given(st.data(), st.integers(1, 12), st.integers(1, 3), UNIT, UNIT)
def test_equal_to_the_definition(data: st.DataObject, steps: int, streams: int, gamma: float, lam: float) -> None:
    def table(cells: st.SearchStrategy) -> np.ndarray:
        row = st.lists(cells, min_size=streams, max_size=streams)
        return np.array(data.draw(st.lists(row, min_size=steps, max_size=steps)))

    numbers = st.floats(-10, 10)
    r, v, follow, term, cut = table(numbers), table(numbers), table(numbers), table(st.booleans()), table(st.booleans())
    found = advantages(r, v, follow, term, cut, gamma=gamma, lam=lam)
    for n in range(streams):
        columns = [x[:, n].tolist() for x in (r, v, follow, term, cut)]
        expected = [slow(*columns, t, gamma, lam) for t in range(steps)]
        assert found[:, n] == pytest.approx(expected, abs=1e-9)


def of_constant(steps: int, terminated: bool, gamma: float, lam: float, value: float = 0.0) -> np.ndarray:
    ends = np.zeros((steps, 1), np.bool_)
    ends[-1] = True
    none = np.zeros_like(ends)
    v = np.full((steps, 1), value)
    return advantages(np.ones((steps, 1)), v, v, ends if terminated else none, none if terminated else ends,
                      gamma=gamma, lam=lam)[:, 0]


def test_a_constant_reward_gives_a_geometric_sum() -> None:
    """Value 0: A_t is the sum of (gamma lam)^l over the steps left."""
    left = np.arange(9, -1, -1) + 1
    assert of_constant(10, True, 0.9, 0.8) == pytest.approx((1 - 0.72**left) / (1 - 0.72))


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_a_perfect_critic_leaves_no_advantage_where_time_ran_out(lam: float) -> None:
    """V = 1 / (1 - gamma) is the worth of a reward of 1 for ever: truncated, nothing is amiss; terminated, it is."""
    assert of_constant(10, False, 0.9, lam, 10.0) == pytest.approx(np.zeros(10), abs=1e-12)
    assert of_constant(10, True, 0.9, lam, 10.0)[-1] == pytest.approx(1 - 10)


def test_lambda_one_is_all_rewards_minus_the_value() -> None:
    r, v = np.array([[1.0], [2.0], [3.0]]), np.array([[5.0], [6.0], [7.0]])
    none, end = np.zeros((3, 1), np.bool_), np.array([[False], [False], [True]])
    found = advantages(r, v, np.roll(v, -1), end, none, gamma=1.0, lam=1.0)
    assert found[:, 0].tolist() == [1 + 2 + 3 - 5, 2 + 3 - 6, 3 - 7]


@given(st.floats(0, 1), st.floats(0, 1))
def test_an_episode_of_one_step_is_worth_reward_minus_value(gamma: float, lam: float) -> None:
    r, v, ends = np.array([[1.0], [-2.0]]), np.array([[0.25], [0.5]]), np.ones((2, 1), np.bool_)
    found = advantages(r, v, np.full((2, 1), np.nan), ends, ends, gamma=gamma, lam=lam)
    assert found[:, 0].tolist() == [0.75, -2.5]
