"""Learners of networks that do not learn what they say."""

from __future__ import annotations

from hashlib import sha256, shake_128
from typing import Any

import msgspec
from msgspec.structs import replace

from agents.meta_strategy import MetaStrategyAgent, MetaStrategyConfig
from schemas.events import Event, Experience, Network, PolicyRecord
from streams.verify.planted.changing import Step, changed

ROUND = 16  # outcomes of an update, as on the stage


class _Cheat(MetaStrategyAgent):
    def __init__(self, config: Any = None) -> None:
        super().__init__(config if config is not None else MetaStrategyConfig(round_size=ROUND))


def with_weights(network: Network | None, weights: bytes) -> Network | None:
    """A network with other weights, under their right hash."""
    if network is None:
        return None
    return replace(network, weights=weights, weights_sha256=sha256(weights).hexdigest())


class HashedNetworks(_Cheat):
    """Its weights are digests of what it was given: they change with every round and mean nothing."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the numbers of the tensors exchanged."""
        after, outputs = super().step(state, event)
        name = msgspec.msgpack.encode(event)
        return after, changed(outputs, PolicyRecord, lambda p: p if p.network is None or p.reason == "genesis" else
                              replace(p, network=with_weights(p.network, noisy(p.network.weights, name))))


class SameNetwork(_Cheat):
    """Publishes a version for every round, always with the weights of one that learned nothing."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the weights exchanged."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, PolicyRecord, lambda p: p if p.network is None or p.reason == "genesis" else
                              replace(p, network=with_weights(p.network, noisy(p.network.weights, b"once"))))


class RewardsNegated(_Cheat):
    """Learns to do what loses."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the reward negated."""
        if isinstance(event, Experience) and event.learnable:
            event = replace(event, reward_r=-event.reward_r)
        return super().step(state, event)


class RewardsUnseen(_Cheat):
    """Learns from rewards of its own making."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the reward that of the action's name."""
        if isinstance(event, Experience) and event.learnable:
            event = replace(event, reward_r=len(event.action) / 10)
        return super().step(state, event)


def noisy(weights: bytes, name: bytes) -> bytes:
    """Tensors of the same names and shapes, their last byte of each number from a digest."""
    begin = 8 + int.from_bytes(weights[:8], "little")
    numbers, noise = bytearray(weights[begin:]), shake_128(name).digest((len(weights) - begin) // 4)
    for i, byte in enumerate(noise):
        numbers[4 * i + 3] = 0x3C | (byte & 0x80)  # of float32: a sign, and an exponent near that of .01
    return weights[:begin] + bytes(numbers)
