"""Risk limits obeyed: by decisions, by paper execution, and by symbols that are born later."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from agents.algorithms.market import generate
from agents.contract import Refused
from agents.decision.limits import KEPT, bound, with_limits
from agents.paper_execution.layout import PaperConfig
from agents.risk_controller.table import FALLBACK, LIMITS
from agents.roster import ROSTER
from schemas.events import (
    Candle,
    Decision,
    DecisionOutcome,
    Event,
    PolicyCommand,
    PolicyRecord,
    RiskMode,
    RiskModeChanged,
    RiskPolicy,
    Tick,
    TradeClosed,
)
from streams.driver import Driver
from tests.agents import test_decision as actor
from tests.agents import test_paper_execution as paper

HOUR, START = actor.HOUR, actor.START
DAY = paper.DAY


def limits(version: int, mode: RiskMode, from_hour: float = 0, until_hour: float | None = None,
           **more: Any) -> PolicyRecord:
    start = START + int(from_hour * HOUR)
    payload: dict[str, Any] = {"now": LIMITS[mode], "otherwise": LIMITS[FALLBACK], "synthetic": False,
                               "full_books": ()}
    return PolicyRecord(
        policy_id="risk_controller/global", version=version, agent="risk_controller", scope="global", ts_ms=start,
        valid_from_ms=start, valid_until_ms=None if until_hour is None else START + int(until_hour * HOUR),
        fallback=FALLBACK, status="ACTIVE", reason="mode", outcomes=0, mask=(), actions=(),
        limits=RiskPolicy(**(payload | more)), source="test", origin="CLAIMED",
    )


# ---------------------------------------------------------------------- decisions
def test_a_decision_carries_the_limits_in_force_and_its_size_is_clipped() -> None:
    _, out = actor.run(actor.policy(2), limits(1, "CONSERVATIVE"), actor.bar(4), limits(2, "TURBO", 5), actor.bar(8),
                       size_multiplier=2.0, aversion=None)
    assert [(d.limits and d.limits.mode, d.limits_version, d.size_multiplier, d.forced) for d in out] == [
        ("CONSERVATIVE", 1, 0.5, False), ("TURBO", 2, 2.0, False)]


def test_limits_hold_from_their_time_on_and_the_newest_counts() -> None:
    _, out = actor.run(limits(1, "MODERATE", 0), limits(2, "CONSERVATIVE", 7), limits(3, "AGGRESSIVE", 10),
                       limits(4, "TURBO", 9), actor.bar(4), actor.bar(8), actor.bar(12), limits(3, "MODERATE", 11),
                       actor.bar(16))
    assert [d.limits_version for d in out] == [1, 2, 4, 4]


def test_before_there_are_limits_nothing_binds() -> None:
    _, (d,) = actor.run(limits(1, "CONSERVATIVE", 5), actor.bar(4))
    assert (d.limits, d.limits_version, d.size_multiplier) == (None, None, 1.0)


def test_past_their_end_those_of_the_fallback_bind() -> None:
    _, out = actor.run(limits(1, "AGGRESSIVE", 0, 4), actor.bar(4), actor.bar(8))
    assert [d.limits and d.limits.mode for d in out] == ["AGGRESSIVE", "CONSERVATIVE"]
    assert [d.size_multiplier for d in out] == [1.0, 0.5]


def test_synthetic_symbols_are_bound_only_where_the_policy_says_so() -> None:
    made = {"source": "synthetic:1", "origin": "SYNTHETIC"}
    _, out = actor.run(limits(1, "CONSERVATIVE"), actor.bar(4, **made), limits(2, "CONSERVATIVE", 5, synthetic=True),
                       actor.bar(8, **made))
    assert [d.limits_version for d in out] == [None, 2]


@pytest.mark.parametrize(("payload", "reason"), [
    ({"full_books": ("q_learning",)}, "risk_max_positions"), ({"full_books": ("other",)}, None),
    ({"closed_until_ms": START + 5 * HOUR}, "risk_daily_loss"), ({"closed_until_ms": START + 4 * HOUR}, None)])
def test_a_closed_book_takes_no_position(payload: dict[str, Any], reason: str | None) -> None:
    _, (d,) = actor.run(actor.policy(2), limits(1, "MODERATE", **payload), actor.bar(4))
    assert d.forced_reason == reason
    assert (d.action == "neutral" and d.propensity == 1.0) or reason is None
    assert d.policy_version == 2


def test_a_halt_goes_before_what_closes_a_book() -> None:
    halt = PolicyCommand(command_id="h", ts_ms=START, command="HALT", actor="a", reason="r")
    _, (d,) = actor.run(actor.policy(2), halt, limits(1, "MODERATE", full_books=("q_learning",)), actor.bar(4))
    assert d.forced_reason == "halt"


def test_confidence_is_held_against_the_limits_where_a_decision_has_one() -> None:
    _, (d,) = actor.run(actor.policy(2), actor.bar(4))
    held = with_limits((), limits(1, "CONSERVATIVE"), -1)
    assert bound(d, held, 0.01, 0.74).forced_reason == "risk_min_confidence"
    assert not bound(d, held, 0.01, 0.75).forced


def test_limits_without_a_payload_are_refused() -> None:
    with pytest.raises(Refused, match="has no limits"):
        actor.run(replace(limits(1, "MODERATE"), limits=None))


def test_few_versions_are_kept() -> None:
    state, _ = actor.run(*(limits(n, "MODERATE", n) for n in range(1, 200)))
    assert len(state.limits) == KEPT
    state, _ = actor.run(*(limits(n, "MODERATE", n / 10) for n in range(1, 40)), actor.bar(4),
                         limits(40, "MODERATE", 5))
    assert [h.version for h in state.limits] == [39, 40]


# ---------------------------------------------------------------------- execution
def trade_under(mode: RiskMode | None, size: float = 1.0, equity: float = 10_000.0) -> TradeClosed:
    """The trade of a decision with the limits of a mode; costs are 0, the stop is 4 away at MODERATE, no cap binds."""
    free = PaperConfig(default_fee_bps=0.0, default_half_spread_bps=0.0, default_slippage_bps=0.0,
                       baseline_books=False, equity=equity)
    limited = None if mode is None else LIMITS[mode]
    d = paper.decision(0, limits=limited, limits_version=None if mode is None else 7, size_multiplier=size)
    bars = [paper.candle(0), d, *(paper.candle(n) for n in range(1, 6))]
    (trade,) = paper.of(TradeClosed, paper.run(bars, free)[1])
    return trade


@pytest.mark.parametrize(("mode", "stop", "risk"), [
    (None, 4.0, 100.0), ("CONSERVATIVE", 3.0, 50.0), ("MODERATE", 4.0, 100.0), ("AGGRESSIVE", 5.0, 100.0),
    ("TURBO", 6.0, 100.0)])
def test_stop_and_risk_of_a_trade_are_those_of_the_limits(mode: RiskMode | None, stop: float, risk: float) -> None:
    t = trade_under(mode)
    assert t.stop_price is not None
    assert t.entry_price - t.stop_price == pytest.approx(stop)
    assert t.risk_at_open == pytest.approx(risk)
    assert t.execution.endswith("" if mode is None else f" risk={mode}@7")


@pytest.mark.parametrize(("mode", "size"), [("CONSERVATIVE", 0.5), ("MODERATE", 1.0), ("AGGRESSIVE", 1.5),
                                            ("TURBO", 2.0)])
def test_a_size_beyond_the_limits_is_clipped(mode: RiskMode, size: float) -> None:
    t = trade_under(mode, 2.0)
    assert t.size_multiplier == pytest.approx(size)
    assert t.risk_at_open == pytest.approx(100.0 * size)


@pytest.mark.parametrize(("mode", "leverage"), [("CONSERVATIVE", 2.0), ("MODERATE", 3.0)])
def test_leverage_is_capped(mode: RiskMode, leverage: float) -> None:
    d = paper.decision(0, limits=LIMITS[mode], limits_version=1, atr_pct=0.0001)
    out = paper.run([paper.candle(0), d, *(paper.candle(n) for n in range(1, 6))])[1]
    assert paper.of(TradeClosed, out)[0].leverage == pytest.approx(leverage)


def test_the_daily_loss_of_the_limits_closes_a_book() -> None:
    """A loss of 2.5 % of the day's equity: nothing more under CONSERVATIVE, which stops at 2 %."""
    def after(mode: RiskMode) -> str | None:
        first = paper.decision(0, next_ts_ms=DAY + 2 * HOUR, size_multiplier=2.5)
        second = paper.decision(2, limits=LIMITS[mode], limits_version=1)
        free = PaperConfig(default_fee_bps=0.0, default_half_spread_bps=0.0, default_slippage_bps=0.0,
                           baseline_books=False)
        bars = [paper.candle(0), first, paper.candle(1, (100, 100, 95, 96)), paper.candle(2), second, paper.candle(3),
                paper.candle(4), paper.candle(5), paper.candle(6)]
        outcomes = paper.of(DecisionOutcome, paper.run(bars, free)[1])
        return outcomes[-1].reason

    assert after("CONSERVATIVE") == "daily_loss_limit"
    assert after("MODERATE") is None


