"""What counts as in flight: bars, decisions, lessons, in whatever order their records are seen."""

from __future__ import annotations

import random

import msgspec

from schemas.events import STRATEGY_SYMBOLS, Decision, EquityMarked, Event, Experience, Features, PolicyRecord, QUpdated
from streams.ingest.inflight import KEPT_BARS, UNDECIDED_BARS, InFlight

H = 3_600_000


def mark(ts: int) -> Event:
    return EquityMarked(symbol="S", interval_ms=H, ts_ms=ts * H, close=1.0, halted=False, books=(), source="x",
                        origin="CLAIMED")


def features(ts: int, interval_ms: int = H) -> Event:
    return Features(symbol="S", interval_ms=interval_ms, open_time_ms=ts * H - interval_ms, ts_ms=ts * H, bar_count=1,
                    ready=False, close=1.0, source="x", origin="CLAIMED")


def decision(ts: int) -> Event:
    return Decision(
        decision_id=f"d{ts}", symbol="S", book_id="q_learning", decider="q_learning", ts_ms=ts * H, interval_ms=H,
        next_ts_ms=(ts + 4) * H, action="neutral", greedy_action="neutral", baseline_action="neutral", propensity=1.0,
        forced=False, regime="bull", volatility=0.1, close=1.0, atr_pct=0.1, signals=(0, 0, 0, 0), size_multiplier=1.0,
        source="x", origin="CLAIMED",
    )


def experience(ts: int, *, learnable: bool = True, book: str = "q_learning") -> Event:
    return Experience(
        decision_id=f"d{ts}", symbol="S", book_id=book, ts_ms=(ts + 4) * H, decided_ms=ts * H, status="NEUTRAL",
        learnable=learnable, forced=not learnable, action="neutral", propensity=1.0, regime="bull", volatility=0.1,
        reward_r=0.0, pnl_usd=0.0, size_multiplier=1.0, source="x", origin="CLAIMED",
    )


def update(ts: int) -> Event:
    return QUpdated(symbol="S", ts_ms=(ts + 4) * H, decision_id=f"d{ts}", policy_version=2, state_key="bull|vol:0",
                    action="neutral", reward_r=0.0, q_before=0.0, q_after=0.0, visits=1, step_size=1.0, residual=0.0,
                    drift=False, source="x", origin="CLAIMED")


def flight(bars: int) -> InFlight:
    made = InFlight(H)
    for ts in range(1, bars + 1):
        made.sent(ts * H)
    return made


def test_features_count_until_the_first_mark() -> None:
    f = flight(30)
    assert f.behind() == 30
    f.saw(features(10))
    assert f.behind() == 20
    f.saw(features(12, interval_ms=H // 4))  # another interval says nothing about this one
    assert f.behind() == 20
    f.saw(mark(5))
    f.saw(features(28))
    assert f.behind() == 20
    f.saw(mark(30))
    assert f.behind() == 0


def test_who_decides_must_have_come_along_soon_after_the_first_ready_features() -> None:
    """Else the candles run away while the decider starts, and what it decides then is too late to be executed."""
    f = flight(400)
    f.saw(features(50))
    assert f.behind() == 350
    f.saw(msgspec.structs.replace(features(60), ready=True))
    f.saw(msgspec.structs.replace(features(400), ready=True))
    assert f.behind() == 400 - 60 - UNDECIDED_BARS
    f.saw(mark(300))
    assert f.behind() == 100


def test_a_decision_counts_from_its_end_and_a_lesson_until_it_is_learned() -> None:
    f = flight(20)
    f.saw(decision(8))
    f.saw(mark(10))
    assert f.behind() == 10
    f.saw(mark(20))
    assert f.behind() == 8  # due at 12: bars 13 to 20 went out without what it taught
    f.saw(experience(8))
    assert f.behind() == 8
    f.saw(update(8))
    assert f.behind() == 0


def test_what_nobody_learns_from_is_not_waited_for() -> None:
    for seen in (experience(8, learnable=False), experience(8, book="another")):
        f = flight(20)
        f.saw(decision(8))
        f.saw(mark(20))
        f.saw(seen)
        assert f.behind() == 0


def test_topics_may_be_seen_in_any_order() -> None:
    events = [decision(4), experience(4), update(4), decision(8), experience(8), update(8), decision(12),
              experience(12, learnable=False), mark(16), mark(20)]
    for seed in range(200):
        random.Random(seed).shuffle(events)
        f = flight(20)
        for event in events:
            f.saw(event)
        assert f.behind() == 0


def test_gaps_in_time_are_no_bars() -> None:
    f = InFlight(H)
    f.sent(1 * H)
    f.sent(1000 * H)
    f.saw(mark(1))
    assert f.behind() == 1


def test_settled_is_done_and_memory_is_bounded() -> None:
    f = flight(30)
    f.saw(decision(8))
    f.settle()
    assert f.behind() == 0
    for ts in range(31, 5 * KEPT_BARS):
        f.sent(ts * H)
        f.saw(mark(ts))
        assert f.behind() == 0


def version(status: str) -> Event:
    return PolicyRecord(
        policy_id="q_learning/S", version=9, agent="q_learning", scope="S", ts_ms=H, valid_from_ms=H,
        fallback="neutral", status=status, reason="test", outcomes=0, mask=(), actions=STRATEGY_SYMBOLS, source="x",  # type: ignore[arg-type]
        origin="CLAIMED")


def test_of_a_frozen_learner_no_update_is_waited_for() -> None:
    f = flight(20)
    for event in (mark(20), decision(2), experience(2)):
        f.saw(event)
    assert f.behind() == 14, "the lesson of bar 6 is not learned yet"
    f.saw(version("FROZEN"))
    assert f.behind() == 0
    f.saw(decision(8))
    f.saw(experience(8))
    assert f.behind() == 0
    f.saw(version("ACTIVE"))
    f.saw(decision(12))
    f.saw(experience(12))
    assert f.behind() > 0
