"""Risk limits that a decision carries, as rules of execution: they take the place of those in the configuration."""

from __future__ import annotations

from functools import lru_cache

from msgspec.structs import replace

from agents.paper_execution.layout import PaperConfig
from schemas.events import Decision, RiskLimits


def governed(config: PaperConfig, decision: Decision) -> PaperConfig:
    """The rules for a decision: stop, leverage and daily loss of its limits; the configuration's where it has none."""
    return config if decision.limits is None else _governed(config, decision.limits)


@lru_cache(maxsize=64)  # a function of its arguments alone
def _governed(config: PaperConfig, limits: RiskLimits) -> PaperConfig:
    return replace(config, stop_atr=limits.stop_atr, max_leverage=limits.max_leverage,
                   daily_loss_limit=limits.daily_loss_limit)


def allowed_size(config: PaperConfig, decision: Decision) -> float:
    """Size multiplier of a decision, clipped to the risk that a trade may take."""
    size = decision.size_multiplier
    return size if decision.limits is None else min(size, decision.limits.risk_per_trade / config.risk_pct)


def label(decision: Decision) -> str:
    """What a trade's `execution` says of the limits; empty without any."""
    return "" if decision.limits is None else f" risk={decision.limits.mode}@{decision.limits_version}"
