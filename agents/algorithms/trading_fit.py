"""One training run of the trader: some episodes on a tape, from the weights of the run before.

Everything a run needs is in its request, and everything random is drawn by the run's name: the same request gives the
same bytes on the same platform, whoever performs it. A rollout holds at most `ROLLOUT` steps and is learned from even
where it is shorter, so every run updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.algorithms.learner import Learner, from_bytes, new_learner, to_bytes
from agents.algorithms.ppo import Diagnostics, update
from agents.algorithms.ppo_settings import PpoSettings
from agents.algorithms.ppo_train import Gatherer
from agents.algorithms.trading import ACTIONS, Rules
from agents.algorithms.trading_many import TradingEnvironments
from agents.algorithms.trading_view import FEATURES, ROW, Tape

ROLLOUT = 2048
ROW_TYPE = np.dtype("<f8")


class FitRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run.

    Attributes:
        name: stands in the name of every draw.
        seed: the same run with another seed is another run.
        episodes: played.
        episode_bars: of each, at most; the tape may be shorter.
        interval_ms: of a bar.
        rules: of the account.
        settings: of the learner.
        mask: columns that are dropped.
        rows: the tape, [T, ROW] as little-endian doubles.
        parent: learner to go on with; empty: a new one.
    """

    name: str
    seed: int
    episodes: int
    episode_bars: int
    interval_ms: int
    rules: Rules
    settings: PpoSettings
    mask: tuple[str, ...]
    rows: bytes
    parent: bytes = b""


class Fitted(NamedTuple):
    """What a run left.

    Attributes:
        learner: as bytes.
        updates: diagnostics of each update.
        rewards: of each episode, in the order in which they ended.
        lengths: of each episode, bars.
        sums: of each part of the reward and of what was paid, over all episodes; see `trading.Happened`.
        steps: taken in all.
    """

    learner: bytes
    updates: tuple[Diagnostics, ...]
    rewards: tuple[float, ...]
    lengths: tuple[int, ...]
    sums: dict[str, float]
    steps: int


def trader_settings(**changes: Any) -> PpoSettings:
    """Settings of the trader's learner: two layers of 128, values not clipped; the rest are the defaults.

    Returns are percents that add up to tens; a value that may move .2 from the one before would never get there.
    """
    base: dict[str, Any] = {"features": FEATURES, "actions": len(ACTIONS), "hidden": (128, 128), "value_clip": None}
    return PpoSettings(**(base | changes))


def packed(rows: NDArray[np.float64] | Sequence[Sequence[float]]) -> bytes:
    """Rows of a tape as bytes."""
    return np.asarray(rows, ROW_TYPE).tobytes()


def unpacked(data: bytes) -> NDArray[np.float64]:
    """Rows that `packed` wrote, [T, ROW].

    Raises:
        ValueError: no whole number of rows.
    """
    return np.frombuffer(data, ROW_TYPE).astype(np.float64).reshape(-1, ROW)


def fit(request: FitRequest) -> Fitted:
    """Perform a run.

    Raises:
        ValueError: a tape, parent or numbers that cannot be learned from.
    """
    r = request
    tape = Tape(unpacked(r.rows), r.interval_ms)
    envs = TradingEnvironments(tape, r.episodes, r.rules, episode_bars=r.episode_bars, once=True, mask=r.mask)
    learner = from_bytes(r.parent, r.settings) if r.parent else new_learner(r.settings, r.seed, r.name)
    return learned(learner, envs, r)


def learned(learner: Learner, envs: TradingEnvironments, request: FitRequest) -> Fitted:
    """Play the episodes to their ends, and learn from each rollout."""
    r = request
    gatherer = Gatherer(envs, r.settings, r.seed, r.name)
    left = min(r.episode_bars, len(envs.tape) - 1)
    stretch = max(1, ROLLOUT // r.episodes)
    updates = []
    while left > 0 and not envs.over:
        n_steps = min(stretch, left)
        learner, diagnostics = update(learner, gatherer.gather(learner, n_steps), r.settings, r.seed, r.name)
        updates.append(diagnostics)
        left -= n_steps
    return Fitted(
        to_bytes(learner, r.settings), tuple(updates), tuple(e.total for e in gatherer.episodes),
        tuple(e.length for e in gatherer.episodes), dict(envs.sums), gatherer.steps,
    )
