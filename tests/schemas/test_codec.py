"""The codec against the official package, fastavro and the Avro specification."""

from __future__ import annotations

import io
import json
import math
import random
import tracemalloc
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import events
from schemas.codec import Codec, event_class
from schemas.refused import Refused
from schemas.released import fingerprint_of, newest, schema_names
from tests.schemas import judge
from tests.schemas.samples import sample, values
from tests.schemas.test_mutations import plain

NAMES = schema_names()
CODEC = Codec()
TICK = events.Tick(ts_ms=1_700_000_000_000, writer="live")

# Apache Avro, share/test/data/schema-tests.txt: CRC-64-AVRO of the parsing canonical form, as a signed 64-bit number.
OFFICIAL_FINGERPRINTS = {
    "null": 7195948357588979594,
    "boolean": -6970731678124411036,
    "int": 8247732601305521295,
    "long": -3434872931120570953,
    "float": 5583340709985441680,
    "double": -8181574048448539266,
    "bytes": 5746618253357095269,
    "string": -8142146995180207161,
}


def event_of(topic: str, value: dict[str, Any]) -> events.Event:
    return msgspec.convert(value, event_class(judge.schema_json(topic)["name"]))


def refusal(topic: str, data: bytes | None, codec: Codec = CODEC) -> Refused:
    with pytest.raises(Refused) as refused:
        codec.decode(topic, data)
    return refused.value


@pytest.mark.parametrize("topic", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_round_trip_and_both_other_implementations(topic: str, data: st.DataObject) -> None:
    value = data.draw(values(topic))
    event = event_of(topic, value)
    encoded = CODEC.encode(topic, event)
    assert CODEC.decode(topic, encoded) == event
    assert judge.judge(topic, encoded) == value
    assert encoded == judge.write(topic, value)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(judge.schema_json(topic)), value)
    assert encoded[10:] == out.getvalue()


@pytest.mark.parametrize("name", OFFICIAL_FINGERPRINTS)
def test_fingerprints_of_the_specification(name: str) -> None:
    assert fingerprint_of(name) == (OFFICIAL_FINGERPRINTS[name] % 2**64).to_bytes(8, "little")


@pytest.mark.parametrize("topic", NAMES)
def test_records_begin_with_the_mark_that_the_official_package_computes(topic: str) -> None:
    assert CODEC._current[topic].mark == judge.mark(topic)


def test_every_schema_has_its_own_mark_but_the_ledger_and_its_view() -> None:
    by_mark: dict[bytes, set[str]] = {}
    for topic in NAMES:
        by_mark.setdefault(judge.mark(topic), set()).add(topic)
    assert [group for group in by_mark.values() if len(group) > 1] == [{"policy.current", "policy.ledger"}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "NULL_VALUE"),
        (b"", "EMPTY"),
        (b"\x00\x00\x00", "NOT_AVRO"),
        (b"{}", "NOT_AVRO"),
        (b"\xc3\x01", "NOT_AVRO"),
        (b"\xc3\x01" + bytes(8), "UNKNOWN_SCHEMA"),
        (b"\x00" + bytes(4) + b"\x02", "UNKNOWN_SCHEMA"),
        (judge.mark("system.clock"), "UNDECODABLE"),
        (judge.mark("system.clock") + b"\x02\x08live\x00!", "TRAILING_BYTES"),
        (judge.mark("system.clock") + b"\x02\x08\xff\xfe\xfd\xfc", "UNDECODABLE"),
        (judge.mark("system.clock") + b"\x02\x07live", "UNDECODABLE"),  # a length of -4
        (judge.mark("system.clock") + b"\x01\x08live", "OUT_OF_RANGE"),  # a time of -1
        (judge.mark("system.clock") + b"\xff" * 9 + b"\x02\x08live", "UNDECODABLE"),  # 65 bits
    ],
)
def test_refusals_have_their_reason(data: bytes | None, reason: str) -> None:
    refused = refusal("system.clock", data)
    assert refused.reason == reason
    assert refused.detail


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_a_finite_number_is_refused_both_ways(bad: float) -> None:
    value = sample("execution.equity.marked", random.Random(1)) | {"close": bad}
    assert refusal("execution.equity.marked", judge.write("execution.equity.marked", value)).reason == "NOT_FINITE"
    with pytest.raises(Refused, match=r"NOT_FINITE: close is"):
        CODEC.encode("execution.equity.marked", event_of("execution.equity.marked", value))


