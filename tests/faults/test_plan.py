"""Plans of faults: a function of the seed, and enough of everything in the long form."""

from __future__ import annotations

from collections import Counter

from tests.faults.plan import ANYWHERE, POINTS, RECOVERY, draw, long_form, short_form


def test_a_plan_is_a_function_of_its_seed() -> None:
    def lines(seed: int) -> list[str]:
        return list(draw(seed, workers=3, session_s=3.0, kills=9, freezes=3, broker_kills=1, joins=1).lines())

    assert lines(1) == lines(1)
    assert lines(1) != lines(2)
    assert len(lines(1)) == 14


def test_the_long_form_strikes_as_often_as_promised_and_at_every_point() -> None:
    plans = long_form()
    total = {kind: sum(plan.number(kind) for plan in plans) for kind in ("kill", "freeze", "broker kill")}
    assert total == {"kill": 200, "freeze": 40, "broker kill": 20}
    assert all(plan.number("broker freeze") and plan.number("join") for plan in plans)
    assert {plan.workers for plan in plans} == {1, 2, 3}
    places = Counter(f.point for plan in plans for f in plan.faults if f.kind == "kill")
    assert all(places[point] >= 2 for point in POINTS), places
    assert 80 <= places[ANYWHERE] <= 120
    assert all(f.hold_s > plan.session_s for plan in plans for f in plan.faults if f.kind == "freeze")


def test_trainer_kills_come_on_top_and_change_no_other_fault() -> None:
    with_them = draw(1, workers=2, session_s=3.0, kills=9, freezes=3, trainer_kills=4)
    without = draw(1, workers=2, session_s=3.0, kills=9, freezes=3)
    assert with_them.number("trainer kill") == 4
    assert [f for f in with_them.faults if f.kind != "trainer kill"] == list(without.faults)
    assert with_them.faults != without.faults


def test_the_short_form_has_two_kills_at_named_points_and_freezes_and_stops_the_broker() -> None:
    plan = short_form()
    pointed = [f.point for f in plan.faults if f.kind == "kill" and f.point != ANYWHERE]
    assert len(pointed) >= 2
    assert set(pointed) - set(RECOVERY)
    assert (plan.number("kill"), plan.number("freeze"), plan.number("broker kill")) == (6, 1, 1)
