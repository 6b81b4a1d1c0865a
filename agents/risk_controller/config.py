"""Configuration of the risk controller."""

from __future__ import annotations

from agents.contract import Config
from schemas.events import RiskMode

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class RiskConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of the risk controller. Thresholds and limits are rules and stand in `table`.

    Attributes:
        symbols: symbols whose books are judged; empty: all.
        books: books that are judged; empty: all that are no baselines.
        synthetic: whether books on SYNTHETIC candles are judged, and bound, too.
        initial: first mode.
        allow_turbo: whether the scores may lead to TURBO.
        dwell_ms: event time in a mode, and without a signal to step down, before it steps up.
        health_hold_ms: event time that a component must be HEALTHY before its CRITICAL is over.
        valid_for_ms: validity of a version. Longer than a market is closed: over a weekend no bar renews it.
        renew_ms: age at which a version is renewed.
        trades_window: newest trades that the win rate is of.
        min_trades: trades below which there is no win rate, and nothing speaks for stepping up.
        slope_days: newest days that the slope of equity is of.
        sample_ms: distance of the samples of equity that the slope is fitted to.
    """

    symbols: tuple[str, ...] = ()
    books: tuple[str, ...] = ()
    synthetic: bool = False
    initial: RiskMode = "MODERATE"
    allow_turbo: bool = False
    dwell_ms: int = DAY_MS
    health_hold_ms: int = 10 * 60_000
    valid_for_ms: int = 7 * DAY_MS
    renew_ms: int = DAY_MS
    trades_window: int = 30
    min_trades: int = 20
    slope_days: int = 7
    sample_ms: int = 6 * HOUR_MS

    def __post_init__(self) -> None:
        if min(self.dwell_ms, self.health_hold_ms) < 0 or min(self.renew_ms, self.slope_days, self.sample_ms) < 1:
            raise ValueError("dwell_ms, health_hold_ms >= 0 and renew_ms, slope_days, sample_ms >= 1 are needed")
        if not self.renew_ms < self.valid_for_ms:
            raise ValueError("renew_ms must be below valid_for_ms, or the policy ends before it is renewed")
        if not 1 <= self.min_trades <= self.trades_window <= 256:
            raise ValueError("1 <= min_trades <= trades_window <= 256 is needed")
        if self.initial == "TURBO" and not self.allow_turbo:
            raise ValueError("initial TURBO needs allow_turbo")
