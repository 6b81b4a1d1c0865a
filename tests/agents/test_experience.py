"""Experience: every decision ends once, whatever comes in whatever order."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.contract import Refused
from agents.experience import ExperienceAgent
from agents.experience.memory import NEVER_MS, ExperienceConfig, ExperienceState
from schemas.codec import Codec
from schemas.events import Decision, DecisionOutcome, Event, Experience, Orphan, Tick, TradeClosed
from tests.agents.check import check_agent

HOUR = 3_600_000
START = 400_000 * HOUR
GRACE = 204
CODEC = Codec()


def decision(n: int, book: str = "q", **changes: Any) -> Decision:
    """The decision of hour n."""
    ts_ms = START + n * HOUR
    values: dict[str, Any] = {
        "decision_id": f"S/{book}/{ts_ms}", "symbol": "S", "book_id": book, "decider": book, "ts_ms": ts_ms,
        "interval_ms": HOUR, "next_ts_ms": ts_ms + 4 * HOUR, "action": "breakout", "greedy_action": "neutral",
        "baseline_action": "neutral", "propensity": 0.25, "forced": False, "policy_id": "q/S", "policy_version": 3,
        "state_key": "bull|vol:1", "regime": "bull", "volatility": 0.01, "close": 100.0, "atr_pct": 0.02,
        "signals": (1, -1, 1, 0), "size_multiplier": 1.0, "source": "test", "origin": "CLAIMED",
    }
    return Decision(**(values | changes))


def trade(n: int, **changes: Any) -> TradeClosed:
    """The trade of the decision of hour n, closed four hours later: 2 x (103 - 100) - 1 - .5 = 4.5, on a risk of 9."""
    of = decision(n)
    values: dict[str, Any] = {
        "trade_id": f"{of.decision_id}/t", "decision_id": of.decision_id, "book_id": "q", "symbol": "S", "side": "LONG",
        "ts_ms": of.ts_ms + 4 * HOUR, "opened_ms": of.ts_ms, "entry_price": 100.0, "exit_price": 103.0, "quantity": 2.0,
        "size_multiplier": 1.5, "leverage": 0.02, "equity_at_open": 10_000.0, "notional_at_open": 200.0,
        "risk_at_open": 9.0, "fees": 1.0, "funding": 0.5, "spread_cost": 0.1, "slippage": 0.1, "pnl_usd": 4.5,
        "pnl_pct": 0.00045, "r_multiple": 0.5, "exit_reason": "HORIZON", "strategy": "breakout", "execution": "paper:x",
        "source": "test", "origin": "CLAIMED",
    }
    return TradeClosed(**(values | changes))


def outcome(n: int, status: str = "NEUTRAL", **changes: Any) -> DecisionOutcome:
    of = decision(n)
    values: dict[str, Any] = {
        "decision_id": of.decision_id, "symbol": "S", "book_id": "q", "ts_ms": of.ts_ms + 4 * HOUR, "status": status,
        "source": "test", "origin": "CLAIMED",
    }
    return DecisionOutcome(**(values | changes))


def traded(n: int) -> DecisionOutcome:
    return outcome(n, "TRADED", trade_id=trade(n).trade_id)


def tick(n: float) -> Tick:
    return Tick(ts_ms=START + int(n * HOUR), writer="test")


def run(events: Iterable[Event], config: ExperienceConfig | None = None) -> tuple[ExperienceState, list[Any]]:
    """Fold events; the outputs pass the codec on their way."""
    agent = ExperienceAgent(config)
    state, out = agent.new("S"), []
    for event in events:
        state, outputs = agent.step(state, event)
        out += [CODEC.decode(o.topic, CODEC.encode(o.topic, o.event)) for o in outputs]
    return state, out


# ---------------------------------------------------------------------- how a decision ends
@pytest.mark.parametrize("events", [
    (decision(0), trade(0)), (trade(0), decision(0)), (decision(0), traded(0), trade(0)),
    (traded(0), decision(0), trade(0)), (trade(0), traded(0), decision(0)), (decision(0), trade(0), traded(0)),
])
def test_a_decision_and_its_trade_in_any_order(events: tuple[Event, ...]) -> None:
    state, out = run(events)
    assert out == [Experience(
        decision_id=decision(0).decision_id, symbol="S", book_id="q", ts_ms=START + 4 * HOUR, decided_ms=START,
        status="TRADED", learnable=True, forced=False, action="breakout", propensity=0.25, policy_version=3,
        state_key="bull|vol:1", regime="bull", volatility=0.01, trade_id=trade(0).trade_id, reward_r=0.5, pnl_usd=4.5,
        size_multiplier=1.5, source="test", origin="CLAIMED")]
    assert (state.open, state.trades, state.outcomes, state.deadline_ms) == ((), (), (), NEVER_MS)


@pytest.mark.parametrize(("status", "reason", "learnable"), [
    ("NEUTRAL", None, True), ("NEUTRAL", "no_signal", True), ("NOT_EXECUTED", "halt", False)])
@pytest.mark.parametrize("first", [0, 1])
def test_decisions_without_a_trade(status: str, reason: str | None, learnable: bool, first: int) -> None:
    events: list[Event] = [decision(0), outcome(0, status, reason=reason)]
    _, (e,) = run([events[first], events[1 - first]])
    assert (e.status, e.reason, e.learnable, e.reward_r, e.pnl_usd, e.trade_id) == (
        status, reason, learnable, 0.0, 0.0, None)
    assert e.ts_ms == START + 4 * HOUR


@pytest.mark.parametrize("end", [trade(0), outcome(0)])
def test_forced_decisions_are_not_learnable(end: Event) -> None:
    _, (e,) = run([decision(0, forced=True, propensity=1.0), end])
    assert (e.forced, e.learnable) == (True, False)


def test_origin_follows_from_both() -> None:
    _, (e,) = run([decision(0, origin="CHECKED"), trade(0, origin="SYNTHETIC", source="synthetic:1")])
    assert (e.origin, e.source) == ("SYNTHETIC", "synthetic:1+test")


# ---------------------------------------------------------------------- time-outs
def ended(n: int, kind: str = "outcome", **changes: Any) -> list[Event]:
    """A decision of hour n and its end."""
    end = outcome(n, **changes) if kind == "outcome" else trade(n, **changes)
    return [decision(n, changes.get("book_id", "q"), decision_id=end.decision_id), end]


def test_a_decision_ends_when_the_outcomes_of_its_book_have_passed_it() -> None:
    _, out = run([decision(0), *ended(GRACE)])
    assert [e.decided_ms for e in out] == [START + GRACE * HOUR]
    state, (e, _) = run([decision(0), *ended(GRACE + 1)])
    assert (e.decided_ms, e.status, e.reason, e.learnable, e.ts_ms) == (
        START, "NOT_EXECUTED", "no_outcome", False, START + GRACE * HOUR)
    assert not state.open


def test_a_promised_trade_is_missing_when_the_trades_of_its_book_have_passed_it() -> None:
    _, (e,) = run([decision(0), traded(0), *ended(300)])
    assert e.decided_ms > START, "outcomes say nothing of trades"
    _, (e, _) = run([decision(0), traded(0), *ended(300, "trade")])
    assert (e.decided_ms, e.status, e.reason) == (START, "NOT_EXECUTED", "trade_missing")


def test_topics_that_are_read_ahead_make_nothing_late() -> None:
    """The defect of the clock: after a stop it was read before the trades, and they came late."""
    far = GRACE + 10
    name = f"S/other/{START + far * HOUR}"
    for ahead in ([tick(1e6)], [decision(far)], [trade(far)], ended(far, "trade"), [outcome(far, decision_id="no")],
                  ended(far, book_id="other", decision_id=name)):
        _, out = run([decision(0), *ahead, trade(0)])
        assert [e.status for e in out if e.decided_ms == START] == ["TRADED"], ahead


def test_a_hundred_decisions_that_are_ended_at_one_event_time_are_not_late() -> None:
    """An executor that finds them all too late says so in their order, all at the time that it has come to."""
    numbers = range(0, 2000, 4)
    late = [outcome(n, "NOT_EXECUTED", reason="late", ts_ms=START + 2000 * HOUR) for n in numbers]
    _, out = run([*(decision(n) for n in numbers), *late])
    assert [e.reason for e in out] == ["late"] * len(numbers)


def test_an_engine_that_tells_only_its_trades_ends_decisions_by_them() -> None:
    _, (e, _) = run([decision(0), *ended(300, "trade", execution="exchange:x")])
    assert (e.decided_ms, e.reason) == (START, "no_outcome")


def test_what_comes_itself_is_not_late_however_late_it_is() -> None:
    """After a gap in the market: on its topic nothing overtook it."""
    gone = START + 1000 * HOUR
    for end in (trade(0, ts_ms=gone), outcome(0, ts_ms=gone)):
        _, (e,) = run([decision(0), end])
        assert (e.ts_ms, e.reason) == (gone, None)


def test_time_outs_come_in_the_order_of_their_deadlines() -> None:
    _, out = run([decision(4), decision(0), traded(0), decision(2), *ended(1000, "trade", execution="exchange:x")])
    assert [(e.decided_ms, e.reason) for e in out[:3]] == [
        (START, "trade_missing"), (START + 2 * HOUR, "no_outcome"), (START + 4 * HOUR, "no_outcome")]
    _, out = run([trade(1, decision_id="gone"), outcome(-3, decision_id="no"), decision(1000)])
    assert [(o.reason, o.ts_ms) for o in out] == [
        ("UNKNOWN_DECISION", START + (1 + GRACE) * HOUR), ("UNKNOWN_DECISION", START + (5 + GRACE) * HOUR)]


def test_what_comes_after_the_time_out_is_late() -> None:
    for late, name in ((trade(0), trade(0).trade_id), (outcome(0), decision(0).decision_id)):
        _, (*_, o) = run([decision(0), *ended(300), late])
        assert (o.orphan_id, o.reason, o.decision_id) == (name, "LATE", decision(0).decision_id)


def test_a_tick_changes_nothing() -> None:
    """Inboxes from before hold ticks."""
    agent = ExperienceAgent()
    for events in ([], [decision(0)], [trade(0)], [decision(0), trade(0)]):
        state, _ = run(events)
        assert agent.step(state, tick(1e6))[0] is state


def test_a_state_of_the_former_format_goes_on() -> None:
    state, _ = run([decision(0), trade(0), decision(4), decision(168), outcome(168, ts_ms=START + 200 * HOUR)])
    former, upgrade = ExperienceAgent.former[2]
    values = {f: getattr(state, f) for f in former.__struct_fields__ if f != "own_clock"}
    upgraded = upgrade(former(**values, own_clock=True))
    assert isinstance(upgraded, ExperienceState)
    assert msgspec.structs.replace(upgraded, forgotten_end_ms=state.forgotten_end_ms) == state


# ---------------------------------------------------------------------- orphans
def test_trades_without_a_decision() -> None:
    _, (o,) = run([trade(0, decision_id=None)])
    assert o == Orphan(orphan_id=trade(0).trade_id, symbol="S", ts_ms=trade(0).ts_ms, reason="NO_DECISION_ID",
                       trade_id=trade(0).trade_id, pnl_usd=4.5, source="test", origin="CLAIMED")
    _, (o,) = run([trade(0), decision(1000)])
    assert (o.reason, o.ts_ms, o.decision_id) == (
        "UNKNOWN_DECISION", START + (4 + GRACE) * HOUR, decision(0).decision_id)
    _, (o,) = run([outcome(0), decision(1000)])
    assert (o.orphan_id, o.reason, o.trade_id, o.pnl_usd) == (decision(0).decision_id, "UNKNOWN_DECISION", None, None)


def test_no_result_is_credited_twice() -> None:
    second = trade(0, trade_id="another")
    for events in ([decision(0), trade(0), second], [trade(0), second, decision(0)]):
        _, (e, o) = run(events)
        assert (e.trade_id, o.trade_id, o.reason) == (trade(0).trade_id, "another", "LATE")


def test_a_trade_after_another_end_is_late() -> None:
    _, (e, o) = run([decision(0), outcome(0, "NOT_EXECUTED", reason="halt"), trade(0)])
    assert (e.status, o.reason) == ("NOT_EXECUTED", "LATE")
    _, (e, o) = run([decision(0), trade(0), outcome(0)])
    assert (e.status, o.reason, o.trade_id) == ("TRADED", "LATE", None)


def test_a_waiting_trade_of_another_book_is_let_go_when_its_decision_comes() -> None:
    _, out = run([trade(0, book_id="r"), outcome(4, book_id="r"), decision(0), decision(4), *ended(1000)])
    assert [(type(e), e.reason) for e in out[:4]] == [
        (Orphan, "UNKNOWN_DECISION"), (Orphan, "UNKNOWN_DECISION"), (Experience, "no_outcome"),
        (Experience, "no_outcome")]


# ---------------------------------------------------------------------- repeats, conflicts, contradictions
@pytest.mark.parametrize("events", [
    [decision(0)], [trade(0)], [outcome(0)], [decision(0), trade(0)], [decision(0), outcome(0)],
    [decision(0), traded(0), trade(0)], [trade(0, decision_id=None)], [decision(0), outcome(0), trade(0)],
    [decision(0), trade(0), outcome(0)], [traded(0), trade(0)],
])
def test_identical_repeats_change_nothing(events: list[Event]) -> None:
    agent = ExperienceAgent()
    state, _ = run(events)
    for event in events:
        again, out = agent.step(state, msgspec.structs.replace(event))
        assert again is state
        assert out == ()


@pytest.mark.parametrize(("events", "other"), [
    ([decision(0)], decision(0, propensity=0.5)),
    ([decision(0), trade(0)], decision(0, propensity=0.5)),
    ([trade(0)], trade(0, mae_pct=-0.1)),
    ([decision(0), trade(0)], trade(0, mae_pct=-0.1)),
    ([decision(0), trade(0)], trade(0, decision_id=decision(4).decision_id)),
    ([trade(0, decision_id=None)], trade(0)),
    ([outcome(0)], outcome(0, "NOT_EXECUTED", reason="halt")),
    ([decision(0), traded(0)], outcome(0)),
])
def test_another_content_under_a_known_id_is_a_conflict(events: list[Event], other: Event) -> None:
    state, _ = run(events)
    with pytest.raises(Refused, match="CONFLICT"):
        ExperienceAgent().step(state, other)


@pytest.mark.parametrize("changes", [
    {"pnl_usd": -4.5, "r_multiple": -0.5}, {"side": "SHORT"}, {"pnl_usd": 5.5, "r_multiple": 5.5 / 9},
    {"r_multiple": -0.5}, {"r_multiple": 0.51}, {"opened_ms": START + 5 * HOUR}, {"pnl_usd": 4.5 * (1 + 2e-6)},
])
def test_a_trade_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    for state in (run([decision(0)])[0], run([])[0]):
        with pytest.raises(Refused, match="INCONSISTENT"):
            ExperienceAgent().step(state, trade(0, **changes))


@pytest.mark.parametrize("changes", [
    {"symbol": "T"}, {"book_id": "r"}, {"strategy": "mean_reversion"},
    {"ts_ms": START - HOUR, "opened_ms": START - 2 * HOUR}])
def test_a_trade_that_contradicts_its_decision_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="INCONSISTENT"):
        ExperienceAgent().step(run([decision(0)])[0], trade(0, **changes))


def test_rounding_of_a_producer_is_no_contradiction() -> None:
    _, (e,) = run([decision(0), trade(0, pnl_usd=4.5 * (1 + 5e-7))])
    assert e.status == "TRADED"
    even = {"exit_price": 100.75, "pnl_usd": 1e-13, "r_multiple": 1e-14}
    assert run([decision(0), trade(0, **even)])[1][0].status == "TRADED"


def test_an_outcome_of_another_book_is_refused() -> None:
    with pytest.raises(Refused, match="INCONSISTENT"):
        ExperienceAgent().step(run([decision(0)])[0], outcome(0, book_id="r"))


# ---------------------------------------------------------------------- memory
def test_a_forgotten_decision_cannot_end_twice() -> None:
    config = ExperienceConfig(memory_size=3)
    events: list[Event] = [e for n in range(0, 40, 4) for e in (decision(n), trade(n))]
    state, out = run(events, config)
    assert len(out) == 10
    assert len(state.ended) == len(state.ended_ids) == len(state.seen) == len(state.seen_ids) == 3
    agent = ExperienceAgent(config)
    with pytest.raises(Refused, match="LATE"):
        agent.step(state, decision(24))
    assert agent.step(state, decision(28))[0] is state
    state, more = agent.step(state, trade(0))  # forgotten: it waits, and becomes an orphan
    assert not more
    _, more = agent.step(state, decision(1000))
    assert [o.event.reason for o in more] == ["UNKNOWN_DECISION"]  # type: ignore[attr-defined]


def test_memory_reaches_seven_days_of_event_time() -> None:
    state, _ = run([decision(0), trade(0), decision(168), outcome(168, ts_ms=START + (4 + 168) * HOUR)])
    assert len(state.ended) == 2
    state, _ = run([decision(0), trade(0), decision(168), outcome(168, ts_ms=START + (5 + 168) * HOUR)])
    assert len(state.ended) == 1
    assert state.forgotten_ms == START


def test_decisions_read_far_ahead_do_not_make_the_agent_forget() -> None:
    ahead = [decision(n) for n in range(4, 400, 4)]
    state, out = run([decision(0), trade(0), *ahead, trade(0)])
    assert len(state.ended) == len(out) == 1


def test_too_many_waiting_trades_are_refused_not_dropped() -> None:
    state, _ = run([trade(0), trade(4)], ExperienceConfig(waiting_size=2))
    with pytest.raises(Refused, match="TOO_MANY_WAITING"):
        ExperienceAgent(ExperienceConfig(waiting_size=2)).step(state, trade(8))


def test_what_its_trade_told_before_it_was_forgotten_is_no_orphan() -> None:
    """Trades that were read far ahead of the outcomes which promise them."""
    config = ExperienceConfig(memory_size=3)
    numbers = range(0, 400, 4)
    events = [e for n in numbers for e in (decision(n), trade(n))]
    state, out = run([*events, *(traded(n) for n in numbers), decision(1000)], config)
    assert [e.status for e in out] == ["TRADED"] * len(numbers)
    assert not state.outcomes
    _, out = run([*events, outcome(1, decision_id="no"), decision(1000)], config)
    assert out[-1].reason == "UNKNOWN_DECISION"


def test_decisions_without_an_executor_are_refused_in_the_end_not_held_for_ever() -> None:
    config = ExperienceConfig(open_size=3)
    state, _ = run([decision(n) for n in (0, 4, 8)], config)
    with pytest.raises(Refused, match=r"TOO_MANY_OPEN: 3 decisions of S .*book q"):
        ExperienceAgent(config).step(state, decision(12))
    assert ExperienceAgent(config).step(state, decision(8)) == (state, ()), "a repeat is no further one"


# ---------------------------------------------------------------------- orders and counts
def story(seed: int, decisions: int) -> tuple[list[Event], list[Event], list[Event]]:
    """Decisions, trades and outcomes of an executor, each in the order of its topic."""
    rng = random.Random(seed)
    made: list[Event] = []
    trades: list[Event] = []
    ends: list[Event] = []
    for n in range(0, 4 * decisions, 4):
        kind = rng.choice(["TRADED", "NEUTRAL", "NOT_EXECUTED", "TRADED"])
        made.append(decision(n, forced=rng.random() < 0.2))
        if kind == "TRADED":
            trades.append(trade(n))
        ends.append(traded(n) if kind == "TRADED" else outcome(n, kind))
    return made, trades, ends


def shuffled(topics: Iterable[list[Event]], rng: random.Random) -> list[Event]:
    """Any order that keeps that of each topic."""
    left = [list(t) for t in topics if t]
    out: list[Event] = []
    while left:
        topic = rng.choice(left)
        out.append(topic.pop(0))
        left = [t for t in left if t]
    return out


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40))
def test_the_order_of_arrival_changes_no_experience(seed: int, n: int) -> None:
    topics, rng = story(seed, n), random.Random(seed)
    expected = sorted(run(sorted([e for t in topics for e in t], key=lambda e: e.ts_ms))[1],  # type: ignore[attr-defined]
                      key=lambda e: e.decision_id)
    assert [e.decision_id for e in expected] == sorted(d.decision_id for d in topics[0])  # type: ignore[attr-defined]
    orders = [shuffled(topics, rng), [*topics[0], *topics[1], *topics[2]], [*topics[2], *topics[1], *topics[0]],
              [*topics[1], *topics[0], *topics[2]]]
    for order in orders:
        state, out = run(order)
        assert sorted(out, key=lambda e: e.decision_id) == expected
        assert (state.open, state.trades, state.outcomes) == ((), (), ())


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30))
def test_whatever_is_lost_or_repeated_every_decision_ends_once(seed: int, n: int) -> None:
    rng = random.Random(seed)
    topics = [[e for e in t if i == 0 or rng.random() < 0.8] for i, t in enumerate(story(seed, n))]
    order = shuffled(topics, rng)
    for _ in range(n):
        i = rng.randrange(len(order))
        order.insert(rng.randrange(i, len(order)) + 1, order[i])
    last = 4 * n + 2 * GRACE
    state, out = run([*order, decision(last), decision(last + 1), outcome(last), trade(last + 1)])
    ends = [e for e in out if isinstance(e, Experience) and e.decided_ms < START + last * HOUR]
    assert sorted(e.decision_id for e in ends) == sorted(d.decision_id for d in topics[0])  # type: ignore[attr-defined]
    credited = [e.trade_id for e in ends if e.trade_id is not None]
    assert sorted(credited) == sorted(t.trade_id for t in topics[1])  # type: ignore[attr-defined]
    assert not state.open


def test_check_agent() -> None:
    events: list[Event] = []
    for symbol, seed in (("A", 1), ("B", 2)):
        for e in [e for t in story(seed, 25) for e in t]:
            name = e.decision_id.replace("S", symbol)  # type: ignore[attr-defined]
            changes = {"trade_id": f"{name}/t"} if getattr(e, "trade_id", None) else {}
            events.append(msgspec.structs.replace(e, symbol=symbol, decision_id=name, **changes))
    events += [decision(100, symbol="A"), trade(101, symbol="B", decision_id=None)]
    events += [outcome(n, symbol="A", decision_id=f"A/q/{START + n * HOUR}") for n in range(100, 400, 10)]
    events += [decision(n, symbol="A", decision_id=f"A/q/{START + n * HOUR}") for n in range(104, 400, 10)]
    events.sort(key=lambda e: e.ts_ms)  # type: ignore[attr-defined]
    check_agent(ExperienceAgent, events)