# ---------------------------------------------------------------------- the loop
def loop(late_symbol: bool = True, commands: tuple[tuple[int, PolicyCommand], ...] = ()) -> Driver:
    """Two symbols with a real label, the second of which begins 300 bars later; a tick a bar."""
    made = {"AAA": generate(1, 900), "BBB": generate(2, 900)}
    agents = {name: agent() for name, agent in ROSTER.items() if name != "ppo_trader"}  # which trains for minutes
    driver = Driver(agents, partitions=2)

    def events() -> Any:
        for t in range(900):
            for at, command in commands:
                if at == t:
                    yield "policy.commands", command
            for symbol, m in made.items():
                if symbol == "AAA" or t >= 300 or not late_symbol:
                    o, h, low, c = (float(x[t]) for x in (m.open, m.high, m.low, m.close))
                    yield "market.candles", Candle(
                        symbol=symbol, interval_ms=HOUR, open_time_ms=t * HOUR, ts_ms=(t + 1) * HOUR, open=o,
                        high=max(o, h, c), low=min(o, low, c), close=c, source="test", origin="CLAIMED")
            yield "system.clock", Tick(ts_ms=(t + 1) * HOUR, writer="test")

    driver.run(events())
    return driver


def by_id(events: list[Event]) -> dict[int, PolicyRecord]:
    return {e.version: e for e in events if isinstance(e, PolicyRecord) and e.policy_id == "risk_controller/global"}


