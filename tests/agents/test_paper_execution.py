"""Paper execution: every exit by hand, an independent simulation, and the order in which things are taken."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agents.algorithms.commanded import barred
from agents.contract import Output, Refused
from agents.paper_execution import PaperExecutionAgent
from agents.paper_execution.core import PaperState
from agents.paper_execution.layout import PaperConfig
from agents.paper_execution.state import FirstRetired, Retired
from schemas.codec import Codec
from schemas.events import (
    STRATEGY_SYMBOLS,
    BookMark,
    Candle,
    Decision,
    DecisionOutcome,
    EquityMarked,
    Event,
    Instrument,
    PolicyApplied,
    PolicyCommand,
    PolicyRecord,
    TradeClosed,
)
from tests.agents.check import check_agent

HOUR = 3_600_000
DAY = 400_008 * HOUR  # a UTC midnight
CODEC = Codec()
FLAT = (100.0, 100.5, 99.5, 100.0)
SIGNALS = (1, -1, 1, 0)  # trend_following long, mean_reversion short, breakout long
COSTLY = PaperConfig(default_fee_bps=10.0, default_half_spread_bps=50.0, default_slippage_bps=50.0,
                     baseline_books=False)


def candle(n: int, ohlc: tuple[float, ...] = FLAT, start: int = DAY, **changes: Any) -> Candle:
    """The bar that closes n hours after `start`."""
    o, h, low, c = ohlc
    values: dict[str, Any] = {
        "symbol": "S", "interval_ms": HOUR, "open_time_ms": start + (n - 1) * HOUR, "ts_ms": start + n * HOUR,
        "open": o, "high": h, "low": low, "close": c, "volume": 1e6, "source": "test", "origin": "CLAIMED",
    }
    return Candle(**(values | changes))


def decision(n: int, action: str = "trend_following", start: int = DAY, **changes: Any) -> Decision:
    """A decision at the close of the bar that closes n hours after `start`: stop distance 4 at a close of 100."""
    ts_ms = start + n * HOUR
    book = changes.get("book_id", "q")
    values: dict[str, Any] = {
        "decision_id": f"S/{book}/{ts_ms}", "symbol": "S", "book_id": book, "decider": book, "ts_ms": ts_ms,
        "interval_ms": HOUR, "next_ts_ms": ts_ms + 4 * HOUR, "action": action, "greedy_action": action,
        "baseline_action": "neutral", "propensity": 0.25, "forced": False, "policy_id": "q/S", "policy_version": 3,
        "regime": "bull", "volatility": 0.01, "close": 100.0, "atr_pct": 0.02, "signals": SIGNALS,
        "size_multiplier": 1.0, "source": "test", "origin": "CLAIMED",
    }
    return Decision(**(values | changes))


def instrument(**changes: Any) -> Instrument:
    values: dict[str, Any] = {
        "symbol": "S", "ts_ms": 0, "days_per_year": 365, "fee_bps": 0.0, "half_spread_bps": 0.0, "slippage_bps": 0.0,
        "source": "test", "origin": "CLAIMED",
    }
    return Instrument(**(values | changes))


def command(word: str, **changes: Any) -> PolicyCommand:
    values: dict[str, Any] = {"command_id": word, "ts_ms": DAY, "command": word, "actor": "test", "reason": "test"}
    return PolicyCommand(**(values | changes))


def run(events: Iterable[Event], config: PaperConfig = COSTLY) -> tuple[PaperState, list[Event]]:
    """Fold events; the outputs pass the codec on their way."""
    agent = PaperExecutionAgent(config)
    state, out = agent.new("S"), []
    for event in events:
        state, outputs = agent.step(state, event)
        out += [CODEC.decode(o.topic, CODEC.encode(o.topic, o.event)) for o in outputs]
    return state, out


def of(kind: type[Any], events: Iterable[Event]) -> list[Any]:
    return [e for e in events if isinstance(e, kind)]


def one_trade(bars: Sequence[tuple[float, ...]], config: PaperConfig = COSTLY, action: str = "trend_following",
              before: Sequence[Event] = ()) -> TradeClosed:
    """The trade of one decision at the close of bar 0, held through the bars."""
    events = [*before, candle(0), decision(0, action), *(candle(n, b) for n, b in enumerate(bars, 1))]
    trades = of(TradeClosed, run(events, config)[1])
    assert len(trades) == 1
    return trades[0]


# ---------------------------------------------------------------------- exits by hand: 1 % against us, 0.1 % fee
def test_stop_by_hand() -> None:
    t = one_trade([FLAT, (100, 101, 96, 99)])
    assert (t.exit_reason, t.side, t.bars_held) == ("STOP", "LONG", 2)
    assert (t.opened_ms, t.ts_ms) == (DAY, DAY + 2 * HOUR)
    assert (t.entry_price, t.stop_price, t.target_price) == pytest.approx((101.0, 97.0, 109.0))
    assert (t.quantity, t.risk_at_open, t.notional_at_open, t.equity_at_open) == pytest.approx(
        (25.0, 100.0, 2525.0, 10_000.0))
    assert t.leverage == pytest.approx(0.2525)
    assert t.exit_price == pytest.approx(97.0 * 0.99)
    assert t.fees == pytest.approx(2.525 + 2.40075)
    assert (t.spread_cost, t.slippage) == pytest.approx((12.5 + 12.125,) * 2)
    assert t.pnl_usd == pytest.approx(-124.25 - 4.92575)
    assert t.r_multiple == pytest.approx(-1.2917575)
    assert t.pnl_pct == pytest.approx(-0.012917575)
    assert t.mae_pct == pytest.approx(97.0 / 101.0 - 1.0)  # it saw nothing below its stop
    assert t.mfe_pct == pytest.approx(0.0)
    assert t.execution.startswith("paper:default-costs ")
    assert t.trade_id == f"{t.decision_id}/t"


def test_target_by_hand() -> None:
    t = one_trade([FLAT, (100, 110, 99, 108)])
    assert t.exit_reason == "TARGET"
    assert t.exit_price == pytest.approx(109.0 * 0.99)  # a target pays spread and slippage too
    assert t.pnl_usd == pytest.approx((107.91 - 101) * 25 - 2.525 - 2.69775)
    assert t.mfe_pct == pytest.approx(109.0 / 101.0 - 1.0)


def test_horizon_by_hand() -> None:
    t = one_trade([FLAT, FLAT, FLAT, (100, 104, 99.5, 103), FLAT])
    assert (t.exit_reason, t.ts_ms, t.bars_held) == ("HORIZON", DAY + 4 * HOUR, 4)
    assert t.exit_price == pytest.approx(101.97)
    assert t.pnl_usd == pytest.approx(24.25 - 2.525 - 2.54925)


def test_short_by_hand() -> None:
    t = one_trade([FLAT, FLAT, FLAT, (100, 100.5, 96, 97), FLAT], action="mean_reversion")
    assert (t.side, t.entry_price, t.stop_price, t.target_price) == ("SHORT", *map(pytest.approx, (99.0, 103.0, 91.0)))
    assert t.exit_price == pytest.approx(97.97)
    assert t.pnl_usd == pytest.approx(1.03 * 25 - 2.475 - 2.44925)
    assert t.mfe_pct == pytest.approx(1 - 96 / 99)
    assert t.mae_pct == pytest.approx(1 - 100.5 / 99)


def test_a_bar_that_holds_both_takes_the_stop() -> None:
    assert one_trade([(100, 120, 90, 100)]).exit_reason == "STOP"


@pytest.mark.parametrize(("open_", "reason"), [(90.0, "STOP"), (115.0, "TARGET")])
def test_gaps_fill_at_the_open(open_: float, reason: str) -> None:
    t = one_trade([FLAT, (open_, open_ + 1, open_ - 1, open_)])
    assert (t.exit_reason, t.ts_ms) == (reason, DAY + HOUR)
    assert t.exit_price == pytest.approx(open_ * 0.99)


def test_the_stop_is_checked_from_the_entry_bar_on() -> None:
    t = one_trade([(100, 100, 96.5, 98)])
    assert (t.exit_reason, t.bars_held, t.ts_ms) == ("STOP", 1, DAY + HOUR)


def test_signal_exit_at_the_next_open() -> None:
    early = decision(0, next_ts_ms=DAY + 2 * HOUR)
    against = decision(2, signals=(-1, 0, 0, 0))
    _, out = run([candle(0), early, candle(1), candle(2), against, candle(3, (99, 99.5, 98.5, 99))])
    (t,) = of(TradeClosed, out)
    assert (t.exit_reason, t.ts_ms) == ("SIGNAL", DAY + 2 * HOUR)
    assert t.exit_price == pytest.approx(99 * 0.99)
    assert [(o.status, o.reason) for o in of(DecisionOutcome, out)] == [
        ("TRADED", None), ("NOT_EXECUTED", "position_open")]


def test_a_decision_that_does_not_oppose_leaves_the_position_open() -> None:
    _, out = run([candle(0), decision(0, next_ts_ms=DAY + 2 * HOUR), candle(1), candle(2), decision(2), candle(3)])
    assert [(o.status, o.reason) for o in of(DecisionOutcome, out)] == [("NOT_EXECUTED", "position_open")]
    assert of(EquityMarked, out)[-1].books[0].open_decision_id == decision(0).decision_id


def test_a_gap_in_the_candles_while_open_counts_event_time() -> None:
    _, out = run([candle(0), decision(0), candle(1), candle(7, (102, 103, 101, 102.5)), decision(8), candle(8),
                  candle(9)])
    (t,) = of(TradeClosed, out)
    assert (t.exit_reason, t.ts_ms, t.bars_held) == ("HORIZON", DAY + 7 * HOUR, 2)
    assert t.exit_price == pytest.approx(102.5 * 0.99)


# ---------------------------------------------------------------------- what is not executed
def outcomes(out: Iterable[Event]) -> list[tuple[str, str | None]]:
    return [(o.status, o.reason) for o in of(DecisionOutcome, out)]


def test_neutral_and_no_signal_end_at_the_horizon() -> None:
    bars = [candle(n) for n in range(1, 5)]
    for action, signals, reason in (("neutral", SIGNALS, None), ("breakout", (1, 1, 0, 0), "no_signal")):
        _, out = run([candle(0), decision(0, action, signals=signals), *bars])
        (o,) = of(DecisionOutcome, out)
        assert (o.status, o.reason, o.ts_ms, o.trade_id) == ("NEUTRAL", reason, DAY + 4 * HOUR, None)
        (applied,) = of(PolicyApplied, out)
        assert (applied.recommended_action, applied.executed_action, applied.ts_ms) == (action, "neutral", DAY)


@pytest.mark.parametrize(("events", "reason"), [
    ([candle(0), decision(0), candle(2), candle(3)], "gap"),
    ([candle(0), decision(0, atr_pct=0.0), candle(1)], "no_market"),
    ([candle(0), decision(0, atr_pct=0.6), candle(1)], "no_market"),
    ([instrument(volume_cap=0.1), candle(0), decision(0), candle(1, volume=0.0)], "too_small"),
])
def test_decisions_that_cannot_be_executed(events: list[Event], reason: str) -> None:
    _, out = run(events)
    assert outcomes(out) == [("NOT_EXECUTED", reason)]
    assert [a.executed_action for a in of(PolicyApplied, out)] == ["none"]
    assert not of(TradeClosed, out)


def test_no_report_on_a_policy_where_there_was_none() -> None:
    _, out = run([candle(0), decision(0, policy_id=None, policy_version=None), *(candle(n) for n in range(1, 5))])
    assert not of(PolicyApplied, out)
    assert len(of(TradeClosed, out)) == 1


def test_daily_loss_limit_holds_until_the_utc_day_ends() -> None:
    config = msgspec.structs.replace(COSTLY, daily_loss_limit=0.01)
    crash, day = (100, 101, 96, 99), []
    for n in range(0, 25, 4):
        day += [decision(n, close=100.0), candle(n + 1, crash), *(candle(n + k) for k in (2, 3, 4))]
    _, out = run([candle(0), *day], config)
    assert outcomes(out) == [("TRADED", None), *[("NOT_EXECUTED", "daily_loss_limit")] * 5, ("TRADED", None)]
    assert of(TradeClosed, out)[1].opened_ms == DAY + 24 * HOUR
    _, out = run([candle(0), decision(0), candle(1, crash), candle(2), candle(3), candle(4), decision(4, "neutral"),
                  *(candle(n) for n in range(5, 9))], config)
    assert outcomes(out) == [("TRADED", None), ("NEUTRAL", None)]


def test_daily_loss_limit_counts_the_equity_of_the_day_only() -> None:
    config = msgspec.structs.replace(COSTLY, daily_loss_limit=0.02)  # a stop costs 1.3 %
    day: list[Event] = []
    for n in range(16, 36, 4):
        day += [decision(n), candle(n + 1, (100, 101, 96, 99)), *(candle(n + k) for k in (2, 3, 4))]
    _, out = run([candle(16), *day], config)  # two stops before midnight, then two after, then no more
    assert outcomes(out) == [*[("TRADED", None)] * 4, ("NOT_EXECUTED", "daily_loss_limit")]


# ---------------------------------------------------------------------- costs and caps of the instrument
def test_leverage_caps_the_quantity_and_the_multiple_says_so() -> None:
    t = one_trade([FLAT] * 4, COSTLY, before=[]).quantity
    config = msgspec.structs.replace(COSTLY, max_leverage=0.101)
    capped = one_trade([FLAT] * 4, config)
    assert (t, capped.quantity) == pytest.approx((25.0, 10.0))
    assert (capped.size_multiplier, capped.risk_at_open, capped.leverage) == pytest.approx((0.4, 40.0, 0.101))


def test_volume_caps_the_quantity_and_missing_volume_is_said() -> None:
    costs = instrument(volume_cap=0.01)
    events = [costs, candle(0), decision(0), candle(1, volume=500.0), *(candle(n) for n in (2, 3, 4))]
    (t,) = of(TradeClosed, run(events)[1])
    assert t.quantity == pytest.approx(5.0)
    assert "volume_cap=0.01" in t.execution
    assert t.execution.startswith("paper:instrument ")
    events[3] = candle(1, volume=None)
    (t,) = of(TradeClosed, run(events)[1])
    assert t.quantity == pytest.approx(25.0)
    assert t.execution.endswith("volume=missing")


def test_the_multiple_scales_result_and_risk_alike() -> None:
    trades = []
    for m in (0.5, 1.0, 2.0):
        events = [candle(0), decision(0, size_multiplier=m), *(candle(n, (100, 102, 99, 101)) for n in range(1, 5))]
        trades += of(TradeClosed, run(events)[1])
    assert [t.quantity for t in trades] == pytest.approx([12.5, 25.0, 50.0])
    assert len({round(t.r_multiple, 12) for t in trades}) == 1
    assert [t.size_multiplier for t in trades] == [0.5, 1.0, 2.0]


def test_funding_on_the_utc_grid_while_open() -> None:
    costs = instrument(funding_bps=10.0, funding_interval_ms=2 * HOUR)
    bars = [(100, 101, 99, 100)] * 4
    t = one_trade(bars, before=[costs])  # opened at 0, so funded at 2 h only: at 0 and 4 h it is not open on both sides
    assert t.funding == pytest.approx(25.0 * 100.0 * 0.001)
    assert t.pnl_usd == pytest.approx(-t.funding)
    short = one_trade(bars, before=[costs], action="mean_reversion")
    assert short.funding == pytest.approx(-t.funding)
    gapped = one_trade([bars[0], bars[0], (90, 91, 89, 90)], before=[costs])  # the stop fills at the open of 2 h
    assert gapped.funding == pytest.approx(25.0 * 90.0 * 0.001)
    spot = one_trade(bars, before=[instrument()])
    assert spot.funding == 0.0


def test_an_instrument_holds_from_its_time_on() -> None:
    later = instrument(ts_ms=DAY + 2 * HOUR, fee_bps=100.0)
    t = one_trade([FLAT] * 4, before=[instrument(), later])
    assert t.fees == pytest.approx(100.0 * 25.0 * 0.01)  # the exit only
    agent, state = PaperExecutionAgent(COSTLY), PaperState()
    for e in (instrument(), later):
        state, _ = agent.step(state, e)
    assert agent.step(state, later)[0] is state
    with pytest.raises(Refused, match="CONFLICT"):
        agent.step(state, instrument(ts_ms=later.ts_ms))
    with pytest.raises(Refused, match="BAD_INSTRUMENT"):
        agent.step(state, instrument(ts_ms=1, funding_bps=1.0))


def test_origin_of_a_trade_comes_from_decision_and_candles() -> None:
    def trade(**changes: Any) -> TradeClosed:
        events = [candle(0), decision(0, **changes), *(candle(n) for n in range(1, 5))]
        return of(TradeClosed, run(events)[1])[0]  # type: ignore[no-any-return]

    assert (trade().source, trade().origin) == ("test", "CLAIMED")
    assert trade(origin="CHECKED").origin == "MIXED"
    assert trade(origin="SYNTHETIC", source="synthetic:1").origin == "SYNTHETIC"
    assert trade(origin="SYNTHETIC", source="synthetic:1").source == "synthetic:1+test"


# ---------------------------------------------------------------------- commands and retired policies
def test_halt_closes_at_the_next_open_and_lets_nothing_in_until_resumed() -> None:
    halt, resume = command("HALT"), command("RESUME", ts_ms=DAY + 5 * HOUR)
    _, out = run([candle(0), decision(0), candle(1), halt, candle(2, (99, 99, 99, 99)), candle(3), candle(4),
                  decision(4), *(candle(n) for n in (5, 6, 7)), resume, candle(8), decision(8),
                  *(candle(n) for n in range(9, 13))])
    first, second = of(TradeClosed, out)
    assert (first.exit_reason, first.ts_ms, second.exit_reason) == ("HALT", DAY + HOUR, "HORIZON")
    assert first.exit_price == pytest.approx(99 * 0.99)
    assert outcomes(out) == [("TRADED", None), ("NOT_EXECUTED", "halt"), ("TRADED", None)]
    assert [m.halted for m in of(EquityMarked, out)] == [False] + [True] * 6 + [False] * 5


def test_a_halt_is_obeyed_at_once_by_candles_that_wait() -> None:
    agent, state = PaperExecutionAgent(COSTLY), PaperState()
    for event in [candle(0), decision(0), *(candle(n) for n in range(1, 9))]:
        state, _ = agent.step(state, event)
    assert len(state.queue) == 4
    state, out = agent.step(state, command("HALT"))
    assert not state.queue
    state, out = agent.step(state, decision(4))
    assert outcomes(o.event for o in out) == [("NOT_EXECUTED", "halt")]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_the_newest_command_counts_whatever_the_order(order: tuple[int, ...]) -> None:
    commands = [command("HALT", ts_ms=1), command("RESUME", ts_ms=2), command("HALT", ts_ms=2)]
    state, _ = run([commands[i] for i in order])
    assert state.halted


def test_commands_for_others_change_nothing() -> None:
    agent, state = PaperExecutionAgent(COSTLY), PaperState()
    assert agent.step(state, command("FREEZE", policy_id="q/S"))[0] is state
    assert agent.step(state, command("RESUME", ts_ms=-1))[0] is state
    assert agent.sticky_key(command("HALT")) != agent.sticky_key(command("HALT", symbol="S"))
    assert agent.sticky_key(command("FREEZE", policy_id="q/S")) is None


def retired(version: int, status: str = "RETIRED") -> PolicyRecord:
    return PolicyRecord(
        policy_id="q/S", version=version, agent="q", scope="S", ts_ms=DAY, valid_from_ms=DAY, fallback="neutral",
        status=status, reason="test", outcomes=0, mask=(), actions=STRATEGY_SYMBOLS, source="test", origin="CLAIMED")  # type: ignore[arg-type]


@pytest.mark.parametrize(("event", "made", "executed"), [
    (retired(3), {}, False), (retired(2), {}, True), (retired(3), {"policy_version": 4}, True),
    (retired(9, "ACTIVE"), {}, True), (command("RETIRE", policy_id="q/S"), {"policy_version": 99}, False),
    (command("RETIRE", policy_id="q/T"), {}, True), (retired(3), {"forced": True, "action": "neutral"}, True),
])
def test_a_retired_policy_is_not_executed(event: Event, made: dict[str, Any], executed: bool) -> None:
    _, out = run([candle(0), decision(0, **made), event, *(candle(n) for n in range(1, 5))])
    assert [a.executed_action != "none" for a in of(PolicyApplied, out)] == [executed]
    assert [r for _, r in outcomes(out)] == [None if executed else "policy_retired"]


def answered(version: int, of: str, **changes: Any) -> PolicyRecord:
    return replace(retired(version, "ACTIVE"), **({"command_id": of, "actor": "test", "obeyed": True} | changes))


def rolls_back(to: int) -> PolicyCommand:
    return command("ROLLBACK", command_id="R", policy_id="q/S", version=to)


@pytest.mark.parametrize(("events", "version", "reason"), [
    ([rolls_back(3)], 4, "policy_rolled_back"), ([rolls_back(3)], 3, None),
    ([rolls_back(3), answered(9, "R", restored_version=3)], 4, "policy_rolled_back"),
    ([rolls_back(3), answered(9, "R", restored_version=3)], 9, None),
    ([answered(9, "R", restored_version=3), rolls_back(3)], 9, None),
    ([rolls_back(3), answered(9, "R", obeyed=False)], 4, None),
    ([command("RETIRE", command_id="X", policy_id="q/S"), replace(retired(5), command_id="X", obeyed=True)], 5,
     "policy_retired"),
    ([command("RETIRE", command_id="X", policy_id="q/S"), replace(retired(5), command_id="X", obeyed=True),
      answered(6, "R", restored_version=3)], 6, None),
    ([command("RETIRE", command_id="X", policy_id="q/S"), replace(retired(5), command_id="X", obeyed=True),
      answered(6, "R", restored_version=3)], 5, "policy_retired"),
])
def test_decisions_of_undone_versions_are_not_executed(events: list[Event], version: int, reason: str | None) -> None:
    _, out = run([candle(0), decision(0, policy_version=version), *events, *(candle(n) for n in range(1, 5))])
    assert [r for _, r in outcomes(out)] == [reason]


def test_an_open_position_goes_on_under_a_rollback() -> None:
    _, out = run([candle(0), decision(0, policy_version=7), candle(1), rolls_back(3),
                  *(candle(n) for n in range(2, 6))])
    assert [t.exit_reason for t in of(TradeClosed, out)] == ["HORIZON"]


def test_a_state_of_format_1_is_taken_up() -> None:
    kind, upgrade = PaperExecutionAgent.former[1]
    fields = msgspec.structs.asdict(PaperState())
    del fields["commanded"]
    by_version, by_command = (FirstRetired(policy_id=p, version=v) for p, v in (("q/S", 3), ("q/T", None)))
    state = upgrade(kind(**fields | {"retired": (by_version, by_command)}))
    assert state.retired == (Retired(policy_id="q/S", version=3),)
    assert barred(state.commanded, "q/T", 99) == "policy_retired"
    state, _ = PaperExecutionAgent().step(state, replace(retired(9, "ACTIVE"), policy_id="q/T", command_id="c"))
    assert barred(state.commanded, "q/T", 99) is None


# ---------------------------------------------------------------------- bad and repeated input
def test_repeats_change_nothing_and_conflicts_are_refused() -> None:
    agent, state = PaperExecutionAgent(COSTLY), PaperState()
    for event in (candle(0), decision(0), candle(1)):
        state, _ = agent.step(state, event)
    for event in (candle(0), candle(1), decision(0)):
        assert agent.step(state, event) == (state, ())
        assert agent.step(state, event)[0] is state
    refused: list[tuple[Event, str]] = [
        (candle(1, (100, 100, 100, 100)), "CONFLICT"), (candle(-1), "LATE"), (candle(2, source="x"), "SOURCE_CONFLICT"),
        (candle(2, (100, 99, 98, 99)), "BAD_CANDLE"), (decision(0, "breakout"), "CONFLICT"), (decision(-4), "LATE"),
        (decision(4, interval_ms=60_000), "BAD_DECISION"), (decision(4, signals=(1, 1)), "BAD_DECISION"),
        (decision(4, signals=(2, 0, 0, 0)), "BAD_DECISION"), (decision(4, next_ts_ms=DAY), "BAD_DECISION"),
    ]
    for event, reason in refused:
        with pytest.raises(Refused, match=reason):
            agent.step(state, event)


def test_candles_of_another_interval_are_ignored() -> None:
    agent, state = PaperExecutionAgent(COSTLY), PaperState()
    state, _ = agent.step(state, candle(0))
    other = candle(1, interval_ms=60_000, ts_ms=DAY + 60_000, open_time_ms=DAY)
    assert agent.step(state, other)[0] is state


# ---------------------------------------------------------------------- an independent simulation
def market(seed: int, bars: int, missing: float = 0.0, volatility: float = 0.01) -> tuple[list[Candle], list[Decision]]:
    """A random walk with gaps in price and, perhaps, in time; a decision every fourth hour from bar 8 on."""
    rng, close = random.Random(seed), 100.0
    candles, decisions = [], []
    for n in range(1, bars + 1):
        open_ = close * (1 + rng.gauss(0, volatility / 3))
        close = open_ * (1 + rng.gauss(0, volatility))
        high = max(open_, close) * (1 + abs(rng.gauss(0, volatility)))
        low = min(open_, close) * (1 - abs(rng.gauss(0, volatility)))
        if rng.random() < missing:
            continue
        candles.append(candle(n, (open_, high, low, close), volume=rng.choice([None, 1e5, 50.0])))
        if n >= 8 and n % 4 == 0:
            sides = (rng.choice((-1, 0, 1)), rng.choice((-1, 1)), rng.choice((-1, 0, 1)), 0)
            decisions.append(decision(n, rng.choice(STRATEGY_SYMBOLS), close=close, atr_pct=0.5 * volatility,
                                      signals=sides, size_multiplier=rng.choice((0.5, 1.0, 2.0))))
    return candles, decisions


def merged(candles: Sequence[Candle], decisions: Sequence[Decision]) -> list[Event]:
    """By event time, candles first: the lockstep."""
    return sorted([*candles, *decisions], key=lambda e: (e.ts_ms, isinstance(e, Decision)))


def simulated(candles: Sequence[Candle], decisions: Sequence[Decision], c: PaperConfig) -> list[tuple[Any, ...]]:
    """Trades as (id, entry, exit, pnl), one decision at a time, written without the agent's code."""
    trades, equity, free_ms = [], c.equity, 0
    cost, fee = (c.default_half_spread_bps + c.default_slippage_bps) / 1e4, c.default_fee_bps / 1e4
    for d in decisions:
        side = d.signals[STRATEGY_SYMBOLS.index(d.action)]
        after = [x for x in candles if x.open_time_ms >= d.ts_ms]
        if not side or not after or after[0].open_time_ms != d.ts_ms or d.ts_ms < free_ms:
            continue
        entry = after[0].open * (1 + side * cost)
        stop = entry - side * c.stop_atr * d.atr_pct * d.close
        target = entry + side * (c.target_r or 0.0) * c.stop_atr * d.atr_pct * d.close
        quantity = min(equity * c.risk_pct * d.size_multiplier / abs(entry - stop), c.max_leverage * equity / entry)
        for x in after:
            free_ms = x.ts_ms
            far, near = (x.low, x.high) if side > 0 else (x.high, x.low)
            if side * (x.open - stop) <= 0 or side * (x.open - target) >= 0:
                out = x.open
                free_ms = x.open_time_ms
            elif side * (far - stop) <= 0:
                out = stop
            elif side * (near - target) >= 0:
                out = target
            elif x.ts_ms >= d.ts_ms + c.max_holding_bars * HOUR:
                out = x.close
            else:
                continue
            leave = out * (1 - side * cost)
            pnl = side * (leave - entry) * quantity - fee * quantity * (entry + leave)
            trades.append((f"{d.decision_id}/t", entry, leave, pnl))
            equity += pnl
            break
        else:
            break
    return trades


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), missing=st.sampled_from([0.0, 0.15]),
       volatility=st.sampled_from([0.002, 0.01, 0.05]))
