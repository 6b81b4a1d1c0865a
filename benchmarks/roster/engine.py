"""An execution engine that is made: decisions of the Q-learner's book and their closed trades, symbol by symbol."""

from __future__ import annotations

from typing import Any

from schemas.codec import Codec
from schemas.events import STRATEGY_SYMBOLS, Decision, Event, TradeClosed
from streams.records import Outgoing, encode_event

HOUR_MS = 3_600_000
START_MS = 1_704_067_200_000
SOURCE = "benchmark"

Mark = tuple[str, int]
"""Symbol and event time of a trade: no two have the same."""


class Engine:
    """Makes decisions and their trades, one symbol after the other."""

    def __init__(self, symbols: int, codec: Codec) -> None:
        self._names = [f"S{i:03d}USDT" for i in range(symbols)]
        self._codec = codec
        self._number = 0

    def next(self, learnable: bool) -> tuple[Mark, Outgoing, Outgoing]:
        """The next decision and its trade.

        Args:
            learnable: whether the policy's first version decided; before there is one, the decision was forced.
        """
        turn, i = divmod(self._number, len(self._names))
        self._number += 1
        decision = _decision(self._names[i], START_MS + turn * 4 * HOUR_MS, turn, learnable)
        trade = _trade(decision, (turn * 7 + i) % 5 - 2.0)
        return (trade.symbol, trade.ts_ms), self._record("rl.meta.strategy_selected", decision), self._record(
            "execution.trade.closed", trade)

    def _record(self, topic: str, event: Event) -> Outgoing:
        return encode_event(self._codec, topic, event, f"{topic}/{self._number}", SOURCE)


def _decision(symbol: str, ts_ms: int, turn: int, learnable: bool) -> Decision:
    policy: dict[str, Any] = {"policy_id": f"q_learning/{symbol}", "policy_version": 1, "state_key": "bull|vol:1"}
    return Decision(
        decision_id=f"{symbol}/q_learning/{ts_ms}", symbol=symbol, book_id="q_learning", decider="q_learning",
        ts_ms=ts_ms, interval_ms=HOUR_MS, next_ts_ms=ts_ms + 4 * HOUR_MS, action=STRATEGY_SYMBOLS[turn % 3],
        greedy_action="neutral", baseline_action="neutral", propensity=0.25, forced=not learnable,
        forced_reason=None if learnable else "no_policy", regime="bull", volatility=0.01 + turn % 7 * 1e-3,
        close=100.0, atr_pct=0.02, signals=(1, -1, 1, 0), size_multiplier=1.0, source=SOURCE, origin="SYNTHETIC",
        **(policy if learnable else {}))


def _trade(of: Decision, moved: float) -> TradeClosed:
    """Two units bought at 100 and sold `moved` higher, for a fee of 1, on a risk of 8."""
    pnl = 2.0 * moved - 1.0
    return TradeClosed(
        trade_id=f"{of.decision_id}/1", decision_id=of.decision_id, book_id=of.book_id, symbol=of.symbol, side="LONG",
        ts_ms=of.ts_ms + 4 * HOUR_MS, opened_ms=of.ts_ms, entry_price=100.0, exit_price=100.0 + moved, quantity=2.0,
        size_multiplier=1.0, leverage=0.02, equity_at_open=10_000.0, notional_at_open=200.0, risk_at_open=8.0,
        fees=1.0, funding=0.0, spread_cost=0.1, slippage=0.1, pnl_usd=pnl, pnl_pct=pnl / 10_000.0,
        r_multiple=pnl / 8.0, exit_reason="HORIZON", strategy=of.action, policy_id=of.policy_id,
        policy_version=of.policy_version, execution="engine", source=SOURCE, origin="SYNTHETIC")
