"""What PPO can be told, each with where its default comes from."""

from __future__ import annotations

from math import isfinite
from typing import Literal

import msgspec

from agents.algorithms.mlp import Activation


class PpoSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one PPO learner; frozen, validated, unknown fields refused.

    Attributes:
        features: F, numbers in an observation.
        actions: A, discrete actions.
        hidden: hidden layers of the actor, and of the critic too unless `critic_hidden` says otherwise.
        critic_hidden: hidden layers of the critic; None: as the actor's.
        activation: of the hidden layers (Andrychowicz et al. 2021 find tanh best).
        precision: of all numbers of the learner.
        gradients: "closed" by `mlp`, "autograd" by PyTorch, which must be installed then. Equal to 1e-5, not in bits.
        gamma: discount of a step.
        gae_lambda: see `gae`.
        minibatch: experiences a gradient step; the last of an epoch may be smaller.
        epochs: passes over the experiences of an update.
        lr: learning rate of Adam.
        lr_end: rate that it falls to over `anneal_updates`; None: it stays.
        clip: range of the probability ratio, 1 - clip to 1 + clip.
        clip_end: range that it falls to over `anneal_updates`; None: it stays.
        anneal_updates: updates that the annealing takes; None where nothing is annealed.
        value_clip: how far a value may move from the one before the update, in units of reward; None: freely.
        value_coefficient: weight of the mean squared error of the values.
        entropy_coefficient: weight of the mean entropy, in nats.
        normalise_advantages: to mean 0 and deviation 1 in each minibatch of more than one.
        max_grad_norm: the gradient of actor and critic together is scaled down to this norm.
        max_kl: approximate KL of a minibatch, nats, beyond which the update stops before its step; None: never.
        adam_eps: 1e-5 instead of Adam's 1e-8 (Huang et al. 2022, detail 3).

    Raises:
        ValueError: a value outside of its range, with its name.
    """

    features: int
    actions: int
    hidden: tuple[int, ...] = (64, 64)
    critic_hidden: tuple[int, ...] | None = None
    activation: Activation = "tanh"
    precision: Literal["float32", "float64"] = "float32"
    gradients: Literal["closed", "autograd"] = "closed"
    gamma: float = 0.99
    gae_lambda: float = 0.95
    minibatch: int = 64
    epochs: int = 10
    lr: float = 3e-4
    lr_end: float | None = None
    clip: float = 0.2
    clip_end: float | None = None
    anneal_updates: int | None = None
    value_clip: float | None = 0.2
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    normalise_advantages: bool = True
    max_grad_norm: float = 0.5
    max_kl: float | None = None
    adam_eps: float = 1e-5

    def __post_init__(self) -> None:
        layers = (*self.hidden, *(self.critic_hidden or ()))
        counts = (self.features, self.minibatch, self.epochs, *layers)
        for name, value in self._numbers():
            if not isfinite(value):
                raise ValueError(f"{name} is {value}; a finite number is needed")
        if min(counts) < 1 or self.actions < 2:
            raise ValueError("features, minibatch, epochs and hidden layers must be at least 1, actions at least 2")
        for name, value in (("gamma", self.gamma), ("gae_lambda", self.gae_lambda)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; 0 to 1 is needed")
        for name in ("lr", "clip", "value_clip", "max_grad_norm", "max_kl", "adam_eps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0")
        for name in ("lr_end", "clip_end", "value_coefficient", "entropy_coefficient"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} is {value}; it must not be below 0")
        if self.anneal_updates is not None and self.anneal_updates < 1:
            raise ValueError(f"anneal_updates is {self.anneal_updates}; at least 1 is needed")

    def _numbers(self) -> list[tuple[str, float]]:
        pairs = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, value) for name, value in pairs if isinstance(value, float)]

    @property
    def annealed(self) -> bool:
        """Whether anything is to fall over `anneal_updates`."""
        return self.lr_end is not None or self.clip_end is not None

    def rates(self, updates: int) -> tuple[float, float]:
        """Learning rate and clip range of the update after so many.

        Raises:
            ValueError: something is annealed, but nobody said over how many updates.
        """
        if not self.annealed:
            return self.lr, self.clip
        if self.anneal_updates is None:
            raise ValueError("lr_end or clip_end is set: anneal_updates must say over how many updates")
        left = max(0.0, 1 - updates / self.anneal_updates)
        lr, clip = (
            start if end is None else end + (start - end) * left
            for start, end in ((self.lr, self.lr_end), (self.clip, self.clip_end))
        )
        return lr, clip
