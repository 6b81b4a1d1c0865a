"""Configuration of the meta strategy."""

from __future__ import annotations

from agents.algorithms.learner import networks
from agents.algorithms.mlp import Activation
from agents.algorithms.observation import NAMES
from agents.algorithms.ppo_settings import PpoSettings
from agents.algorithms.rollout import RolloutSettings
from agents.contract import Config
from schemas.events import STRATEGY_SYMBOLS, Strategy

DAY_MS = 86_400_000
N_ACTIONS = len(STRATEGY_SYMBOLS)
MAX_WEIGHTS_BYTES = 256 * 1024
"""Largest payload that stands in a policy record itself (ARCHITECTURE.md, "A policy record")."""
HEADER_BYTES = 4096  # of the tensors, at most


class MetaStrategyConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of the meta strategy. `docs/decisions/0085` holds the measurements behind the defaults.

    Attributes:
        book_id: book that it learns from.
        warmup_decisions: states seen before the first policy, so that the scale of the inputs means something.
        valid_for_ms: how long a version may be applied without a newer one.
        fallback: action where the policy may not be applied.
        round_size: outcomes of an update.
        max_age: versions that the one which chose may lie behind the newest before its outcome is weighed.
        one_step: each decision is an episode of its own; False chains the decisions of a round by `gamma` and
            `gae_lambda`, as if the choice of one changed the market of the next; most of the gain goes with it.
        gamma, gae_lambda: without effect on episodes of one step.
        hidden, activation, epochs, minibatch, lr, clip, value_clip, value_coefficient, entropy_coefficient,
        max_grad_norm, max_kl: see `PpoSettings`.
        recent_ids: decisions remembered, against repeats.
        max_abs_reward_r: a reward beyond is refused, R.

    Raises:
        ValueError: a value outside of its range, or networks whose weights do not fit into a policy record.
    """

    book_id: str = "meta_strategy"
    warmup_decisions: int = 20
    valid_for_ms: int = 30 * DAY_MS
    fallback: Strategy = "neutral"
    round_size: int = 64
    max_age: int = 2
    one_step: bool = True
    gamma: float = 0.99
    gae_lambda: float = 0.95
    hidden: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    epochs: int = 10
    minibatch: int = 64
    lr: float = 3e-4
    clip: float = 0.2
    value_clip: float | None = None
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.03
    max_grad_norm: float = 0.5
    max_kl: float | None = None
    recent_ids: int = 128
    max_abs_reward_r: float = 100.0

    def __post_init__(self) -> None:
        if min(self.warmup_decisions, self.round_size, self.valid_for_ms) < 2 or self.recent_ids < self.round_size:
            raise ValueError("warmup_decisions, round_size, valid_for_ms >= 2 and recent_ids >= round_size are needed")
        if not self.max_abs_reward_r > 0:
            raise ValueError("max_abs_reward_r must be above 0")
        self.rounds()
        size = networks(self.ppo(len(NAMES))).count * 4 + HEADER_BYTES
        if size > MAX_WEIGHTS_BYTES:
            raise ValueError(f"hidden {self.hidden}: weights of up to {size} bytes, and a policy record takes "
                             f"{MAX_WEIGHTS_BYTES}")

    def ppo(self, features: int) -> PpoSettings:
        """Settings of a learner with so many inputs."""
        return PpoSettings(
            features=features, actions=N_ACTIONS, hidden=self.hidden, activation=self.activation, gamma=self.gamma,
            gae_lambda=self.gae_lambda, minibatch=self.minibatch, epochs=self.epochs, lr=self.lr, clip=self.clip,
            value_clip=self.value_clip, value_coefficient=self.value_coefficient,
            entropy_coefficient=self.entropy_coefficient, max_grad_norm=self.max_grad_norm, max_kl=self.max_kl)

    def rounds(self) -> RolloutSettings:
        """Settings of the buffer."""
        return RolloutSettings(size=self.round_size, max_age=self.max_age, remembered=self.round_size)
