"""Policies that are networks: what the actor keeps of them, and the bytes of their weights, kept apart.

Weights are heavy: all those that are held stand one behind the other in one field of the state, in the order of the
deciders and of their policies, and each policy knows how many of the bytes are its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from math import isfinite
from typing import Protocol

import msgspec

from agents.algorithms.network_policy import Applied, Scaling, read
from agents.algorithms.observation import NAMES, Observation, observed, present
from schemas.events import Features, Network

Weights = dict[tuple[str, int], bytes]
"""By policy id and version."""


class HeldNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a network that decides, but for its weights.

    Attributes:
        kept: places of its inputs in `observation.NAMES`.
        size: bytes of its weights.
        deviation: of a result from the critic's value, R.
    """

    kept: tuple[int, ...]
    scaling: Scaling
    activation: str
    size: int
    deviation: float

    def applied(self, weights: bytes, observation: Observation, actions: int) -> Applied | None:
        """What it says of a state; None where one of its inputs is absent."""
        numbers = present(observation, self.kept)
        if numbers is None:
            return None
        return read(weights, self.activation, len(self.kept), actions).applied(self.scaling, numbers)


def held_network(network: Network, actions: int) -> HeldNetwork:
    """What to keep of a policy's network.

    Raises:
        ValueError: it cannot be applied, and why.
    """
    unknown = [name for name in network.inputs if name not in NAMES]
    if unknown or len(set(network.inputs)) != len(network.inputs):
        raise ValueError(f"inputs {network.inputs}: names of the state are needed, each once")
    n = len(network.inputs)
    if len(network.means) != n or len(network.deviations) != n or not network.clip > 0:
        raise ValueError(f"{n} inputs, {len(network.means)} means, {len(network.deviations)} deviations")
    if not all(map(isfinite, network.means)) or not all(d > 0 and isfinite(d) for d in network.deviations):
        raise ValueError("means must be finite and deviations above 0")
    if sha256(network.weights).hexdigest() != network.weights_sha256:
        raise ValueError(f"its weights are not those of {network.weights_sha256[:12]}")
    read(network.weights, network.activation, n, actions)
    return HeldNetwork(
        kept=tuple(map(NAMES.index, network.inputs)), activation=network.activation, size=len(network.weights),
        scaling=Scaling(means=network.means, deviations=network.deviations, clip=network.clip),
        deviation=network.residual_deviation)


class Holding(Protocol):
    """A policy that may be a network."""

    @property
    def policy_id(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def network(self) -> HeldNetwork | None: ...


def split(policies: Iterable[Holding], weights: bytes) -> Weights:
    """The weights of each policy."""
    found: Weights = {}
    at = 0
    for p in policies:
        if p.network is not None:
            found[p.policy_id, p.version] = weights[at:at + p.network.size]
            at += p.network.size
    return found


def joined(policies: Iterable[Holding], weights: Mapping[tuple[str, int], bytes]) -> bytes:
    """The weights of these policies, one behind the other."""
    return b"".join([weights[p.policy_id, p.version] for p in policies if p.network is not None])


def observation_of(bar: Features) -> Observation:
    """The state at a close."""
    return observed(
        return_1=bar.return_1, volatility_30=bar.volatility_30, trend_strength=bar.trend_strength,
        price_range=bar.price_range, volume_ratio_20=bar.volume_ratio_20, rsi_14=bar.rsi_14, macd=bar.macd,
        bollinger_position=bar.bollinger_position, adx_14=bar.adx_14, stochastic_k_14=bar.stochastic_k_14,
        atr_14_pct=bar.atr_14_pct, obv_slope_14=bar.obv_slope_14, ema_dist_14=bar.ema_dist_14,
        regime=bar.regime or "",
    )
