"""`quantum risk show|override|clear` over a broker, with the whole roster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from schemas.events import Decision
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.ingest import Loaded, publish
from streams.settings import Settings
from tests.streams.log_fixtures import flags
from tests.streams.rostered import same_as_its_log, until_done, worker
from tests.streams.test_main_job import HOUR_MS, events, made

WHOLE = made(1, 420).frame.with_columns(source=pl.lit("made"), origin=pl.lit("CLAIMED"))
WHY = ("--reason", "a conference", "--actor", "ann")


def bars(first: int, end: int) -> Loaded:
    return Loaded(frame=WHOLE.filter(pl.col("open_time_ms").is_between(first * HOUR_MS, (end - 1) * HOUR_MS)),
                  series=())


def risk(settings: Settings, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    code = main([*args, "--json", *flags(settings)])
    out = capsys.readouterr()
    return code, json.loads(out.out) if out.out else {"error": out.err}


def carried(settings: Settings, from_hour: int) -> set[str | None]:
    return {d.limits and d.limits.mode for d in events(settings, "rl.meta.strategy_selected")
            if isinstance(d, Decision) and d.ts_ms > from_hour * HOUR_MS}


def test_the_mode_by_command(prefix: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, log = prefix, tmp_path / "worker.log"
    with worker(settings, log) as process:
        publish(settings, bars(0, 300), lead=24)
        until_done(settings, process, log)
        code, shown = risk(settings, capsys, "risk", "show")
        assert (code, shown["change"]["place"][:17]) == (Exit.GOOD, "risk.mode.changed")
        assert shown["limits"]["otherwise"]["mode"] == "CONSERVATIVE"
        assert shown["change"]["provenance"]["input_topic"] == "risk_controller.inbox"
        overridden(settings, capsys)
        publish(settings, bars(300, 360), lead=24)
        until_done(settings, process, log)
        assert carried(settings, 302) == {"TURBO"}
        assert risk(settings, capsys, "risk", "clear", *WHY)[1]["outcome"] == "obeyed"
        code, told = risk(settings, capsys, "risk", "clear", *WHY)
        assert (code, told["outcome"]) == (Exit.FAILED, "refused")
        publish(settings, bars(360, 420), lead=24)
        until_done(settings, process, log)
        assert "TURBO" not in carried(settings, 362)
    same_as_its_log(settings)
    code, report = risk(settings, capsys, "verify")
    row = next(a["cells"] for a in report["agents"] if a["agent"] == "risk_controller")
    assert {kind: c["state"] for kind, c in row.items()} == dict.fromkeys(row, "PASS"), row
    assert row["LEARNS"]["figures"]["commanded"] == 3


def overridden(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """First only said, then done; seen by show and status, in JSON and in words."""
    line = ("risk", "override", "TURBO", "--until", "+80h", *WHY)
    code, said = risk(settings, capsys, *line, "--dry-run")
    assert (code, said["outcome"], said["place"], said["command"]["mode"]) == (Exit.GOOD, "planned", None, "TURBO")
    until_ms = said["command"]["until_ms"]
    assert until_ms - said["command"]["ts_ms"] == 80 * HOUR_MS
    code, told = risk(settings, capsys, *line)
    assert (code, told["outcome"], told["answer"]["obeyed"]) == (Exit.GOOD, "obeyed", True)
    _, shown = risk(settings, capsys, "risk", "show")
    assert (shown["mode"], shown["change"]["forced"], shown["change"]["actor"]) == ("TURBO", "OVERRIDE", "ann")
    assert shown["change"]["until_ms"] == until_ms
    _, status = risk(settings, capsys, "status", "--no-verify", "--interval", "0.1")
    assert (status["risk"]["mode"], status["risk"]["forced"], status["risk"]["until_ms"]) == (
        "TURBO", "OVERRIDE", until_ms)
    for args in (("risk", "show"), ("status", "--no-verify", "--interval", "0.1")):
        assert main([*args, *flags(settings)]) == Exit.GOOD
        text = capsys.readouterr().out
        assert "TURBO" in text
        assert "OVERRIDE" in text
    code, told = risk(settings, capsys, "risk", "override", "TURBO", "--until", "1970-01-02T00:00:00Z", *WHY)
    assert (code, "NO_CHANGE" in told["error"]) == (Exit.FAILED, True)
    assert risk(settings, capsys, "policy", "freeze", "risk_controller/global", *WHY)[0] == Exit.USAGE


@pytest.mark.topics("policy.current", "policy.commands", "policy.ledger", "risk.mode.changed", "system.clock")
def test_before_there_is_a_version(prefix: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = risk(prefix, capsys, "risk", "show")
    assert (code, "no version" in told["error"]) == (Exit.FAILED, True)
    code, told = risk(prefix, capsys, "risk", "clear", *WHY)
    assert (code, "NO_POLICY" in told["error"]) == (Exit.FAILED, True)
    for until in ("tomorrow", "2026-01-01T00:00:00"):
        assert risk(prefix, capsys, "risk", "override", "TURBO", "--until", until, *WHY)[0] == Exit.USAGE
