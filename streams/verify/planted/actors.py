"""Deciders, executors and joins that do something else than they say."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from agents.decision import DecisionAgent
from agents.decision.held import in_force
from agents.experience import ExperienceAgent
from agents.paper_execution import PaperExecutionAgent
from agents.risk_controller import RiskControllerAgent
from agents.risk_controller.table import LIMITS
from schemas.events import (
    Candle,
    Decision,
    Event,
    Experience,
    PolicyApplied,
    PolicyCommand,
    PolicyRecord,
    TradeClosed,
)
from streams.verify.planted.changing import Step, changed


# ---------------------------------------------------------------------- deciders, and what limits them
class AlwaysTurbo(RiskControllerAgent):
    """Brings the limits of TURBO into force, whatever its rules say."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, with other limits."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, PolicyRecord, lambda p: p if p.limits is None else replace(
            p, limits=replace(p.limits, now=LIMITS["TURBO"])))


class IgnoresPolicies(DecisionAgent):
    """Decides as if there were no policy."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, blind to policies."""
        return (state, ()) if isinstance(event, PolicyRecord) else super().step(state, event)


class OldPolicy(DecisionAgent):
    """Takes the first policy and no other ever after."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, blind to newer versions."""
        newer = isinstance(event, PolicyRecord) and event.version > 1
        return (state, ()) if newer else super().step(state, event)


class IgnoresLimits(DecisionAgent):
    """Decides as if there were no risk limits."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, blind to limits."""
        limits = isinstance(event, PolicyRecord) and event.limits is not None
        return (state, ()) if limits else super().step(state, event)


class TooLarge(DecisionAgent):
    """Names the limits in force, and takes twice the size that they allow."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, larger."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, Decision, lambda d: d if d.limits is None else replace(
            d, size_multiplier=2 * d.limits.risk_per_trade / self.config.risk_pct))


class Disobeys(DecisionAgent):
    """Decides as if nobody had commanded anything."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, blind to commands."""
        return (state, ()) if isinstance(event, PolicyCommand) else super().step(state, event)


class SaysHalt(DecisionAgent):
    """Says of every decision that a halt forced it, so that no policy is ever tried."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one under a halt that nobody commanded."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, Decision, lambda d: replace(
            d, forced=True, forced_reason="halt", action=d.baseline_action, greedy_action=d.baseline_action,
            propensity=1.0))


class Said(DecisionAgent):
    """Writes something else into its decisions than what it drew from."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the decisions that a policy made changed."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, Decision, lambda d: d if d.forced or d.policy_id is None else self.of(d))

    def of(self, decision: Decision) -> Decision:
        """The decision as it is published."""
        raise NotImplementedError


class WrongPropensity(Said):
    """Says that every action was drawn from a quarter."""

    def of(self, decision: Decision) -> Decision:
        """The propensity exchanged."""
        return replace(decision, propensity=0.25 if decision.propensity != 0.25 else 0.3)


class WrongGreedy(Said):
    """Says of every action that it is the greedy one, so that nothing looks like exploration."""

    def of(self, decision: Decision) -> Decision:
        """The greedy action exchanged."""
        return replace(decision, greedy_action=decision.action)


class AlwaysLarge(Said):
    """Risks the most on everything, how little the policy may expect of it."""

    def of(self, decision: Decision) -> Decision:
        """The size exchanged."""
        return replace(decision, size_multiplier=2.0)


class WrongCell(Said):
    """Books every decision into the first cell, propensity and all, so that the wrong cell learns."""

    def of(self, decision: Decision) -> Decision:
        """The cell exchanged."""
        return replace(decision, state_key="bull|vol:0")


class DrawsByItself(DecisionAgent):
    """Takes the action that it likes, with the propensity that the policy gives to it."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the action of what a policy decided exchanged."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, Decision, lambda d: d if d.forced or d.decider != "q_learning" else
                              self._liked(state, d))

    def _liked(self, state: Any, d: Decision) -> Decision:
        policy = in_force(state.deciders[0].policies, d.ts_ms)
        i = next((i for i, s in enumerate(d.signals) if s), 0)
        if policy is None:
            return d
        cell = policy.cell(d.regime, d.volatility)
        return replace(d, action=policy.actions[i], propensity=cell.probabilities[i])


# ---------------------------------------------------------------------- executors
class Unlimited(PaperExecutionAgent):
    """Executes as if its decisions carried no limits."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, blind to limits."""
        return super().step(state, replace(event, limits=None) if isinstance(event, Decision) else event)


class WeightZero(PaperExecutionAgent):
    """Acknowledges every policy and executes none."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, without a signal ever."""
        if isinstance(event, Decision):
            event = replace(event, signals=(0, 0, 0, 0))
        return super().step(state, event)