@pytest.mark.parametrize(("branch", "symbol"), [(b"\x00", b"\x01"), (b"\x00", b"\x08"), (b"\x01", b"\x00")])
def test_branches_and_symbols_that_do_not_exist(branch: bytes, symbol: bytes) -> None:
    head = b"\x02d\x02s\x02b\x02"
    data = judge.mark("decision.outcome") + head + symbol + branch + b"\x00" + b"\x02s" + b"\x00"
    assert refusal("decision.outcome", data).reason == "UNDECODABLE"


@pytest.mark.parametrize("count", [b"\x80" * 5 + b"\x40", b"\xff" * 9 + b"\x01", b"\xfe" * 9 + b"\x01"])
def test_counts_and_lengths_that_cannot_be_true_allocate_nothing(count: bytes) -> None:
    """2^41, -2^63 and 2^63 - 1 or so, as the length of a text and as the count of an array."""
    signals = sample("rl.meta.strategy_selected", random.Random(1)) | {"signals": [1, 2, 3, 4, 5]}
    whole = judge.write("rl.meta.strategy_selected", signals)
    assert whole.count(b"\x0a\x02\x04\x06\x08\x0a\x00") == 1
    array = whole.replace(b"\x0a\x02\x04\x06\x08\x0a\x00", count + b"\x02\x04\x06\x08\x0a\x00")
    text = judge.mark("system.clock") + b"\x02" + count + b"live"
    tracemalloc.start()
    assert refusal("rl.meta.strategy_selected", array).reason == "UNDECODABLE"
    assert refusal("system.clock", text).reason == "UNDECODABLE"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_arrays_in_several_blocks_and_sized_blocks_are_read() -> None:
    mark = judge.mark("rl.meta.strategy_selected")
    event = event_of("rl.meta.strategy_selected", {
        "decision_id": "d", "symbol": "S", "book_id": "b", "decider": "q", "ts_ms": 0, "interval_ms": 1000,
        "next_ts_ms": 0, "action": "neutral", "greedy_action": "neutral", "baseline_action": "neutral",
        "propensity": 1.0, "forced": True, "regime": "bull", "volatility": 0.0, "close": 1.0, "atr_pct": 0.0,
        "signals": [1, -1, 0], "size_multiplier": 1.0, "source": "s", "origin": "CLAIMED",
    })
    usual = CODEC.encode("rl.meta.strategy_selected", event)
    assert usual.count(b"\x06\x02\x01\x00\x00") == 1
    blocks = usual.replace(b"\x06\x02\x01\x00\x00", b"\x02\x02" + b"\x03\x04\x01\x00" + b"\x00")
    assert blocks[:10] == mark
    assert CODEC.decode("rl.meta.strategy_selected", blocks) == event
    assert judge.judge("rl.meta.strategy_selected", blocks)["signals"] == [1, -1, 0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ts_ms": 1.5}, "INVALID: ts_ms"),
        ({"ts_ms": True}, "INVALID: ts_ms"),
        ({"ts_ms": -1}, "OUT_OF_RANGE: ts_ms is -1; allowed is >= 0 and <= 4102444800000"),
        ({"ts_ms": None}, "INVALID: ts_ms"),
        ({"writer": 3}, "INVALID: writer"),
        ({"writer": ""}, "OUT_OF_RANGE: writer has 0 characters"),
        ({"writer": "\ud800"}, "INVALID: writer"),
    ],
)
def test_events_of_the_wrong_type_or_range_are_not_written(change: dict[str, Any], text: str) -> None:
    with pytest.raises(Refused) as refused:
        CODEC.encode("system.clock", msgspec.structs.replace(TICK, **change))
    assert str(refused.value).startswith(text)


def test_an_event_of_another_topic_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match=r"market\.candles carries Candle, not Tick"):
        CODEC.encode("market.candles", TICK)


def test_confluent_framing_is_written_and_read() -> None:
    codec = Codec(registry={7: judge.schema_json("system.clock")})
    data = codec.encode("system.clock", TICK, schema_id=7)
    assert data[:5] == b"\x00\x00\x00\x00\x07"
    assert codec.decode("system.clock", data) == TICK
    assert data[5:] == CODEC.encode("system.clock", TICK)[10:]
    assert refusal("system.clock", data).reason == "UNKNOWN_SCHEMA"


