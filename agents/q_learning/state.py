"""State of the Q-learner, and how states of older releases become it."""

from __future__ import annotations

import msgspec

from agents.algorithms.river_state import Moments
from agents.contract import State
from agents.obeying import Early
from agents.q_learning.config import N_ACTIONS
from agents.q_learning.table import BUCKETS, KEYS, QCell
from schemas.events import Origin, PolicyStatus

QUANTILES = tuple((i + 1) / BUCKETS for i in range(BUCKETS - 1))


class QLearningState(State, frozen=True, kw_only=True):
    """Per symbol. Bytes are frozen River estimators.

    Attributes:
        cells: in the order of `table.KEYS`.
        version: newest policy version; 0 before genesis.
        outcomes: outcomes learned from.
        explored: outcomes since exploration began or was opened again.
        volatilities: volatilities seen.
        edges: estimates of the volatility quantiles.
        quantiles: their estimators.
        rewards: moments of the rewards of each strategy.
        residuals: drift detector of each strategy.
        origin: of all experiences taken; None before the first.
        recent: decision ids last taken, oldest first.
        symbol: the scope; empty in a state of format 1 until the next experience.
        source: market data behind the newest experience learned from; empty before the first.
        now_ms: newest event time of an experience.
        status: FROZEN and RETIRED learn nothing.
        retired_ms: event time of the version that retired the policy, until its key was freed; else -1.
        unlearned: learnable outcomes that nothing was learned from.
        obeyed: ids of the commands last answered, oldest first.
        early: commands that wait for the first version.
    """

    cells: tuple[QCell, ...] = (QCell(),) * len(KEYS)
    version: int = 0
    outcomes: int = 0
    explored: int = 0
    volatilities: int = 0
    edges: tuple[float, ...] = (0.0,) * len(QUANTILES)
    quantiles: tuple[bytes, ...] = (b"",) * len(QUANTILES)
    rewards: tuple[Moments, ...] = (Moments(),) * N_ACTIONS
    residuals: tuple[bytes, ...] = (b"",) * N_ACTIONS
    origin: Origin | None = None
    recent: tuple[str, ...] = ()
    symbol: str = ""
    source: str = ""
    now_ms: int = -1
    status: PolicyStatus = "ACTIVE"
    retired_ms: int = -1
    unlearned: int = 0
    obeyed: tuple[str, ...] = ()
    early: tuple[Early, ...] = ()


class FirstState(State, frozen=True, kw_only=True):
    """Format 1, before commands were obeyed."""

    cells: tuple[QCell, ...]
    version: int
    outcomes: int
    explored: int
    volatilities: int
    edges: tuple[float, ...]
    quantiles: tuple[bytes, ...]
    rewards: tuple[Moments, ...]
    residuals: tuple[bytes, ...]
    origin: Origin | None
    recent: tuple[str, ...]


def from_first(old: FirstState) -> QLearningState:
    """Format 2: nothing was commanded yet; symbol, source and event time come with the next experience."""
    return QLearningState(**msgspec.structs.asdict(old))