class SaysItExecuted(WeightZero):
    """Executes none and says that it executed all."""

    def step(self, state: Any, event: Event) -> Step:
        """As the one above, the acknowledgements exchanged."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, PolicyApplied, lambda a: replace(a, executed_action=a.recommended_action))


class OppositeSide(PaperExecutionAgent):
    """Buys where the signal says sell."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, all signals negated."""
        if isinstance(event, Decision):
            event = replace(event, signals=tuple(-s for s in event.signals))
        return super().step(state, event)


class NoFees(PaperExecutionAgent):
    """Trades for nothing, and says so in small print only."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        costs = self._default_terms.costs._replace(fee_bps=0.0)
        label = self._default_terms.label
        self._default_terms = self._default_terms._replace(costs=costs, label=self.labelled(label))

    def labelled(self, label: str) -> str:
        """What the trades say of their costs."""
        return label.replace("fee_bps=5 ", "fee_bps=0 ")


class HiddenNoFees(NoFees):
    """Trades for nothing, and says that it paid."""

    def labelled(self, label: str) -> str:
        """The honest label."""
        return label


class Fills(PaperExecutionAgent):
    """Fills at other prices than it should; all else of the trade is made to fit."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._bars: dict[tuple[str, int], Candle] = {}

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, prices exchanged."""
        if isinstance(event, Candle):
            self._bars[event.symbol, event.open_time_ms] = event
            self._bars[event.symbol, event.ts_ms] = event
        after, outputs = super().step(state, event)
        return after, changed(outputs, TradeClosed, self.of)

    def of(self, trade: TradeClosed) -> TradeClosed:
        """The trade as it is published."""
        raise NotImplementedError


class FillsAtClose(Fills):
    """Enters at the close of the bar that it enters in."""

    def of(self, trade: TradeClosed) -> TradeClosed:
        """The entry exchanged."""
        bar = self._bars[trade.symbol, trade.opened_ms]
        return refilled(trade, entry=bar.close if bar.open_time_ms == trade.opened_ms else bar.open)


class FillsAtExtremes(Fills):
    """Leaves at the best price of its last bar."""

    def of(self, trade: TradeClosed) -> TradeClosed:
        """The exit exchanged."""
        bar = self._bars[trade.symbol, trade.ts_ms]
        return refilled(trade, exit_=bar.high if trade.side == "LONG" else bar.low)


class NoStops(PaperExecutionAgent):
    """Has no stop that could be hit, and names one."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, on bars that never reach the stop of an open position."""
        if isinstance(event, Candle):
            for book in state.books:
                entry = None if book.position is None else book.position.entry
                if entry is not None and entry.stop_price is not None:
                    event = _spared(event, entry.side, entry.stop_price)
        return super().step(state, event)


class WrongCredit(PaperExecutionAgent):
    """Credits every trade to the decision after the one that it was opened by."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, the credit exchanged."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, TradeClosed, self._of)

    def _of(self, trade: TradeClosed) -> TradeClosed:
        name, _, ms = (trade.decision_id or "").rpartition("/")
        return replace(trade, decision_id=f"{name}/{int(ms) - 4 * 3_600_000}")


# ---------------------------------------------------------------------- the join
class LossesLost(ExperienceAgent):
    """Makes no experience of a trade that lost."""

    def step(self, state: Any, event: Event) -> Step:
        """As the honest one, losses left out of what it publishes."""
        after, outputs = super().step(state, event)
        return after, changed(outputs, Experience, lambda e: None if e.pnl_usd < 0 else e)


def refilled(trade: TradeClosed, entry: float | None = None, exit_: float | None = None) -> TradeClosed:
    """A trade with other prices, and everything that follows from them."""
    side = 1 if trade.side == "LONG" else -1
    enters, leaves = trade.entry_price if entry is None else entry, trade.exit_price if exit_ is None else exit_
    stop = trade.stop_price
    if stop is None or side * (enters - stop) <= 0:
        return trade
    pnl = side * (leaves - enters) * trade.quantity - trade.fees - trade.funding
    risk, notional = abs(enters - stop) * trade.quantity, enters * trade.quantity
    return replace(trade, entry_price=enters, exit_price=leaves, pnl_usd=pnl, notional_at_open=notional,
                   risk_at_open=risk, r_multiple=pnl / risk, pnl_pct=pnl / trade.equity_at_open)


def _spared(candle: Candle, side: int, stop: float) -> Candle:
    """A bar that does not reach a stop; its close stays where that is possible."""
    if side > 0:
        low = max(candle.low, stop * 1.0001)
        return replace(candle, low=low, open=max(candle.open, low), close=max(candle.close, low),
                       high=max(candle.high, low))
    high = min(candle.high, stop * 0.9999)
    return replace(candle, high=high, open=min(candle.open, high), close=min(candle.close, high),
                   low=min(candle.low, high))
