"""The risk controller: its table row by row, and what it does with marks, trades, alerts and commands."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agents.contract import Refused
from agents.risk_controller import RiskConfig, RiskControllerAgent
from agents.risk_controller.account import SHELF, full_books, put, span
from agents.risk_controller.score import measures, scored
from agents.risk_controller.state import BookNow, Books, FirstAccount, FirstBook, Label, RiskState, Shelf, symbols_of
from agents.risk_controller.table import (
    LIMITS,
    MODES,
    POINTS,
    SIGNALS,
    TRANSITIONS,
    Point,
    Signal,
    after_override,
    in_force,
    signal,
    stepped,
)
from schemas.events import (
    BookMark,
    EquityMarked,
    HealthAlert,
    PolicyCommand,
    PolicyRecord,
    RegimeChanged,
    RiskMode,
    RiskModeChanged,
    Tick,
    TradeClosed,
)
from tests.agents.check import check_agent

HOUR = 3_600_000
DAY = 24 * HOUR
START = 20_000 * DAY
DATA = Path(os.environ.get("QUANTUM_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
REAL: dict[str, Any] = {"source": "binance", "origin": "CLAIMED"}
MADE: dict[str, Any] = {"source": "synthetic:1", "origin": "SYNTHETIC"}
POLICY = "risk_controller/global"


def mark(hour: float, equity: float, *, symbol: str = "BTCUSDT", book: str = "q_learning", position: float = 0.0,
         **label: Any) -> EquityMarked:
    book_mark = BookMark(book_id=book, equity=equity, peak_equity=max(equity, 10_000.0), drawdown=0.0, day_pnl=0.0,
                         position=position, trades=0, outcomes=0, sum_r=0.0, sum_r2=0.0)
    return EquityMarked(symbol=symbol, interval_ms=HOUR, ts_ms=START + int(hour * HOUR), close=100.0, halted=False,
                        books=(book_mark,), **(label or REAL))


def trade(n: int, hour: float, pnl: float, **changes: Any) -> TradeClosed:
    values: dict[str, Any] = {
        "trade_id": f"t{n}", "decision_id": f"d{n}", "book_id": "q_learning", "symbol": "BTCUSDT", "side": "LONG",
        "ts_ms": START + int(hour * HOUR), "opened_ms": START, "entry_price": 100.0, "exit_price": 101.0,
        "quantity": 1.0, "size_multiplier": 1.0, "leverage": 1.0, "equity_at_open": 10_000.0,
        "notional_at_open": 100.0, "risk_at_open": 100.0, "fees": 0.0, "funding": 0.0, "spread_cost": 0.0,
        "slippage": 0.0, "pnl_usd": pnl, "pnl_pct": pnl / 10_000, "r_multiple": pnl / 100, "mae_pct": 0.0,
        "mfe_pct": 0.0, "bars_held": 1, "exit_reason": "HORIZON", "strategy": "breakout", "execution": "test",
    }
    return TradeClosed(**(values | REAL | changes))


def regime(hour: float, current: str, symbol: str = "BTCUSDT") -> RegimeChanged:
    return RegimeChanged(symbol=symbol, interval_ms=HOUR, ts_ms=START + int(hour * HOUR), current=current,  # type: ignore[arg-type]
                         bars_in_previous=1, trend_strength=0.0, volatility_ratio=1.0, **REAL)


def alert(hour: float, status: str, component: str = "features") -> HealthAlert:
    return HealthAlert(component=component, ts_ms=START + int(hour * HOUR), status=status, reason="test",  # type: ignore[arg-type]
                       writer="test")


def command(name: str, hour: float, **more: Any) -> PolicyCommand:
    return PolicyCommand(command_id=f"{name}-{hour}", ts_ms=START + int(hour * HOUR), command=name,  # type: ignore[arg-type]
                         policy_id=POLICY, actor="ann", reason="test", **more)


def override(hour: float, mode: RiskMode, until: float) -> PolicyCommand:
    return command("OVERRIDE", hour, mode=mode, until_ms=START + int(until * HOUR))


def tick(hour: float, symbol: str | None = None) -> Tick:
    return Tick(ts_ms=START + int(hour * HOUR), writer="test", symbol=symbol)


class Run:
    """Events folded in order, with what came out."""

    def __init__(self, *events: Any, **config: Any) -> None:
        self.agent = RiskControllerAgent(RiskConfig(**config))
        self.state: RiskState = self.agent.new("global")
        self.out: list[Any] = []
        self.take(*events)

    def take(self, *events: Any) -> list[Any]:
        last: list[Any] = []
        for event in events:
            self.state, outputs = self.agent.step(self.state, event)
            last = [o.event for o in outputs]
            self.out += last
        return last

    @property
    def changes(self) -> list[RiskModeChanged]:
        return [e for e in self.out if isinstance(e, RiskModeChanged)]

    @property
    def policies(self) -> list[PolicyRecord]:
        return [e for e in self.out if isinstance(e, PolicyRecord)]

    @property
    def mode(self) -> RiskMode:
        limits = self.policies[-1].limits
        assert limits is not None
        return limits.now.mode


def winning(n: int = 20) -> list[TradeClosed]:
    """Trades enough for a win rate of 1."""
    return [trade(i, 0.1, 50.0) for i in range(n)]


# ---------------------------------------------------------------------- the table
EXPECTED: dict[tuple[RiskMode, Signal], tuple[RiskMode, bool, bool]] = {
    ("CONSERVATIVE", "CRITICAL"): ("CONSERVATIVE", False, False),
    ("CONSERVATIVE", "DOWN"): ("CONSERVATIVE", False, False),
    ("CONSERVATIVE", "STAY"): ("CONSERVATIVE", False, False), ("CONSERVATIVE", "UP"): ("MODERATE", True, False),
    ("MODERATE", "CRITICAL"): ("CONSERVATIVE", False, False), ("MODERATE", "DOWN"): ("CONSERVATIVE", False, False),
    ("MODERATE", "STAY"): ("MODERATE", False, False), ("MODERATE", "UP"): ("AGGRESSIVE", True, False),
    ("AGGRESSIVE", "CRITICAL"): ("CONSERVATIVE", False, False), ("AGGRESSIVE", "DOWN"): ("MODERATE", False, False),
    ("AGGRESSIVE", "STAY"): ("AGGRESSIVE", False, False), ("AGGRESSIVE", "UP"): ("TURBO", True, True),
    ("TURBO", "CRITICAL"): ("CONSERVATIVE", False, False), ("TURBO", "DOWN"): ("AGGRESSIVE", False, False),
    ("TURBO", "STAY"): ("TURBO", False, False), ("TURBO", "UP"): ("TURBO", False, False),
}


@pytest.mark.parametrize("turbo", [False, True])
@pytest.mark.parametrize("dwelt", [False, True])
@pytest.mark.parametrize("says", SIGNALS)
@pytest.mark.parametrize("mode", MODES)
def test_every_transition(mode: RiskMode, says: Signal, dwelt: bool, turbo: bool) -> None:
    to, waits, permitted = EXPECTED[mode, says]
    allowed = (dwelt or not waits) and (turbo or not permitted)
    assert stepped(mode, says, dwelt=dwelt, turbo=turbo) == (to if allowed else mode)


def test_the_table_has_a_row_for_every_mode_and_signal() -> None:
    assert set(TRANSITIONS) == set(EXPECTED) == {(m, s) for m in MODES for s in SIGNALS}


@pytest.mark.parametrize("mode", MODES)
def test_down_never_rises_and_up_is_one_mode(mode: RiskMode) -> None:
    at = MODES.index
    assert at(TRANSITIONS[mode, "DOWN"].to) <= at(mode) <= at(TRANSITIONS[mode, "UP"].to) <= at(mode) + 1
    assert not TRANSITIONS[mode, "DOWN"].waits
    assert not TRANSITIONS[mode, "CRITICAL"].waits
    assert TRANSITIONS[mode, "UP"].waits or mode == "TURBO"


@pytest.mark.parametrize(("defensive", "aggressive", "says"), [
    (0, 0, "STAY"), (0, 1, "STAY"), (0, 2, "UP"), (1, 4, "STAY"), (2, 2, "STAY"), (3, 0, "DOWN"), (9, 4, "DOWN")])
def test_signals(defensive: int, aggressive: int, says: Signal) -> None:
    assert signal(False, defensive, aggressive) == says
    assert signal(True, defensive, aggressive) == "CRITICAL"


@pytest.mark.parametrize(("point", "counts", "not_"), [
    (POINTS[0], 0.05, 0.0499), (POINTS[1], 0.4499, 0.45), (POINTS[2], -0.0051, -0.005), (POINTS[3], 5, 4),
    (POINTS[4], 3, 2), (POINTS[5], 0.5, 0.49), (POINTS[6], 0.5, 0.49), (POINTS[7], 0.02, 0.0201),
    (POINTS[8], 0.60, 0.59), (POINTS[9], 0.0101, 0.01), (POINTS[10], 0.5, 0.49)])
def test_points_at_their_thresholds(point: Point, counts: float, not_: float) -> None:
    assert point.counts(counts)
    assert not point.counts(not_)


def test_points_are_those_of_the_domain() -> None:
    assert [(p.measure, p.points) for p in POINTS] == [
        ("drawdown", -2), ("win_rate", -2), ("equity_slope", -2), ("losses_in_a_row", -1),
        ("days_without_profit", -1), ("volatile_share", -1), ("choppy_share", -1), ("drawdown", 1), ("win_rate", 1),
        ("equity_slope", 1), ("trending_share", 1)]


def test_limits_are_those_of_the_domain() -> None:
    rows = [(x.risk_per_trade, x.min_confidence, x.max_positions, x.max_leverage, x.stop_atr, x.daily_loss_limit)
            for x in (LIMITS[m] for m in MODES)]
    assert rows == [(0.005, 0.75, 3, 2, 1.5, 0.02), (0.01, 0.65, 5, 3, 2, 0.03), (0.015, 0.60, 8, 5, 2.5, 0.05),
                    (0.02, 0.55, 10, 7, 3, 0.05)]


@pytest.mark.parametrize("scored_", MODES)
@pytest.mark.parametrize("over", [None, *MODES])
def test_forced_states(scored_: RiskMode, over: RiskMode | None) -> None:
    assert in_force(scored_, True, over) == ("CONSERVATIVE", "CRITICAL")
    assert in_force(scored_, False, over) == ((scored_, None) if over is None else (over, "OVERRIDE"))
    if over is not None:
        assert MODES.index(after_override(scored_, over)) == min(MODES.index(scored_), MODES.index(over))


# ---------------------------------------------------------------------- the first version
def test_the_first_mark_brings_the_initial_mode_into_force() -> None:
    run = Run(mark(0, 10_000))
    (event,), (policy,) = run.changes, run.policies
    assert (event.previous, event.current, event.forced, event.policy_version) == (None, "MODERATE", None, 1)
    assert (policy.policy_id, policy.version, policy.reason, policy.fallback) == (POLICY, 1, "genesis", "CONSERVATIVE")
    assert policy.limits is not None
    assert (policy.limits.now, policy.limits.otherwise) == (LIMITS["MODERATE"], LIMITS["CONSERVATIVE"])
    assert policy.valid_until_ms == START + 7 * DAY
    assert event.judged == ("BTCUSDT",)


def test_without_a_clock_or_a_mark_nothing_is_said() -> None:
    assert not Run(tick(0), regime(0, "bull"), alert(0, "CRITICAL"), trade(1, 0, 5.0)).out


def test_where_all_is_synthetic_the_policy_says_so_and_judges_nothing() -> None:
    run = Run(mark(0, 10_000, **MADE), tick(1), *(mark(n, 100.0, **MADE) for n in range(2, 9)), tick(9))
    (event,), (policy,) = run.changes, run.policies
    assert (event.origin, policy.origin, event.current) == ("SYNTHETIC", "SYNTHETIC", "MODERATE")
    assert event.basis.startswith("no book is judged: all that was seen is SYNTHETIC")
    assert (event.judged, run.state.account.shelves) == ((), ())
    assert policy.limits is not None
    assert not policy.limits.synthetic
    said = run.take(mark(10, 10_000))
    assert [(e.reason, e.origin) for e in said if isinstance(e, PolicyRecord)] == [("basis", "CLAIMED")]


def test_a_synthetic_crash_does_not_move_the_mode_unless_configured() -> None:
    crash = [mark(n, 10_000 - 900 * n, symbol="KXQ", **MADE) for n in range(1, 9)]
    assert Run(mark(0, 10_000), *crash, tick(9)).mode == "MODERATE"
    assert Run(mark(0, 10_000, symbol="KXQ", **MADE), *(trade(i, 0, -5.0, **MADE) for i in range(5)), *crash,
               synthetic=True).mode == "CONSERVATIVE"


def test_the_clock_of_a_symbol_is_not_ours() -> None:
    run = Run(mark(0, 10_000), override(0, "CONSERVATIVE", 5))
    assert run.take(tick(500, "KXQ")) == []
    assert run.mode == "CONSERVATIVE"


def test_baselines_other_books_and_other_symbols_are_not_judged() -> None:
    run = Run(mark(0, 10_000), mark(1, 1_000, book="baseline:random"), mark(2, 1_000, book="other"),
              mark(3, 1_000, symbol="ETHUSDT"), books=("q_learning",), symbols=("BTCUSDT",))
    assert [(s, b.book_id, b.equity) for s, b in books_of(run)] == [("BTCUSDT", "q_learning", 10_000)]


# ---------------------------------------------------------------------- down at once, up after the dwell time
def test_drawdown_alone_does_not_step_down_but_with_losses_it_does_at_that_bar() -> None:
    run = Run(mark(0, 10_000), mark(1, 9_400))
    assert (run.mode, scored(run.state, run.agent.config).defensive) == ("MODERATE", 2)
    run.take(*(trade(i, 1, -10.0) for i in range(5)))
    changed, policy = run.take(mark(2, 9_390))
    assert (changed.previous, changed.current, changed.defensive) == ("MODERATE", "CONSERVATIVE", 3)
    assert policy.valid_from_ms == START + 2 * HOUR
    told = {r.name: r for r in changed.reasons}
    assert told["drawdown"].value == pytest.approx(0.061)
    assert told["drawdown"].evidence == (f"execution.equity.marked/BTCUSDT@{START}",
                                         f"execution.equity.marked/BTCUSDT@{START + 2 * HOUR}")
    assert told["losses_in_a_row"].evidence == tuple(f"execution.trade.closed/t{i}" for i in range(5))


def test_two_modes_down_take_two_bars() -> None:
    bad = [trade(i, 1, -10.0) for i in range(5)]
    run = Run(mark(0, 10_000), *bad, initial="AGGRESSIVE")
    run.take(mark(1, 9_000), mark(1, 9_000, symbol="ETHUSDT"))
    assert run.mode == "MODERATE"
    run.take(mark(2, 9_000))
    assert run.mode == "CONSERVATIVE"


def test_up_only_after_the_dwell_time() -> None:
    run = Run(mark(0, 10_000), *winning())
    for hour in range(1, 24):
        run.take(mark(hour, 10_000 + hour))
        assert run.mode == "MODERATE", hour
    run.take(mark(24, 10_024))
    assert run.mode == "AGGRESSIVE"
    for hour in range(25, 80):
        run.take(mark(hour, 10_000 + hour))
        assert run.mode == "AGGRESSIVE", "TURBO needs a permission"


def test_turbo_where_it_is_permitted() -> None:
    run = Run(mark(0, 10_000), *winning(), *(mark(h, 10_000 + h) for h in range(1, 49)), allow_turbo=True)
    assert run.mode == "TURBO"
    assert [c.current for c in run.changes] == ["MODERATE", "AGGRESSIVE", "TURBO"]


def test_without_trades_nothing_speaks_for_more_risk() -> None:
    run = Run(mark(0, 10_000), regime(0, "bull"), *(mark(h, 10_000) for h in range(1, 80)))
    assert run.mode == "MODERATE"


def test_a_signal_to_step_down_starts_the_dwell_time_anew() -> None:
    """At hour 24 the mode could rise; five losses and a drawdown at hour 23 make it fall, and it waits till 47."""
    run = Run(mark(0, 10_000), *winning(40), *(mark(h, 10_000) for h in range(1, 23)))
    run.take(*(trade(100 + i, 23, -1.0) for i in range(5)), mark(23, 9_000))
    assert run.mode == "CONSERVATIVE"
    run.take(trade(200, 23.5, 5.0))
    for hour in range(24, 47):
        run.take(mark(hour, 10_000))
        assert run.mode == "CONSERVATIVE", hour
    run.take(mark(47, 10_000))
    assert run.mode == "MODERATE"


@pytest.mark.parametrize(("mode", "says"), EXPECTED)
def test_every_transition_by_the_events_that_lead_to_it(mode: RiskMode, says: Signal) -> None:
    to, waits, _ = EXPECTED[mode, says]
    run = Run(mark(0, 10_000), initial=mode, allow_turbo=True)
    if says == "CRITICAL":
        run.take(alert(1, "CRITICAL"))
    elif says == "DOWN":
        run.take(*(trade(i, 1, -10.0) for i in range(5)), mark(1, 9_000))
    elif says == "STAY":
        run.take(*(mark(h, 10_000) for h in range(1, 60)))
    else:
        run.take(*winning(), *(mark(h, 10_000) for h in range(1, 24)))
        assert run.mode == (mode if waits else to), "not before the dwell time"
        run.take(mark(24, 10_000))
    assert run.state.mode == run.mode == to
    assert run.changes[-1].forced == ("CRITICAL" if says == "CRITICAL" else None)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["mark", "win", "lose", "regime", "alert", "well", "tick"]),
                          st.integers(0, 3)), min_size=5, max_size=150), st.booleans())
def test_the_mode_never_steps_up_twice_within_the_dwell_time(steps: list[tuple[str, int]], turbo: bool) -> None:
    hour, equity = 0.0, 10_000.0
    run = Run(mark(0, equity), *winning(), allow_turbo=turbo, dwell_ms=6 * HOUR, health_hold_ms=HOUR)
    for n, (what, x) in enumerate(steps):
        hour += x
        equity = max(1_000.0, equity + {"win": 200, "lose": -150}.get(what, 0) * x)
        run.take({"mark": mark(hour, equity), "win": trade(1_000 + n, hour, 10.0),
                  "lose": trade(1_000 + n, hour, -10.0), "tick": tick(hour),
                  "regime": regime(hour, ("bull", "bear", "sideways", "volatile")[x]),
                  "alert": alert(hour + n * 1e-3, "CRITICAL", f"c{x}"),
                  "well": alert(hour + n * 1e-3, "HEALTHY", f"c{x}")}[what], mark(hour, equity))
    at = MODES.index
    ups = [c.ts_ms for c in run.changes if c.previous is not None and at(c.current) > at(c.previous)]
    assert all(b - a >= 6 * HOUR for a, b in pairwise(ups))
    assert all(at(c.current) - at(c.previous) <= 1 for c in run.changes if c.previous is not None)
    versions = [p.version for p in run.policies]
    assert versions == list(range(1, len(versions) + 1))
    assert [c.policy_version for c in run.changes] == sorted({c.policy_version for c in run.changes})


# ---------------------------------------------------------------------- the account
def test_a_newcomer_is_no_profit_and_hides_no_drawdown() -> None:
    run = Run(mark(0, 10_000), mark(1, 9_400), mark(1, 10_000, symbol="ETHUSDT"))
    assert (run.state.account.peak, run.state.account.nav) == (1.0, pytest.approx(0.94))
    run.take(mark(2, 10_000, symbol="ETHUSDT"), mark(2, 9_400 + 970))
    assert run.state.account.nav == pytest.approx(0.94 * (19_400 + 970) / 19_400)


def books_of(run: Run) -> list[tuple[str, BookNow]]:
    return [(here.symbol, b) for here in symbols_of(run.state.account) for b in here.books]


BOOKS = ("a", "q_learning", "z")
ONE_MARK = st.tuples(st.sampled_from("DBCA"), st.dictionaries(st.sampled_from(BOOKS), st.tuples(
    st.sampled_from([0.0, 9_500.0, 10_000.0, 10_123.45]), st.booleans()), min_size=1))


@settings(deadline=None, max_examples=60)
@given(st.lists(ONE_MARK, min_size=1, max_size=40))
def test_the_account_is_that_of_a_plain_reckoning_over_all_books(marks: list[tuple[str, Any]]) -> None:
    run, nav, held = Run(), 1.0, dict[tuple[str, str], tuple[float, bool]]()
    for hour, (symbol, books) in enumerate(marks):
        both = [mark(hour, equity, symbol=symbol, book=book, position=float(is_open)).books[0]
                for book, (equity, is_open) in books.items()]
        run.take(replace(mark(hour, 1.0, symbol=symbol), books=tuple(both)))
        new = held | {(symbol, book): told for book, told in books.items()}
        others = sum([held[key][0] for key in sorted(held) if key[0] != symbol or key[1] not in books])
        before = sum([held.get((symbol, book), told)[0] for book, told in books.items()])
        after = sum([told[0] for told in books.values()])
        if before != after:
            nav = max(0.0, nav * (others + after) / (others + before)) if others + before > 0 else 0.0
        held = new
        account = run.state.account
        assert account.books == len(held)
        assert account.nav == pytest.approx(nav, rel=1e-12, abs=0.0)
        assert account.total == pytest.approx(sum([equity for equity, _ in held.values()]), rel=1e-12, abs=1e-9)
        assert [(s, b.book_id, b.equity, b.open) for s, b in books_of(run)] == [
            (*key, *held[key]) for key in sorted(held)]
        positions = [sum(is_open for (_, book), (_, is_open) in held.items() if book == name) for name in BOOKS]
        assert full_books(account, 2) == tuple(name for name, n in zip(BOOKS, positions, strict=True) if n >= 2)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 14), st.sampled_from(["bull", "bear", "sideways", "volatile"])), max_size=60))
def test_shares_of_regimes_are_over_the_newest_label_of_every_symbol(labels: list[tuple[int, str]]) -> None:
    run, newest = Run(mark(0, 10_000)), dict[str, tuple[int, str]]()
    for hour, (n, name) in enumerate(labels):
        run.take(regime(hour, name, f"S{n:02d}"))
        newest[f"S{n:02d}"] = START + hour * HOUR, name
    assert [(x.symbol, (x.ts_ms, x.regime)) for x in run.state.labels] == sorted(newest.items())
    found = measures(run.state, run.agent.config)
    for what, regimes in (("volatile_share", {"volatile"}), ("choppy_share", {"sideways"}),
                          ("trending_share", {"bull", "bear"})):
        here = [f"market.regime.changed/{symbol}@{at}" for symbol, (at, name) in sorted(newest.items())
                if name in regimes]
        told = found.get(what)  # type: ignore[call-overload]
        assert (None if told is None else (told.value, told.n, told.evidence())) == (
            None if not newest else (len(here) / len(newest), len(newest), tuple(here[-8:])))


def test_what_rounding_leaves_of_an_account_is_not_taken_for_equity() -> None:
    """.1 + .2 - .3 is not 0: a unit would be worth 10^14 times as much after the next mark."""
    run = Run(mark(0, 0.1, symbol="A"), mark(0, 0.2, symbol="B"), mark(0, 0.3, symbol="C"))
    run.take(mark(1, 0.0, symbol="A"), mark(1, 0.0, symbol="B"), mark(1, 0.0, symbol="C"))
    run.take(mark(2, 10.0, symbol="C"))
    assert (run.state.account.nav, run.state.account.total) == (0.0, 10.0)


def test_the_account_is_summed_up_anew_on_each_day() -> None:
    run = Run(*(mark(1, 10_000.1 + i, symbol=f"S{i}") for i in range(9)))
    for hour in range(2, 24):
        run.take(*(mark(hour, 10_000.1 + i + hour / 7, symbol=f"S{i}") for i in range(9)))
    before = [b.equity for _, b in books_of(run)]
    run.take(mark(25, 9_000.0, symbol="S0"))
    assert run.state.account.total == sum(before) - before[0] + 9_000.0


def test_a_state_of_the_former_format_goes_on() -> None:
    run = Run(mark(0, 10_000, position=1.0), mark(0, 9_000, symbol="ETHUSDT", position=1.0), regime(0, "bull"),
              regime(0, "sideways", "ETHUSDT"), trade(1, 1, -5.0), mark(1, 10_100))
    kind, upgrade = RiskControllerAgent.former[1]
    row = tuple([FirstBook(symbol=s, book_id=b.book_id, equity=b.equity, open=b.open, ts_ms=b.ts_ms)
                 for s, b in books_of(run)])
    kept = {f: getattr(run.state.account, f) for f in FirstAccount.__struct_fields__}
    account = FirstAccount(**kept | {"books": row})
    values = {f: getattr(run.state, f) for f in kind.__struct_fields__}
    assert upgrade(kind(**values | {"account": account})) == run.state


def test_a_mark_leaves_what_is_of_other_symbols_as_it_is() -> None:
    run = Run(*(mark(0, 10_000, symbol=f"S{i}") for i in range(9)))
    before = symbols_of(run.state.account)
    run.take(mark(1, 10_100, symbol="S4"))
    same = [a is b for a, b in zip(before, symbols_of(run.state.account), strict=True)]
    assert same == [i != 4 for i in range(9)]


def test_what_is_of_a_symbol_is_found_without_looking_at_a_thousand_others() -> None:
    looked: list[Any] = []

    class Watched(list[Label]):
        def __getitem__(self, at: Any) -> Any:
            looked.append(at)
            return super().__getitem__(at)

    labels = Watched([Label(symbol=f"S{i // 2:03d}", interval_ms=HOUR, regime="bull", ts_ms=0) for i in range(2_000)])
    assert span(labels, "S123") == (246, 248)
    assert (span(labels, "S"), span(labels, "T")) == ((0, 0), (2_000, 2_000))
    assert len(looked) <= 3 * 2 * 12


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 400), max_size=600))
def test_shelves_stay_in_order_and_short_and_a_mark_makes_one_anew(numbers: list[int]) -> None:
    shelves: tuple[Shelf, ...] = ()
    plain: dict[str, Books] = {}
    for n in numbers:
        symbol, before = f"S{n:03d}", shelves
        plain[symbol] = Books(symbol=symbol, books=())
        shelves = put(shelves, plain[symbol])
        assert len([shelf for shelf in shelves if not any(shelf is old for old in before)]) <= 2
    assert [here for shelf in shelves for here in shelf.symbols] == [plain[symbol] for symbol in sorted(plain)]
    assert all(1 <= len(shelf.symbols) <= SHELF for shelf in shelves)


def test_late_and_repeated_marks_change_nothing() -> None:
    run = Run(mark(0, 10_000), mark(2, 9_900))
    state = run.state
    assert run.take(mark(1, 1.0), mark(2, 1.0)) == []
    assert run.state is state


def test_a_repeated_trade_counts_once_and_a_changed_one_is_refused() -> None:
    run = Run(mark(0, 10_000), trade(1, 1, -5.0), trade(1, 1, -5.0))
    assert (run.state.n_trades, run.state.losses) == (1, 1)
    with pytest.raises(Refused, match="other numbers"):
        run.take(trade(1, 1, 5.0))


def test_days_without_profit_count_days_on_which_something_happened() -> None:
    run = Run(mark(1, 10_000), mark(25, 9_999), mark(49, 9_998), mark(73, 9_997), mark(97, 9_997), mark(121, 9_997))
    assert run.state.account.bad_days == 3
    run.take(mark(122, 10_001), mark(145, 10_001))
    assert run.state.account.bad_days == 0


def test_equity_slope_per_day() -> None:
    run = Run(*(mark(6 * i, 10_000 * 0.99 ** (i / 4)) for i in range(9)))
    value = next(r for r in scored(run.state, run.agent.config).reasons if r.name == "equity_slope")
    assert (value.value, value.points, value.n) == (pytest.approx(-0.01005, abs=1e-4), -2, 9)


def test_books_that_are_full_are_named_until_they_are_not() -> None:
    held = [mark(0, 10_000, symbol=f"S{i}", position=1.0) for i in range(5)]
    run = Run(*held[:4])
    assert run.policies[-1].limits is not None
    assert run.policies[-1].limits.full_books == ()
    run.take(held[4])
    assert run.policies[-1].limits.full_books == ("q_learning",)
    assert run.policies[-1].reason == "positions"
    run.take(mark(1, 10_000, symbol="S0"))
    assert run.policies[-1].limits.full_books == ()


def test_the_daily_loss_of_the_account_closes_it_until_midnight() -> None:
    run = Run(mark(1, 10_000), mark(2, 9_690))
    policy = run.policies[-1]
    assert policy.limits is not None
    assert (policy.reason, policy.limits.closed_until_ms) == ("daily_loss", START + DAY)


def test_a_version_is_renewed_before_it_ends() -> None:
    run = Run(mark(0, 10_000))
    assert run.take(tick(23.9)) == []
    (policy,) = run.take(tick(24))
    assert (policy.reason, policy.version, policy.valid_until_ms) == ("renewal", 2, START + 8 * DAY)


# ---------------------------------------------------------------------- health
def test_critical_forces_at_once_and_only_its_own_recovery_ends_it() -> None:
    run = Run(mark(0, 10_000), tick(1), initial="AGGRESSIVE", dwell_ms=0)
    changed, policy = run.take(alert(1, "CRITICAL"))
    assert (changed.current, changed.forced, policy.reason) == ("CONSERVATIVE", "CRITICAL", "mode")
    assert changed.reasons[0].name == "critical"
    assert changed.reasons[0].evidence == (f"system.health.alert/features@{START + HOUR}",)
    run.take(alert(2, "HEALTHY", "decision"), alert(2, "HEALTHY", "features-0"), alert(2, "DEGRADED"), tick(50))
    assert run.changes[-1].forced == "CRITICAL", "another component, or a component that is not well, clears nothing"
    run.take(alert(51, "HEALTHY"), tick(50.1))
    assert run.changes[-1].forced == "CRITICAL", "not before the hold time"
    run.take(tick(50.2))
    assert (run.changes[-1].forced, run.mode) == (None, "CONSERVATIVE")


def test_a_relapse_within_the_hold_time_starts_it_anew() -> None:
    run = Run(mark(0, 10_000), alert(1, "CRITICAL"), alert(2, "HEALTHY"), tick(0.1), alert(3, "CRITICAL"),
              alert(4, "HEALTHY"), tick(0.2))
    assert run.changes[-1].forced == "CRITICAL"
    run.take(tick(0.3))
    assert run.changes[-1].forced is None


def test_two_critical_components_must_both_recover() -> None:
    run = Run(mark(0, 10_000), alert(1, "CRITICAL", "a"), alert(1, "CRITICAL", "b"), alert(2, "HEALTHY", "a"), tick(9))
    assert run.changes[-1].forced == "CRITICAL"
    run.take(alert(3, "HEALTHY", "b"), tick(18))
    assert run.changes[-1].forced is None


def test_a_late_word_of_health_clears_nothing() -> None:
    run = Run(mark(0, 10_000), alert(5, "CRITICAL"), alert(4, "HEALTHY"), tick(50))
    assert run.changes[-1].forced == "CRITICAL"


def test_alerts_of_another_time_count_on_our_clock() -> None:
    """A host's alert carries the wall clock; a replay's event time is years before it."""
    years = 24 * 365 * 9.0
    run = Run(mark(0, 10_000), alert(years, "CRITICAL"), alert(years + 1, "HEALTHY"), tick(0.1))
    assert (run.changes[-1].forced, run.changes[-1].ts_ms) == ("CRITICAL", START)
    run.take(tick(0.2))
    assert run.changes[-1].forced is None


def test_an_override_does_not_lift_critical() -> None:
    run = Run(mark(0, 10_000), alert(1, "CRITICAL"), override(1, "TURBO", 5))
    assert (run.mode, run.changes[-1].forced) == ("CONSERVATIVE", "CRITICAL")
    assert [r.name for r in run.changes[-1].reasons][:2] == ["critical", "override"]


# ---------------------------------------------------------------------- commands
def test_an_override_is_answered_visible_and_expires() -> None:
    run = Run(mark(0, 10_000))
    changed, policy = run.take(override(1, "TURBO", 5))
    assert (changed.current, changed.scored, changed.forced, changed.actor) == ("TURBO", "MODERATE", "OVERRIDE", "ann")
    assert changed.until_ms == START + 5 * HOUR
    assert (policy.command_id, policy.obeyed, policy.reason) == ("OVERRIDE-1", True, "override TURBO: test")
    assert run.take(override(1, "TURBO", 5)) == [], "answered once"
    run.take(tick(4.9))
    assert run.mode == "TURBO"
    changed, policy = run.take(tick(5))
    assert (changed.current, changed.forced, policy.command_id) == ("MODERATE", None, None)


def test_behind_an_override_the_mode_does_not_jump_up() -> None:
    run = Run(mark(0, 10_000), *winning(), override(1, "CONSERVATIVE", 100), *(mark(h, 10_000) for h in range(2, 60)))
    assert run.mode == "CONSERVATIVE"
    run.take(command("CLEAR", 60))
    assert (run.mode, run.changes[-1].forced) == ("CONSERVATIVE", None)
    run.take(*(mark(h, 10_000) for h in range(60, 83)))
    assert run.mode == "CONSERVATIVE"
    run.take(mark(84, 10_000))
    assert run.mode == "MODERATE"


@pytest.mark.parametrize(("sent", "why"), [
    (command("CLEAR", 1), "there is no override"), (override(1, "TURBO", -1), "it ended at"),
    (command("OVERRIDE", 1), "needs mode and until_ms"), (command("RETIRE", 1), "limits are rules"),
    (command("ROLLBACK", 1, version=1), "limits are rules")])
def test_what_cannot_be_obeyed_is_answered_too(sent: PolicyCommand, why: str) -> None:
    run = Run(mark(0, 10_000))
    (policy,) = run.take(sent)
    assert (policy.obeyed, policy.command_id, policy.version) == (False, sent.command_id, 2)
    assert policy.reason.startswith("refused: ")
    assert why in policy.reason


def test_commands_of_others_are_not_answered_and_early_ones_are_refused() -> None:
    assert Run(mark(0, 10_000)).take(replace(override(1, "TURBO", 5), policy_id="q_learning/BTCUSDT")) == []
    with pytest.raises(Refused, match="no version yet"):
        Run(override(1, "TURBO", 5))


# ---------------------------------------------------------------------- the suite, and real candles
def realistic() -> list[Any]:
    events: list[Any] = [mark(0, 10_000), mark(0, 10_000, symbol="KXQ", **MADE)]
    for h in range(1, 130):
        equity = 10_000 - 12.0 * h if h < 60 else 9_280 + 30.0 * (h - 60)
        events += [trade(h, h, -12.0 if h < 60 else 30.0), mark(h, equity, position=float(h % 2)),
                   mark(h, 5_000 + h, symbol="ETHUSDT"), mark(h, 9_000 - h, symbol="KXQ", **MADE)]
        events += [regime(h, ("bull", "sideways", "volatile", "bear")[h // 7 % 4])] if h % 7 == 0 else []
        events += [alert(h, "CRITICAL")] if h == 20 else [alert(h, "HEALTHY")] if h == 25 else []
        events += [override(h, "AGGRESSIVE", h + 10)] if h == 90 else [command("CLEAR", h)] if h == 95 else []
        events.append(tick(h))
    return events


def test_the_suite_on_a_real_book() -> None:
    check_agent(RiskControllerAgent, realistic())


def test_a_drawdown_on_real_candles_steps_down_at_once_and_up_after_the_dwell_time() -> None:
    """Bitcoin held, a bar a mark; each day's result is a trade. Every rule of the table is checked at every bar."""
    path = DATA / "klines" / "BTCUSDT-1h.feather"
    if not path.exists():
        pytest.skip(f"no real candles at {path}")
    polars = pytest.importorskip("polars")
    frame = polars.read_ipc(path).head(24 * 400)
    closes = frame["close"].to_list()
    run, at, last = Run(mark(0, 10_000)), MODES.index, MODES.index("MODERATE")
    changed_ms, down_ms, downs, ups = START, -1, 0, 0
    for h, close in enumerate(closes[1:], start=1):
        equity = 10_000 * close / closes[0]
        if h % 24 == 0:
            run.take(trade(h, h, equity - 10_000 * closes[h - 24] / closes[0]))
        run.take(mark(h, equity))
        score, now_ms, mode = scored(run.state, run.agent.config), START + h * HOUR, at(run.mode)
        if score.defensive >= 3:
            assert mode == max(last - 1, 0), "it steps down at that very bar"
            down_ms = now_ms
        elif mode > last:
            assert score.aggressive >= 2
            assert not score.defensive
            assert now_ms - max(changed_ms, down_ms) >= DAY
        else:
            assert mode == last
        downs, ups = downs + (mode < last), ups + (mode > last)
        changed_ms, last = (now_ms, mode) if mode != last else (changed_ms, last)
    assert min(downs, ups) >= 2, (downs, ups)
