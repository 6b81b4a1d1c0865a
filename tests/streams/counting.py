"""A small agent for tests of the host: counts per symbol, and chains what it saw, so that order and repeats show."""

from __future__ import annotations

import time
from typing import Any

from agents.contract import Agent, Output, Refused, State
from schemas.events import Candle, DriftDetected, Event, Experience, RegimeChanged

MODULUS = (1 << 61) - 1
SYMBOLS = tuple(f"SYM{i:02d}USDT" for i in range(7))


class Count(State, frozen=True, kw_only=True):
    """How many events, and a hash chain over their times."""

    n: int = 0
    chain: int = 0


def chained(chain: int, ts_ms: int) -> int:
    """The chain after one more event."""
    return (chain * 1_000_003 + ts_ms) % MODULUS


class _Counting(Agent[Count]):
    state_type = Count

    def new(self, scope: str) -> Count:
        return Count()

    def step(self, state: Count, event: Event) -> tuple[Count, tuple[Output, ...]]:
        ts_ms: int = event.ts_ms  # type: ignore[attr-defined]
        if ts_ms % 1000 == 13:
            raise Refused("UNLUCKY", "13 ms")
        if ts_ms % 1000 == 66:
            raise RuntimeError("a defect of the agent")
        if ts_ms % 1000 == 99:
            time.sleep(1.2)
        new = Count(n=state.n + 1, chain=chained(state.chain, ts_ms))
        return new, (self.output(event, new),)

    def output(self, event: Any, state: Count) -> Output:
        raise NotImplementedError


class CountingFeatures(_Counting):
    """Stands in for `features`: an inbox, candles in, one regime record out each."""

    name = "features"

    def output(self, event: Candle, state: Count) -> Output:
        return Output("market.regime.changed", RegimeChanged(
            symbol=event.symbol, interval_ms=60_000, ts_ms=event.ts_ms, current="bull", bars_in_previous=state.n,
            trend_strength=0.0, volatility_ratio=0.0, source=event.source, origin=event.origin))


class CountingLearner(_Counting):
    """Stands in for `q_learning`: a direct topic, experiences in, one drift record out each."""

    name = "q_learning"

    def output(self, event: Experience, state: Count) -> Output:
        return Output("learning.drift.detected", DriftDetected(
            symbol=event.symbol, ts_ms=event.ts_ms, agent="q_learning", strategy="neutral", detector="none",
            window_before=state.n, window_after=0, mean_residual=0.0, decision_id=event.decision_id,
            source=event.source, origin=event.origin))


def candle(symbol: str, ts_ms: int) -> Candle:
    """A flat bar that ends at `ts_ms`."""
    return Candle(symbol=symbol, interval_ms=60_000, open_time_ms=ts_ms - 60_000, ts_ms=ts_ms, open=1.0, high=1.0,
                  low=1.0, close=1.0, source="synthetic:1", origin="SYNTHETIC")


def experience(symbol: str, ts_ms: int) -> Experience:
    """A neutral decision's end."""
    return Experience(
        decision_id=f"{symbol}-{ts_ms}", symbol=symbol, book_id="q_learning", ts_ms=ts_ms, decided_ms=ts_ms,
        status="NEUTRAL", learnable=True, forced=False, action="neutral", propensity=1.0, regime="bull",
        volatility=0.01, reward_r=0.0, pnl_usd=0.0, size_multiplier=1.0, source="synthetic:1", origin="SYNTHETIC")
