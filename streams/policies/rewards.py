"""Reward of the Q-learner by version: it learns outcome by outcome, so a mean over as many as a round of networks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from schemas.events import Event, QUpdated

TOPIC = "rl.q_learning.updated"
OUTCOMES = 64


def trailing(events: Iterable[Event | None], symbol: str) -> dict[int, float]:
    """Mean net result of the last `OUTCOMES` outcomes at each version, R; of all where there are fewer.

    Args:
        events: of `TOPIC`, in order; of a repeat the first counts.
    """
    last: deque[float] = deque(maxlen=OUTCOMES)
    seen: set[str] = set()
    found: dict[int, float] = {}
    for e in events:
        if isinstance(e, QUpdated) and e.symbol == symbol and e.decision_id not in seen:
            seen.add(e.decision_id)
            last.append(e.reward_r)
            found[e.policy_version] = sum(last) / len(last)
    return found
