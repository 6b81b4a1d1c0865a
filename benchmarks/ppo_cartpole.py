"""PPO on CartPole-v1 beside stable-baselines3: does it learn as soon, and what does a step cost?

Both learners have the settings of rl-zoo, the same eight gymnasium environments stepped one after the other, one
thread, and the same seeds, one after the other in one process. Processor time is that of making the learner and
training it; evaluation is not in it. With `--environments vector` ours steps gymnasium's vectorised CartPole instead.

    python -m benchmarks.ppo_cartpole --seeds 20 --jobs 2 --json out.json
    python -m benchmarks.ppo_cartpole --only ours

stable-baselines3 and PyTorch come with the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

ENVS, N_STEPS = 8, 32
LATE = 20  # episodes of the running mean
SOLVED = 475.0  # gymnasium's threshold for CartPole-v1
EVALUATED = 20  # greedy episodes at the end
LEARNERS = ("ours", "sb3")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One learner, one seed.

    Attributes:
        solved_at: steps until the mean of 20 training episodes first reached 475; None: never.
        evaluation: mean return of 20 greedy episodes after training.
        worst: lowest of them.
        cpu_s: processor seconds of training.
        wall_s: seconds of training.
    """

    learner: str
    seed: int
    steps: int
    solved_at: int | None
    evaluation: float
    worst: float
    cpu_s: float
    wall_s: float


def make() -> Any:
    """One CartPole."""
    import gymnasium

    return gymnasium.make("CartPole-v1")


def solved_at(episodes: Sequence[tuple[int, float]]) -> int | None:
    """Step at which the mean of the last 20 returns first reached 475."""
    returns = [total for _, total in episodes]
    for i in range(LATE, len(returns) + 1):
        if sum(returns[i - LATE : i]) / LATE >= SOLVED:
            return episodes[i - 1][0]
    return None


def ours(seed: int, steps: int, vector: bool) -> tuple[int, list[tuple[int, float]], Callable[[], list[float]]]:
    """Train with `agents/algorithms/ppo.py`; steps taken, episodes, and how to evaluate."""
    import gymnasium

    from agents.algorithms.ppo_settings import PpoSettings
    from agents.algorithms.ppo_train import played, train

    settings = PpoSettings(
        features=4, actions=2, hidden=(64, 64), gamma=0.98, gae_lambda=0.8, minibatch=256, epochs=20,
        lr=1e-3, lr_end=0.0, clip=0.2, clip_end=0.0, value_clip=None, entropy_coefficient=0.0,
    )
    envs: Any = [make] * ENVS
    if vector:
        envs = gymnasium.make_vec("CartPole-v1", num_envs=ENVS, vectorization_mode="vector_entry_point")
    trained = train(envs, settings, seed=seed, steps=steps, n_steps=N_STEPS)
    episodes = [(e.step, e.total) for e in trained.episodes]
    return trained.steps, episodes, lambda: played(
        [make], settings, trained, episodes=EVALUATED, seed=10_000 + seed).tolist()


def sb3(seed: int, steps: int, vector: bool) -> tuple[int, list[tuple[int, float]], Callable[[], list[float]]]:
    """Train with stable-baselines3."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    episodes: list[tuple[int, float]] = []

    class Episodes(BaseCallback):
        def _on_step(self) -> bool:
            if self.locals["dones"].any():
                episodes.extend((self.num_timesteps, float(info["episode"]["r"]))
                                for info in self.locals["infos"] if "episode" in info)
            return True

    model = PPO(
        "MlpPolicy", make_vec_env(make, n_envs=ENVS, seed=seed), n_steps=N_STEPS, batch_size=256, gae_lambda=0.8,
        gamma=0.98, n_epochs=20, ent_coef=0.0, learning_rate=lambda left: 1e-3 * left,
        clip_range=lambda left: 0.2 * left, seed=seed, device="cpu",
    )
    model.learn(steps, callback=Episodes())

    def evaluated() -> list[float]:
        from stable_baselines3.common.monitor import Monitor

        env = Monitor(make())
        env.reset(seed=10_000 + seed)
        returns, _ = evaluate_policy(model, env, EVALUATED, deterministic=True, return_episode_rewards=True)
        return [float(r) for r in returns]

    return model.num_timesteps, episodes, evaluated


def measured(learner: str, seed: int, steps: int, vector: bool) -> Result:
    """Train and evaluate one learner."""
    import stable_baselines3.common.env_util  # noqa: F401  # not on the clock of whoever is first

    import agents.algorithms.ppo_train  # noqa: F401

    wall, cpu = time.perf_counter(), time.process_time()
    taken, episodes, evaluate = {"ours": ours, "sb3": sb3}[learner](seed, steps, vector)
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    returns = evaluate()
    return Result(learner=learner, seed=seed, steps=taken, solved_at=solved_at(episodes),
                  evaluation=sum(returns) / len(returns), worst=min(returns), cpu_s=cpu_s, wall_s=wall_s)


def pair(seed: int, learners: tuple[str, ...], steps: int, vector: bool) -> list[Result]:
    """The learners on one seed, one after the other; which is first alternates."""
    order = learners if seed % 2 == 0 else learners[::-1]
    return [measured(learner, seed, steps, vector) for learner in order]


def summary(results: list[Result]) -> dict[str, dict[str, float | int | None]]:
    """Per learner: seeds at 500, median steps to 475, steps per processor second."""
    found: dict[str, dict[str, float | int | None]] = {}
    for learner in LEARNERS:
        own = [r for r in results if r.learner == learner]
        if own:
            reached = [r.solved_at if r.solved_at is not None else float("inf") for r in own]
            found[learner] = {
                "seeds": len(own),
                "at_500": sum(r.evaluation == 500 for r in own),
                "median_steps_to_475": median(reached),
                "least_steps_to_475": min(reached),
                "most_steps_to_475": max(reached),
                "steps_per_cpu_s": sum(r.steps for r in own) / sum(r.cpu_s for r in own),
            }
    if len(found) == 2 and found["ours"]["median_steps_to_475"] != float("inf"):
        mine, theirs = found["ours"], found["sb3"]
        found["ratio"] = {k: mine[k] / theirs[k] for k in ("median_steps_to_475", "steps_per_cpu_s")}  # type: ignore[operator]
    return found


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", choices=LEARNERS)
    parser.add_argument("--environments", choices=("listed", "vector"), default="listed")
    parser.add_argument("--json", type=Path, help="write every result and the summary here")
    args = parser.parse_args()
    if find_spec("stable_baselines3") is None:
        sys.exit("stable-baselines3 is not installed: pip install -c constraints.txt -e '.[bench]'")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # before the workers load anything
    learners = (args.only,) if args.only else LEARNERS
    results: list[Result] = []
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        seeds = range(args.first, args.first + args.seeds)
        waiting = [pool.submit(pair, s, learners, args.steps, args.environments == "vector") for s in seeds]
        print(f"{'seed':>4} {'learner':>7} {'475 at':>8} {'evaluated':>9} {'worst':>6} {'steps/cpu s':>11}")
        for done in as_completed(waiting):
            for r in done.result():
                results.append(r)
                print(f"{r.seed:>4} {r.learner:>7} {r.solved_at or 'never':>8} {r.evaluation:>9.1f} {r.worst:>6.0f} "
                      f"{r.steps / r.cpu_s:>11.0f}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(
                    {"results": [asdict(r) for r in results], "summary": summary(results)}, indent=1))
    for learner, figures in summary(results).items():
        print(learner, *(f"{k} {v:.6g}" for k, v in figures.items()), sep="  ")


if __name__ == "__main__":
    main()
