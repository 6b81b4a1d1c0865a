"""What a policy says of a decision's state: reckoned from the record on the ledger alone, by no arithmetic of an agent.

A table is looked up. A network is read out of its tensors and applied here once more; another processor may round its
last digits otherwise, so what is held against it is held with a tolerance.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_right
from functools import lru_cache
from hashlib import sha256
from math import isclose
from typing import NamedTuple

import numpy as np

from schemas.events import Decision, Experience, Network, PolicyRecord, TraderDecision

NEAR_P = 1e-4  # relative, of a probability: weights are of 24 bits, and layers sum a hundred of them
NEAR_V = 1e-4  # R, of a value
NAMES = (
    "return_1", "volatility_30", "trend_strength", "price_range", "volume_ratio_20", "rsi_14", "macd",
    "bollinger_position", "adx_14", "stochastic_k_14", "atr_14_pct", "obv_slope_14", "ema_dist_14", "regime_bull",
    "regime_bear", "regime_sideways", "regime_volatile", "model_confidence", "recent_pnl_mean", "recent_pnl_std",
)
"""Order of an observation, as the schema of `rl.meta.strategy_selected` states it."""
TRADER = "ppo_trader"
TRADER_NAMES = (
    "return_1", "return_5", "return_15", "volatility", "rsi", "macd", "trend", "volume", "time_sin", "time_cos",
    "bull", "bear", "sideways", "volatile", "side", "size", "equity_over_balance", "unrealised",
)
"""What the trader's networks are given, in order; a dropped one counts as 0."""
TRADER_ACTIONS = ("HOLD", "LONG", "SHORT", "REDUCE", "CLOSE", "EMERGENCY_FLATTEN")
NEVER = ("spread",)  # no feed has it, so that it stands among the dropped and is no input
_TYPES = {"F32": "<f4", "F64": "<f8"}
Layers = tuple[tuple["np.ndarray", "np.ndarray"], ...]


class Said(NamedTuple):
    """What a policy says.

    Attributes:
        probabilities: of its actions, in their order.
        greedy: the actions that it may call best; two where they are as good as equal.
        state_key: the cell; None for a network.
        value: what a critic expects, R; None for a table.
    """

    probabilities: tuple[float, ...]
    greedy: tuple[str, ...]
    state_key: str | None = None
    value: float | None = None


def said(policy: PolicyRecord, of: Decision | Experience) -> Said | None:
    """What a policy says of the state of a decision; None where it says nothing."""
    if policy.tabular is not None:
        key = f"{of.regime}|vol:{bisect_right(policy.tabular.volatility_edges, of.volatility)}"
        cell = next((c for c in policy.tabular.cells if c.state_key == key), None)
        return None if cell is None else Said(cell.probabilities, (cell.greedy,), key)
    if policy.network is None or of.observation is None or len(of.observation) != len(NAMES):
        return None
    n = policy.network
    given = [of.observation[NAMES.index(name)] for name in n.inputs if name in NAMES]
    there = [x for x in given if x is not None]
    networks = _networks(n.weights)
    if len(there) != len(n.inputs) or networks is None:
        return None
    x_F = np.clip((np.array(there) - n.means) / n.deviations, -n.clip, n.clip)
    logits_A, value = _forward(networks["actor"], n, x_F), float(_forward(networks["critic"], n, x_F)[0])
    p_A = np.exp(logits_A - logits_A.max())
    p_A /= p_A.sum()
    if len(p_A) != len(policy.actions):
        return None
    best = float(p_A.max())
    greedy = tuple(a for a, p in zip(policy.actions, p_A.tolist(), strict=True) if isclose(p, best, rel_tol=NEAR_P))
    return Said(tuple(p_A.tolist()), greedy, None, value)


def _forward(layers: Layers, network: Network, x_F: np.ndarray) -> np.ndarray:
    h = x_F
    for i, (weight, bias) in enumerate(layers):
        h = h @ weight + bias
        if i < len(layers) - 1:
            h = np.tanh(h) if network.activation == "tanh" else np.maximum(h, 0.0)
    return h


@lru_cache(maxsize=256)
def _networks(weights: bytes) -> dict[str, Layers] | None:
    """Actor and critic in the tensors; None where there are no two networks."""
    try:
        (length,) = struct.unpack_from("<Q", weights)
        header = json.loads(weights[8:8 + length])
        found = {}
        for name in ("actor", "critic"):
            n = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in header)
            found[name] = tuple((_tensor(weights, 8 + length, header[f"{name}.{i}.weight"]),
                                 _tensor(weights, 8 + length, header[f"{name}.{i}.bias"])) for i in range(n))
    except (ValueError, KeyError, TypeError, struct.error):
        return None
    return found if all(found.values()) else None


