"""Configuration of the Q-learner."""

from __future__ import annotations

from typing import Literal

from agents.contract import Config
from schemas.events import STRATEGY_SYMBOLS, Strategy

DAY_MS = 86_400_000
N_ACTIONS = len(STRATEGY_SYMBOLS)


class QLearningConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of the Q-learner. `docs/decisions/0040` holds the measurements behind the defaults.

    Attributes:
        book_id: book that it learns from.
        warmup_decisions: volatilities seen before the first policy, so that the bucket edges mean something.
        valid_for_ms: how long a version may be applied without a newer one.
        fallback: action where the policy may not be applied; wins ties.
        alpha: fixed step; None is 1/n down to `alpha_floor`.
        gamma: discount; the cell of the decision stands in for the next one, which an experience does not hold.
        exploration: thompson, or epsilon (greedy, decaying).
        min_probability: smallest probability of each action.
        prior_outcomes: weight of the prior around 0, in outcomes.
        posterior_width: multiple of the posterior's standard deviation that is drawn from; above 1 explores more.
        epsilon_start: first exploration rate of epsilon.
        epsilon_decay: factor on it for each learned outcome.
        epsilon_end: its lowest value.
        adwin_delta: ADWIN's significance.
        watch_after: outcomes of a cell and action before its residuals are watched: the first ones show the learner.
        drift_outcomes: outcomes that an estimate may still rest on after an alarm.
        recent_ids: decisions remembered, against repeats.
        max_abs_reward_r: a reward beyond is refused, R.
        max_volatility: a volatility beyond is refused (standard deviation of one-bar log returns).
    """

    book_id: str = "q_learning"
    warmup_decisions: int = 20
    valid_for_ms: int = 30 * DAY_MS
    fallback: Strategy = "neutral"
    alpha: float | None = None
    alpha_floor: float = 0.005
    gamma: float = 0.0
    exploration: Literal["thompson", "epsilon"] = "thompson"
    min_probability: float = 0.02
    prior_outcomes: float = 0.25
    posterior_width: float = 1.5
    epsilon_start: float = 1.0
    epsilon_decay: float = 0.995
    epsilon_end: float = 0.08
    adwin_delta: float = 0.002
    watch_after: int = 10
    drift_outcomes: int = 10
    recent_ids: int = 64
    max_abs_reward_r: float = 100.0
    max_volatility: float = 10.0

    def __post_init__(self) -> None:
        steps = (self.alpha_floor, 1.0 if self.alpha is None else self.alpha)
        if not all(0 < s <= 1 for s in steps) or not 0 <= self.gamma < 1:
            raise ValueError("0 < alpha <= 1, 0 < alpha_floor <= 1 and 0 <= gamma < 1 are needed")
        if not 0.02 <= self.min_probability < 1 / N_ACTIONS:
            raise ValueError(f"min_probability must be at least .02 and below {1 / N_ACTIONS}")
        if not N_ACTIONS * self.min_probability <= self.epsilon_end <= self.epsilon_start <= 1:
            raise ValueError(f"{N_ACTIONS} x min_probability <= epsilon_end <= epsilon_start <= 1 is needed")
        if not (0 < self.epsilon_decay <= 1 and 0 < self.adwin_delta < 1):
            raise ValueError("0 < epsilon_decay <= 1 and 0 < adwin_delta < 1 are needed")
        counts = (self.warmup_decisions, self.valid_for_ms, self.watch_after, self.drift_outcomes, self.recent_ids)
        if min(counts) < 1 or not (self.prior_outcomes > 0 and self.posterior_width > 0):
            raise ValueError("counts, prior_outcomes, posterior_width and valid_for_ms must be above 0")
