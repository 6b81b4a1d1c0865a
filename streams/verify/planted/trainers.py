"""Training runs that are none, and decisions that no weights gave."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
from msgspec.structs import replace

from agents.algorithms.learner import new_learner, to_bytes
from agents.contract import Job, Output
from agents.ppo_trader import PpoTraderAgent
from agents.ppo_trader.training import Request
from schemas.events import Event, TraderDecision, TrainingCompleted
from streams.verify.planted.stage import CONFIGS


class NeverTrains(PpoTraderAgent):
    """Publishes a version for every run, with the weights that the run began with."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config if config is not None else CONFIGS[self.name])

    def perform(self, job: Job) -> Output:
        """As the honest one, the weights exchanged."""
        topic, event = super().perform(job)
        fit = msgspec.msgpack.decode(job.request, type=Request).fit
        begun = fit.parent or to_bytes(new_learner(fit.settings, fit.seed, fit.name), fit.settings)
        assert isinstance(event, TrainingCompleted)
        return Output(topic, with_learner(event, begun))


def with_learner(event: TrainingCompleted, learner: bytes) -> TrainingCompleted:
    """A result with another learner, under its right hash."""
    return replace(event, learner=learner, learner_sha256=sha256(learner).hexdigest())


def made_up(topic: str, event: Event) -> Event:
    """Every result's learner changed on its way, in the last of its numbers."""
    if not isinstance(event, TrainingCompleted) or event.learner is None:
        return event
    return with_learner(event, event.learner[:-1] + bytes([event.learner[-1] ^ 1]))


def sure(topic: str, event: Event) -> Event:
    """Every decision that asked a version says that it was sure."""
    if not isinstance(event, TraderDecision) or not event.probabilities:
        return event
    p = tuple(float(name == event.recommended) for name in ("HOLD", "LONG", "SHORT", "REDUCE", "CLOSE"))
    return replace(event, probabilities=(*p, float(not any(p))), confidence=1.0, entropy=0.0, log_probability=0.0)
