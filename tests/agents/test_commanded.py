"""Which versions may be used while commands wait for their answers, and what a rollback undid."""

from __future__ import annotations

import itertools

import pytest

from agents.algorithms.commanded import NOTHING, UNKNOWN, Commanded, answered, barred, ordered

P = "q/S"


def test_a_retirement_bars_every_version_and_a_rollback_those_above_until_the_answer() -> None:
    retired = ordered(NOTHING, "a", P, 0)
    assert [barred(retired, P, v) for v in (1, 99)] == ["policy_retired"] * 2
    assert barred(retired, "q/T", 1) is None
    rolled = ordered(NOTHING, "b", P, 5)
    assert [barred(rolled, P, v) for v in (5, 6)] == [None, "policy_rolled_back"]
    assert barred(answered(retired, "a", P, 7, None), P, 7) is None


def test_what_was_undone_stays_undone() -> None:
    now = answered(ordered(NOTHING, "b", P, 5), "b", P, 13, 5)
    assert [barred(now, P, v) for v in (5, 6, 12, 13, 14)] == [None, "policy_rolled_back", "policy_rolled_back", None,
                                                               None]
    again = answered(now, "c", P, 20, 3)
    assert len(again.undone) == 1, "what a wider rollback holds is not kept twice"
    assert [barred(again, P, v) for v in (3, 13, 19, 20)] == [None, "policy_rolled_back", "policy_rolled_back", None]


def test_an_answer_that_comes_first_makes_its_command_void() -> None:
    early = answered(NOTHING, "a", P, 7, None)
    assert ordered(early, "a", P, 0) is early


def test_a_command_twice_changes_nothing() -> None:
    once = ordered(NOTHING, "a", P, 3)
    assert ordered(once, "a", P, 3) is once


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_orders_of_other_policies_and_kinds_stand_in_one_order(order: tuple[int, ...]) -> None:
    """A scope that is born later meets what was kept in another order than it came in."""
    given = (("a", P, 0), ("b", P, 3), ("c", "q/T", 2))
    now = NOTHING
    for i in order:
        now = ordered(now, *given[i])
    assert now == Commanded(waiting=tuple(ordered(NOTHING, *g).waiting[0] for g in given))


def test_only_the_newest_of_a_kind_waits_and_any_answer_frees_what_an_older_release_kept() -> None:
    now = ordered(ordered(NOTHING, "a", P, 5), "b", P, 3)
    assert [o.command_id for o in now.waiting] == ["b"]
    assert barred(answered(now, "a", P, 9, 5), P, 9) == "policy_rolled_back", "b is not answered yet"
    kept = ordered(NOTHING, UNKNOWN, P, 0)
    assert barred(answered(kept, "x", P, 9, None), P, 9) is None


def test_memory_is_bounded() -> None:
    now = NOTHING
    for n in range(100):
        now = answered(ordered(now, f"c{n}", P, n + 1), f"c{n}", P, 2 * n + 3, n + 1)
    assert (len(now.answered), len(now.undone), now.waiting) == (16, 8, ())
