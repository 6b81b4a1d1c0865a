"""The demo: from candles to a proof, small; and what its last screen shows on a narrow terminal."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from streams.cli import verify
from streams.cli.demo import WORKERS, Feed, _run
from streams.cli.demo_proof import show_proof
from streams.cli.demo_trader import RUNS
from streams.cli.demo_view import LiveTable, story_table
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.ingest.synthetic import synthetic_market
from streams.observer import Observer, Seen
from streams.records import CE_ID, FENCE, SOURCE_TOPIC, header
from streams.settings import Settings
from streams.verify.cells import Cell, Report, Verdict
from tests.patience import PATIENCE_S
from tests.streams.hosting import read, send

BARS = 620
OUTCOMES = 25


def feed(folder: Path) -> Path:
    """A file of candles as somebody brings them."""
    frame = synthetic_market(5, ["SOMEUSDT"], BARS)[0].frame
    path = folder / "SOMEUSDT-1h.csv"
    frame.select("open_time_ms", "open", "high", "low", "close", "volume").rename(
        {"open_time_ms": "open_time"}).write_csv(path)
    return path


def test_the_main_job_ends_in_a_proof(prefix: Settings, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "streams.cli.main", "demo", "--klines", str(feed(tmp_path)), "--json", "--outcomes",
            str(OUTCOMES), "--seed", "3", "--broker", prefix.broker, "--topic-prefix", prefix.topic_prefix, "--app-id",
            prefix.app_id, "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=2 * PATIENCE_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    report = json.loads(done.stdout)
    assert all(report["checks"].values()), report["checks"]
    assert report["candles"] > 4 * BARS * 0.7
    assert {b["symbol"] for b in report["books"]} == {"SOMEUSDT"}
    cells = {row["agent"]: row["cells"] for row in report["verify"]["agents"]}
    assert cells["q_learning"]["LEARNS"]["state"] == "PASS"
    trader = report["ppo_trader"]
    assert (trader["config"], trader["mode"], trader["failed"]) == ("policy.config-0@0", "SHADOW", 0)
    assert {r["symbol"] for r in trader["runs"]} <= {"SOMEUSDT"}
    assert len(trader["runs"]) <= RUNS + 1
    copied_ms = [r.timestamp_ms or 0 for r in read(prefix, "ppo_trader.inbox")
                 if header(r.headers, SOURCE_TOPIC) == "policy.config" and header(r.headers, FENCE) is None]
    assert copied_ms
    assert max(copied_ms) <= min(r.timestamp_ms or 0 for r in read(prefix, "market.candles")), "candles did not wait"
    assert trader["skipped"]["synthetic"] > 0
    assert cells["ppo_trader"]["LEARNS"]["state"] in ("PASS", "NOT PROVEN")
    assert cells["ppo_trader"]["APPLIED"]["state"] == "IDLE"
    assert {c["kind"]: c["state"] for c in report["verify"]["controls"]} == dict.fromkeys(
        ("PLANTED", "REVERSED", "FAIR"), "NOT PROVEN"), "too few outcomes are never red"
    assert all(c["figures"]["outcomes"] >= OUTCOMES for c in report["verify"]["controls"])
    assert {c["kind"]: c["others"]["meta_strategy"]["state"] for c in report["verify"]["controls"]} == dict.fromkeys(
        ("PLANTED", "REVERSED", "FAIR"), "NOT PROVEN"), "nor of the second learner"
    assert report["story"][0]["place"].startswith("market.candles-")


def test_the_live_table_has_a_row_for_every_agent_that_the_demo_runs() -> None:
    out = io.StringIO()
    Console(file=out, width=160).print(LiveTable(100, ("SOMEUSDT",), 0).view(Seen()))
    assert all(name in out.getvalue() for group in WORKERS for name in group)


def test_places_are_whole_on_a_narrow_screen() -> None:
    place = "rl.meta.strategy_selected-3@1234567890"
    out = io.StringIO()
    step = {"what": "first decision with it", "place": place, "text": "x " * 60}
    Console(file=out, width=72).print(story_table([step]))
    assert place in out.getvalue()


@pytest.mark.parametrize("show", [lambda console, report: show_proof(console, {
    "report": report, "self_test": {"caught": 1, "planted": 1, "honest_red": []}}), verify.show])
def test_the_second_learner_of_a_control_stands_below_the_first(show: Any) -> None:
    cells = {name: Cell("NOT PROVEN" if name == "meta_strategy" else "PASS", f"so says {name}")
             for name in ("q_learning", "meta_strategy")}
    control = Verdict("KXQUSDT", "PLANTED", cells["q_learning"], {"meta_strategy": cells["meta_strategy"]})
    out = io.StringIO()
    show(Console(file=out, width=100), Report(0, 1, 1, None, (), (control,)))
    lines = out.getvalue().splitlines()
    at = lines.index("control KXQUSDT, PLANTED PASS: so says q_learning")
    assert lines[at + 1] == "  meta_strategy NOT PROVEN: so says meta_strategy"


def test_the_observer_drops_what_a_successor_writes_again(prefix: Settings) -> None:
    observer = Observer(prefix)
    observer.start()
    try:
        for ce_id in ("paper_execution:1-7:0", "paper_execution:1-9:0", "paper_execution:1-7:0", "feed-1"):
            send(prefix, [("execution.trade.closed", b"A", b"unreadable", ((CE_ID, ce_id.encode()),))], partition=1)
        observer.settle()
    finally:
        observer.stop()
    assert observer.seen.records("execution.trade.closed") == 3


def test_resume_is_for_the_demos_own_broker(tmp_path: Path) -> None:
    line = ["demo", "--klines", str(feed(tmp_path)), "--resume", str(tmp_path), "--broker", "127.0.0.1:1"]
    assert main(line) == Exit.USAGE


def test_a_feed_that_failed_last_stops_the_demo(prefix: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread has ended by then: nobody may take it for one that is through."""
    feed = Feed(prefix, synthetic_market(5, ["SOMEUSDT"], 5)[0], lead=None, outcomes=3)  # outcomes need a lead
    monkeypatch.setattr(feed, "start", feed.run)  # through at once
    monkeypatch.setattr(feed, "join", lambda timeout: None)
    observer = Observer(prefix)
    try:
        with pytest.raises(click.ClickException, match="ingest stopped: outcomes are counted by the lead"):
            _run([feed], LiveTable(5, ("SOMEUSDT",), 0), observer, [], Console(file=io.StringIO()), 0.0)
    finally:
        observer.stop()
