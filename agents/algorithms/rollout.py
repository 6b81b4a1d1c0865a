"""A rollout that fills one experience at a time, for a learner that is fed by a log instead of by an environment.

Experiences come whenever their outcome is known: out of order across streams (symbols), within a stream too, some of
them twice, some of them late. Each is learned from in one round and then gone.

- A round is over as soon as `size` experiences wait. Which of them share a round follows from their order on the log;
  within a round order makes no difference, as they are sorted by (stream, place).
- Within a round the next experience of the same stream, if it is there, is where the advantage goes on. Where it is
  missing the advantage is cut, and the value of what followed stands for the rest: as for a truncated episode.
- An experience of a policy more than `max_age` versions older than the newest is weighed on arrival: where the newest
  policy would have taken the action with another probability than PPO's clip range allows, it would be clipped anyway
  or pull the wrong way, so it is dropped, and counted (Schulman et al. 2017, section 3, for the range).

All of it is a frozen struct of numbers, text and bytes, so that an agent can hold it in its state.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.algorithms.gae import advantages
from agents.algorithms.ppo import Batch, evaluate
from agents.algorithms.ppo_settings import PpoSettings

Array = NDArray[np.floating[Any]]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One experience.

    Attributes:
        id: business id, unique; a repeat is known by it.
        stream: what orders experiences one after another, such as a symbol.
        place: position in the stream; the next experience of the same episode has the next number.
        observation: F numbers, of `packed`.
        action: taken.
        log_probability: of the action, with everything that chose it (exploration too).
        reward: what it brought.
        version: policy that took it.
        terminated: the episode ended with it.
        truncated: the episode was cut short after it.
        following: observation after it, of `packed`; may be empty only where terminated.
        mask: a byte an action, 1 where it was valid; empty: all were.
    """

    id: str
    stream: str
    place: int
    observation: bytes
    action: int
    log_probability: float
    reward: float
    version: int
    terminated: bool
    truncated: bool = False
    following: bytes = b""
    mask: bytes = b""


class RolloutSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a rollout.

    Attributes:
        size: experiences of a round.
        max_age: versions that the policy of an experience may lie behind the newest before it is weighed.
        remembered: ids kept to know a repeat, the newest so many.
    """

    size: int = 64
    max_age: int = 2
    remembered: int = 1024

    def __post_init__(self) -> None:
        if self.size < 1 or self.max_age < 0 or self.remembered < self.size:
            raise ValueError("size must be at least 1, max_age at least 0, remembered at least size")


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """What waits and what became of the rest.

    Attributes:
        waiting: experiences not yet learned from, in the order of arrival.
        recent: ids taken, the newest last.
        used: experiences handed out in rounds.
        repeated: that came again and were left out.
        stale: of old policies, taken nevertheless as the newest would have chosen much alike.
        dropped: of old policies, left out.
    """

    waiting: tuple[Kept, ...] = ()
    recent: tuple[str, ...] = ()
    used: int = 0
    repeated: int = 0
    stale: int = 0
    dropped: int = 0


def packed(numbers: Array | tuple[float, ...], settings: PpoSettings) -> bytes:
    """Numbers in the learner's precision, little-endian."""
    return np.asarray(numbers, np.dtype(settings.precision).newbyteorder("<")).tobytes()


def added(
    rollout: Rollout, kept: Kept, settings: PpoSettings, limits: RolloutSettings, parameters: Array, version: int
) -> Rollout:
    """Take an experience.

    Args:
        parameters: of the newest policy, [P]; asked only about stale experiences.
        version: of the newest policy; it changes only after `drained`.

    Returns:
        The rollout with it; or with one more repeated, or dropped.

    Raises:
        ValueError: an experience that contradicts itself or another one, or whose numbers do not fit.
    """
    if kept.id in rollout.recent:
        for other in rollout.waiting:
            if other.id == kept.id and other != kept:
                raise ValueError(f"experience {kept.id} came again with another content")
        return msgspec.structs.replace(rollout, repeated=rollout.repeated + 1)
    _check(rollout, kept, settings, version)
    recent = (*rollout.recent, kept.id)[-limits.remembered :]
    stale = version - kept.version > limits.max_age
    if stale and not _alike(kept, settings, parameters):
        return msgspec.structs.replace(rollout, recent=recent, dropped=rollout.dropped + 1)
    return msgspec.structs.replace(
        rollout, waiting=(*rollout.waiting, kept), recent=recent, stale=rollout.stale + stale)


def ready(rollout: Rollout, limits: RolloutSettings) -> bool:
    """Whether a round is full."""
    return len(rollout.waiting) >= limits.size


