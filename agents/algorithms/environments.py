"""Several environments stepped side by side, in the one form that training knows.

gymnasium is not imported: what is used of it are its methods. `environments` takes a list of functions that each make
an environment, or a vector environment in one of gymnasium's two ways to begin an episode anew: with the step that
ended the last one (`SAME_STEP`) or with the step after it (`NEXT_STEP`), or anything that has the methods of
`Environments`, such as a simulator in NumPy.

Observations: a box, flattened, or a number of states, one-hot. Actions: 0 to A - 1; `info["action_mask"]` ([A], true
where an action is valid) is obeyed where an environment gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]


class Step(NamedTuple):
    """What N environments gave back.

    Attributes:
        observations: to act on next, after any reset, [N, F].
        masks: valid actions there, [N, A]; None: all.
        rewards: [N].
        terminated: the episode reached its end, [N].
        truncated: the episode was cut short, [N].
        final: what followed the action, before any reset, [N, F].
        void: this step only began an episode; action and reward mean nothing, [N].
    """

    observations: Array
    masks: Flags | None
    rewards: Array
    terminated: Flags
    truncated: Flags
    final: Array
    void: Flags


@runtime_checkable
class Environments(Protocol):
    """N environments with F features and A actions."""

    n: int
    features: int
    actions: int

    def reset(self, seed: int) -> tuple[Array, Flags | None]:
        """Begin an episode in each; observations [N, F] and masks [N, A]. Environment i is seeded with seed + i."""
        ...

    def step(self, actions_N: NDArray[np.intp]) -> Step:
        """Act in each."""
        ...


def environments(given: Environments | Sequence[Callable[[], Any]] | Any) -> Environments:
    """What training steps.

    Args:
        given: functions that each make one gymnasium environment; or a gymnasium vector environment; or
            `Environments`, which come back as they are.

    Raises:
        ValueError: spaces or a way to reset that training does not know.
    """
    if isinstance(given, Environments):
        return given
    if hasattr(given, "num_envs"):
        return Vector(given)
    return Listed([make() for make in given])


class _Encoder:
    """Turns observations of a space into rows of features."""

    def __init__(self, space: Any) -> None:
        states, shape = getattr(space, "n", None), getattr(space, "shape", None)
        if states is None and not shape:
            raise ValueError(f"observations of {space}; a box or a number of states is needed")
        self._first = int(getattr(space, "start", 0))
        self.states = None if states is None else int(states)
        self.features = int(np.prod(shape or ())) if self.states is None else self.states

    def rows(self, observations: Any, n: int) -> Array:
        if self.states is None:
            return np.asarray(observations, np.float64).reshape(n, self.features)
        rows = np.zeros((n, self.features))
        rows[np.arange(n), np.asarray(observations, np.intp).reshape(n) - self._first] = 1
        return rows


def _actions(space: Any) -> int:
    if getattr(space, "n", None) is None or getattr(space, "start", 0) != 0 or getattr(space, "shape", None) != ():
        raise ValueError(f"actions of {space}; the numbers 0 to A - 1 are needed")
    return int(space.n)


class Listed:
    """Environments stepped one after the other.

    Raises:
        ValueError: no environment, or spaces that training does not know.
    """

    def __init__(self, envs: Sequence[Any]) -> None:
        if not envs:
            raise ValueError("at least one environment is needed")
        self._envs, self.n = list(envs), len(envs)
        self._encoder = _Encoder(envs[0].observation_space)
        self.features, self.actions = self._encoder.features, _actions(envs[0].action_space)

    def reset(self, seed: int) -> tuple[Array, Flags | None]:
        """Begin an episode in each; environment i is seeded with seed + i."""
        return self._told([env.reset(seed=seed + i) for i, env in enumerate(self._envs)])

    def step(self, actions_N: NDArray[np.intp]) -> Step:
        """Act in each; where an episode ends, begin the next."""
        rewards = np.zeros(self.n)
        terminated, truncated = np.zeros(self.n, np.bool_), np.zeros(self.n, np.bool_)
        finals, told = [], []
        for i, (env, action) in enumerate(zip(self._envs, actions_N.tolist(), strict=True)):
            seen, rewards[i], terminated[i], truncated[i], info = env.step(action)
            finals.append(seen)
            told.append(env.reset() if terminated[i] or truncated[i] else (seen, info))
        ended = terminated | truncated
        observations, masks = self._told(told)
        final = self._encoder.rows(finals, self.n) if ended.any() else observations
        return Step(observations, masks, rewards, terminated, truncated, final, np.zeros(self.n, np.bool_))

    def _told(self, told: list[tuple[Any, dict[str, Any]]]) -> tuple[Array, Flags | None]:
        masks = None
        if "action_mask" in told[0][1]:
            masks = np.array([info["action_mask"] for _, info in told], np.bool_)
        return self._encoder.rows([seen for seen, _ in told], self.n), masks


class Vector:
    """A gymnasium vector environment.

    Raises:
        ValueError: spaces that training does not know, or a vector environment that never resets by itself.
    """

    def __init__(self, envs: Any) -> None:
        mode = envs.metadata.get("autoreset_mode")
        self._mode = str(getattr(mode, "name", mode)).upper()
        if self._mode not in ("SAME_STEP", "NEXT_STEP"):
            raise ValueError(f"autoreset_mode is {mode}; SAME_STEP or NEXT_STEP is needed")
        self._envs, self.n = envs, int(envs.num_envs)
        self._encoder = _Encoder(envs.single_observation_space)
        self.features, self.actions = self._encoder.features, _actions(envs.single_action_space)
        self._ended = np.zeros(self.n, np.bool_)

    def reset(self, seed: int) -> tuple[Array, Flags | None]:
        """Begin an episode in each; gymnasium seeds environment i with seed + i."""
        self._ended = np.zeros(self.n, np.bool_)
        observations, info = self._envs.reset(seed=seed)
        return self._encoder.rows(observations, self.n), _masks(info)

    def step(self, actions_N: NDArray[np.intp]) -> Step:
        """Act in each."""
        seen, rewards, terminated, truncated, info = self._envs.step(actions_N)
        observations = final = self._encoder.rows(seen, self.n)
        ended, void = terminated | truncated, self._ended
        if self._mode == "SAME_STEP":
            void = np.zeros(self.n, np.bool_)
            if ended.any():
                rows = np.flatnonzero(ended)
                final = observations.copy()
                final[rows] = self._encoder.rows([info["final_obs"][i] for i in rows], len(rows))
        self._ended = ended.copy()
        return Step(observations, _masks(info), np.array(rewards, np.float64), terminated.copy(), truncated.copy(),
                    final, void)


def _masks(info: dict[str, Any]) -> Flags | None:
    given = info.get("action_mask")
    return None if given is None else np.array([list(row) for row in given], np.bool_)
