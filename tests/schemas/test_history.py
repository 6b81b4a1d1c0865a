"""Releases: what may change, what may not, and that older writers are read."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import pytest

from schemas import codec as codec_module
from schemas import generate
from schemas.codec import Codec
from schemas.compatibility import problems
from schemas.events import Tick
from schemas.released import fingerprint_of, history_texts, schema_names, schema_text
from tests.schemas import judge
from tests.schemas.samples import sample

MODE = {"type": "enum", "name": "Mode", "symbols": ["A", "B", "C"]}


def record(*fields: dict[str, Any]) -> str:
    return json.dumps({"type": "record", "name": "R", "namespace": "n", "doc": "R", "fields": [
        {"name": "id", "type": "string", "doc": "Id."}, *fields]})


def field(name: str, avro_type: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": avro_type, "doc": "Doc.", **more}


COUNT = field("count", "int", minimum=0, maximum=10)

ALLOWED = [
    ("a field with a default is added", [record()], record(field("x", ["null", "long"], default=None))),
    ("a field is removed", [record(COUNT)], record()),
    ("a range is widened", [record(COUNT)], record(field("count", "int", minimum=-1))),
    ("an int becomes a long", [record(COUNT)], record(field("count", "long", minimum=0))),
    ("a symbol is added", [record(field("m", MODE))], record(field("m", MODE | {"symbols": ["A", "B", "C", "D"]}))),
    ("a doc changes", [record(COUNT)], record(COUNT | {"doc": "Other."})),
]
REFUSED = [
    ("a field without a default is added", [record()], record(field("x", "long"))),
    ("a default is removed that an older release needs",
     [record(), record(field("x", "long", default=0))], record(field("x", "long"))),
    ("a type changes", [record(COUNT)], record(field("count", "string"))),
    ("a type narrows", [record(field("n", "long"))], record(field("n", "int"))),
    ("null is no longer taken", [record(field("n", ["null", "long"]))], record(field("n", "long"))),
    ("a symbol is removed", [record(field("m", MODE))], record(field("m", MODE | {"symbols": ["A", "B"]}))),
    ("a range is narrowed", [record(COUNT)], record(field("count", "int", minimum=1, maximum=10))),
    ("a range appears", [record(field("n", "double"))], record(field("n", "double", maximum=1))),
    ("a text becomes shorter", [record(field("t", "string", maxLength=9))], record(field("t", "string", maxLength=8))),
    ("an item's range is narrowed inside of an array",
     [record(field("a", {"type": "array", "items": "long"}))],
     record(field("a", {"type": "array", "items": "long"}, minimum=0))),
    ("only the oldest of two releases is broken",
     [record(COUNT), record()], record(field("count", "string", default=""))),
]


@pytest.mark.parametrize(("what", "older", "newest"), ALLOWED, ids=[c[0] for c in ALLOWED])
def test_compatible_changes_pass(what: str, older: list[str], newest: str) -> None:
    assert problems(newest, older) == []


@pytest.mark.parametrize(("what", "older", "newest"), REFUSED, ids=[c[0] for c in REFUSED])
def test_incompatible_changes_are_refused(what: str, older: list[str], newest: str) -> None:
    found = problems(newest, older)
    assert found
    assert all(problem.startswith("release 000") for problem in found)


@pytest.mark.parametrize("topic", schema_names())
def test_the_newest_release_is_the_schema_as_it_stands(topic: str) -> None:
    assert history_texts(topic)[-1:] == [schema_text(topic)], "run python -m schemas.generate --release"


@pytest.mark.parametrize("topic", schema_names())
def test_every_release_reads_all_before_it(topic: str) -> None:
    texts = history_texts(topic)
    for number, text in enumerate(texts):
        assert problems(text, texts[:number]) == []


@pytest.mark.parametrize("topic", schema_names())
def test_records_of_every_release_are_read_as_the_official_package_resolves_them(topic: str) -> None:
    codec, rng = Codec(), random.Random(topic)
    reader = avro.schema.parse(schema_text(topic))
    for text in history_texts(topic):
        writer = avro.schema.parse(text)
        data = judge.write(topic, sample(topic, rng)) if text == schema_text(topic) else _written(text, rng)
        expected = avro.io.DatumReader(writer, reader).read(avro.io.BinaryDecoder(io.BytesIO(data[10:])))
        event = codec.decode(topic, data)
        assert judge.judge(topic, codec.encode(topic, event)) == expected


def _written(text: str, rng: random.Random) -> bytes:
    from tests.schemas.samples import _sample

    schema, out = json.loads(text), io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(text)).write(_sample(schema, {}, {}, rng), avro.io.BinaryEncoder(out))
    return b"\xc3\x01" + fingerprint_of(schema) + out.getvalue()


def test_an_older_writer_is_found_by_fingerprint_and_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    old = json.loads(schema_text("system.clock"))
    old["fields"] = [field("gone", "double"), {"name": "ts_ms", "type": "int"}, *old["fields"][1:2]]
    mark = b"\xc3\x01" + fingerprint_of(old)
    data = mark + bytes(8) + b"\x0a" + b"\x08live"
    assert _reason(Codec(), data) == "UNKNOWN_SCHEMA"
    monkeypatch.setattr(codec_module, "history_texts",
                        lambda topic: [json.dumps(old)] if topic == "system.clock" else [])
    codec = Codec()
    assert codec.decode("system.clock", data) == Tick(ts_ms=5, writer="live")
    assert codec.name_of(data) == "system.clock"
    assert _reason(codec, mark + bytes(8) + b"\x01" + b"\x08live") == "OUT_OF_RANGE"
    assert _reason(codec, data + b"\x00") == "TRAILING_BYTES"
    assert _reason(codec, data[:-1]) == "UNDECODABLE"


def _reason(codec: Codec, data: bytes) -> str:
    from schemas.refused import Refused

    with pytest.raises(Refused) as refused:
        codec.decode("system.clock", data)
    return refused.value.reason


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of nothing: one schema, no history."""
    (tmp_path / "avsc").mkdir()
    (tmp_path / "avsc" / "t.avsc").write_text(record(COUNT))
    monkeypatch.setattr(generate, "AVSC", tmp_path / "avsc")
    monkeypatch.setattr(generate, "HISTORY", tmp_path / "history")
    monkeypatch.setattr(generate, "TARGET", tmp_path / "events.py")
    return tmp_path