def test_a_registered_writer_with_other_fields_and_logical_types_is_resolved() -> None:
    writer = {"type": "record", "name": "Tick", "namespace": "quantum.streams", "fields": [
        {"name": "note", "type": ["null", "string", {"type": "map", "values": "float"}]},
        {"name": "ts_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "writer", "type": {"type": "string", "avro.java.string": "String"}}]}
    codec = Codec(registry={1: json.dumps(writer)})
    assert codec.decode("system.clock", bytes(5)[:4] + b"\x01" + b"\x00" + b"\x0a" + b"\x08live") == \
        events.Tick(ts_ms=5, writer="live")
    late = refusal("system.clock", bytes(4) + b"\x01" + b"\x00" + b"\x01" + b"\x08live", codec)
    assert (late.reason, late.detail[:5]) == ("OUT_OF_RANGE", "ts_ms")


def test_a_registered_writer_that_cannot_be_resolved_is_refused() -> None:
    writer = {"type": "record", "name": "Tick", "namespace": "quantum.streams",
              "fields": [{"name": "ts_ms", "type": "long"}]}
    codec = Codec(registry={1: writer})
    assert refusal("system.clock", bytes(4) + b"\x01\x02", codec).reason == "UNRESOLVABLE"


def test_name_of_tells_the_schema_without_a_topic() -> None:
    assert CODEC.name_of(CODEC.encode("system.clock", TICK)) == "system.clock"
    assert CODEC.name_of(judge.mark("policy.ledger")) == "policy.current"
    for data in (None, b"", b"\xc3\x01", b"\xc3\x01" + bytes(8)):
        with pytest.raises(Refused):
            CODEC.name_of(data)


class Inner(msgspec.Struct, frozen=True):
    n: int
    names: tuple[str, ...] = ()


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    count: int
    mean: float
    on: bool
    raw: bytes
    window: tuple[float, ...] = ()
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()


@given(st.builds(
    Kept, count=st.integers(-(2**63), 2**63 - 1), mean=st.floats(allow_nan=False), on=st.booleans(), raw=st.binary(),
    window=st.lists(st.floats(allow_nan=False)).map(tuple),
    inner=st.none() | st.builds(Inner, n=st.integers(0, 9), names=st.lists(st.text()).map(tuple)),
    inners=st.lists(st.builds(Inner, n=st.integers(-9, 9), names=st.just(("x",)))).map(tuple),
))
def test_states_round_trip_and_fastavro_reads_them(state: Kept) -> None:
    from schemas.structs import avro_schema_of, avro_text_of

    data = CODEC.encode_state(state)
    assert CODEC.decode_state(Kept, data) == state
    schema = fastavro.parse_schema(json.loads(avro_text_of(Kept)))
    assert fastavro.schemaless_reader(io.BytesIO(data), schema, None) == plain(state)
    assert json.loads(avro_text_of(Kept)) == avro_schema_of(Kept)


def test_state_of_the_wrong_type_or_length_is_refused() -> None:
    state = Kept(count=1, mean=1.0, on=True, raw=b"")
    with pytest.raises(Refused, match="INVALID: count"):
        CODEC.encode_state(msgspec.structs.replace(state, count=1.5))
    data = CODEC.encode_state(state)
    for bad in (data[:-1], data + b"\x00"):
        with pytest.raises(Refused):
            CODEC.decode_state(Kept, bad)


def test_all_limits_of_the_schemas_are_compiled() -> None:
    """A bound on each number and text of each schema: just outside is refused, so no attribute goes unheeded."""
    for topic in NAMES:
        for field in newest(topic)["fields"]:
            branches = field["type"] if isinstance(field["type"], list) else [field["type"]]
            for key, step in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", 0)):
                if key in field and {"double", "long", "int"} & {b for b in branches if isinstance(b, str)}:
                    bad = type(1.0 if "double" in branches else 1)(field[key] + step)
                    write = CODEC._current[topic].write
                    with pytest.raises(Exception, match="allowed is"):
                        write(bytearray(), _With(topic, field["name"], bad))


class _With:
    """A valid event of a topic with one field replaced."""

    def __init__(self, topic: str, name: str, value: Any) -> None:
        event = event_of(topic, sample(topic, random.Random(topic)))
        self.__dict__.update({n: getattr(event, n) for n in event.__struct_fields__})
        self.__dict__[name] = value
