"""The meta strategy agent; see the package's docstring."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise
from math import isfinite, log
from typing import Any, ClassVar

import numpy as np
from msgspec.structs import replace

from agents.algorithms.edge import shown
from agents.algorithms.learner import Learner, from_bytes, new_learner, tensors, to_bytes
from agents.algorithms.lineage import merge_origin
from agents.algorithms.network_policy import rescaled
from agents.algorithms.observation import NAMES, present
from agents.algorithms.ppo import Diagnostics, update
from agents.algorithms.ppo_settings import PpoSettings
from agents.algorithms.rollout import Kept, added, drained, packed, ready
from agents.algorithms.tensors import dumped
from agents.contract import Config, Output, Refused
from agents.meta_strategy import inputs
from agents.meta_strategy.config import MetaStrategyConfig
from agents.meta_strategy.state import MetaState
from agents.obeying import ExperienceLearner
from schemas.events import STRATEGY_SYMBOLS, Edge, Experience, MetaUpdated, Network, PolicyRecord

Step = tuple[MetaState, tuple[Output, ...]]


class MetaStrategyAgent(ExperienceLearner[MetaState]):
    """Learns a network of each symbol from the outcomes of its own decisions."""

    name: ClassVar[str] = "meta_strategy"
    state_type = MetaState
    config_type: ClassVar[type[Config]] = MetaStrategyConfig
    heavy: ClassVar[tuple[str, ...]] = ("learner",)
    config: MetaStrategyConfig

    def new(self, scope: str) -> MetaState:
        """Nothing seen."""
        return MetaState(symbol=scope)

    @property
    def book_id(self) -> str:
        """Book that it learns from."""
        return self.config.book_id

    def learned_from(self, state: MetaState, e: Experience) -> Step:
        """Fold an experience of the own book.

        Raises:
            Refused: CONTRADICTORY, OUT_OF_RANGE, NO_OBSERVATION or UNKNOWN_VERSION.
        """
        if e.decision_id in state.recent:
            return state, ()
        self._check(state, e)
        taken = replace(state, now_ms=max(state.now_ms, e.ts_ms),
                        recent=(*state.recent, e.decision_id)[-self.config.recent_ids:])
        if state.status != "ACTIVE":
            return replace(taken, unlearned=state.unlearned + e.learnable), ()
        taken = inputs.seen(replace(
            taken, origin=e.origin if state.origin is None else merge_origin(state.origin, e.origin),
            symbol=e.symbol, source=e.source), e.observation)
        if e.learnable:
            return self._take(taken, e)
        if taken.version == 0 and taken.states >= self.config.warmup_decisions:
            return self._begin(taken, e)
        return taken, ()

    def _check(self, state: MetaState, e: Experience) -> None:
        if not abs(e.reward_r) <= self.config.max_abs_reward_r:  # so that NaN does not pass
            raise Refused("OUT_OF_RANGE", f"reward_r is {e.reward_r!r}; at most {self.config.max_abs_reward_r}")
        there = e.observation
        if there is not None and (len(there) != len(NAMES) or not all(x is None or isfinite(x) for x in there)):
            raise Refused("OUT_OF_RANGE", f"observation is {there!r}; {len(NAMES)} finite numbers or nulls are needed")
        if not e.learnable:
            return
        if e.forced or e.status == "NOT_EXECUTED":
            raise Refused("CONTRADICTORY", f"learnable, but forced is {e.forced} and status is {e.status}")
        if e.policy_version is None or e.policy_version > state.version:
            raise Refused("UNKNOWN_VERSION", f"decided by version {e.policy_version}, newest here is {state.version}")
        if there is None or present(there, state.kept) is None:
            raise Refused("NO_OBSERVATION", f"a network chose, but of its inputs {inputs.names(state)} some are absent")

    # ------------------------------------------------------------------ learning
    def _begin(self, state: MetaState, e: Experience) -> Step:
        """The first version: networks that have learned nothing, and the scale of their inputs."""
        settings = self.config.ppo(len(state.kept))
        learner = new_learner(settings, self.config.seed, self.name, state.symbol)
        state = replace(state, version=1, scaling=inputs.scaling(state), learner=to_bytes(learner, settings))
        return state, (self.published(state, e.ts_ms, e.ts_ms, "genesis"),)

    def _take(self, state: MetaState, e: Experience) -> Step:
        """An outcome: it waits for its round; the one that fills it is learned from with the others."""
        assert e.observation is not None
        assert e.policy_version is not None
        assert state.scaling is not None
        settings, numbers = self.config.ppo(len(state.kept)), present(e.observation, state.kept)
        assert numbers is not None
        kept = Kept(
            id=e.decision_id, stream=e.symbol, place=e.decided_ms, reward=e.reward_r, version=e.policy_version,
            observation=packed(state.scaling.scaled(numbers), settings), action=STRATEGY_SYMBOLS.index(e.action),
            log_probability=log(e.propensity), terminated=True)
        learner = from_bytes(state.learner, settings)
        try:
            rollout = added(state.rollout, kept, settings, self.config.rounds(), learner.parameters, state.version)
        except ValueError as exc:
            raise Refused("CONTRADICTORY", str(exc)) from exc
        n, away = state.outcomes + 1, e.reward_r - state.reward_mean
        mean = state.reward_mean + away / n
        state = replace(state, rollout=rollout, outcomes=n, reward_mean=mean,
                        reward_squares=state.reward_squares + away * (e.reward_r - mean))
        return self._learn(state, e, learner, settings) if ready(rollout, self.config.rounds()) else (state, ())

    def _learn(self, state: MetaState, e: Experience, learner: Learner, settings: PpoSettings) -> Step:
        """One update from a full round, and the version that it makes."""
        assert state.scaling is not None
        waiting = state.rollout.waiting
        rollout = state.rollout if self.config.one_step else replace(state.rollout, waiting=chained(waiting))
        batch, rollout = drained(rollout, settings, learner.parameters)
        off_B = (batch.returns - batch.values).astype(np.float64)
        learner, how = update(learner, batch, settings, self.config.seed, self.name, state.symbol)
        scaling = inputs.scaling(state)
        moved = rescaled(learner.parameters, settings, state.scaling, scaling)
        learner = Learner(parameters=moved, first=learner.first, second=learner.second, steps=learner.steps,
                          updates=learner.updates)
        state = replace(state, version=state.version + 1, learner=to_bytes(learner, settings), scaling=scaling,
                        rollout=rollout, residual_deviation=float(np.sqrt(np.mean(off_B * off_B))))
        mean_reward = sum(k.reward for k in waiting) / len(waiting)
        return state, (
            Output("rl.meta.updated", self._updated(state, e, tuple(k.id for k in waiting), mean_reward, how)),
            self.published(state, e.ts_ms, e.ts_ms, "update"),
        )

    def _updated(self, state: MetaState, e: Experience, ids: tuple[str, ...], mean_reward_r: float,
                 how: Diagnostics) -> MetaUpdated:
        assert state.origin is not None
        rollout = state.rollout
        return MetaUpdated(
            symbol=state.symbol, ts_ms=e.ts_ms, policy_version=state.version, decision_ids=ids, n=how.experiences,
            mean_reward_r=mean_reward_r, policy_loss=how.policy_loss, value_loss=how.value_loss,
            entropy=max(how.entropy, 0.0), approx_kl=how.approx_kl, clip_fraction=how.clip_fraction,
            explained_variance=how.explained_variance, grad_norm=how.grad_norm, lr=how.lr,
            gradient_steps=how.gradient_steps, stopped_early=how.stopped_early, used=rollout.used,
            stale=rollout.stale, dropped=rollout.dropped, source=e.source, origin=state.origin)

    # ------------------------------------------------------------------ what is published
    def restored(self, state: MetaState, old: MetaState) -> dict[str, Any]:
        """Decisions taken stay known. What waited was chosen by versions that are undone: it is dropped and counted."""
        now = state.rollout
        return {"recent": state.recent, "unlearned": state.unlearned,
                "rollout": replace(now, waiting=(), dropped=now.dropped + len(now.waiting))}

    def published(self, state: MetaState, ts_ms: int, valid_from_ms: int, reason: str) -> Output:
        """The networks as a version of the policy."""
        assert state.origin is not None
        config, retired = self.config, state.status == "RETIRED"
        evaluated = None if retired else shown(state.outcomes, state.reward_mean, state.reward_squares)
        return Output("policy.ledger", PolicyRecord(
            policy_id=self.policy_id(state), version=state.version, agent=self.name, scope=state.symbol, ts_ms=ts_ms,
            valid_from_ms=valid_from_ms,
            valid_until_ms=ts_ms + config.valid_for_ms if state.status == "ACTIVE" else None,
            fallback=config.fallback, status=state.status, reason=reason, outcomes=state.outcomes,
            mask=inputs.mask(state), actions=STRATEGY_SYMBOLS, network=None if retired else self._network(state),
            edge_claim=None if evaluated is None else evaluated.claim,
            edge=None if evaluated is None else Edge(**evaluated._asdict()), unlearned=state.unlearned,
            source=state.source, origin=state.origin))

    def _network(self, state: MetaState) -> Network:
        settings, scaling = self.config.ppo(len(state.kept)), state.scaling
        assert scaling is not None
        weights = dumped(tensors(from_bytes(state.learner, settings).parameters, settings))
        return Network(
            inputs=inputs.names(state), means=scaling.means, deviations=scaling.deviations, clip=scaling.clip,
            activation=self.config.activation, residual_deviation=state.residual_deviation, weights=weights,
            weights_sha256=sha256(weights).hexdigest())


def chained(waiting: tuple[Kept, ...]) -> tuple[Kept, ...]:
    """The decisions of a round as one episode in order of time, each followed by the next, the last cut short."""
    ordered = sorted(waiting, key=lambda k: k.place)
    linked = [replace(k, place=i, terminated=False, following=after.observation)
              for i, (k, after) in enumerate(pairwise(ordered))]
    last = ordered[-1]
    return (*linked, replace(last, place=len(linked), terminated=False, truncated=True, following=last.observation))
