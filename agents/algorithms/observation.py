"""The state of a decision as twenty numbers, absent ones left absent.

All of them are returns, ratios or shares of one; prices and amounts are none of them. What the market data lack, or
what no agent knows at a decision yet, is None: never 0 and never a half.
"""

from __future__ import annotations

NAMES = (
    "return_1", "volatility_30", "trend_strength", "price_range", "volume_ratio_20", "rsi_14", "macd",
    "bollinger_position", "adx_14", "stochastic_k_14", "atr_14_pct", "obv_slope_14", "ema_dist_14", "regime_bull",
    "regime_bear", "regime_sideways", "regime_volatile", "model_confidence", "recent_pnl_mean", "recent_pnl_std",
)
"""In their order; rsi, adx and the stochastic divided by 100, the regime as four numbers of which one is 1."""

Observation = tuple[float | None, ...]


def observed(
    *, return_1: float | None, volatility_30: float | None, trend_strength: float | None, price_range: float | None,
    volume_ratio_20: float | None, rsi_14: float | None, macd: float | None, bollinger_position: float | None,
    adx_14: float | None, stochastic_k_14: float | None, atr_14_pct: float | None, obv_slope_14: float | None,
    ema_dist_14: float | None, regime: str,
) -> Observation:
    """The numbers in the order of `NAMES`.

    Three are absent for now: no model gives a confidence, and the actor, who sees no outcomes, knows no recent result.

    Args:
        rsi_14, adx_14, stochastic_k_14: 0 to 100.
        regime: bull, bear, sideways or volatile.
    """
    return (
        return_1, volatility_30, trend_strength, price_range, volume_ratio_20, _share(rsi_14), macd,
        bollinger_position, _share(adx_14), _share(stochastic_k_14), atr_14_pct, obv_slope_14, ema_dist_14,
        float(regime == "bull"), float(regime == "bear"), float(regime == "sideways"), float(regime == "volatile"),
        None, None, None,
    )


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def present(observation: Observation, kept: tuple[int, ...]) -> tuple[float, ...] | None:
    """The kept numbers; None where one of them is absent.

    >>> present((1.0, None, 3.0), (0, 2)), present((1.0, None, 3.0), (0, 1))
    ((1.0, 3.0), None)
    """
    numbers = [observation[i] for i in kept]
    found = tuple([x for x in numbers if x is not None])
    return found if len(found) == len(numbers) else None
