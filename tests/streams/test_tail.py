"""`quantum tail` on a real broker: what is chosen, how it is decoded, what is said where it cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest

from agents.roster import ROSTER
from schemas.catalogue import AGENTS, built_agents
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.inspecting.shown import FIELDS
from streams.records import FENCE, OWNER, SOURCE_PARTITION, SOURCE_TOPIC, Outgoing
from tests.patience import PATIENCE_S
from tests.streams.log_fixtures import (
    CODEC,
    HOUR_MS,
    T0_MS,
    candles,
    flags,
    head,
    own_names,
    policy,
    produce,
    record,
    refused,
    relayed,
    scope_state,
)


@pytest.fixture(scope="module")
def settings(broker):
    settings = own_names(broker, "market.candles", "market.candles.dlq", "features.inbox", "policy.current")
    produce(settings, candles(10), partition=1)
    produce(settings, candles(4, "ETHUSDT"), partition=2)
    return settings


@pytest.fixture
def tail(settings, capsys):
    def run(*args, at=settings):
        code = main(["tail", *args, "--json", *flags(at)])
        return code, [json.loads(text) for text in capsys.readouterr().out.splitlines()]

    return run


def test_decodes_every_field(tail, settings):
    code, (first, *_) = tail("market.candles", "-p", "2")
    assert code == Exit.GOOD
    assert set(first) == set(FIELDS)
    assert (first["topic"], first["partition"], first["offset"]) == (settings.topic("market.candles"), 2, 0)
    assert (first["key"], first["event"], first["error"], first["hex"]) == ("ETHUSDT", "Candle", None, None)
    assert first["headers"] == [["ce_id", "ingest:ETHUSDT:0"], ["ce_type", "Candle"], ["source", "binance"]]
    assert first["value"] == {
        "symbol": "ETHUSDT", "interval_ms": HOUR_MS, "open_time_ms": T0_MS, "ts_ms": T0_MS + HOUR_MS, "open": 100.0,
        "high": 110.0, "low": 90.0, "close": 100.5, "volume": 12.0, "quote_volume": None, "trades": None,
        "taker_buy_volume": None, "source": "binance", "origin": "CLAIMED"}


@pytest.mark.parametrize(("args", "expected"), [
    (["-o", "-1"], {(1, 9), (2, 3)}),
    (["-o", "8", "-e"], {(1, 8), (1, 9)}),
    (["-o", "end"], set()),
    (["-k", "ETHUSDT"], {(2, i) for i in range(4)}),
    (["-k", "ETHUSDT", "-c", "2"], {(2, 0), (2, 1)}),
    (["-k", "nobody"], set()),
    (["-p", "2", "-o", "-3", "-c", "1"], {(2, 1)}),
    (["-p", "1", "-p", "2", "-o", "3"], {(1, i) for i in range(3, 10)} | {(2, 3)}),
    (["-o", "s@2022-01-01T00:00:00Z", "-p", "2"], {(2, i) for i in range(4)}),
])
def test_chooses_as_kcat_does(tail, args, expected):
    code, rows = tail("market.candles", *args)
    assert code == Exit.GOOD
    assert {(r["partition"], r["offset"]) for r in rows} == expected
    assert len(rows) == len(expected)


def test_takes_the_name_with_its_prefix(tail, settings):
    assert len(tail(settings.topic("market.candles"), "-p", "2")[1]) == 4


def test_a_line_for_people(settings, capsys):
    assert main(["tail", "market.candles", "-p", "2", "-c", "1", *flags(settings)]) == Exit.GOOD
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    place = f"{settings.topic('market.candles')}-2@0"
    assert out.startswith(f"{place}  2022-01-01T01:00:00Z  ETHUSDT  Candle symbol=ETHUSDT")
    assert "close=100.5" in out


def test_prints_reason_and_bytes_of_what_it_cannot_decode(tail, settings, capsys):
    own = own_names(settings, "market.candles", "policy.current")
    whole = candles(1)[0]
    bad = [whole._replace(value=whole.value[:-3]), whole._replace(key=b"\xff\x00", value=b"\x1b[2Jnot avro"),
           whole._replace(value=b""), whole._replace(value=None, headers=(("raw", b"\xfe"),))]
    produce(own, bad, partition=0)
    _, rows = tail("market.candles", at=own)
    assert [r["error"]["reason"] for r in rows] == ["UNDECODABLE", "NOT_AVRO", "EMPTY", "TOMBSTONE"]
    assert [r["hex"] for r in rows] == [b.value if b.value is None else b.value.hex() for b in bad]
    assert rows[1]["key"] == {"hex": "ff00"}
    assert rows[3]["headers"] == [["raw", {"hex": "fe"}]]
    assert main(["tail", "market.candles", *flags(own)]) == Exit.GOOD
    assert "\x1b" not in capsys.readouterr().out


def test_reads_inboxes_by_the_source_topic(tail, settings):
    fence = Outgoing("features.inbox", None, None, ((SOURCE_TOPIC, b"market.candles"), (SOURCE_PARTITION, b"1"),
                                                    (OWNER, b"relay-1"), (FENCE, b"1")))
    produce(settings, [fence, relayed("features", candles(1)[0], 1, 0)], partition=3)
    _, (first, second) = tail("features.inbox")
    assert (first["event"], first["value"]) == ("Fence", {"owner": "relay-1"})
    assert (second["event"], second["value"]["close"]) == ("Candle", 100.5)
    assert second["source"] == {"topic": "market.candles", "partition": 1, "offset": 0}


def test_reads_dead_letters_with_their_reason(tail, settings):
    sent = candles(1)[0]
    produce(settings, [refused(sent, 5), refused(sent._replace(value=b"x"), 6, "NOT_AVRO")])
    _, (first, second) = tail("market.candles.dlq")
    assert first["dead_letter"] == {"reason": "OUT_OF_RANGE", "detail": "OUT_OF_RANGE in a test", "by": "features"}
    assert first["source"] == {"topic": "market.candles", "partition": 1, "offset": 5}
    assert first["event"] == "Candle"
    assert (second["error"]["reason"], second["hex"]) == ("NOT_AVRO", "78")


def test_reads_policies_and_tombstones(tail, settings):
    produce(settings, [record("policy.current", policy(3)), Outgoing("policy.current", b"q_learning/OLD", None, ())],
            partition=0)
    _, (first, second) = tail("policy.current")
    assert ["version", "3"] in first["headers"]
    assert len(first["value"]["tabular"]["cells"]) == 12
    assert second["error"]["reason"] == "TOMBSTONE"


@pytest.mark.parametrize("agent", sorted(a.name for a in built_agents() if a.name in ROSTER))
def test_reads_the_state_of_an_agent(tail, settings, agent):
    own, partition = own_names(settings, AGENTS[agent].changelog), min(2, AGENTS[agent].partitions - 1)
    fresh = ROSTER[agent]().new("BTCUSDT")
    produce(own, [scope_state(agent, "BTCUSDT", CODEC.encode_state(fresh)), scope_state(agent, "OLD", b"\xff" * 11),
                  head(agent, partition, applied=9)], partition=partition)
    _, (good, old, top) = tail(AGENTS[agent].changelog, at=own)
    assert good["event"] == "ScopeState"
    assert set(good["value"]["state"]) == set(ROSTER[agent].state_type.__struct_fields__)
    assert old["value"]["state"]["hex"] == "ff" * 11
    assert old["value"]["state"]["error"]["reason"] in ("UNDECODABLE", "TRAILING_BYTES")
    assert (top["event"], top["value"]["applied"]) == ("PartitionHead", 9)


def test_follows_until_interrupted(settings):
    own = own_names(settings, "market.candles")
    produce(own, candles(1), partition=0)
    process = subprocess.Popen([sys.executable, "-m", "streams.cli.main", "tail", "market.candles", "-f", "--json",
                                *flags(own)], stdout=subprocess.PIPE, text=True)
    guard = threading.Timer(60, process.kill)
    guard.start()
    try:
        assert json.loads(process.stdout.readline())["offset"] == 0
        produce(own, candles(1, first=1), partition=0)
        assert json.loads(process.stdout.readline())["offset"] == 1
        process.send_signal(2)
        assert process.wait(PATIENCE_S) == Exit.INTERRUPTED
    finally:
        guard.cancel()
        process.kill()
        process.stdout.close()


@pytest.mark.parametrize(("args", "code", "words"), [
    (["market.candle"], Exit.USAGE, "did you mean market.candles"),
    (["candles"], Exit.USAGE, "did you mean market.candles"),
    (["clm.predictions"], Exit.USAGE, "not built yet"),
    (["market.features"], Exit.USAGE, "quantum topics apply"),
    (["market.candles", "-o", "yesterday"], Exit.USAGE, "none of: beginning"),
    (["market.candles", "-f", "-e"], Exit.USAGE, "exclude each other"),
    (["market.candles", "-p", "9"], Exit.FAILED, "no partition 9; it has 0 to 3"),
])
def test_says_what_is_wrong(settings, capsys, args, code, words):
    assert main(["tail", *args, *flags(settings)]) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_an_unreachable_broker_has_its_exit_code(settings):
    nobody = settings.replace(broker="127.0.0.1:1")
    done = subprocess.run([sys.executable, "-m", "streams.cli.main", "tail", "market.candles", *flags(nobody)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == Exit.UNREACHABLE
    assert "127.0.0.1:1" in done.stderr
    assert "quantum broker up" in done.stderr
    assert "Traceback" not in done.stderr
