"""`quantum dlq` on a real broker: counted, shown, sent again byte for byte and once."""

from __future__ import annotations

import json
import time

import pytest

from agents.roster import ROSTER
from schemas.codec import Codec
from streams.cli.dlq import hexdump
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.fold import PartitionFold
from streams.log import read
from streams.records import Incoming, Outgoing
from tests.streams.log_fixtures import candles, flags, own_names, produce, refused

STRANGE = Outgoing("market.candles", b"\xff\x00", b"\x00\x01not avro" + bytes(range(256)),
                   (("ce_id", b"ext:1"), ("raw", b"\xfe\xff"), ("twice", b"a"), ("twice", b"b"), ("empty", b"")))


@pytest.fixture
def settings(broker):
    return own_names(broker, "market.candles", "market.candles.dlq", "learning.experience.dlq")


@pytest.fixture
def dlq(settings, capsys):
    def run(*args):
        assert main(["dlq", *args, *flags(settings)]) == Exit.GOOD
        return capsys.readouterr().out

    return run


def redrive(dlq, *args):
    return json.loads(dlq("redrive", "market.candles", "--json", *args))


def redriven(settings):
    return [r for r in read(settings, "market.candles") if any(h[0] == "redriven_from" for h in r.headers)]


def test_lists_counts_by_reason_and_agent(settings, dlq):
    sent = candles(1)[0]
    produce(settings, [refused(sent, 1), refused(sent, 2), refused(sent, 2, by="paper_execution"),
                       refused(sent, 3, "NOT_AVRO"), refused(sent, 4)])
    rows = {row["topic"]: row for row in json.loads(dlq("list", "--json"))}
    assert set(rows) == {settings.topic("market.candles.dlq"), settings.topic("learning.experience.dlq")}
    assert rows[settings.topic("learning.experience.dlq")]["records"] == 0
    row = rows[settings.topic("market.candles.dlq")]
    assert row["records"] == 5
    assert [(r["reason"], r["by"], r["records"], r["newest"]["offset"]) for r in row["reasons"]] == [
        ("OUT_OF_RANGE", "features", 3, 4), ("NOT_AVRO", "features", 1, 3), ("OUT_OF_RANGE", "paper_execution", 1, 2)]
    table = dlq("list")
    assert "OUT_OF_RANGE" in table
    assert "paper_execution" in table


def test_lists_none(dlq):
    assert "No dead letters on 2 topics" in dlq("list")


def test_shows_reason_source_headers_and_bytes(settings, dlq):
    produce(settings, [refused(candles(1)[0], 1), refused(STRANGE, 42, "NOT_AVRO")])
    page = dlq("show", "market.candles", "--offset", "0@1")
    for words in ("reason    NOT_AVRO", "source    market.candles-1@42", "by        features", "header    ce_id: ext:1",
                  "00 01 6e 6f 74 20 61 76 72 6f", "not avro", "266 bytes", "decoded   no"):
        assert words in page
    assert "10 more bytes" in page
    assert "more bytes" not in dlq("show", "market.candles.dlq", "--offset", "1", "--bytes", "0")
    shown = json.loads(dlq("show", "market.candles", "-o", "1", "--json"))
    assert bytes.fromhex(shown["hex"]) == STRANGE.value
    assert shown["key"] == {"hex": "ff00"}
    assert "decoded   2022-01-01T01:00:00Z" in dlq("show", "market.candles", "-o", "0")


def test_shows_the_newest_with_a_reason(settings, dlq):
    produce(settings, [refused(candles(1)[0], i, reason) for i, reason in enumerate("ABABA")])
    rows = [json.loads(text) for text in dlq("show", "market.candles", "-r", "A", "-n", "2", "--json").splitlines()]
    assert [r["offset"] for r in rows] == [2, 4]


@pytest.mark.parametrize("sent", [STRANGE, candles(1)[0], STRANGE._replace(value=None), STRANGE._replace(value=b""),
                                  STRANGE._replace(key=None), STRANGE._replace(headers=())])
def test_sends_again_byte_for_byte_to_the_same_partition(settings, dlq, sent):
    produce(settings, [refused(sent, 42, partition=2)])
    report = redrive(dlq, "--all")
    (record,) = redriven(settings)
    assert (record.key, record.value, record.partition) == (sent.key, sent.value, 2)
    assert record.headers == (*sent.headers, ("redriven_from", b"market.candles.dlq-0@0"),
                              ("redriven_for", b"features"))
    assert report == {
        "topic": settings.topic("market.candles"), "dry_run": False, "skipped": [],
        "redriven": [{"from": "market.candles.dlq-0@0", "to": "market.candles-2@0", "reason": "OUT_OF_RANGE",
                      "for": ["features"]}]}


def test_a_dry_run_sends_nothing(settings, dlq):
    produce(settings, [refused(STRANGE, 42)])
    report = redrive(dlq, "--all", "--dry-run")
    assert [(r["from"], r["to"]) for r in report["redriven"]] == [("market.candles.dlq-0@0", None)]
    assert list(read(settings, "market.candles")) == []


