"""What verify says of runs under command: green where all is as commanded, and why where it is not."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.events import Decision
from streams.verify.obeyed import Known
from streams.verify.planted import actors, records
from streams.verify.planted.stage import at, red, stage
from tests.streams.test_commanded import command


def commanded_run() -> Any:
    """Frozen, thawed, rolled back, halted, resumed, retired and brought back."""
    run = stage(bars=420)
    for kind, policy_id in (("FREEZE", "q_learning/MADE"), ("UNFREEZE", "q_learning/MADE"), ("HALT", None),
                            ("RESUME", None)):
        records.go_on(records.command(run, kind, policy_id), 60)  # type: ignore[arg-type]
    records.rolled_back(run)
    records.go_on(records.command(run, "RETIRE"), 40)
    return records.rolled_back(run)


def test_a_run_under_command_is_green_and_says_what_was_commanded() -> None:
    report = commanded_run().judge()
    assert red(report) == set()
    learns, applied = (at(report, "q_learning", k) for k in ("LEARNS", "APPLIED"))
    assert (learns.state, applied.state) == ("PASS", "PASS")
    assert learns.figures["commanded"] == 5
    assert learns.figures["unlearned"] > 10
    assert "5 versions answer commands" in learns.why
    assert applied.figures["commanded"] > 20
    assert "commands forced" in applied.why


@pytest.mark.parametrize("kind", ["FREEZE", "RETIRE", "HALT"])
def test_what_stands_still_by_command_is_not_red(kind: Any) -> None:
    run = stage(bars=256)  # hardly begun: the genesis is there, and next to nothing was decided by it
    records.go_on(records.command(run, kind, None if kind == "HALT" else "q_learning/MADE"), 700)
    assert red(run.judge()) == set()


def test_a_version_that_says_who_commanded_it_wrongly_fails() -> None:
    run = records.go_on(records.command(stage(bars=420), "FREEZE"), 20)
    rows = run.log.records["policy.commands"][0]
    rows.append(rows[0]._replace(offset=1))
    assert at(run.judge(), "q_learning", "LEARNS").state == "PASS", "a command that is there twice is answered once"
    rows[:] = [rows[0]._replace(value=records.CODEC.encode("policy.commands", command(
        "FREEZE", command_id="freeze-0", policy_id="q_learning/MADE", actor="somebody else")))]
    cell = at(run.judge(), "q_learning", "LEARNS")
    assert cell.state == "FAIL"
    assert "says that somebody commanded it" in cell.why


def test_a_decider_that_is_deaf_to_a_rollback_is_found() -> None:
    run = stage({"decision": actors.Disobeys()}, bars=420)
    records.command(run, "ROLLBACK", version=1)  # without a state: the answer is a refusal, and comes at once
    assert at(records.go_on(run, 40).judge_by_its_own_code(), "q_learning", "APPLIED").state in ("PASS", "NOT PROVEN")
    known = Known()
    known.take(command("ROLLBACK", version=3))
    assert known.forced("q_learning/S", 4) == {"policy_rolled_back"}
    assert known.forced("q_learning/S", 3) == set()
    known.take(command("RETIRE", 91))
    assert known.forced("q_learning/S", 3) == {"policy_retired"}


def test_halts_of_one_symbol_and_of_all() -> None:
    known = Known()
    known.take(command("HALT", 5, policy_id=None))
    assert known.halted("S")
    known.take(command("RESUME", 6, policy_id=None, symbol="S"))
    assert (known.halted("S"), known.halted("T")) == (False, True)
    known.take(command("HALT", 6, policy_id=None, symbol="S"))
    assert known.halted("S"), "a halt wins over a resume of the same time"


def test_forced_decisions_name_their_command_in_the_log() -> None:
    run = records.go_on(records.command(stage(bars=420), "RETIRE"), 20)
    last = [d for d in run.driver.events("rl.meta.strategy_selected")
            if isinstance(d, Decision) and d.decider == "q_learning"][-1]
    assert last.forced_reason == "policy_retired"
