"""Training in environments: what ends, what is cut short, which steps are void, and the same bits each time."""

from __future__ import annotations

from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agents.algorithms.environments import environments
from agents.algorithms.gae import advantages
from agents.algorithms.learner import new_learner, to_bytes
from agents.algorithms.moments import Moments
from agents.algorithms.ppo import evaluate
from agents.algorithms.ppo_settings import PpoSettings
from agents.algorithms.ppo_train import Gatherer, played, train

SETTINGS = PpoSettings(features=1, actions=2, hidden=(8,), gamma=0.9, gae_lambda=0.8, precision="float64", minibatch=32)


class Corridor(gymnasium.Env):
    """Counts its steps; a reward of 1 each. Terminates after `length`, is truncated after `limit`."""

    observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: int = 3, limit: int = 99, mask: bool = False) -> None:
        self.length, self.limit, self.mask, self.t = length, limit, mask, 0

    def _seen(self) -> np.ndarray:
        return np.array([self.t], np.float32)

    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.array([1, 0], np.int8)} if self.mask else {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), self._info()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert not (self.mask and action)
        self.t += 1
        return self._seen(), 1.0, self.t >= self.length, self.t >= self.limit, self._info()


def gathered(envs: Any, steps: int, settings: PpoSettings = SETTINGS) -> tuple[Any, Gatherer]:
    gatherer = Gatherer(environments(envs), settings, 1, "t")
    return gatherer.gather(new_learner(settings, 1, "t"), steps), gatherer


def values(*observed: float) -> np.ndarray:
    x = np.array(observed)[:, None]
    return evaluate(SETTINGS, new_learner(SETTINGS, 1, "t").parameters, x).values


@pytest.mark.parametrize("terminates", [True, False])
def test_advantages_bootstrap_where_time_ran_out_and_not_where_it_ended(terminates: bool) -> None:
    make = (lambda: Corridor(length=3)) if terminates else (lambda: Corridor(length=99, limit=3))
    batch, gatherer = gathered([make], 7)
    assert batch.observations[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    v, after = values(0, 1, 2, 0, 1, 2, 0), values(1, 2, 3, 1, 2, 3, 1)
    ended = np.array([False, False, True] * 2 + [False])
    none = np.zeros(7, np.bool_)
    expected = advantages(
        np.ones((7, 1)), v[:, None], after[:, None], (ended if terminates else none)[:, None],
        (none if terminates else ended)[:, None], gamma=0.9, lam=0.8)
    assert batch.advantages == pytest.approx(expected[:, 0])
    assert batch.returns == pytest.approx(expected[:, 0] + v)
    assert [(e.step, e.total, e.length, e.truncated) for e in gatherer.episodes] == [
        (3, 3.0, 3, not terminates), (6, 3.0, 3, not terminates)]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("limit", [3, 99])
def test_vector_environments_give_what_listed_ones_give(mode: AutoresetMode, limit: int) -> None:
    """With `NEXT_STEP` the steps that only reset are left out, so the same batch takes more steps."""
    make = lambda: Corridor(length=4, limit=limit)  # noqa: E731
    length = min(limit, 4)
    void = 0 if mode == AutoresetMode.SAME_STEP else 2
    vector, gatherer = gathered(SyncVectorEnv([make], autoreset_mode=mode), 2 * length + void)
    listed, expected = gathered([make], 2 * length)
    assert vector.advantages == pytest.approx(listed.advantages)
    assert vector.observations.tolist() == listed.observations.tolist()
    assert len(vector) == gatherer.steps == 2 * length
    assert [e.length for e in gatherer.episodes] == [e.length for e in expected.episodes][: len(gatherer.episodes)]


def test_masks_are_obeyed() -> None:
    batch, _ = gathered([lambda: Corridor(mask=True)] * 3, 20)
    assert not batch.actions.any()
    assert batch.masks.tolist() == [[True, False]] * 60
    vector, _ = gathered(SyncVectorEnv([lambda: Corridor(mask=True)] * 3), 20)
    assert not vector.actions.any()


def test_what_cannot_be_trained_on_is_refused() -> None:
    for envs, why in (([], "at least one"), ([lambda: gymnasium.make("Pendulum-v1")], "0 to A - 1"),
                      ([lambda: gymnasium.make("Blackjack-v1")], "box or a number"),
                      (SyncVectorEnv([Corridor], autoreset_mode=AutoresetMode.DISABLED), "autoreset_mode")):
        with pytest.raises(ValueError, match=why):
            train(envs, SETTINGS, seed=1, steps=10, n_steps=5)
    with pytest.raises(ValueError, match="the settings say"):
        train([lambda: gymnasium.make("CartPole-v1")], SETTINGS, seed=1, steps=10, n_steps=5)


def test_numbered_states_become_one_hot() -> None:
    sides = environments([lambda: gymnasium.make("CliffWalking-v1")])
    assert (sides.features, sides.actions) == (48, 4)
    assert sides.reset(1)[0].argmax() == 36


@pytest.mark.parametrize("scaled", [False, True])
def test_the_same_seed_gives_the_same_bits(scaled: bool) -> None:
    settings = PpoSettings(features=4, actions=2, hidden=(16,), lr_end=0.0)

    def once(seed: int) -> Any:
        return train([lambda: gymnasium.make("CartPole-v1")] * 3, settings, seed=seed, steps=600, n_steps=64,
                     scale_observations=scaled, scale_rewards=scaled)

    a, b, other = once(1), once(1), once(2)
    assert to_bytes(a.learner, settings) == to_bytes(b.learner, settings) != to_bytes(other.learner, settings)
    assert (a.episodes, a.updates) == (b.episodes, b.updates)
    assert a.steps == 768
    assert a.updates[-1].lr == pytest.approx(3e-4 / 4)


def test_moments_are_those_of_all_rows() -> None:
    rows = np.array([[1.0, 5.0], [2.0, -3.0], [9.0, 0.0], [4.0, 4.0], [0.0, 1.0]])
    moments = Moments.of(2).seen(rows[:1]).seen(rows[1:4]).seen(rows[:0]).seen(rows[4:])
    assert moments.mean == pytest.approx(rows.mean(axis=0))
    assert moments.variance == pytest.approx(rows.var(axis=0))
    assert moments.scaled(rows).std(axis=0) == pytest.approx(1, abs=1e-6)
    assert np.abs(moments.scaled(rows * 1e9)).max() == 10
    assert (np.sign(moments.divided(rows)) == np.sign(rows)).all()


class Signal(gymnasium.Env):
    """The sign of the observation says which action pays, after a delay of one step: credit must travel."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.sign, self.right = int(self.np_random.integers(2)), None
        return np.array([2 * self.sign - 1], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.right is None:
            self.right = action == self.sign
            return np.array([0], np.float32), 0.0, False, False, {}
        return np.array([0], np.float32), float(self.right), True, False, {}


def test_a_delayed_reward_is_learned_and_without_a_discount_it_is_not() -> None:
    settings = PpoSettings(features=1, actions=2, hidden=(16,), lr=3e-3, minibatch=64)
    for gamma, lam, reached in ((0.99, 0.95, True), (0.0, 0.0, False)):
        settings = msgspec.structs.replace(settings, gamma=gamma, gae_lambda=lam)
        trained = train([Signal] * 4, settings, seed=1, steps=4_000, n_steps=32)
        got = played([Signal] * 4, settings, trained, episodes=200, seed=5)
        assert len(got) == 200
        assert (got.mean() == 1.0) == reached