def drained(rollout: Rollout, settings: PpoSettings, parameters: Array) -> tuple[Batch, Rollout]:
    """Everything that waits as a batch for `ppo.update`, and the rollout without it.

    Args:
        parameters: of the newest policy, [P]: its critic values the observations.

    Raises:
        ValueError: nothing waits.
    """
    if not rollout.waiting:
        raise ValueError("nothing waits to be learned from")
    rows = sorted(rollout.waiting, key=lambda k: (k.stream, k.place))
    observations_BF = _observations([k.observation for k in rows], settings)
    masks_BA = None
    if any(k.mask for k in rows):
        masks_BA = np.array([list(k.mask or bytes([1]) * settings.actions) for k in rows], np.bool_)
    values_B = evaluate(settings, parameters, observations_BF).values
    terminated_B = np.array([k.terminated for k in rows], np.bool_)
    following_B = np.zeros_like(values_B)
    if not terminated_B.all():
        after_BF = _observations([k.following for k in rows if not k.terminated], settings)
        following_B[~terminated_B] = evaluate(settings, parameters, after_BF).values
    pairs = zip(rows, [*rows[1:], None], strict=True)
    cut_B = np.array([k.truncated or not _follows(k, after) for k, after in pairs], np.bool_)
    rewards_B = np.array([k.reward for k in rows], settings.precision)
    found_B = advantages(
        rewards_B[:, None], values_B[:, None], following_B[:, None], terminated_B[:, None], cut_B[:, None],
        gamma=settings.gamma, lam=settings.gae_lambda)[:, 0].astype(settings.precision)
    batch = Batch(
        observations=observations_BF, actions=np.array([k.action for k in rows], np.intp),
        log_probabilities=np.array([k.log_probability for k in rows], settings.precision),
        values=values_B, advantages=found_B, returns=found_B + values_B, masks=masks_BA)
    return batch, msgspec.structs.replace(rollout, waiting=(), used=rollout.used + len(rows))


def _follows(kept: Kept, after: Kept | None) -> bool:
    return after is not None and (after.stream, after.place) == (kept.stream, kept.place + 1)


def _observations(rows: list[bytes], settings: PpoSettings) -> Array:
    dtype = np.dtype(settings.precision)
    found = np.frombuffer(b"".join(rows), dtype.newbyteorder("<")).astype(dtype)
    return found.reshape(len(rows), settings.features)


def _alike(kept: Kept, settings: PpoSettings, parameters: Array) -> bool:
    masks_BA = np.array([list(kept.mask)], np.bool_) if kept.mask else None
    policy = evaluate(settings, parameters, _observations([kept.observation], settings), masks_BA)
    ratio = float(np.exp(policy.log_probabilities[0, kept.action] - kept.log_probability))
    return 1 - settings.clip <= ratio <= 1 + settings.clip


def _check(rollout: Rollout, kept: Kept, settings: PpoSettings, version: int) -> None:
    width = settings.features * np.dtype(settings.precision).itemsize
    where = f"experience {kept.id} of {kept.stream}"
    if len(kept.observation) != width or len(kept.following) not in ((0, width) if kept.terminated else (width,)):
        raise ValueError(f"{where}: observations of {len(kept.observation)} and {len(kept.following)} bytes; {width} "
                         "each are needed, none after the end of an episode")
    if not 0 <= kept.action < settings.actions or (kept.mask and len(kept.mask) != settings.actions):
        raise ValueError(f"{where}: action {kept.action}, a mask of {len(kept.mask)}; there are "
                         f"{settings.actions} actions")
    if kept.mask and (set(kept.mask) - {0, 1} or not kept.mask[kept.action]):
        raise ValueError(f"{where}: mask {list(kept.mask)}; 0 and 1 are needed, and 1 for the action {kept.action}")
    numbers = (kept.reward, kept.log_probability)
    rows = _observations([r for r in (kept.observation, kept.following) if r], settings)
    if not (np.isfinite(numbers).all() and np.isfinite(rows).all() and kept.log_probability <= 0):
        raise ValueError(f"{where}: reward {kept.reward}, log-probability {kept.log_probability}: finite numbers are "
                         "needed, in the observations too, and a log-probability of at most 0")
    if kept.version > version:
        raise ValueError(f"{where}: decided by version {kept.version}, the newest here is {version}")
    if any((k.stream, k.place) == (kept.stream, kept.place) for k in rollout.waiting):
        raise ValueError(f"{where}: place {kept.place} of the stream is taken by another experience")
