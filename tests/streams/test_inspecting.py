"""Records as people read them: plain data that JSON can hold, and lines that cannot draw on a terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import TOPICS
from schemas.codec import Codec
from streams.inspecting.deadletters import letter_of, original_headers, tally
from streams.inspecting.shown import FIELDS, brief, iso, line, plain, schema_topic, show
from streams.log import Record
from streams.records import output_id
from tests.streams.log_fixtures import candles, refused

CODEC = Codec()
RAW = st.none() | st.binary(max_size=40) | st.sampled_from([candles(1)[0].value, b"\xc3\x01" + bytes(8)])
NAMES = st.sampled_from([
    "src_topic", "src_partition", "src_offset", "relay_fence", "ce_id", "__streams.errors.topic",
    "__streams.errors.partition", "__streams.errors.offset", "__streams.errors.reason", "x"])
VALUES = st.binary(max_size=8) | st.sampled_from([b"market.candles", b"1", b"-1", "\u00b2".encode(), b"no.topic"])
RECORDS = st.builds(
    Record, topic=st.sampled_from([*TOPICS, "of.someone.else", "x.dlq", "x.changelog", "x.inbox"]),
    partition=st.integers(0, 9), offset=st.integers(0, 2**62), key=RAW | st.sampled_from([b"head", b"scope:A"]),
    value=RAW, headers=st.lists(st.tuples(NAMES, VALUES), max_size=8).map(tuple),
    timestamp_ms=st.none() | st.integers(-2**62, 2**62))


@given(RECORDS)
def test_any_record_can_be_shown(record):
    shown = show(CODEC, record, "p.", state_type=lambda _: None)
    assert list(shown) == list(FIELDS)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert (shown["value"] is None) == (shown["error"] is not None)
    assert line(shown).isprintable()
    letter_of(record)


@given(RECORDS)
def test_no_byte_of_an_undecoded_record_is_lost(record):
    shown = show(CODEC, record, state_type=lambda _: None)
    if shown["error"] is not None:
        assert (None if shown["hex"] is None else bytes.fromhex(shown["hex"])) == record.value
    for (name, value), (shown_name, text) in zip(record.headers, shown["headers"], strict=True):
        assert name == shown_name
        assert value == (bytes.fromhex(text["hex"]) if isinstance(text, dict) else text.encode())


@pytest.mark.parametrize(("topic", "headers", "key", "expected"), [
    ("market.candles", (), b"A", "market.candles"),
    ("market.candles.dlq", (), b"A", "market.candles"),
    ("features.inbox", (("src_topic", b"market.candles"),), b"A", "market.candles"),
    ("features.inbox", (), b"A", None),
    ("features.changelog", (), b"head", "state.head"),
    ("features.changelog", (), b"scope:A", "state.scope"),
    ("features.changelog", (), b"other", None),
    ("clm.predictions", (), b"A", None),
    ("someone.else", (), b"A", None),
])
def test_finds_the_schema(topic, headers, key, expected):
    assert schema_topic(Record(topic, 0, 0, key, b"", headers, None)) == expected


@pytest.mark.parametrize(("value", "text"), [
    (None, "-"), (1234567.0, "1.23457e+06"), (0.1, "0.1"), (3, "3"), ([1, -1, 0], "[1,-1,0]"),
    (list(range(9)), "[9 items]"), ([{"a": 1}], "[1 items]"), ({"a": 1}, "{1 fields}"), ({"hex": "ff00"}, "0xff00"),
    ({"hex": "00" * 20}, "0x0000000000000000...(20 bytes)")])
def test_brief(value, text):
    assert brief(value) == text


def test_numbers_that_json_lacks_become_text():
    assert plain((float("nan"), float("-inf"), 1.5, b"\xff")) == ["nan", "-inf", 1.5, {"hex": "ff"}]


@pytest.mark.parametrize(("ts_ms", "text"), [
    (None, "-"), (0, "1970-01-01T00:00:00Z"), (1_640_995_200_250, "2022-01-01T00:00:00.250Z"), (2**62, str(2**62))])
def test_times(ts_ms, text):
    assert iso(ts_ms) == text


def _letter(reason, offset, by="features"):
    sent = refused(candles(1)[0], offset, reason, by)
    return letter_of(Record(sent.topic, 0, offset, sent.key, sent.value, sent.headers, offset))


def test_letters_are_tallied_with_their_newest():
    rows = tally([_letter("A", 0), _letter("B", 1), _letter("A", 2), _letter("A", 3, "decision")])
    assert [(r.reason, r.by, r.records, r.newest.offset) for r in rows] == [
        ("A", "features", 2, 2), ("A", "decision", 1, 3), ("B", "features", 1, 1)]


def test_a_letter_keeps_the_headers_of_the_record():
    letter = _letter("A", 5)
    assert letter.source == ("market.candles", 1, 5)
    assert original_headers(letter.record.headers) == candles(1)[0].headers


@pytest.mark.parametrize("digits", ["\u00b2", "9" * 5000, "-", "1_0", "", "--1"])
def test_numbers_in_headers_that_are_none_do_no_harm(digits):
    """`str.isdigit` holds for a superscript two, which `int` refuses; so does `int` beyond 4,300 digits."""
    headers = (("src_topic", b"market.candles"), ("src_partition", digits.encode()), ("src_offset", b"-1"))
    shown = show(CODEC, Record("features.inbox", 0, 0, None, None, headers, None))
    assert shown["source"] == {"topic": "market.candles", "partition": None, "offset": -1}
    assert output_id(f"decision:{digits}-1:0") is None