def test_trades_are_those_of_an_independent_simulation(seed: int, missing: float, volatility: float) -> None:
    config = PaperConfig(baseline_books=False, daily_loss_limit=10.0)
    candles, decisions = market(seed, 160, missing, volatility)
    _, out = run(merged(candles, decisions), config)
    got = [(t.trade_id, t.entry_price, t.exit_price, t.pnl_usd) for t in of(TradeClosed, out)]
    expected = simulated(candles, decisions, config)[:len(got)]
    assert [g[0] for g in got] == [e[0] for e in expected]
    assert [x for g in got for x in g[1:]] == pytest.approx([x for e in expected for x in e[1:]], rel=1e-9, abs=1e-7)
    assert len(got) > 5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_money_is_conserved_and_every_decision_ends_once(seed: int) -> None:
    candles, decisions = market(seed, 160, 0.05)
    costs = instrument(fee_bps=4.0, half_spread_bps=1.0, slippage_bps=2.0, funding_bps=3.0,
                       funding_interval_ms=8 * HOUR, volume_cap=0.1)
    state, out = run([costs, *merged(candles, decisions)], PaperConfig())
    trades, by_time = of(TradeClosed, out), {c.open_time_ms: c for c in candles}
    equity = PaperConfig().equity
    for t in trades:
        assert t.equity_at_open == equity
        equity += t.pnl_usd
        side = 1 if t.side == "LONG" else -1
        assert t.pnl_usd == side * (t.exit_price - t.entry_price) * t.quantity - t.fees - t.funding
        bar = by_time[t.opened_ms]
        assert bar.low <= t.entry_price / (1 + side * 3e-4) <= bar.high
        assert t.ts_ms <= t.opened_ms + 4 * HOUR or t.opened_ms + 3 * HOUR not in by_time  # its last bar is missing
    assert state.books[0].balance == equity
    ended = [o.decision_id for o in of(DecisionOutcome, out)]
    assert len(ended) == len(set(ended))
    assert set(ended) >= {d.decision_id for d in decisions if d.ts_ms + 8 * HOUR <= candles[-1].open_time_ms}
    assert {a.decision_id for a in of(PolicyApplied, out)} >= set(ended)