def _tensor(data: bytes, begin: int, entry: dict[str, object]) -> np.ndarray:
    low, high = entry["data_offsets"]  # type: ignore[misc]
    flat = np.frombuffer(data[begin + low:begin + high], _TYPES[str(entry["dtype"])])  # type: ignore[has-type]
    return flat.reshape(entry["shape"]).astype(np.float64)  # type: ignore[call-overload]


def payload_wrong(policy: PolicyRecord) -> str | None:
    """What of a network's payload contradicts itself; None where all agrees."""
    n = policy.network
    if n is None:
        return None
    if sha256(n.weights).hexdigest() != n.weights_sha256:
        return f"its weights have another hash than the {n.weights_sha256[:12]} that it names"
    if policy.agent == TRADER:
        return _trader_payload_wrong(policy, n)
    if set(n.inputs) | set(policy.mask) != set(NAMES) or set(n.inputs) & set(policy.mask):
        return f"its inputs and its mask are not the state between them: {n.inputs}, {policy.mask}"
    if not len(n.inputs) == len(n.means) == len(n.deviations):
        return f"{len(n.inputs)} inputs, {len(n.means)} means, {len(n.deviations)} deviations"
    return None


def contradiction(decision: Decision, policy: PolicyRecord) -> str | None:
    """What of an unforced decision does not follow from the policy that it names; None where all does."""
    if policy.tabular is None and policy.network is None:
        return None
    name, version, found = f"{decision.decision_id} says", policy.version, said(policy, decision)
    if policy.tabular is not None and found is not None and decision.state_key != found.state_key:
        return f"{name} state {decision.state_key}, but by the policy's edges it is {found.state_key}"
    if found is None or decision.action not in policy.actions:
        where = "a state" if policy.tabular is None else decision.state_key
        return f"{name} {decision.action} in {where}, which the policy does not know"
    drawn_from = found.probabilities[policy.actions.index(decision.action)]
    near = isclose(decision.propensity, drawn_from, rel_tol=NEAR_P) if policy.network is not None \
        else decision.propensity == drawn_from
    if not near:
        return f"{name} propensity {decision.propensity:g}, but version {version} gives {drawn_from:g}"
    if decision.greedy_action not in found.greedy:
        return f"{name} that {decision.greedy_action} is greedy, but version {version} says {found.greedy[0]}"
    if found.value is not None and (decision.value is None or not isclose(
            decision.value, found.value, rel_tol=NEAR_P, abs_tol=NEAR_V)):
        return f"{name} value {decision.value}, but version {version} gives {found.value:g}"
    return None


# ---------------------------------------------------------------------- the trader
def _trader_payload_wrong(policy: PolicyRecord, n: Network) -> str | None:
    if n.inputs != TRADER_NAMES or policy.actions != TRADER_ACTIONS:
        return f"its inputs or actions are not the trader's: {n.inputs}, {policy.actions}"
    if set(policy.mask) - set(TRADER_NAMES) - set(NEVER):
        return f"its mask names what is no input: {policy.mask}"
    if not len(n.inputs) == len(n.means) == len(n.deviations):
        return f"{len(n.inputs)} inputs, {len(n.means)} means, {len(n.deviations)} deviations"
    return None


def trader_contradiction(d: TraderDecision, policy: PolicyRecord) -> str | None:
    """What of a decision that asked a version does not follow from the version's weights; None where all does."""
    n = policy.network
    if n is None or len(d.observation) != len(n.inputs) or len(d.probabilities) != len(policy.actions):
        return f"asked version {d.policy_version}, which says nothing of what it was given"
    networks = _networks(n.weights)
    if networks is None:
        return f"asked version {d.policy_version}, whose weights are no two networks"
    x_F = np.clip((np.array(d.observation) - n.means) / n.deviations, -n.clip, n.clip)
    logits_A, value = _forward(networks["actor"], n, x_F), float(_forward(networks["critic"], n, x_F)[0])
    allowed_A = np.array([a in d.valid for a in policy.actions])
    p_A = np.where(allowed_A, np.exp(logits_A - logits_A[allowed_A].max(initial=-np.inf)), 0.0)
    p_A /= p_A.sum()
    if not np.allclose(p_A, d.probabilities, rtol=NEAR_P, atol=NEAR_P):
        return f"says other probabilities than version {d.policy_version} gives"
    if d.value is None or not isclose(value, d.value, rel_tol=NEAR_P, abs_tol=NEAR_V):
        return f"says value {d.value}, but version {d.policy_version} gives {value:g}"
    best = float(p_A.max())
    if d.recommended is None or not isclose(p_A[policy.actions.index(d.recommended)], best, rel_tol=NEAR_P):
        return f"recommends {d.recommended}, which is not the most probable action of version {d.policy_version}"
    if d.action != d.recommended and not d.forced:
        return f"does {d.action} where {d.recommended} is recommended, and names no force"
    return None
