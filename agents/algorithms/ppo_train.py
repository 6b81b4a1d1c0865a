"""PPO in environments: gather a stretch of steps from all of them, update, begin again.

    settings = PpoSettings(features=4, actions=2, gamma=0.98, gae_lambda=0.8, ...)
    trained = train([lambda: gymnasium.make("CartPole-v1")] * 8, settings, seed=1, steps=100_000, n_steps=32)
    returns = played(envs, settings, trained, episodes=20, seed=2)

Nothing here reads a clock or draws but by name: the same environments, settings and seed give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.algorithms.draws import bits, uniforms
from agents.algorithms.environments import Environments, environments
from agents.algorithms.gae import advantages
from agents.algorithms.learner import Learner, networks, new_learner
from agents.algorithms.mlp import output
from agents.algorithms.moments import Moments
from agents.algorithms.ppo import Batch, Diagnostics, Policy, evaluate, log_softmax, sampled, update
from agents.algorithms.ppo_settings import PpoSettings

Array = NDArray[np.floating[Any]]


class Episode(NamedTuple):
    """An episode that ended in training.

    Attributes:
        step: steps of all environments together when it ended.
        total: sum of its rewards, in the environment's own units.
        length: its steps.
        truncated: whether it was cut short.
    """

    step: int
    total: float
    length: int
    truncated: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What training leaves.

    Attributes:
        learner: after the last update.
        moments: of the observations, where they were scaled; whoever acts must scale with them.
        episodes: that ended, in order.
        updates: diagnostics of each update.
        steps: taken in all environments together.
    """

    learner: Learner
    moments: Moments | None
    episodes: tuple[Episode, ...]
    updates: tuple[Diagnostics, ...]
    steps: int


def train(
    envs: Environments | Sequence[Callable[[], Any]] | Any,
    settings: PpoSettings,
    *,
    seed: int,
    steps: int,
    n_steps: int,
    name: str = "ppo",
    scale_observations: bool = False,
    scale_rewards: bool = False,
    learner: Learner | None = None,
    after_update: Callable[[Diagnostics], None] | None = None,
) -> Trained:
    """Train on some environments.

    Args:
        envs: see `environments.environments`.
        settings: of the learner; `anneal_updates` is set to the updates of this call where something is annealed and it
            is None.
        seed: of weights, actions, minibatches and environments.
        steps: of all environments together; the last stretch is finished, so there may be up to n x n_steps more.
        n_steps: steps of each environment between two updates.
        name: stands in the name of every draw.
        scale_observations: by their running mean and deviation.
        scale_rewards: by the running deviation of the discounted return.
        learner: to go on with; None: a new one.
        after_update: is told how each update went.

    Raises:
        ValueError: settings and environments do not fit.
    """
    sides = environments(envs)
    if (sides.features, sides.actions) != (settings.features, settings.actions):
        raise ValueError(f"environments of {sides.features} features and {sides.actions} actions; the settings say "
                         f"{settings.features} and {settings.actions}")
    if steps < 1 or n_steps < 1:
        raise ValueError("steps and n_steps must be at least 1")
    rounds = ceil(steps / (sides.n * n_steps))
    if settings.annealed and settings.anneal_updates is None:
        settings = msgspec.structs.replace(settings, anneal_updates=rounds)
    learner = new_learner(settings, seed, name) if learner is None else learner
    gatherer = Gatherer(sides, settings, seed, name, scale_observations, scale_rewards)
    updates = []
    for _ in range(rounds):
        batch = gatherer.gather(learner, n_steps)
        learner, diagnostics = update(learner, batch, settings, seed, name)
        updates.append(diagnostics)
        if after_update is not None:
            after_update(diagnostics)
    return Trained(learner=learner, moments=gatherer.moments, episodes=tuple(gatherer.episodes),
                   updates=tuple(updates), steps=gatherer.steps)


