"""State of the meta strategy."""

from __future__ import annotations

from agents.algorithms.network_policy import Scaling
from agents.algorithms.observation import NAMES
from agents.algorithms.rollout import Rollout
from agents.contract import State
from agents.obeying import Early
from schemas.events import Origin, PolicyStatus


class MetaState(State, frozen=True, kw_only=True):
    """Per symbol.

    Attributes:
        learner: networks and Adam's moments, of `learner.to_bytes`; empty before the first version.
        scaling: of the newest version's inputs; None before the first.
        kept: places in `observation.NAMES` of the inputs that are used; settled with the first version.
        means, variances: of the kept inputs, over all states seen.
        rollout: outcomes that wait for an update, and what became of the others.
        version: newest policy version; 0 before genesis.
        outcomes: learnable outcomes taken.
        reward_mean, reward_squares: their mean, R, and the sum of their squared deviations from it, R^2.
        states: states seen.
        residual_deviation: of the results of the last round from the critic's values, root mean square, R.
        origin: of all experiences taken; None before the first.
        recent: decision ids last taken, oldest first.
        symbol: the scope.
        source: market data behind the newest experience learned from; empty before the first.
        now_ms: newest event time of an experience.
        status: FROZEN and RETIRED learn nothing.
        retired_ms: event time of the version that retired the policy, until its key was freed; else -1.
        unlearned: learnable outcomes that nothing was learned from.
        obeyed: ids of the commands last answered, oldest first.
        early: commands that wait for the first version.
    """

    learner: bytes = b""
    scaling: Scaling | None = None
    kept: tuple[int, ...] = tuple(range(len(NAMES)))
    means: tuple[float, ...] = (0.0,) * len(NAMES)
    variances: tuple[float, ...] = (1.0,) * len(NAMES)
    rollout: Rollout = Rollout()
    version: int = 0
    outcomes: int = 0
    reward_mean: float = 0.0
    reward_squares: float = 0.0
    states: int = 0
    residual_deviation: float = 1.0
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
