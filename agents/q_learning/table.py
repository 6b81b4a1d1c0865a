"""The Q-table: its cells, how one outcome moves one of them, what is drawn from, what is published."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple, TypeVar

import msgspec

from agents.algorithms.river_state import Moments
from agents.algorithms.tabular import best_action, epsilon_at, epsilon_greedy, moved, step_size
from agents.algorithms.thompson import best_probabilities, normal_posterior, with_floor
from agents.q_learning.config import N_ACTIONS, QLearningConfig
from schemas.events import REGIME_SYMBOLS, STRATEGY_SYMBOLS, Cell, Tabular

BUCKETS = 3
KEYS = tuple(f"{regime}|vol:{bucket}" for regime in REGIME_SYMBOLS for bucket in range(BUCKETS))
INDEX = {key: i for i, key in enumerate(KEYS)}
T = TypeVar("T")
UNIFORM = (1 / N_ACTIONS,) * N_ACTIONS

PRIOR_SD_R = 1.0
"""Standard deviation of a reward before `MIN_REWARDS` were seen: one unit of risk."""
MIN_REWARDS = 10
OWN_SD_OUTCOMES = 10.0
"""Outcomes at which a strategy's own variance weighs as much as the one pooled over all: neutral always earns 0, so
its estimate is certain, but three trades in a row without a signal do not make a strategy certain."""
MIN_SD_R = 1e-6
"""Smallest standard deviation: where every reward was equal, a posterior still has a width."""


class QCell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell; arrays in the order of the strategies.

    Attributes:
        q: estimates, R.
        n: outcomes that each estimate rests on; below `visits` after a drift alarm or where the step has its floor.
        visits: outcomes seen.
        probabilities: what is drawn from.
    """

    q: tuple[float, ...] = (0.0,) * N_ACTIONS
    n: tuple[int, ...] = (0,) * N_ACTIONS
    visits: tuple[int, ...] = (0,) * N_ACTIONS
    probabilities: tuple[float, ...] = UNIFORM


class Move(NamedTuple):
    """What one outcome did to a cell. `residual` is reward - estimate before."""

    cell: QCell
    q_before: float
    q_after: float
    step: float
    residual: float


def pooled_sd(rewards: Iterable[Moments]) -> float:
    """Standard deviation of a reward around its strategy's mean, R; all strategies together."""
    seen = [m for m in rewards if m.n > 1]
    n = sum(m.n for m in seen)
    if n < MIN_REWARDS:
        return PRIOR_SD_R
    return max(sqrt(sum(m.squares for m in seen) / (n - len(seen))), MIN_SD_R)


def strategy_sds(rewards: tuple[Moments, ...]) -> tuple[float, ...]:
    """Standard deviation of a reward of each strategy, R, drawn towards the pooled one where outcomes are few."""
    prior = pooled_sd(rewards) ** 2 * OWN_SD_OUTCOMES
    return tuple(max(sqrt((m.squares + prior) / (m.n + OWN_SD_OUTCOMES)), MIN_SD_R) for m in rewards)


def learned(cell: QCell, action: int, reward: float, config: QLearningConfig) -> Move:
    """The cell after one outcome of an action; its probabilities are still the old ones."""
    q, n = cell.q[action], cell.n[action] + 1
    step = step_size(n, config.alpha, config.alpha_floor)
    target = reward + config.gamma * max(cell.q) if config.gamma else reward
    after = moved(q, target, step)
    memory = int(1 / (config.alpha or config.alpha_floor))
    new = QCell(
        q=with_item(cell.q, action, after), n=with_item(cell.n, action, min(n, memory)),
        visits=with_item(cell.visits, action, cell.visits[action] + 1), probabilities=cell.probabilities,
    )
    return Move(new, q, after, step, reward - q)


def forgetting(cell: QCell, action: int, outcomes: int) -> QCell:
    """The cell, an action's estimate resting on no more than that many outcomes: it moves faster, and is less sure."""
    return msgspec.structs.replace(cell, n=with_item(cell.n, action, min(cell.n[action], outcomes)))


def redrawn(cell: QCell, sds: tuple[float, ...], explored: int, config: QLearningConfig) -> QCell:
    """The cell with the probabilities that its estimates ask for.

    Args:
        sds: standard deviation of a reward of each strategy, R.
        explored: outcomes since exploration began or was opened again; for epsilon.
    """
    if config.exploration == "epsilon":
        epsilon = epsilon_at(explored, config.epsilon_start, config.epsilon_decay, config.epsilon_end)
        p = epsilon_greedy(cell.q, epsilon, STRATEGY_SYMBOLS.index(config.fallback))
    else:
        posteriors = [normal_posterior(q, n, sd, config.prior_outcomes)
                      for q, n, sd in zip(cell.q, cell.n, sds, strict=True)]
        best = best_probabilities([m for m, _ in posteriors], [s * config.posterior_width for _, s in posteriors])
        p = with_floor(best, config.min_probability)
    return msgspec.structs.replace(cell, probabilities=p)


def published(cells: tuple[QCell, ...], edges: tuple[float, ...], sds: tuple[float, ...],
              config: QLearningConfig) -> Tabular:
    """The table as the policy carries it. The standard error of an estimate without outcomes is its prior's width."""
    unvisited = 1 / config.prior_outcomes
    prefer = STRATEGY_SYMBOLS.index(config.fallback)
    return Tabular(
        volatility_edges=edges,
        cells=tuple(
            Cell(
                state_key=key, probabilities=c.probabilities, q=c.q, visits=c.visits,
                se=tuple([sd * sqrt(1 / n if n else unvisited) for sd, n in zip(sds, c.n, strict=True)]),
                greedy=STRATEGY_SYMBOLS[best_action(c.q, prefer)],
            )
            for key, c in zip(KEYS, cells, strict=True)
        ),
    )


def with_item(values: tuple[T, ...], i: int, value: T) -> tuple[T, ...]:
    """The tuple with another value at i."""
    return (*values[:i], value, *values[i + 1:])