# ---------------------------------------------------------------------- the order of things
def interleaved(candles: list[Candle], decisions: list[Decision], lead: int, rng: random.Random) -> list[Event]:
    """Any order that keeps that of each topic, with candles at most `lead` ahead; decisions may be ahead as well."""
    out: list[Event] = []
    i = j = 0
    while i < len(candles) or j < len(decisions):
        due = sum(1 for c in candles[:i] if j < len(decisions) and c.open_time_ms >= decisions[j].ts_ms)
        if i < len(candles) and due < lead and (j == len(decisions) or rng.random() < 0.9):
            out.append(candles[i])
            i += 1
        elif j < len(decisions):
            out.append(decisions[j])
            j += 1
        else:
            out.append(candles[i])
            i += 1
    return out


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), lead=st.integers(1, 64), missing=st.sampled_from([0.0, 0.1]),
       start=st.integers(0, 90))
def test_candles_far_ahead_of_decisions_give_the_same_as_lockstep(
    seed: int, lead: int, missing: float, start: int
) -> None:
    candles, decisions = market(seed, 200, missing)
    decisions = decisions[start // 4:]
    orders = [merged(candles, decisions), interleaved(candles, decisions, lead, random.Random(seed)),
              [*decisions, *candles]]
    (lock, expected), *others = (run(o, PaperConfig()) for o in orders)
    assert len(of(TradeClosed, expected)) > 5
    for state, out in others:
        assert out == expected
        assert state == lock


def test_a_missing_decision_is_waited_for_and_then_given_up() -> None:
    config = msgspec.structs.replace(COSTLY, max_wait_bars=10)
    agent, state = PaperExecutionAgent(config), PaperState()
    out: list[Output] = []
    for event in [candle(0), decision(0), *(candle(n) for n in range(1, 15))]:
        state, more = agent.step(state, event)
        out += more
    assert state.done_ms == DAY + 3 * HOUR  # candle 5 opens at 4 h and waits, with nine more
    assert state.books[0].awaits_ms == DAY + 4 * HOUR
    state, _ = agent.step(state, candle(15))
    assert state.done_ms == DAY + 4 * HOUR
    assert state.books[0].awaits_ms == 0
    state, more = agent.step(state, decision(4))
    assert outcomes(o.event for o in more) == [("NOT_EXECUTED", "late")]
    assert state.books[0].awaits_ms == DAY + 8 * HOUR
    assert state.done_ms == DAY + 7 * HOUR
    state, more = agent.step(state, decision(8))  # in time again
    assert not [r for _, r in outcomes(o.event for o in more) if r == "late"]


def test_a_first_decision_that_is_late_arms_the_wait() -> None:
    config = msgspec.structs.replace(COSTLY, max_wait_bars=2)
    agent, state = PaperExecutionAgent(config), PaperState()
    late = []
    events = [*(candle(n) for n in range(0, 12)), decision(0), decision(4), decision(8), decision(12), candle(12),
              *(candle(n) for n in range(13, 18))]
    for event in events:
        state, out = agent.step(state, event)
        late += outcomes(o.event for o in out)
    assert late == [("NOT_EXECUTED", "late")] * 3 + [("TRADED", None)]


# ---------------------------------------------------------------------- baselines and marks
def last_marks(out: Iterable[Event]) -> dict[str, BookMark]:
    return {b.book_id: b for b in of(EquityMarked, out)[-1].books}


def test_baseline_books_run_beside_the_learner() -> None:
    candles, decisions = market(3, 160)
    _, out = run(merged(candles, decisions), PaperConfig(daily_loss_limit=10.0))
    books = last_marks(out)
    assert list(books) == ["q", "baseline:neutral", "baseline:random", "baseline:trend_following",
                           "baseline:mean_reversion", "baseline:breakout", "baseline:buy_and_hold"]
    assert {t.book_id for t in of(TradeClosed, out)} == {"q"}
    assert {o.book_id for o in of(DecisionOutcome, out)} == {"q"}
    neutral = books["baseline:neutral"]
    assert (neutral.equity, neutral.trades, neutral.sum_r, neutral.outcomes) == (10_000.0, 0, 0.0, books["q"].outcomes)
    assert books["baseline:random"].trades == books["q"].trades  # equal exposure
    for strategy in STRATEGY_SYMBOLS[:3]:
        alone = [msgspec.structs.replace(d, action=strategy) for d in decisions]
        mine = last_marks(run(merged(candles, alone), PaperConfig(daily_loss_limit=10.0))[1])["q"]
        assert msgspec.structs.replace(mine, book_id=f"baseline:{strategy}") == books[f"baseline:{strategy}"]


def test_buy_and_hold_by_hand() -> None:
    _, out = run([candle(0), decision(0, "neutral"), *(candle(n, (100, 121, 99, 120)) for n in range(1, 5))],
                 msgspec.structs.replace(COSTLY, baseline_books=True))
    hold = last_marks(out)["baseline:buy_and_hold"]
    quantity = 10_000.0 / 101.0
    assert (hold.position, hold.entry_price) == pytest.approx((quantity, 101.0))
    assert hold.equity == pytest.approx(10_000.0 + quantity * 19.0 - 10.0)
    assert (hold.trades, hold.outcomes) == (0, 0)


def test_marks_by_hand() -> None:
    _, out = run([candle(0), decision(0), candle(1, (100, 104, 99, 103)), candle(2, (103, 103, 97.5, 98))])
    up, down = (m.books[0] for m in of(EquityMarked, out))
    assert up.equity == pytest.approx(10_000.0 + 50.0 - 2.525)
    assert down.equity == pytest.approx(10_000.0 - 75.0 - 2.525)
    assert down.peak_equity == up.equity
    assert down.drawdown == pytest.approx(125.0 / up.equity)
    assert down.day_pnl == pytest.approx(-77.525)
    assert (down.position, down.entry_price) == pytest.approx((25.0, 101.0))


def test_marks_only_where_something_happened_if_so_configured() -> None:
    config = msgspec.structs.replace(COSTLY, mark_every_bar=False)
    _, out = run([candle(0), decision(0), *(candle(n) for n in range(1, 7))], config)
    assert [m.ts_ms for m in of(EquityMarked, out)] == [DAY + HOUR, DAY + 4 * HOUR]


def test_renaming_a_symbol_changes_nothing_but_the_name() -> None:
    candles, decisions = market(5, 120)
    events = merged(candles, decisions)
    _, out = run(events, PaperConfig())
    _, other = run([msgspec.structs.replace(e, symbol="OTHER") for e in events], PaperConfig())
    assert [msgspec.structs.replace(o, symbol="S") for o in other] == out


def test_check_agent() -> None:
    events: list[Event] = []
    for symbol, seed in (("A", 1), ("B", 2)):
        candles, decisions = market(seed, 90)
        costs = instrument(ts_ms=DAY - HOUR, funding_bps=1.0, funding_interval_ms=8 * HOUR)
        for e in [costs, *merged(candles, decisions)]:
            changes = {"decision_id": f"{symbol}/q/{e.ts_ms}"} if isinstance(e, Decision) else {}
            events.append(msgspec.structs.replace(e, symbol=symbol, **changes))
    events += [command("HALT", ts_ms=DAY + 60 * HOUR), command("RESUME", ts_ms=DAY + 65 * HOUR)]
    events.sort(key=lambda e: e.ts_ms)
    check_agent(PaperExecutionAgent, events)