def test_repeating_sends_nothing_twice(settings, dlq):
    produce(settings, [refused(c, i) for i, c in enumerate(candles(3))])
    assert len(redrive(dlq, "--offset", "1")["redriven"]) == 1
    second = redrive(dlq, "--all")
    assert [r["from"] for r in second["redriven"]] == ["market.candles.dlq-0@0", "market.candles.dlq-0@2"]
    assert second["skipped"][0]["why"] == "sent before: market.candles-1@0"
    assert redrive(dlq, "--all")["redriven"] == []
    assert len(redriven(settings)) == 3
    assert len(redrive(dlq, "--all", "--again")["redriven"]) == 3


def test_one_record_for_all_agents_that_refused_it(settings, dlq):
    sent = candles(1)[0]
    produce(settings, [refused(sent, 7, by="paper_execution"), refused(sent, 7, by="features"), refused(sent, 8)])
    report = redrive(dlq, "--all")
    assert [r["for"] for r in report["redriven"]] == [["features", "paper_execution"], ["features"]]
    assert report["skipped"][0]["why"] == "same source record as market.candles.dlq-0@0"
    assert redrive(dlq, "--offset", "1")["redriven"] == []  # its twin was sent for both


def test_chooses_by_reason_and_time(settings, dlq):
    produce(settings, [refused(candles(1)[0], 0, "A"), refused(candles(1)[0], 1, "B")])
    time.sleep(0.05)
    between_ms = str(int(time.time() * 1000))
    time.sleep(0.05)
    produce(settings, [refused(candles(1)[0], 2, "A")])

    def chosen(*args):
        return [int(r["from"].partition("@")[2]) for r in redrive(dlq, "--dry-run", *args)["redriven"]]

    assert chosen("--reason", "A") == [0, 2]
    assert chosen("--since", between_ms) == [2]
    assert chosen("--until", between_ms, "--reason", "A") == [0]
    assert chosen("--reason", "C") == []


def test_says_why_a_letter_cannot_be_sent(settings, dlq):
    letter = refused(candles(1)[0], 3)
    bare = letter._replace(headers=tuple(h for h in letter.headers if not h[0].startswith("__streams")))
    produce(settings, [bare, refused(candles(1)[0], 3, partition=9)])
    assert [r["why"] for r in redrive(dlq, "--all")["skipped"]] == [
        "its headers do not say where on market.candles it was", "market.candles has no partition 9 any more"]


def test_a_redriven_letter_that_is_refused_again_can_be_redriven_again(settings, dlq):
    produce(settings, [refused(STRANGE, 42)])
    redrive(dlq, "--all")
    (first,) = redriven(settings)
    produce(settings, [refused(STRANGE._replace(headers=first.headers), first.offset)])
    report = redrive(dlq, "--all")
    assert report["redriven"] == [], "repeating a command by reason or time sends no record that nobody takes for ever"
    assert "refused again after market.candles.dlq-0@0 was sent" in [r["why"] for r in report["skipped"]][1]
    report = redrive(dlq, "--offset", "1")
    assert [r["from"] for r in report["redriven"]] == ["market.candles.dlq-0@1"]
    assert redrive(dlq, "--offset", "1")["redriven"] == []
    newest = max(redriven(settings), key=lambda r: r.offset)
    assert [value for name, value in newest.headers if name == "redriven_from"] == [b"market.candles.dlq-0@1"]


@pytest.mark.skipif("decision" not in ROSTER, reason="the agent decision is not in the roster")
def test_the_fold_takes_its_redriven_letter_although_its_output_id_was_seen():
    from tests.streams.log_fixtures import features, record  # an input that another agent of ours writes

    sent = record("market.features", features(), "features:0-5:0")
    own = (("src_topic", b"market.features"), ("src_partition", b"0"), ("relay_owner", b"r"))
    fold = PartitionFold(ROSTER["decision"](), 0, Codec())
    fold.apply(Incoming(0, None, None, (*own, ("relay_fence", b"1"))))

    def repeats(offset, source_offset, *more):
        before = fold.counters.repeated
        headers = (*sent.headers, *own, ("src_offset", str(source_offset).encode()), *more)
        fold.apply(Incoming(offset, sent.key, sent.value, headers))
        return fold.counters.repeated - before

    assert repeats(1, 10) == 0
    assert repeats(2, 11) == 1
    assert repeats(3, 12, ("redriven_for", b"other,paper_execution")) == 1
    assert repeats(4, 13, ("redriven_for", b"decision,paper_execution")) == 0
    assert repeats(5, 13, ("redriven_for", b"decision")) == 1  # the same source record, copied twice


@pytest.mark.parametrize(("args", "code", "words"), [
    (["redrive", "market.candles"], Exit.USAGE, "or take --all"),
    (["redrive", "market.candles", "-o", "5"], Exit.FAILED, "no letter at 0@5"),
    (["redrive", "market.candles", "-o", "x"], Exit.USAGE, "neither OFFSET nor"),
    (["redrive", "market.candles", "--since", "noon"], Exit.USAGE, "Invalid"),
    (["show", "market.candles", "-o", "5"], Exit.FAILED, "no record at 0@5"),
    (["show", "market.candle"], Exit.USAGE, "did you mean market.candles.dlq"),
])
def test_says_what_is_wrong(settings, capsys, args, code, words):
    assert main(["dlq", *args, *flags(settings)]) == code
    assert words in capsys.readouterr().err


def test_hexdump_is_that_of_xxd():
    assert hexdump(b"0123456789abcdef\x00\xff", 0) == [
        "    00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef",
        "    00000010  00 ff                                            .."]
