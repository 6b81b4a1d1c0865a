"""`quantum policy rollback|freeze|unfreeze|retire|halt|resume` over a broker, with and without the learner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from schemas.events import Decision, DecisionOutcome, PolicyCommand, PolicyRecord
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.ingest import Loaded, publish
from streams.settings import Settings
from tests.streams.hosting import CODEC, read
from tests.streams.log_fixtures import flags, produce, record
from tests.streams.log_fixtures import policy as a_policy
from tests.streams.rostered import same_as_its_log, until_done, worker
from tests.streams.test_main_job import HOUR_MS, events, made

POLICY = "q_learning/MADE0"
OTHERS = ("features", "decision", "paper_execution", "experience")
WHOLE = made(1, 700)


def bars(first: int, end: int) -> Loaded:
    return Loaded(frame=WHOLE.frame.filter(pl.col("open_time_ms").is_between(first * HOUR_MS, (end - 1) * HOUR_MS)),
                  series=())


def quantum(settings: Settings, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    code = main([*args, "--json", *flags(settings)])
    out = capsys.readouterr()
    return code, json.loads(out.out) if out.out else {"error": out.err}


def command(settings: Settings, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    return quantum(settings, capsys, "policy", *args, "--reason", "a bad week", "--actor", "ann")


def ledger(settings: Settings) -> list[PolicyRecord]:
    return [e for e in events(settings, "policy.ledger") if isinstance(e, PolicyRecord) and e.policy_id == POLICY]


def decisions(settings: Settings) -> list[Decision]:
    return [e for e in events(settings, "rl.meta.strategy_selected")
            if isinstance(e, Decision) and e.decider == POLICY.partition("/")[0]]


def test_people_in_command(prefix: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, log = prefix, tmp_path / "worker.log"
    with worker(settings, log) as process:
        publish(settings, bars(0, 460), lead=24)
        until_done(settings, process, log)
        frozen(settings, capsys)
        publish(settings, bars(460, 500), lead=24)
        until_done(settings, process, log)
        assert command(settings, capsys, "unfreeze", POLICY)[1]["answer"]["status"] == "ACTIVE"
        rolled_back(settings, capsys)
        publish(settings, bars(500, 540), lead=24)
        until_done(settings, process, log)
    without_the_learner(settings, log, capsys)
    with worker(settings, log) as process:
        until_done(settings, process, log)
        answer = ledger(settings)[-1]
        assert (answer.restored_version, answer.status, answer.actor) == (3, "FROZEN", "ann")
        publish(settings, bars(580, 700), lead=24)
        until_done(settings, process, log)
        assert {(d.forced_reason, d.policy_version) for d in decisions(settings)[-10:]} == {(None, answer.version)}
    same_as_its_log(settings)
    code, report = quantum(settings, capsys, "verify")
    cells = {(a["agent"], k): (c["state"], c["why"]) for a in report["agents"] for k, c in a["cells"].items()
             if c["state"] != "NOT BUILT" and a["agent"] != "bars"}  # which has no trades
    assert cells.pop(("risk_controller", "APPLIED"))[0] == "IDLE", "all is synthetic, and nothing is bound"
    assert cells.pop(("meta_strategy", "LEARNS"))[0] == "NOT PROVEN", "few rounds of 64 in so short a run"
    for kind in ("LEARNS", "APPLIED"):
        assert cells.pop(("ppo_trader", kind))[0] == "IDLE", "all is synthetic, and nothing is trained"
    assert {c[0] for c in cells.values()} == {"PASS", "NOT APPLICABLE"}, cells
    assert code == Exit.NOT_PROVEN


def frozen(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Frozen, twice; seen by status and show."""
    newest = ledger(settings)[-1].version
    code, told = command(settings, capsys, "freeze", POLICY)
    assert (code, told["outcome"], told["newest"]["version"]) == (Exit.GOOD, "obeyed", newest)
    assert told["answer"] == {"version": newest + 1, "status": "FROZEN", "obeyed": True, "reason":
                              "freeze: a bad week", "place": told["answer"]["place"]}
    assert told["command"]["ts_ms"] >= 460 * HOUR_MS, "event time, not the wall clock"
    assert told["command"]["ts_ms"] < 461 * HOUR_MS
    code, told = command(settings, capsys, "freeze", POLICY)
    assert (code, "NO_CHANGE" in told["error"]) == (Exit.FAILED, True)
    _, status = quantum(settings, capsys, "status", "--no-verify", "--interval", "0.1")
    assert [(h["policy_id"], h["status"], h["actor"]) for h in status["held"]] == [(POLICY, "FROZEN", "ann")]
    _, shown = quantum(settings, capsys, "policy", "show", "q_learning")
    assert (shown["status"], shown["actor"], shown["reason"]) == ("FROZEN", "ann", "freeze: a bad week")


