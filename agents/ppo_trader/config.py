"""Configuration of the PPO trader."""

from __future__ import annotations

from agents.algorithms.ppo_settings import PpoSettings
from agents.algorithms.trading import Rules
from agents.algorithms.trading_fit import trader_settings
from agents.contract import Config
from schemas.events import TraderMode

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
MAX_INTERVAL_MINUTES = 366 * 24 * 60
RENAMED = {
    "training_enabled": "rl_v3.training.enabled",
    "training_interval_minutes": "rl_v3.training.interval_minutes",
    "training_episodes_per_run": "rl_v3.training.episodes_per_run",
}
"""Keys that the platform's operators know."""
LIVE = frozenset({
    *RENAMED.values(), "episode_bars", "min_rows", "lr", "gamma", "gae_lambda", "clip", "entropy_coefficient",
    "value_coefficient", "epochs", "minibatch", "mode", "min_confidence", "max_trades_per_hour", "drawdown_weight",
    "valid_for_ms", "synthetic",
})


class PpoTraderConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=RENAMED):
    """Configuration of the PPO trader; in JSON the first three have their old names, see `RENAMED`.

    Attributes:
        training_enabled: whether slots open runs.
        training_interval_minutes: length of a slot.
        training_episodes_per_run: episodes of a run.
        episode_bars: bars of an episode, at most.
        window_rows: newest bars that are kept to be learned from.
        min_rows: bars below which nothing is learned.
        max_attempts: attempts of a run.
        retry_after_ms: event time between a failure and the next attempt.
        max_waiting: slots that wait while a run is open; the oldest beyond are skipped.
        lr, gamma, gae_lambda, clip, entropy_coefficient, value_coefficient, epochs, minibatch: see `PpoSettings`.
        hidden: layers of actor and critic.
        mode: of the live adapter.
        min_confidence: below it nothing is opened.
        max_trades_per_hour: positions opened within 60 minutes of event time.
        valid_for_ms: how long a version may be applied without a newer one; of the versions made from then on.
        drawdown_weight: see `Rules`; stands here because it may change while the agent runs.
        rules: of the account, in training and live.
        synthetic: whether symbols of origin SYNTHETIC are traded, too; else all of their slots are skipped, and
            nothing is decided.
    """

    training_enabled: bool = True
    training_interval_minutes: int = 30
    training_episodes_per_run: int = 2
    episode_bars: int = 1000
    window_rows: int = 2048
    min_rows: int = 64
    max_attempts: int = 2
    retry_after_ms: int = 5 * MINUTE_MS
    max_waiting: int = 96
    lr: float = 3e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy_coefficient: float = 0.01
    value_coefficient: float = 0.5
    epochs: int = 10
    minibatch: int = 64
    hidden: tuple[int, ...] = (128, 128)
    mode: TraderMode = "SHADOW"
    min_confidence: float = 0.6
    max_trades_per_hour: int = 10
    valid_for_ms: int = 7 * DAY_MS
    drawdown_weight: float = 0.1
    rules: Rules = Rules()
    synthetic: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.training_interval_minutes <= MAX_INTERVAL_MINUTES:
            raise ValueError(f"training_interval_minutes must be 1 to {MAX_INTERVAL_MINUTES}")
        if not 1 <= self.training_episodes_per_run <= 64:
            raise ValueError("training_episodes_per_run must be 1 to 64")
        if not (2 <= self.min_rows <= self.window_rows <= 8192 and 1 <= self.episode_bars <= 8192):
            raise ValueError("2 <= min_rows <= window_rows <= 8192 and 1 <= episode_bars <= 8192 are needed")
        if min(self.max_attempts, self.max_waiting, self.valid_for_ms) < 1 or self.retry_after_ms < 0:
            raise ValueError("max_attempts, max_waiting and valid_for_ms must be at least 1, retry_after_ms at least 0")
        if not 0 <= self.min_confidence <= 1 or not 0 <= self.max_trades_per_hour <= 1000:
            raise ValueError("min_confidence must be 0 to 1, max_trades_per_hour 0 to 1000")
        if self.epochs > 100:
            raise ValueError("epochs must be at most 100")
        self.settings()
        self.account_rules()

    @property
    def slot_ms(self) -> int:
        """Length of a slot."""
        return self.training_interval_minutes * MINUTE_MS

    def settings(self) -> PpoSettings:
        """Of the learner.

        Raises:
            ValueError: a value outside of its range, with its name.
        """
        return trader_settings(
            hidden=self.hidden, lr=self.lr, gamma=self.gamma, gae_lambda=self.gae_lambda, clip=self.clip,
            entropy_coefficient=self.entropy_coefficient, value_coefficient=self.value_coefficient,
            epochs=self.epochs, minibatch=self.minibatch,
        )

    def account_rules(self) -> Rules:
        """Of the account, with the shaping that holds now.

        Raises:
            ValueError: a value outside of its range, with its name.
        """
        fields = {name: getattr(self.rules, name) for name in Rules.__struct_fields__}
        return Rules(**(fields | {"drawdown_weight": self.drawdown_weight}))