class Gatherer:
    """Steps environments with the newest policy and turns what happened into a batch."""

    def __init__(
        self, sides: Environments, settings: PpoSettings, seed: int, name: str,
        scale_observations: bool = False, scale_rewards: bool = False,
    ) -> None:
        self._sides, self._settings, self._seed, self._name = sides, settings, seed, name
        self.moments = Moments.of(settings.features) if scale_observations else None
        self._returns = Moments.of(1) if scale_rewards else None
        self._running_N = np.zeros(sides.n)
        self._total_N, self._length_N = np.zeros(sides.n), np.zeros(sides.n, np.int64)
        self.episodes: list[Episode] = []
        self.steps = 0
        raw_NF, self._masks_NA = sides.reset(int(bits(1, seed, name, "environments")[0] >> np.uint64(33)))
        self._seen_NF = self._observed(raw_NF)

    def gather(self, learner: Learner, n_steps: int) -> Batch:
        """The experiences of the next T = n_steps steps of each environment."""
        sides, settings = self._sides, self._settings
        shape = (n_steps, sides.n)
        obs_TNF = np.empty((*shape, settings.features), settings.precision)
        final_TNF = np.empty_like(obs_TNF)
        masks_TNA = None if self._masks_NA is None else np.empty((*shape, settings.actions), np.bool_)
        actions_TN, rewards_TN = np.empty(shape, np.intp), np.empty(shape, settings.precision)
        terminated_TN, truncated_TN, void_TN = (np.empty(shape, np.bool_) for _ in range(3))
        drawn_TN = uniforms(shape, self._seed, self._name, "act", learner.updates)
        nets = networks(settings)
        actor = nets.weights(learner.parameters).actor
        for t in range(n_steps):
            obs_TNF[t] = self._seen_NF
            if masks_TNA is not None:
                masks_TNA[t] = self._masks_NA
            chances_NA = log_softmax(output(nets.actor, actor, obs_TNF[t]), self._masks_NA)
            actions_TN[t] = sampled(chances_NA, drawn_TN[t])
            step = sides.step(actions_TN[t])
            ended_N = step.terminated | step.truncated
            rewards_TN[t] = self._rewarded(step.rewards, ended_N, step.void)
            terminated_TN[t], truncated_TN[t], void_TN[t] = step.terminated, step.truncated, step.void
            self._note(step.rewards, ended_N, step.truncated & ~step.terminated, step.void)
            self._seen_NF, self._masks_NA = self._observed(step.observations), step.masks
            if t == n_steps - 1 or ended_N.any():
                final_TNF[t] = self._scaled(step.final)
        return self._batch(learner, obs_TNF, masks_TNA, actions_TN, rewards_TN, terminated_TN, truncated_TN, void_TN,
                           final_TNF)

    def _batch(
        self, learner: Learner, obs_TNF: Array, masks_TNA: NDArray[np.bool_] | None, actions_TN: NDArray[np.intp],
        rewards_TN: Array, terminated_TN: NDArray[np.bool_], truncated_TN: NDArray[np.bool_],
        void_TN: NDArray[np.bool_], final_TNF: Array,
    ) -> Batch:
        """Values, log-probabilities and advantages, with the networks asked once for all steps."""
        settings, shape = self._settings, rewards_TN.shape
        flat = slice(None) if not void_TN.any() else np.flatnonzero(~void_TN.ravel())
        obs_BF = obs_TNF.reshape(-1, settings.features)
        masks_BA = None if masks_TNA is None else masks_TNA.reshape(-1, settings.actions)
        policy = evaluate(settings, learner.parameters, obs_BF, masks_BA)
        values_TN = policy.values.reshape(shape)
        following_TN = np.empty_like(values_TN)
        following_TN[:-1] = values_TN[1:]
        asked_TN = truncated_TN & ~terminated_TN
        asked_TN[-1] = True
        following_TN[asked_TN] = evaluate(settings, learner.parameters, final_TNF[asked_TN]).values
        found_TN = advantages(rewards_TN, values_TN, following_TN, terminated_TN, truncated_TN,
                              gamma=settings.gamma, lam=settings.gae_lambda).astype(settings.precision)
        actions_B = actions_TN.ravel()
        taken_B = policy.log_probabilities[np.arange(len(actions_B)), actions_B]
        return Batch(
            observations=obs_BF[flat], actions=actions_B[flat], log_probabilities=taken_B[flat],
            values=policy.values[flat], advantages=found_TN.ravel()[flat],
            returns=(found_TN + values_TN).ravel()[flat], masks=None if masks_BA is None else masks_BA[flat],
        )

    def _observed(self, raw_NF: Array) -> Array:
        if self.moments is not None:
            self.moments = self.moments.seen(raw_NF)
        return self._scaled(raw_NF)

    def _scaled(self, raw_NF: Array) -> Array:
        return raw_NF if self.moments is None else self.moments.scaled(raw_NF)

    def _rewarded(self, raw_N: Array, ended_N: NDArray[np.bool_], void_N: NDArray[np.bool_]) -> Array:
        if self._returns is None:
            return raw_N
        self._running_N = self._running_N * self._settings.gamma + raw_N
        self._returns = self._returns.seen(self._running_N[~void_N, None])
        self._running_N[ended_N] = 0
        return self._returns.divided(raw_N)

    def _note(
        self, rewards_N: Array, ended_N: NDArray[np.bool_], cut_N: NDArray[np.bool_], void_N: NDArray[np.bool_]
    ) -> None:
        taken_N = ~void_N
        self.steps += int(np.count_nonzero(taken_N))
        self._total_N += rewards_N
        self._length_N += taken_N
        if not ended_N.any():
            return
        for i in np.flatnonzero(ended_N):
            self.episodes.append(
                Episode(self.steps, float(self._total_N[i]), int(self._length_N[i]), bool(cut_N[i])))
        self._total_N[ended_N], self._length_N[ended_N] = 0, 0


def policy_of(settings: PpoSettings, trained: Trained, observations_BF: Array,
              masks_BA: NDArray[np.bool_] | None = None) -> Policy:
    """What a trained learner says of raw observations."""
    rows = observations_BF if trained.moments is None else trained.moments.scaled(observations_BF)
    return evaluate(settings, trained.learner.parameters, rows, masks_BA)


def played(
    envs: Environments | Sequence[Callable[[], Any]] | Any, settings: PpoSettings, trained: Trained, *,
    episodes: int, seed: int, greedy: bool = True,
) -> Array:
    """Returns of some episodes, [episodes], each environment playing its equal share, so that short ones are no more
    frequent than they are.

    Args:
        greedy: the most probable action; else one drawn from the policy.
    """
    sides = environments(envs)
    share_N = np.array([episodes // sides.n + (i < episodes % sides.n) for i in range(sides.n)])
    seen_NF, masks_NA = sides.reset(seed)
    total_N, found, t = np.zeros(sides.n), [], 0
    while share_N.any():
        policy = policy_of(settings, trained, seen_NF, masks_NA)
        if greedy:
            actions_N = policy.log_probabilities.argmax(axis=1)
        else:
            actions_N = sampled(policy.log_probabilities, uniforms((sides.n,), seed, "played", t))
        step = sides.step(actions_N)
        seen_NF, masks_NA, t = step.observations, step.masks, t + 1
        total_N += step.rewards
        for i in np.flatnonzero(step.terminated | step.truncated):
            if share_N[i]:
                share_N[i] -= 1
                found.append(float(total_N[i]))
            total_N[i] = 0
    return np.array(found)
