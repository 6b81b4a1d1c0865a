"""The tabular learner against problems with known optima (gymnasium's toy texts) and against arithmetic."""

from __future__ import annotations

import random
from statistics import fmean
from typing import Any

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.algorithms.tabular import TabularQ, best_action, epsilon_at, epsilon_greedy, moved, step_size

REWARDS = st.lists(st.floats(-100, 100), min_size=1, max_size=200)


@given(REWARDS)
def test_a_step_of_one_over_n_gives_the_mean(rewards: list[float]) -> None:
    q = TabularQ(1, 1)
    for r in rewards:
        q.learn_one(0, 0, r, None)
    assert q.q[0][0] == pytest.approx(fmean(rewards), abs=1e-9)
    assert q.visits[0][0] == len(rewards)


def test_a_fixed_step_forgets_by_a_constant_share() -> None:
    estimate = 1.0
    for _ in range(10):
        estimate = moved(estimate, 0.0, step_size(999, 0.1, 0.0))
    assert estimate == pytest.approx(0.9**10)


def test_the_floor_holds() -> None:
    assert [step_size(n, None, 0.25) for n in (1, 2, 4, 8)] == [1.0, 0.5, 0.25, 0.25]


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5]), min_size=2, max_size=6), st.floats(0, 1))
def test_epsilon_greedy_is_a_distribution_around_the_best(q: list[float], epsilon: float) -> None:
    p = epsilon_greedy(q, epsilon, prefer=len(q) - 1)
    assert sum(p) == pytest.approx(1)
    assert min(p) >= epsilon / len(q) - 1e-12
    assert p[best_action(q, len(q) - 1)] == max(p)


def test_epsilon_decays_to_its_end() -> None:
    assert [epsilon_at(n, 1.0, 0.5, 0.2) for n in range(4)] == [1.0, 0.5, 0.25, 0.2]


def trained(env: Any, q: TabularQ, episodes: int, epsilon: tuple[float, float, float], limit: int = 100) -> None:
    """Epsilon-greedy Q-learning on a toy text, read from its table of transitions: seeded, and fast."""
    rng = random.Random(1)
    table = env.unwrapped.P
    start, *_ = (i for i, p in enumerate(env.unwrapped.initial_state_distrib) if p)
    for episode in range(episodes):
        state, rate = start, epsilon_at(episode, *epsilon)
        for _ in range(limit):
            action = rng.randrange(q.n_actions) if rng.random() < rate else q.greedy(state)
            rows = table[state][action]
            _, following, reward, done = rng.choices(rows, [row[0] for row in rows])[0]
            q.learn_one(state, action, float(reward), None if done else following)
            state = following
            if done:
                break


def value(env: Any, q: TabularQ, limit: int) -> float:
    """Expected return of the greedy policy within `limit` steps from the start: exact, by backward recursion."""
    table = env.unwrapped.P
    v = [0.0] * q.n_states
    for _ in range(limit):
        v = [sum(p * (r + (0.0 if done else v[s2])) for p, s2, r, done in table[s][q.greedy(s)])
             for s in range(q.n_states)]
    return sum(p * x for p, x in zip(env.unwrapped.initial_state_distrib, v, strict=True))


def test_frozen_lake_is_solved() -> None:
    """4x4, slippery: .744 is the best within 100 steps."""
    env = gymnasium.make("FrozenLake-v1", map_name="4x4", is_slippery=True)
    q = TabularQ(16, 4, gamma=0.99, alpha=0.05)
    trained(env, q, 20_000, (1.0, 0.9997, 0.05))
    assert value(env, q, 100) >= 0.74


def test_cliff_walking_is_solved() -> None:
    """-13 is the shortest way along the cliff."""
    env = gymnasium.make("CliffWalking-v1")
    q = TabularQ(48, 4, gamma=1.0, alpha=0.5)
    trained(env, q, 500, (0.1, 1.0, 0.1), limit=1000)
    assert value(env, q, 100) == -13


def test_without_a_discount_the_lake_is_not_solved() -> None:
    """Gamma 0 sees no further than one step: the oracles above do test the bootstrapping."""
    env = gymnasium.make("FrozenLake-v1", map_name="4x4", is_slippery=True)
    q = TabularQ(16, 4, gamma=0.0)
    trained(env, q, 2_000, (1.0, 0.999, 0.05))
    assert value(env, q, 100) < 0.5
