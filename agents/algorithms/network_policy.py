"""A policy that is a pair of networks, as it is applied: from a state to probabilities and a value.

    network = read(weights, "tanh", inputs=17, actions=4)
    chosen = network.applied(scaling, numbers)

The learner's own arithmetic (`mlp.output`, `ppo.log_softmax`) on the published numbers, without a learner. The softmax
is of float64 whatever the weights are, so that probabilities sum to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.algorithms.learner import networks
from agents.algorithms.mlp import Activation, Layers, Mlp, output
from agents.algorithms.ppo import log_softmax
from agents.algorithms.ppo_settings import PpoSettings
from agents.algorithms.tensors import loaded

Array = NDArray[np.floating[Any]]
CLIP = 10.0
"""Scaled inputs are held within plus and minus this (Huang et al. 2022, details of the continuous domains)."""
MIN_DEVIATION = 1e-8  # an input that never changed


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """What brings inputs to mean 0 and deviation 1.

    Attributes:
        means, deviations: of each input.
        clip: limit of what comes out.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    clip: float = CLIP

    def scaled(self, rows: Array | tuple[float, ...]) -> NDArray[np.float64]:
        """Scaled inputs, [..., F]."""
        x = (np.asarray(rows, np.float64) - self.means) / self.deviations
        found: NDArray[np.float64] = np.clip(x, -self.clip, self.clip)
        return found


class Applied(NamedTuple):
    """What a network says of one state.

    Attributes:
        probabilities: of each action; sum to 1.
        log_probabilities: their natural logarithms.
        value: expected reward.
    """

    probabilities: tuple[float, ...]
    log_probabilities: tuple[float, ...]
    value: float

    @property
    def greedy(self) -> int:
        """The most probable action; of equally probable ones the first."""
        return self.probabilities.index(max(self.probabilities))


@dataclass(frozen=True, eq=False)
class ActingNetwork:
    """Actor and critic, ready to be applied."""

    actor: Mlp
    actor_layers: Layers
    critic: Mlp
    critic_layers: Layers

    def applied(self, scaling: Scaling, numbers: tuple[float, ...]) -> Applied:
        """Probabilities and value of the state with these inputs, not yet scaled."""
        x_1F = scaling.scaled(numbers).astype(self.actor_layers[0][0].dtype)[None]
        logits_1A = output(self.actor, self.actor_layers, x_1F).astype(np.float64)
        log_p = log_softmax(logits_1A)[0]
        value = output(self.critic, self.critic_layers, x_1F)[0, 0]
        return Applied(tuple(np.exp(log_p).tolist()), tuple(log_p.tolist()), float(value))


@lru_cache(maxsize=64)  # a function of its arguments; a decision asks for it every time
def read(weights: bytes, activation: str, inputs: int, actions: int) -> ActingNetwork:
    """The networks in a policy's weights.

    Args:
        weights: of the policy, tensors `actor.0.weight`, `actor.0.bias`, ..., `critic.0.weight`, ... of one dtype.
        activation: tanh or relu.
        inputs: F.
        actions: A.

    Raises:
        ValueError: they are no such networks.
    """
    if activation not in ("tanh", "relu"):
        raise ValueError(f"activation {activation!r}; known are tanh and relu")
    arrays = loaded(weights)
    kind = cast(Activation, activation)
    found = [_network(arrays, name, kind, inputs, outputs) for name, outputs in (("actor", actions), ("critic", 1))]
    (actor, actor_layers), (critic, critic_layers) = found
    known = 2 * (len(actor_layers) + len(critic_layers))
    if len(arrays) != known or len({a.dtype for a in arrays.values()}) != 1:
        raise ValueError(f"tensors {', '.join(arrays)} of one dtype are expected to be those of actor and critic alone")
    return ActingNetwork(actor, actor_layers, critic, critic_layers)


def _network(arrays: dict[str, Array], name: str, activation: Activation, inputs: int,
             outputs: int) -> tuple[Mlp, Layers]:
    layers: list[tuple[Array, Array]] = []
    sizes = [inputs]
    while f"{name}.{len(layers)}.weight" in arrays:
        weight = arrays[f"{name}.{len(layers)}.weight"]
        bias = arrays.get(f"{name}.{len(layers)}.bias")
        if bias is None or weight.ndim != 2 or weight.shape[0] != sizes[-1] or bias.shape != weight.shape[1:]:
            raise ValueError(f"{name}.{len(layers)} takes {weight.shape} numbers where {sizes[-1]} inputs come")
        layers.append((weight, bias))
        sizes.append(weight.shape[1])
    if not layers or sizes[-1] != outputs:
        raise ValueError(f"{name} goes from {sizes[0]} to {sizes[-1]} numbers in {len(layers)} layers; "
                         f"{outputs} are expected to come out")
    return Mlp(sizes=tuple(sizes), activation=activation), tuple(layers)


def rescaled(parameters: Array, settings: PpoSettings, before: Scaling, after: Scaling) -> Array:
    """Parameters that say of every state under `after` what the given ones say under `before`, [P].

    The first layers take up the difference, so that a policy does not change because its inputs are scaled by better
    known means. It does where an input is clipped, and where a scale moves further than the clip range reaches.
    """
    moved = parameters.copy()
    weights = networks(settings).weights(moved)
    far = before.clip
    shift_F = np.clip((np.array(after.means) - before.means) / before.deviations, -far, far)
    stretch_F = np.clip(np.array(after.deviations) / before.deviations, 1 / far, far)
    for layers in (weights.actor, weights.critic):
        weight, bias = layers[0]
        bias += (shift_F @ weight.astype(np.float64)).astype(bias.dtype)
        weight *= stretch_F.astype(weight.dtype)[:, None]
    return moved