def rolled_back(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A rollback: first only said, then done."""
    before = ledger(settings)
    newest = before[-1].version
    code, said = command(settings, capsys, "rollback", POLICY, "5", "--dry-run")
    assert (code, said["outcome"], said["place"], said["becomes"]) == (Exit.GOOD, "planned", None, "ACTIVE")
    assert said["undone"] == {"from": 6, "to": newest}
    old = next(p for p in before if p.version == 5)
    assert old.provenance is not None
    assert said["command"]["state_hash"] == old.provenance.state_hash
    assert len(ledger(settings)) == len(before)
    code, told = command(settings, capsys, "rollback", POLICY, "5")
    assert (code, told["outcome"]) == (Exit.GOOD, "obeyed")
    answer = next(p for p in ledger(settings) if p.version == newest + 1)
    assert (answer.command_id, answer.restored_version) == (told["command"]["command_id"], 5)
    assert answer.tabular == old.tabular
    place = told["answer"]["place"]
    assert place.startswith("policy.ledger-")
    assert [r.place for r in read(settings, "policy.ledger")][-1:] == [place] or place in {
        r.place for r in read(settings, "policy.ledger")}
    code, told = command(settings, capsys, "rollback", POLICY, "999")
    assert (code, "NO_VERSION" in told["error"]) == (Exit.FAILED, True)
    code, told = quantum(settings, capsys, "policy", "rollback", POLICY, "5", "--reason", "x", "--agent-config",
                         'q_learning={"warmup_decisions": 21}')
    assert (code, "OTHER_CODE" in told["error"]) == (Exit.FAILED, True)


def without_the_learner(settings: Settings, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody answers; decision and paper obey all the same."""
    decided, ended = len(decisions(settings)), len(read(settings, "decision.outcome"))
    code, told = command(settings, capsys, "rollback", POLICY, "3", "--freeze", "--wait", "0.5")
    assert (code, told["outcome"], told["answer"], told["becomes"]) == (Exit.NOT_PROVEN, "no answer", None, "FROZEN")
    with worker(settings, log, ",".join(OTHERS)) as process:
        until_done(settings, process, log, OTHERS)  # a worker that starts reads its topics side by side
        publish(settings, bars(540, 580), lead=None)
        until_done(settings, process, log, OTHERS)
    later = decisions(settings)[decided:]
    assert {d.forced_reason for d in later} == {"policy_rolled_back"}
    outcomes = [CODEC.decode("decision.outcome", r.value) for r in read(settings, "decision.outcome")[ended:]]
    assert "policy_rolled_back" in {o.reason for o in outcomes if isinstance(o, DecisionOutcome)}
    _, why = quantum(settings, capsys, "why", later[-1].decision_id)
    assert why["command"]["place"] == told["place"]


@pytest.mark.topics("policy.commands", "policy.ledger", "system.clock", "q_learning.inbox")
def test_what_cannot_be_commanded(prefix: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = command(prefix, capsys, "freeze", "q_learning/BTCUSDT")
    assert (code, "NO_POLICY" in told["error"]) == (Exit.FAILED, True)
    assert command(prefix, capsys, "freeze", "BTCUSDT")[0] == Exit.USAGE
    assert command(prefix, capsys, "freeze", "decision/BTCUSDT")[0] == Exit.USAGE
    produce(prefix, [record("policy.ledger", a_policy(1))])
    code, told = command(prefix, capsys, "rollback", "q_learning/BTCUSDT", "1", "--dry-run")
    assert code == Exit.FAILED
    assert told["error"].split()[1].rstrip(":") in {"NO_PROVENANCE", "OTHER_CODE"}


@pytest.mark.topics("policy.commands", "system.clock")
def test_halts_stand_in_order_even_within_one_tick(prefix: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("halt", "resume", "halt"):
        assert command(prefix, capsys, word)[1]["outcome"] == "written"
    code, told = quantum(prefix, capsys, "policy", "halt", "--reason", "x" * 600)
    assert (code, "UNFIT" in told["error"]) == (Exit.FAILED, True)
    assert command(prefix, capsys, "halt", "--symbol", "X", "--dry-run")[1]["command"]["symbol"] == "X"
    given = [CODEC.decode("policy.commands", r.value) for r in read(prefix, "policy.commands")]
    assert [c.command for c in given if isinstance(c, PolicyCommand)] == ["HALT", "RESUME", "HALT"]
    times = [c.ts_ms for c in given if isinstance(c, PolicyCommand)]
    assert times == sorted(set(times))