def test_release_appends_only_what_changed_and_only_if_all_is_compatible(place: Path) -> None:
    assert generate.main(["--release"]) == 0
    assert generate.main(["--release"]) == 0
    assert [p.name for p in (place / "history" / "t").iterdir()] == ["0001.avsc"]
    assert generate.main(["--check"]) == 0
    (place / "avsc" / "t.avsc").write_text(record())
    assert generate.main(["--check"]) == 1
    assert generate.main(["--release"]) == 0
    assert (place / "history" / "t" / "0002.avsc").read_text() == record()
    (place / "avsc" / "t.avsc").write_text(record(field("x", "long")))
    assert generate.main(["--release"]) == 1
    assert len(list((place / "history" / "t").iterdir())) == 2


def test_a_schema_that_is_generated_otherwise_is_drift(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate.main(["--release"])
    (place / "events.py").write_text("# edited\n")
    assert generate.main(["--check"]) == 1
    assert "events.py differs" in capsys.readouterr().err


def test_an_attribute_that_nothing_enforces_is_refused(place: Path) -> None:
    (place / "avsc" / "t.avsc").write_text(record(field("x", "long", exclusiveMaximum=3)))
    with pytest.raises(ValueError, match="exclusiveMaximum"):
        generate.source()


def test_one_name_with_two_definitions_is_refused(place: Path) -> None:
    (place / "avsc" / "u.avsc").write_text(record())
    with pytest.raises(ValueError, match="R is defined in two ways"):
        generate.source()


def test_generated_events_are_up_to_date() -> None:
    assert generate.TARGET.read_text() == generate.source()
