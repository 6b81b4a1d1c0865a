"""Tabular Q-learning on two environments of gymnasium whose optima are known.

FrozenLake-v1, 4x4 and slippery: the best policy reaches the goal in .744 of the episodes of at most 100 steps, by value
iteration over that horizon. CliffWalking: the shortest safe path earns -13. The learner is
`agents/algorithms/tabular.py` as it stands: epsilon-greedy, a step of 1/n with a floor. The greedy table at the end is
judged, FrozenLake's both by episodes and exactly, from the environment's own transition probabilities.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

import gymnasium
import numpy as np

from agents.algorithms.tabular import TabularQ, epsilon_at, epsilon_greedy

FROZEN, CLIFF = "FrozenLake-v1", "CliffWalking-v1"
HORIZON = 100
EVALUATED = 1_000


@dataclass(frozen=True, kw_only=True)
class Task:
    """An environment and what it is learned with.

    Attributes:
        episodes: of training.
        limit: steps of an episode, at most; the limit is a truncation: the next state is still worth something.
    """

    name: str
    episodes: int
    gamma: float
    alpha: float | None
    floor: float
    epsilon_decay: float
    epsilon_end: float
    limit: int = HORIZON


TASKS = (
    Task(name=FROZEN, episodes=20_000, gamma=0.99, alpha=None, floor=0.02, epsilon_decay=0.9998, epsilon_end=0.1),
    Task(name=CLIFF, episodes=500, gamma=1.0, alpha=0.5, floor=0.5, epsilon_decay=0.98, epsilon_end=0.05, limit=1_000),
)


def made(task: Task) -> Any:
    """The environment."""
    if task.name == FROZEN:
        return gymnasium.make(FROZEN, map_name="4x4", is_slippery=True, max_episode_steps=task.limit)
    return gymnasium.make(CLIFF, max_episode_steps=task.limit)


def trained(task: Task, seed: int) -> TabularQ:
    """A table after so many episodes."""
    env, rng = made(task), random.Random(seed)
    table = TabularQ(int(env.observation_space.n), int(env.action_space.n), task.gamma, task.alpha, task.floor)
    for episode in range(task.episodes):
        epsilon = epsilon_at(episode, 1.0, task.epsilon_decay, task.epsilon_end)
        state, ended = int(env.reset(seed=seed if episode == 0 else None)[0]), False
        while not ended:
            q = table.q[state]
            best = [a for a, value in enumerate(q) if value == max(q)]
            action = rng.choices(range(table.n_actions), epsilon_greedy(q, epsilon, rng.choice(best)))[0]
            following, reward, terminated, truncated, _ = env.step(action)
            table.learn_one(state, action, float(reward), None if terminated else int(following))
            state, ended = int(following), terminated or truncated
    return table


def judged(task: Task, table: TabularQ, seed: int) -> float:
    """Mean return of the greedy table."""
    env, returns = made(task), []
    for episode in range(EVALUATED if task.name == FROZEN else 1):
        state, total, ended = int(env.reset(seed=seed + 10**6 if episode == 0 else None)[0]), 0.0, False
        while not ended:
            following, reward, terminated, truncated, _ = env.step(table.greedy(state))
            state, total, ended = int(following), total + float(reward), terminated or truncated
        returns.append(total)
    return mean(returns)


def exact(policy: list[int] | None) -> float:
    """Probability that a policy of FrozenLake reaches the goal within the horizon; None: the best possible one."""
    env: Any = gymnasium.make(FROZEN, map_name="4x4", is_slippery=True).unwrapped
    states, value = len(env.P), np.zeros(len(env.P))
    for _ in range(HORIZON):
        q = np.array([[sum(p * (r + (0.0 if end else value[s2])) for p, s2, r, end in env.P[s][a])
                       for a in env.P[s]] for s in range(states)])
        value = q.max(1) if policy is None else q[np.arange(states), policy]
    return float(value[0])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, seeds 1, 2, ...; full size: 20")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    rows = []
    for task in TASKS:
        for seed in range(1, args.seeds + 1):
            table = trained(task, seed)
            row = {"seed": seed, "return": judged(task, table, seed), **asdict(task)}
            if task.name == FROZEN:
                row |= {"exact": exact([table.greedy(s) for s in range(16)]), "best": exact(None)}
            rows.append(row)
            if not args.json:
                more = f", exactly {row['exact']:.4f}; the best possible is {row['best']:.4f}" if "exact" in row else ""
                print(f"{task.name} seed {seed}: {row['return']:.3f}{more}", flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