def test_in_the_loop_every_decision_carries_the_newest_limits_that_hold() -> None:
    driver = loop()
    assert not [t for t in driver.log if t.endswith(".dlq")]
    versions = by_id(driver.events("policy.ledger"))
    assert [e.current for e in driver.events("risk.mode.changed") if isinstance(e, RiskModeChanged)]
    decisions = [d for d in driver.events("rl.meta.strategy_selected") if isinstance(d, Decision)]
    first = min(v.valid_from_ms for v in versions.values())
    later = [d for d in decisions if d.ts_ms > first]
    assert {d.symbol for d in later} == {"AAA", "BBB"}
    for d in later:
        newest = max((v for v in versions.values() if v.valid_from_ms <= d.ts_ms), key=lambda v: v.version)
        assert newest.limits is not None
        assert (d.limits_version, d.limits) == (newest.version, newest.limits.now)
        assert d.size_multiplier <= newest.limits.now.risk_per_trade / 0.01
    trades = [t for t in driver.events("execution.trade.closed") if isinstance(t, TradeClosed)]
    assert any(" risk=" in t.execution for t in trades)
    assert all(t.risk_at_open <= 0.02 * t.equity_at_open * 1.0001 for t in trades)


def test_in_the_loop_an_override_binds_the_next_decision_until_it_ends() -> None:
    order = PolicyCommand(command_id="o", ts_ms=500 * HOUR, command="OVERRIDE", policy_id="risk_controller/global",
                          mode="CONSERVATIVE", until_ms=560 * HOUR, actor="ann", reason="test")
    driver = loop(commands=((500, order),))
    during = [d for d in driver.events("rl.meta.strategy_selected")
              if isinstance(d, Decision) and 501 * HOUR < d.ts_ms < 560 * HOUR]
    assert during
    assert all(d.limits is not None and d.limits.mode == "CONSERVATIVE" for d in during)
    answers = [v for v in by_id(driver.events("policy.ledger")).values() if v.command_id == "o"]
    assert [(v.obeyed, v.actor) for v in answers] == [(True, "ann")]
    ended = [e for e in driver.events("risk.mode.changed") if isinstance(e, RiskModeChanged) and e.ts_ms >= 560 * HOUR]
    assert ended[0].forced is None
