"""`quantum decode` as a process: bytes in, JSON lines and an exit code out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from schemas.codec import Codec
from schemas.events import Fence, PartitionHead, ScopeState, Tick

CODEC = Codec()
TICK = Tick(ts_ms=5, writer="é")
STATE = ScopeState(agent="a", scope="S", format_version=1, input_offset=3, anchor_offset=-1, state=b"\x00\xff")


def framed(*records: bytes | None) -> bytes:
    """What kcat -f '%R%s' writes."""
    return b"".join(
        b"\xff\xff\xff\xff" if r is None else len(r).to_bytes(4, "big") + r for r in records
    )


def decode(data: bytes, *args: str) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "decode", *args], input=data, capture_output=True, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.decode().splitlines()], done.stderr.decode()


def test_records_of_several_topics_become_lines() -> None:
    head = PartitionHead(
        agent="a", format_version=1, input_topic="t", input_partition=0, input_offset=1, digest="d",
        fences=(Fence(topic="t", partition=0, owner="o", offset=1),), seen=(), sticky=(), applied=1, repeated=0,
        refused=0, emitted=0, root_offset=-1,
    )
    code, lines, err = decode(framed(
        CODEC.encode("system.clock", TICK), CODEC.encode("state.scope", STATE), CODEC.encode("state.head", head)))
    assert (code, err) == (0, "")
    assert lines[0] == {"type": "Tick", "ts_ms": 5, "writer": "é", "symbol": None}
    assert (lines[1]["type"], lines[1]["state"]) == ("ScopeState", "AP8=")
    assert lines[2]["fences"] == [{"topic": "t", "partition": 0, "owner": "o", "offset": 1, "topic_id": None}]


def test_one_record_alone_and_the_flag_json() -> None:
    assert decode(CODEC.encode("system.clock", TICK), "--format", "single", "--json")[:2] == (
        0, [{"type": "Tick", "ts_ms": 5, "writer": "é", "symbol": None}])


def test_nothing_in_nothing_out() -> None:
    assert decode(b"") == (0, [], "")


def test_what_cannot_be_decoded_is_told_and_the_rest_goes_on() -> None:
    good = CODEC.encode("system.clock", TICK)
    code, lines, err = decode(framed(None, b"", b"junk", good[:-1], good, good + b"!"))
    assert code == 1
    assert [line.get("error", line.get("type")) for line in lines] == [
        "NULL_VALUE", "EMPTY", "NOT_AVRO", "UNDECODABLE", "Tick", "TRAILING_BYTES"]
    assert lines[2]["begins"] == b"junk".hex()
    assert "5 records" in err


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x00\x00\x09abc", b"\xc3\x01\x00\x00abcdefgh"])
def test_input_that_is_cut_or_of_another_layout(data: bytes) -> None:
    code, lines, _ = decode(data)
    assert code == 1
    assert lines[-1]["error"] == "CUT"


def test_a_topic_binds_the_schema() -> None:
    data = framed(CODEC.encode("system.clock", TICK))
    assert decode(data, "--topic", "system.clock")[0] == 0
    code, lines, _ = decode(data, "--topic", "market.candles")
    assert (code, lines[0]["error"]) == (1, "UNKNOWN_SCHEMA")


@pytest.mark.parametrize("topic", ["nothing", "clm.predictions", "features.changelog"])
def test_a_topic_without_an_event_is_wrong_usage(topic: str) -> None:
    code, lines, err = decode(b"", "--topic", topic)
    assert (code, lines) == (2, [])
    assert "has no event" in err
