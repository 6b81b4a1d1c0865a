"""The Q-learning agent; see the package's docstring."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from agents.algorithms.edge import shown
from agents.algorithms.lineage import merge_origin
from agents.algorithms.river_state import (
    Detected,
    adwin_update,
    moments_update,
    quantile_update,
    together,
)
from agents.contract import Config, Output, Refused
from agents.obeying import ExperienceLearner
from agents.q_learning.config import QLearningConfig
from agents.q_learning.state import QUANTILES, FirstState, QLearningState, from_first
from agents.q_learning.table import (
    INDEX,
    KEYS,
    Move,
    forgetting,
    learned,
    pooled_sd,
    published,
    redrawn,
    strategy_sds,
    with_item,
)
from schemas.events import (
    STRATEGY_SYMBOLS,
    DriftDetected,
    Edge,
    Experience,
    PolicyRecord,
    QUpdated,
)

Step = tuple[QLearningState, tuple[Output, ...]]


class QLearningAgent(ExperienceLearner[QLearningState]):
    """Learns a Q-table of each symbol from the outcomes of its own decisions."""

    name: ClassVar[str] = "q_learning"
    state_type = QLearningState
    config_type: ClassVar[type[Config]] = QLearningConfig
    format_version: ClassVar[int] = 2  # 2: commands
    former = {1: (FirstState, from_first)}  # noqa: RUF012
    config: QLearningConfig

    def new(self, scope: str) -> QLearningState:
        """Nothing seen."""
        return QLearningState(symbol=scope)

    @property
    def book_id(self) -> str:
        """Book that it learns from."""
        return self.config.book_id

    def learned_from(self, state: QLearningState, event: Experience) -> Step:
        """Fold an experience of the own book.

        Raises:
            Refused: CONTRADICTORY, OUT_OF_RANGE, UNKNOWN_CELL or UNKNOWN_VERSION.
        """
        if event.decision_id in state.recent:
            return state, ()
        self._check(state, event)
        if state.status != "ACTIVE":
            return msgspec.structs.replace(
                state, unlearned=state.unlearned + event.learnable, now_ms=max(state.now_ms, event.ts_ms),
                recent=self._recent(state, event),
            ), ()
        seen = self._seen(state, event)
        if event.learnable:
            return self._learn(seen, event)
        if seen.version == 0 and seen.volatilities >= self.config.warmup_decisions:
            seen = msgspec.structs.replace(seen, version=1)
            return seen, (self.published(seen, event.ts_ms, event.ts_ms, "genesis"),)
        return seen, ()

    def restored(self, state: QLearningState, old: QLearningState) -> dict[str, Any]:
        """The decisions taken and those that came while nothing was learned stay known."""
        return {"recent": state.recent, "unlearned": state.unlearned}

    # ------------------------------------------------------------------ learning
    def _check(self, state: QLearningState, e: Experience) -> None:
        if not abs(e.reward_r) <= self.config.max_abs_reward_r:  # so that NaN does not pass
            raise Refused("OUT_OF_RANGE", f"reward_r is {e.reward_r!r}; at most {self.config.max_abs_reward_r}")
        if not 0 <= e.volatility <= self.config.max_volatility:
            raise Refused("OUT_OF_RANGE", f"volatility is {e.volatility!r}; at most {self.config.max_volatility}")
        if not e.learnable:
            return
        if e.forced or e.status == "NOT_EXECUTED":
            raise Refused("CONTRADICTORY", f"learnable, but forced is {e.forced} and status is {e.status}")
        if e.state_key not in INDEX:
            raise Refused("UNKNOWN_CELL", f"state_key is {e.state_key!r}; known are {', '.join(KEYS)}")
        if e.policy_version is None or e.policy_version > state.version:
            raise Refused("UNKNOWN_VERSION", f"decided by version {e.policy_version}, newest here is {state.version}")

    def _seen(self, state: QLearningState, e: Experience) -> QLearningState:
        """What every experience teaches: the volatility, the origin, and that it was taken."""
        pairs = [quantile_update(s, q, e.volatility) for s, q in zip(state.quantiles, QUANTILES, strict=True)]
        return msgspec.structs.replace(
            state,
            volatilities=state.volatilities + 1,
            quantiles=tuple([s for s, _ in pairs]),
            edges=tuple(sorted([edge for _, edge in pairs])),  # two estimators may cross by a hair
            origin=e.origin if state.origin is None else merge_origin(state.origin, e.origin),
            recent=self._recent(state, e), symbol=e.symbol, source=e.source, now_ms=max(state.now_ms, e.ts_ms),
        )

    def _recent(self, state: QLearningState, e: Experience) -> tuple[str, ...]:
        return (*state.recent, e.decision_id)[-self.config.recent_ids:]

    def _learn(self, state: QLearningState, e: Experience) -> Step:
        config, action, place = self.config, STRATEGY_SYMBOLS.index(e.action), INDEX[e.state_key or ""]
        before = state.cells[place]
        move = learned(before, action, e.reward_r, config)
        rewards = with_item(state.rewards, action, moments_update(state.rewards[action], e.reward_r))
        residuals, found = state.residuals, None
        scale = pooled_sd(rewards)
        if before.n[action] >= config.watch_after:
            found = adwin_update(residuals[action], config.adwin_delta, move.residual / scale)
            residuals = with_item(residuals, action, found.state)
        drift = found is not None and found.alarm
        cells = with_item(state.cells, place, move.cell)
        explored = 0 if drift else state.explored + 1
        if drift:
            cells = tuple(forgetting(c, action, config.drift_outcomes) for c in cells)
        every = drift or config.exploration == "epsilon"  # both reach beyond the cell that was learned
        sds = strategy_sds(rewards)
        cells = tuple([redrawn(c, sds, explored, config) if every or i == place else c for i, c in enumerate(cells)])
        state = msgspec.structs.replace(
            state, cells=cells, version=state.version + 1, outcomes=state.outcomes + 1, explored=explored,
            rewards=rewards, residuals=residuals,
        )
        return state, self._outputs(state, e, move, found if drift else None, scale)

    def _outputs(self, state: QLearningState, e: Experience, move: Move, alarm: Detected | None,
                 scale: float) -> tuple[Output, ...]:
        assert e.state_key is not None
        assert state.origin is not None
        visits = state.cells[INDEX[e.state_key]].visits[STRATEGY_SYMBOLS.index(e.action)]
        updated = QUpdated(
            symbol=e.symbol, ts_ms=e.ts_ms, decision_id=e.decision_id, policy_version=state.version,
            state_key=e.state_key, action=e.action, reward_r=e.reward_r, q_before=move.q_before,
            q_after=move.q_after, visits=visits, step_size=move.step, residual=move.residual,
            drift=alarm is not None, source=e.source, origin=state.origin,
        )
        policy = self.published(state, e.ts_ms, e.ts_ms, "update" if alarm is None else "drift")
        if alarm is None:
            return Output("rl.q_learning.updated", updated), policy
        drift = DriftDetected(
            symbol=e.symbol, ts_ms=e.ts_ms, agent=self.name, strategy=e.action,
            detector=f"ADWIN(delta={self.config.adwin_delta:g})", window_before=alarm.width_before,
            window_after=alarm.width_after, mean_residual=alarm.mean * scale, decision_id=e.decision_id,
            source=e.source, origin=state.origin,
        )
        return Output("rl.q_learning.updated", updated), Output("learning.drift.detected", drift), policy

    def published(self, state: QLearningState, ts_ms: int, valid_from_ms: int, reason: str) -> Output:
        """The table as a version of the policy."""
        assert state.origin is not None
        config, rewards, retired = self.config, together(state.rewards), state.status == "RETIRED"
        evaluated = None if retired else shown(state.outcomes, rewards.mean, rewards.squares)
        tabular = None if retired else published(state.cells, state.edges, strategy_sds(state.rewards), config)
        record = PolicyRecord(
            policy_id=self.policy_id(state), version=state.version, agent=self.name, scope=state.symbol,
            ts_ms=ts_ms, valid_from_ms=valid_from_ms,
            valid_until_ms=ts_ms + config.valid_for_ms if state.status == "ACTIVE" else None,
            fallback=config.fallback, status=state.status, reason=reason, outcomes=state.outcomes, mask=(),
            actions=STRATEGY_SYMBOLS, tabular=tabular, edge_claim=None if evaluated is None else evaluated.claim,
            edge=None if evaluated is None else Edge(**evaluated._asdict()), unlearned=state.unlearned,
            source=state.source, origin=state.origin,
        )
        return Output("policy.ledger", record)
