"""Tabular Q-learning, as arithmetic on one cell and as a small learner over many.

Watkins and Dayan 1992, Q-learning; Sutton and Barto 2018, Reinforcement Learning, chapters 2 and 6. With gamma 0 and
a step of 1/n the estimate is the sample mean of the rewards, which is the right thing where an action does not change
the next state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


def step_size(n: float, alpha: float | None, floor: float) -> float:
    """Step for the n-th outcome of a cell and action.

    Args:
        n: outcomes that the estimate rests on, this one included; a forgotten past lowers it.
        alpha: a fixed step; None means 1/n.
        floor: smallest step of 1/n, so that an old estimate still moves.

    >>> step_size(4, None, 0.01), step_size(1000, None, 0.01), step_size(4, 0.1, 0.01)
    (0.25, 0.01, 0.1)
    """
    return alpha if alpha is not None else max(1.0 / n, floor)


def moved(estimate: float, target: float, step: float) -> float:
    """The estimate, moved towards the target by a share `step` of the way."""
    return estimate + step * (target - estimate)


def best_action(q: Sequence[float], prefer: int = 0) -> int:
    """Action of the highest estimate; of equal ones the preferred action, else the first.

    >>> best_action((0.0, 1.0, 1.0)), best_action((0.0, 0.0, 0.0), prefer=2)
    (1, 2)
    """
    highest = max(q)
    return prefer if q[prefer] == highest else list(q).index(highest)


def epsilon_at(n: int, start: float, decay: float, end: float) -> float:
    """Exploration rate after n outcomes: start x decay^n, never below end."""
    return max(end, start * decay**n)


def epsilon_greedy(q: Sequence[float], epsilon: float, prefer: int = 0) -> tuple[float, ...]:
    """Probability of each action under epsilon-greedy.

    >>> epsilon_greedy((0.0, 1.0), 0.2)
    (0.1, 0.9)
    """
    share = epsilon / len(q)
    best = best_action(q, prefer)
    return tuple(1 - epsilon + share if i == best else share for i in range(len(q)))


@dataclass
class TabularQ:
    """A Q-table over numbered states, for problems with a next state.

    Attributes:
        gamma: discount of the next state's value.
        alpha: fixed step; None means 1/n.
        floor: smallest step of 1/n.
    """

    n_states: int
    n_actions: int
    gamma: float = 0.0
    alpha: float | None = None
    floor: float = 0.0
    q: list[list[float]] = field(init=False)
    visits: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.q = [[0.0] * self.n_actions for _ in range(self.n_states)]
        self.visits = [[0] * self.n_actions for _ in range(self.n_states)]

    def learn_one(self, state: int, action: int, reward: float, following: int | None) -> float:
        """Take one transition; `following` is None where the episode ended. Returns the temporal-difference error."""
        target = reward + (0.0 if following is None else self.gamma * max(self.q[following]))
        error = target - self.q[state][action]
        self.visits[state][action] += 1
        step = step_size(self.visits[state][action], self.alpha, self.floor)
        self.q[state][action] = moved(self.q[state][action], target, step)
        return error

    def greedy(self, state: int) -> int:
        """Action of the highest estimate."""
        return best_action(self.q[state])
