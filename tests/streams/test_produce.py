"""`quantum produce`: what is judged without a broker, and what is sent over one."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from schemas.codec import Codec
from schemas.pages import example_of
from streams.cli.main import main
from streams.log import LogReader
from streams.producing import external_topics, judged, writable
from streams.settings import Settings

TRADES = "execution.trade.closed"


def lines(*objects: Any) -> str:
    return "".join(json.dumps(o) + "\n" for o in objects)


def produce(monkeypatch: pytest.MonkeyPatch, text: str, *args: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return main(["produce", *args])


@pytest.mark.parametrize("topic", external_topics())
def test_the_example_of_every_topic_that_one_may_write_is_taken(topic: str) -> None:
    (line,) = judged(Codec(), topic, [json.dumps(example_of(topic))])
    assert line.record is not None, line.detail
    assert line.record.topic == topic


@pytest.mark.parametrize(("change", "reason", "words"), [
    ({"pnl": 3}, "UNKNOWN_FIELD", "pnl; known are trade_id"),
    ({"quantity": "two"}, "WRONG_TYPE", "$.quantity"),
    ({"quantity": None}, "WRONG_TYPE", "$.quantity"),
    ({"entry_price": -1.0}, "OUT_OF_RANGE", "entry_price"),
    ({"side": "BUY"}, "WRONG_TYPE", "$.side"),
    ({"pnl_usd": 1e6}, "INCONSISTENT", "pnl_usd is 1000000.0, but side x (exit - entry)"),
    ({"type": "Candle"}, "WRONG_TYPE", "records of this topic are TradeClosed"),
])
def test_a_line_is_refused_with_its_field(change: dict[str, Any], reason: str, words: str) -> None:
    (line,) = judged(Codec(), TRADES, [json.dumps(example_of(TRADES) | change)])
    assert (line.record, line.reason) == (None, reason)
    assert words in line.detail


@pytest.mark.parametrize(("text", "words"), [("{", "one object a line"), ("[1]", "no object"), ("NaN", "no object")])
def test_what_is_no_json_object(text: str, words: str) -> None:
    (line,) = judged(Codec(), TRADES, [text])
    assert line.reason == "NO_JSON"
    assert words in line.detail


def test_a_missing_field_is_named_and_the_line_is_counted() -> None:
    example = example_of(TRADES)
    del example["fees"]
    found = list(judged(Codec(), TRADES, [json.dumps(example_of(TRADES)), "", json.dumps(example)]))
    assert [line.line for line in found] == [1, 3]
    assert "fees" in found[1].detail


@pytest.mark.parametrize("topic", ["policy.ledger", "decision.inbox", "clm.predictions", "nope"])
def test_what_people_may_not_write(topic: str, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    assert writable(topic) is not None
    assert produce(monkeypatch, "", topic, "--dry-run") == 2
    assert TRADES in capsys.readouterr().err


def test_a_dry_run_needs_no_broker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bad = example_of(TRADES) | {"fees": -1.0}
    assert produce(monkeypatch, lines(example_of(TRADES), bad), TRADES, "--dry-run", "--json",
                   "--broker", "127.0.0.1:1") == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["lines"], told["sent"], [r["line"] for r in told["refused"]]) == (2, 0, [2])
    assert "line 2: " in err


def test_no_broker_is_exit_4(monkeypatch: pytest.MonkeyPatch) -> None:
    assert produce(monkeypatch, lines(example_of(TRADES)), TRADES, "--broker", "127.0.0.1:1") == 4


@pytest.mark.topics(TRADES)
def test_good_lines_are_sent_and_come_back(prefix: Settings, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = example_of(TRADES), example_of(TRADES) | {"side": "UP"}
    where = ("--broker", prefix.broker, "--topic-prefix", prefix.topic_prefix)
    assert produce(monkeypatch, lines(good, bad, {"type": "TradeClosed", **good}), TRADES, "--json", *where) == 1
    told = json.loads(capsys.readouterr().out)
    with LogReader(prefix) as log:
        records = list(log.read(TRADES))
    assert len(records) == told["sent"] == 2
    assert list(told["places"]) == ["1", "3"]
    assert told["places"]["1"].endswith(f"{TRADES}-{records[0].partition}@{records[0].offset}")
    assert records[0].key == b"BTCUSDT"
    assert records[0].headers == records[1].headers, "a repeat has the same id"
    event = Codec().decode(TRADES, records[0].value)
    assert event.trade_id == good["trade_id"]  # type: ignore[attr-defined]
