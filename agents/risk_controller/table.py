"""All rules of the risk mode on one page: limits, points, transitions, and what forces a mode.

A bar's points give a signal, the signal and the mode give the next mode. Numbers are the defaults of the platform that
this replaces; where it gave none (a half of the symbols), that is ours. Thin markets were among its defensive points
and are not here: none of the inputs holds a volume.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from schemas.events import RISK_MODE_SYMBOLS, RiskLimits, RiskMode

MODES: tuple[RiskMode, ...] = RISK_MODE_SYMBOLS
"""From the least risk to the most."""
FALLBACK: RiskMode = "CONSERVATIVE"
"""Mode whose limits hold past the end of a policy."""


# ---------------------------------------------------------------------- limits
def _limits(mode: RiskMode, risk: float, confidence: float, positions: int, leverage: float, stop: float,
            daily: float) -> RiskLimits:
    return RiskLimits(mode=mode, risk_per_trade=risk, min_confidence=confidence, max_positions=positions,
                      max_leverage=leverage, stop_atr=stop, daily_loss_limit=daily)


LIMITS: dict[RiskMode, RiskLimits] = {row.mode: row for row in (
    #        mode            risk   conf  pos  lev  stop  day
    _limits("CONSERVATIVE", 0.005, 0.75, 3, 2.0, 1.5, 0.02),
    _limits("MODERATE",     0.010, 0.65, 5, 3.0, 2.0, 0.03),
    _limits("AGGRESSIVE",   0.015, 0.60, 8, 5.0, 2.5, 0.05),
    _limits("TURBO",        0.020, 0.55, 10, 7.0, 3.0, 0.05),
)}


# ---------------------------------------------------------------------- points
Measured = Literal["drawdown", "win_rate", "equity_slope", "losses_in_a_row", "days_without_profit", "volatile_share",
                   "choppy_share", "trending_share"]
Compared = Literal[">=", ">", "<=", "<"]


class Point(NamedTuple):
    """Points that count where a measure passes its threshold; below 0 defensive, above 0 aggressive."""

    measure: Measured
    compared: Compared
    threshold: float
    points: int

    def counts(self, value: float) -> bool:
        """Whether they count at a value.

        >>> POINTS[0].counts(0.05), POINTS[1].counts(0.45)
        (True, False)
        """
        return {">=": value >= self.threshold, ">": value > self.threshold, "<=": value <= self.threshold,
                "<": value < self.threshold}[self.compared]


POINTS: tuple[Point, ...] = (
    Point("drawdown", ">=", 0.05, -2),           # from the running peak of equity
    Point("win_rate", "<", 0.45, -2),            # of the newest trades
    Point("equity_slope", "<", -0.005, -2),      # a day
    Point("losses_in_a_row", ">=", 5, -1),
    Point("days_without_profit", ">=", 3, -1),   # UTC days, in a row
    Point("volatile_share", ">=", 0.5, -1),      # of the symbols judged
    Point("choppy_share", ">=", 0.5, -1),        # of the symbols judged: sideways
    Point("drawdown", "<=", 0.02, 1),
    Point("win_rate", ">=", 0.60, 1),
    Point("equity_slope", ">", 0.01, 1),
    Point("trending_share", ">=", 0.5, 1),       # of the symbols judged: bull or bear
)
DOWN_AT = 3
"""Defensive points from which on the mode steps down."""
UP_AT = 2
"""Aggressive points from which on it may step up, with no defensive one."""

# ---------------------------------------------------------------------- transitions
Signal = Literal["CRITICAL", "DOWN", "STAY", "UP"]
SIGNALS: tuple[Signal, ...] = ("CRITICAL", "DOWN", "STAY", "UP")


class Step(NamedTuple):
    """Where a signal leads.

    Attributes:
        waits: only after the dwell time.
        permitted: only where TURBO is permitted by configuration.
    """

    to: RiskMode
    waits: bool = False
    permitted: bool = False


TRANSITIONS: dict[tuple[RiskMode, Signal], Step] = {
    ("CONSERVATIVE", "CRITICAL"): Step("CONSERVATIVE"),
    ("CONSERVATIVE", "DOWN"):     Step("CONSERVATIVE"),
    ("CONSERVATIVE", "STAY"):     Step("CONSERVATIVE"),
    ("CONSERVATIVE", "UP"):       Step("MODERATE", waits=True),
    ("MODERATE", "CRITICAL"):     Step("CONSERVATIVE"),
    ("MODERATE", "DOWN"):         Step("CONSERVATIVE"),
    ("MODERATE", "STAY"):         Step("MODERATE"),
    ("MODERATE", "UP"):           Step("AGGRESSIVE", waits=True),
    ("AGGRESSIVE", "CRITICAL"):   Step("CONSERVATIVE"),
    ("AGGRESSIVE", "DOWN"):       Step("MODERATE"),
    ("AGGRESSIVE", "STAY"):       Step("AGGRESSIVE"),
    ("AGGRESSIVE", "UP"):         Step("TURBO", waits=True, permitted=True),
    ("TURBO", "CRITICAL"):        Step("CONSERVATIVE"),
    ("TURBO", "DOWN"):            Step("AGGRESSIVE"),
    ("TURBO", "STAY"):            Step("TURBO"),
    ("TURBO", "UP"):              Step("TURBO"),
}


def signal(critical: bool, defensive: int, aggressive: int) -> Signal:
    """What points say.

    >>> signal(False, 3, 2), signal(False, 1, 4), signal(False, 0, 2), signal(True, 0, 4)
    ('DOWN', 'STAY', 'UP', 'CRITICAL')
    """
    if critical:
        return "CRITICAL"
    if defensive >= DOWN_AT:
        return "DOWN"
    return "UP" if aggressive >= UP_AT and not defensive else "STAY"


def stepped(mode: RiskMode, says: Signal, *, dwelt: bool, turbo: bool) -> RiskMode:
    """The next mode.

    Args:
        dwelt: whether the dwell time is over.
        turbo: whether TURBO is permitted.

    >>> stepped("MODERATE", "UP", dwelt=False, turbo=False), stepped("MODERATE", "UP", dwelt=True, turbo=False)
    ('MODERATE', 'AGGRESSIVE')
    >>> stepped("AGGRESSIVE", "UP", dwelt=True, turbo=False), stepped("TURBO", "CRITICAL", dwelt=False, turbo=True)
    ('AGGRESSIVE', 'CONSERVATIVE')
    """
    step = TRANSITIONS[mode, says]
    return mode if (step.waits and not dwelt) or (step.permitted and not turbo) else step.to


# ---------------------------------------------------------------------- forced states
Forced = Literal["CRITICAL", "OVERRIDE"]


def in_force(scored: RiskMode, critical: bool, override: RiskMode | None) -> tuple[RiskMode, Forced | None]:
    """The mode that holds, and what forces it: a sick component before a person, a person before the scores.

    >>> in_force("MODERATE", True, "TURBO"), in_force("MODERATE", False, "TURBO"), in_force("MODERATE", False, None)
    (('CONSERVATIVE', 'CRITICAL'), ('TURBO', 'OVERRIDE'), ('MODERATE', None))
    """
    if critical:
        return "CONSERVATIVE", "CRITICAL"
    return (scored, None) if override is None else (override, "OVERRIDE")


def after_override(scored: RiskMode, was: RiskMode) -> RiskMode:
    """Scored mode behind an override: never above either, since stepping up waits.

    >>> after_override("MODERATE", "TURBO"), after_override("AGGRESSIVE", "CONSERVATIVE")
    ('MODERATE', 'CONSERVATIVE')
    """
    return min(scored, was, key=MODES.index)
