"""What LEARNS says of an epoch's root: whether the versions before it lead to it, or a person began it, or nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streams.fold import PartitionFold
from streams.verify.cells import Cell
from streams.verify.planted.records import go_on, richer_state
from streams.verify.planted.stage import Stage, at, red, stage

SCOPE = "MADE"


def fold_of(run: Stage) -> PartitionFold:
    (fold,) = run.driver.folds["q_learning"]
    return fold


def planted(run: Stage, change: Callable[[Any], Any]) -> None:
    """Another state in the place of the learner's, as it would be taken up from a changelog."""
    fold = fold_of(run)
    fold.scopes[SCOPE] = fold.scopes[SCOPE]._replace(state=change(fold.scopes[SCOPE].state))
    fold.keeper.touch(SCOPE, True)


def ends_with_a_version(run: Stage) -> Stage:
    """Gone on bar by bar until the newest version was made by the last event that changed the learner's state."""
    for _ in range(200):
        entry = fold_of(run).scopes[SCOPE]
        if entry.offset == entry.anchor_offset:
            return run
        go_on(run, 1)
    raise AssertionError("no version in 200 bars")


def learns(run: Stage) -> Cell:
    report = run.judge()
    assert red(report) <= {"q_learning/LEARNS"}, "the rest holds"
    return at(report, "q_learning", "LEARNS")


@pytest.fixture
def run() -> Stage:
    return ends_with_a_version(stage(bars=420))


def versions_of(run: Stage) -> list[Any]:
    """Records of the learner's versions, in their order."""
    return [r for r in run.log.records["policy.ledger"][0] if r.key is not None and r.key.startswith(b"q_learning/")]


def test_a_root_that_the_last_version_names_is_the_beginning_of_an_epoch_that_passes(run: Stage) -> None:
    earlier = len(versions_of(run))
    fold_of(run).begin_epoch()
    cell = learns(go_on(run, 300))
    assert cell.state == "PASS"
    assert f"{earlier} versions of an earlier epoch" in cell.why
    assert "person" not in cell.why


def test_a_root_that_the_earlier_epoch_does_not_lead_to_fails_and_names_the_version(run: Stage) -> None:
    last = versions_of(run)[-1]
    planted(run, richer_state)
    fold_of(run).begin_epoch()
    cell = learns(go_on(run, 300))
    assert cell.state == "FAIL"
    assert f"another state of {SCOPE} than q_learning/{SCOPE} version" in cell.why
    assert cell.place == last.place


def test_a_root_that_a_person_began_is_said(run: Stage) -> None:
    planted(run, richer_state)
    fold_of(run).begin_epoch("quantum refold by anna: a test")
    cell = learns(go_on(run, 300))
    assert cell.state == "PASS"
    assert "a person began this epoch: quantum refold by anna: a test" in cell.why


def test_a_root_before_any_version_is_vouched_for_by_nothing() -> None:
    young = stage(bars=180)
    while SCOPE not in fold_of(young).scopes:
        go_on(young, 4)
    assert not versions_of(young), "nothing published yet"
    planted(young, richer_state)
    fold_of(young).begin_epoch()
    cell = learns(go_on(young, 300))
    assert cell.state == "NOT PROVEN", cell.why
    assert "no version before it vouches for: quantum refold q_learning" in cell.why
