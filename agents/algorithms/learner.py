"""What a PPO learner is between updates, as arrays and as bytes.

Parameters, Adam's moments and the counts are the whole of it: a learner restored from its bytes goes on with the same
bits. Nothing else is kept, as randomness is drawn by name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.algorithms.mlp import Layers, Mlp, initial
from agents.algorithms.ppo_settings import PpoSettings

Array = NDArray[np.floating[Any]]

MAGIC = b"qs.ppo.1"
ACTIVATIONS = ("tanh", "relu")
_HEAD = struct.Struct("<8sIIQQIII")
ACTOR_GAIN, CRITIC_GAIN = 0.01, 1.0
"""Gains of the last layers; the first policy is nearly uniform (Andrychowicz et al. 2021; Huang et al., detail 2)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Learner:
    """A learner after some updates. Arrays are never written to.

    Attributes:
        parameters: actor, then critic, [P].
        first: Adam's running mean of the gradients, [P].
        second: Adam's running mean of their squares, [P].
        steps: gradient steps taken.
        updates: updates done.
    """

    parameters: Array
    first: Array
    second: Array
    steps: int = 0
    updates: int = 0


@dataclass(frozen=True)
class Networks:
    """Actor and critic: separate networks that share a vector of parameters."""

    actor: Mlp
    critic: Mlp

    @property
    def count(self) -> int:
        """P, parameters of both."""
        return self.actor.count + self.critic.count

    def weights(self, flat: Array) -> Weights:
        """The layers in a vector [P]."""
        at = self.actor.count
        return Weights(flat, self.actor.layers(flat[:at]), self.critic.layers(flat[at:]))


class Weights(NamedTuple):
    """A vector of parameters or of their gradient, and the layers in it; views, so that who writes one writes all.

    Attributes:
        flat: [P].
        actor: its layers.
        critic: its layers.
    """

    flat: Array
    actor: Layers
    critic: Layers


@lru_cache(maxsize=32)
def networks(settings: PpoSettings) -> Networks:
    """Shapes of the networks that the settings ask for."""
    critic = settings.hidden if settings.critic_hidden is None else settings.critic_hidden
    return Networks(
        Mlp(sizes=(settings.features, *settings.hidden, settings.actions), activation=settings.activation),
        Mlp(sizes=(settings.features, *critic, 1), activation=settings.activation),
    )


def new_learner(settings: PpoSettings, seed: int, *name: str | int) -> Learner:
    """A learner that has seen nothing; its weights are drawn by (seed, name)."""
    nets = networks(settings)
    parts = (
        initial(nets.actor, ACTOR_GAIN, seed, *name, "actor"),
        initial(nets.critic, CRITIC_GAIN, seed, *name, "critic"),
    )
    parameters = np.concatenate(parts).astype(settings.precision)
    return Learner(parameters=parameters, first=np.zeros_like(parameters), second=np.zeros_like(parameters))


def tensors(parameters: Array, settings: PpoSettings) -> dict[str, Array]:
    """Views by name, as safetensors wants them: actor.0.weight [in, out], actor.0.bias [out], ..., critic.0.weight."""
    weights = networks(settings).weights(parameters)
    return {
        f"{net}.{i}.{kind}": array
        for net, layers in (("actor", weights.actor), ("critic", weights.critic))
        for i, pair in enumerate(layers)
        for kind, array in zip(("weight", "bias"), pair, strict=True)
    }


def to_bytes(learner: Learner, settings: PpoSettings) -> bytes:
    """The learner, little-endian: header, parameters, first moments, second moments.

    Header: 8 bytes `qs.ppo.1`, u32 bytes a number (4 or 8), u32 vectors (3), u64 gradient steps, u64 updates, u32
    activation (0 tanh, 1 relu), u32 sizes of the actor, u32 sizes of the critic, then these sizes as u32. A vector is
    the actor's layers, then the critic's, each layer its weight [in, out] row by row and its bias [out].
    """
    vectors = (learner.parameters, learner.first, learner.second)
    return _head(settings, 3, learner.steps, learner.updates) + b"".join(map(_raw, vectors))


def from_bytes(data: bytes, settings: PpoSettings) -> Learner:
    """The learner that `to_bytes` wrote, with the same bits.

    Raises:
        ValueError: not such bytes, cut short, of other networks than the settings', or a number is not finite.
    """
    (parameters, first, second), steps, updates = _vectors(data, settings, 3)
    return Learner(parameters=parameters, first=first, second=second, steps=steps, updates=updates)


def parameters_to_bytes(learner: Learner, settings: PpoSettings) -> bytes:
    """What acting needs and no more: the layout of `to_bytes` with one vector, the parameters."""
    return _head(settings, 1, learner.steps, learner.updates) + _raw(learner.parameters)


def parameters_from_bytes(data: bytes, settings: PpoSettings) -> Array:
    """The parameters that `parameters_to_bytes` wrote, [P].

    Raises:
        ValueError: as for `from_bytes`.
    """
    return _vectors(data, settings, 1)[0][0]


def _raw(vector: Array) -> bytes:
    return vector.astype(vector.dtype.newbyteorder("<"), copy=False).tobytes()


def _head(settings: PpoSettings, vectors: int, steps: int, updates: int) -> bytes:
    nets = networks(settings)
    sizes = (*nets.actor.sizes, *nets.critic.sizes)
    width = np.dtype(settings.precision).itemsize
    head = _HEAD.pack(MAGIC, width, vectors, steps, updates, ACTIVATIONS.index(settings.activation),
                      len(nets.actor.sizes), len(nets.critic.sizes))
    return head + struct.pack(f"<{len(sizes)}I", *sizes)


def _vectors(data: bytes, settings: PpoSettings, vectors: int) -> tuple[list[Array], int, int]:
    if len(data) < _HEAD.size or data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"not a learner: {len(data)} bytes that begin with {data[:8]!r} instead of {MAGIC!r}")
    steps, updates = _HEAD.unpack_from(data)[3:5]
    head = _head(settings, vectors, steps, updates)
    if data[: len(head)] != head:
        raise ValueError(f"a learner of other networks, precision or content than {networks(settings)} "
                         f"in {settings.precision} with {vectors} vectors")
    count, dtype = networks(settings).count, np.dtype(settings.precision).newbyteorder("<")
    if len(data) != len(head) + vectors * count * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes; {vectors} vectors of {count} numbers and their header are "
                         f"{len(head) + vectors * count * dtype.itemsize}")
    numbers = np.frombuffer(data, dtype, offset=len(head)).astype(settings.precision)
    if not np.isfinite(numbers).all():
        raise ValueError("a number of the learner is not finite")
    return list(numbers.reshape(vectors, count)), steps, updates
