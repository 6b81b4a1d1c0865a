"""verify over a broker: the real roster as a worker runs it, the made market, and the command around it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agents.roster import ROSTER
from schemas.events import TradeClosed
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.ingest import publish
from streams.records import encode_event
from streams.settings import Settings
from tests.streams.hosting import CODEC, read, send
from tests.streams.log_fixtures import flags
from tests.streams.rostered import until_done, worker
from tests.streams.test_main_job import made


def judged(settings: Settings, capsys: pytest.CaptureFixture[str],
           *args: str) -> tuple[int, dict[str, dict[str, dict]]]:
    code = main(["verify", "--json", *args, *flags(settings)])
    shown = json.loads(capsys.readouterr().out)
    assert shown["exit_code"] == code
    return code, {a["agent"]: a["cells"] for a in shown["agents"]}


def test_the_roster_on_the_made_market(prefix: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, log = prefix, tmp_path / "worker.log"
    with worker(settings, log) as process:
        publish(settings, made(2, 700), lead=24)
        code, cells = judged(settings, capsys)
        assert code != Exit.FAILED, "a run that goes on must not be red: " + str(
            [(a, k, c) for a, some in cells.items() for k, c in some.items() if c["state"] in ("FAIL", "STALE")])
        until_done(settings, process, log)
    code, cells = judged(settings, capsys)
    states = {(a, k): c["state"] for a, some in cells.items() if a in ROSTER for k, c in some.items()}
    assert states.pop(("risk_controller", "APPLIED")) == "IDLE", "all is synthetic, and nothing is bound"
    assert {states.pop(("bars", k)) for k in ("RUNS", "RECEIVES", "ORIGIN")} == {"IDLE"}, "there are no trades"
    assert states.pop(("meta_strategy", "LEARNS")) == "NOT PROVEN", "few rounds of 64 in so short a run"
    idle = states.pop(("ppo_trader", "LEARNS")), states.pop(("ppo_trader", "APPLIED"))
    assert idle == ("IDLE", "IDLE"), "made symbols are left out"
    assert set(states.values()) == {"PASS", "NOT APPLICABLE"}, {k: cells[k[0]][k[1]] for k in states}
    assert code == Exit.NOT_PROVEN
    versions = [r for r in read(settings, "policy.ledger") if r.key is not None and r.key.startswith(b"q_learning/")]
    assert cells["q_learning"]["LEARNS"]["figures"]["versions"] == len(versions)
    assert cells["q_learning"]["APPLIED"]["figures"]["changed"] > 0
    assert {c["state"] for c in cells["trees"].values()} == {"NOT BUILT"}
    code, cells = judged(settings, capsys, "--seed", "11")
    assert code == Exit.NOT_PROVEN, "not the worker's seed: nothing can be folded again, and nobody is accused"
    assert "--seed 0" in cells["decision"]["PERSISTS"]["why"]
    invented(settings)
    code, cells = judged(settings, capsys)
    assert code == Exit.FAILED
    assert cells["paper_execution"]["ORIGIN"]["state"] == "FAIL"
    assert "pnl_usd is" in cells["paper_execution"]["ORIGIN"]["why"]
    waits = (cells["experience"]["RECEIVES"], cells["experience"]["PERSISTS"])
    assert [c["state"] for c in waits] == ["PASS", "PASS"], "one record waits, not for long yet"


def invented(settings: Settings) -> None:
    """A trade that another producer wrote, with a result of its own."""
    old = CODEC.decode("execution.trade.closed", read(settings, "execution.trade.closed")[-1].value)
    assert isinstance(old, TradeClosed)
    fields = {f: getattr(old, f) for f in old.__struct_fields__}
    new = TradeClosed(**fields | {"trade_id": "invented", "decision_id": None, "pnl_usd": old.pnl_usd + 100.0})
    r = encode_event(CODEC, "execution.trade.closed", new, "", "feed")
    send(settings, [(r.topic, r.key, r.value, r.headers)])


def test_an_empty_broker_proves_nothing_and_the_table_says_so(
        prefix: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *flags(prefix)]) == Exit.NOT_PROVEN
    shown = capsys.readouterr().out
    assert "NOT BUILT" in shown
    assert "q_learning LEARNS" in shown


@pytest.mark.topics("market.candles")
def test_missing_topics_are_named(prefix: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    code, cells = judged(prefix, capsys)
    assert code == Exit.FAILED
    assert "features.inbox" in cells["features"]["RUNS"]["why"]


def test_no_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--broker", "127.0.0.1:1"]) == Exit.UNREACHABLE
    assert main(["verify", "--agents", "nobody", "--broker", "127.0.0.1:1"]) == Exit.USAGE
    assert "quantum broker up" in capsys.readouterr().err


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01", "policy.ledger@3"])
def test_wrong_since(since: str) -> None:
    assert main(["verify", "--since", since, "--broker", "127.0.0.1:1"]) == Exit.USAGE
