"""What verify proves of a log that is longer than its budget: from checkpoints on, and by parts of inboxes."""

from __future__ import annotations

import pytest

from streams import keeping
from streams.verify.planted import records
from streams.verify.planted.stage import Stage, at, made, red, stage

BUDGET = 150  # of some 800 records
NEVER_BEGUN = 10  # input records deleted at the front


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A run that was flushed now and then, so that its changelogs keep checkpoints."""
    monkeypatch.setattr(keeping, "CHECKPOINT_RECORDS", 50)
    run = stage(bars=600)
    for _ in range(5):
        records.go_on(run, 40)
    return run


def test_what_does_not_fit_is_folded_on_from_a_checkpoint(run: Stage) -> None:
    report = run.judge(budget=BUDGET)
    assert red(report) == set()
    for agent in ("features", "paper_execution", "experience", "decision"):
        cell = at(report, agent, "PERSISTS")
        assert (cell.state, cell.figures["partitions"], cell.figures["since_checkpoints"]) == ("PASS", 1, 1), cell.why
        assert 0 < cell.figures["refolded"] <= BUDGET
        assert cell.figures["outputs"] > 0
        assert "1 of 1 from a checkpoint on" in cell.why


def test_as_far_back_as_fits(run: Stage) -> None:
    folded = [at(run.judge(budget=n), "features", "PERSISTS").figures["refolded"] for n in (60, BUDGET, 10_000)]
    assert folded == sorted(set(folded))
    assert folded[-1] == len(run.log.records["features.inbox"][0])


def test_input_whose_beginning_is_gone_is_proven_too(run: Stage) -> None:
    del run.log.records["features.inbox"][0][:NEVER_BEGUN]
    cell = at(run.judge(), "features", "PERSISTS")
    assert (cell.state, cell.figures["since_checkpoints"]) == ("PASS", 1)


def test_an_output_that_was_changed_behind_the_checkpoint_is_seen(run: Stage) -> None:
    rows = run.log.records["market.features"][0]
    rows[-20] = rows[-20]._replace(value=rows[-21].value)
    cell = at(run.judge(budget=BUDGET), "features", "PERSISTS")
    assert cell.state == "FAIL"
    assert "published records are not what the input gives" in cell.why


def test_input_that_was_changed_behind_the_checkpoint_is_seen(run: Stage) -> None:
    """The state was stored with the bar as it was; whoever changes the inbox afterwards contradicts it."""
    rows = run.log.records["features.inbox"][0]
    rows[-20] = rows[-20]._replace(value=rows[-21].value)
    assert at(run.judge(budget=BUDGET), "features", "PERSISTS").state == "FAIL"


def test_a_state_that_does_not_follow_from_the_checkpoint_is_seen(run: Stage) -> None:
    fold = run.driver.folds["features"][0]
    before = fold.scopes["MADE"].state
    past = len(run.log.records["market.candles"][0])
    run.driver.run(made(bars=past + 5, start=past))
    fold.scopes["MADE"] = fold.scopes["MADE"]._replace(state=before)  # stored under a head that vouches for it
    run.tape.flush(run.driver)
    cell = at(run.judge(budget=BUDGET), "features", "PERSISTS")
    assert cell.state == "FAIL"
    assert "the stored state of MADE is not what the checkpoint at features.inbox-0@" in cell.why


def test_a_checkpoint_of_an_earlier_epoch_accuses_nobody(run: Stage) -> None:
    """Whoever began the epoch may have begun it with another state: what was kept before need not lead there."""
    fold = run.driver.folds["features"][0]
    before = fold.scopes["MADE"].state
    past = len(run.log.records["market.candles"][0])
    run.driver.run(made(bars=past + 5, start=past))
    fold.scopes["MADE"] = fold.scopes["MADE"]._replace(state=before)
    fold.root_offset = fold.offset
    run.tape.flush(run.driver)
    assert at(run.judge(budget=BUDGET), "features", "PERSISTS").state == "NOT PROVEN"


def test_without_a_checkpoint_nothing_is_proven(run: Stage) -> None:
    kept = [r for r in run.log.records["features.changelog"][0] if not (r.key or b"").startswith(b"checkpoint:")]
    run.log.records["features.changelog"][0][:] = kept
    cell = at(run.judge(budget=BUDGET), "features", "PERSISTS")
    assert cell.state == "NOT PROVEN"
    assert "no checkpoint is near enough" in cell.why


def test_a_part_of_a_long_inbox_is_held_against_its_sources(run: Stage) -> None:
    cell = at(run.judge(budget=BUDGET), "features", "RECEIVES")
    assert cell.state == "PASS"
    assert f"{BUDGET} copies are what was sent" in cell.why
    records.relay_changed(run)
    half = len(run.log.records["features.inbox"][0]) // 2
    states = [at(run.judge(budget=half, sample_seed=seed, only=("features",)), "features", "RECEIVES").state
              for seed in range(12)]
    assert set(states) == {"PASS", "FAIL"}  # the bar lies in some of the parts that are drawn
