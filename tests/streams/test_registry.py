"""The schema registry: subjects against the catalogue, and records in Confluent framing, by a stub and by Apicurio."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
import yaml
from click.testing import CliRunner
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from schemas.catalogue import TOPICS
from schemas.codec import Codec
from schemas.events import Candle, Event
from schemas.refused import Refused
from schemas.released import schema_text
from streams import subjects, topics
from streams.broker.node import free_port
from streams.cli import doctor
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.cli.tail import command as tail
from streams.cli.topics import command
from streams.records import encode_event
from streams.registry import Registry
from streams.registry_errors import RegistryRefused, RegistryUnreachable
from streams.settings import LOOPBACK, Settings, SettingsError
from streams.subjects import LEVEL, codec_for, event_topics, subject_of
from streams.worker import run_agents
from tests.streams.counting import CountingFeatures, candle
from tests.streams.hosting import CODEC, FEATURES, count, in_loop, read, send, until
from tests.streams.registries import LOGIN, Stub, apicurio, stubbed

TRADES = "execution.trade.closed"
T0 = 1_600_000_000_000
EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"


@pytest.fixture
def stub() -> Iterator[Stub]:
    with stubbed() as server:
        yield server


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an Apicurio Registry."""
    with apicurio(tmp_path_factory.mktemp("apicurio") / "log") as url:
        yield url


@pytest.fixture(params=["stub", pytest.param("real", marks=pytest.mark.registry)])
def settings(request: pytest.FixtureRequest) -> Settings:
    """Settings with a registry, and a topic prefix of the test's own in it."""
    url = request.getfixturevalue(request.param)
    return Settings(registry=url if isinstance(url, str) else url.url, topic_prefix=f"p{free_port()}.")


def _older(topic: str) -> str:
    """A schema as a writer may have it who left out what ours has defaults for."""
    schema = json.loads(schema_text(topic))
    schema["fields"] = [field for field in schema["fields"] if "default" not in field]
    assert len(schema["fields"]) < len(json.loads(schema_text(topic))["fields"])
    return json.dumps(schema)


def _example(topic: str) -> Event:
    event_type = next(type_ for type_ in Event.__subclasses__() if type_.__name__ == TOPICS[topic].event)
    return msgspec.convert(json.loads((EXAMPLES / f"{topic}.json").read_text()), event_type)


def _reason(codec: Codec, topic: str, data: bytes) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        codec.decode(topic, data)
    return refused.value.reason, refused.value.detail


def test_apply_registers_every_topic_with_an_event_and_check_then_finds_nothing(settings: Settings) -> None:
    differences = subjects.check(settings)
    assert {(d.topic, d.setting) for d in differences} == {
        (t.name, setting) for t in event_topics() for setting in ("schema", "compatibility")}
    changes = subjects.apply(settings)
    assert {c.action for c in changes} == {"created", "altered"}
    assert len(changes) == len(differences)
    assert subjects.check(settings) == subjects.apply(settings) == []
    registry = Registry(settings)
    for topic in event_topics():
        (version,) = registry.versions(subject_of(settings, topic.name))
        assert json.loads(version.text)["name"] == topic.event
        assert registry.compatibility(subject_of(settings, topic.name)) == LEVEL


@pytest.mark.registry
def test_a_schema_that_does_not_read_what_is_there_is_left(real: str) -> None:
    settings = Settings(registry=real, topic_prefix="narrow.")
    registry, subject = Registry(settings), subject_of(settings, TRADES)
    schema = json.loads(schema_text(TRADES))
    schema["fields"][0]["type"] = "double" if schema["fields"][0]["type"] != "double" else "string"
    registry.register(subject, json.dumps(schema))
    registry.set_compatibility(subject, LEVEL)
    difference = next(d for d in subjects.check(settings) if d.topic == TRADES)
    assert (difference.setting, difference.found) == ("schema", "only others")
    left = [c for c in subjects.apply(settings) if c.action == "left"]
    assert [(c.topic, c.setting) for c in left] == [(TRADES, "schema")]
    assert "409" in left[0].reason


def test_another_level_is_set_right_and_other_versions_are_let_be(settings: Settings) -> None:
    subjects.apply(settings)
    registry, subject = Registry(settings), subject_of(settings, TRADES)
    registry.set_compatibility(subject, "NONE")
    registry.register(subject, _older(TRADES))
    (difference,) = subjects.check(settings)
    assert (difference.topic, difference.setting, difference.found) == (TRADES, "compatibility", "NONE")
    (change,) = subjects.apply(settings)
    assert (change.action, change.before, change.after) == ("altered", "NONE", LEVEL)
    assert len(registry.versions(subject)) == 2


def test_confluents_own_client_reads_what_we_write_in_confluent_framing(settings: Settings) -> None:
    subjects.apply(settings)
    (version,) = Registry(settings).versions(subject_of(settings, TRADES))
    event = _example(TRADES)
    with SchemaRegistryClient({"url": settings.registry}) as client:
        theirs = AvroDeserializer(client)(CODEC.encode(TRADES, event, version.schema_id),
                                          SerializationContext(settings.topic(TRADES), MessageField.VALUE))
    assert theirs == msgspec.to_builtins(event)
    assert codec_for(settings).decode(TRADES, CODEC.encode(TRADES, event, version.schema_id)) == event


@pytest.mark.parametrize("older", [False, True])
def test_what_confluents_own_serialiser_writes_is_read(settings: Settings, older: bool) -> None:
    """A producer that registers nothing, and finds its id by its schema; or one with a schema that lacks fields."""
    subjects.apply(settings)
    event, text = _example(TRADES), schema_text(TRADES)
    if older:
        text = _older(TRADES)
        Registry(settings).register(subject_of(settings, TRADES), text)
    fields = {field["name"] for field in json.loads(text)["fields"]}
    wanted = msgspec.convert({k: v for k, v in msgspec.to_builtins(event).items() if k in fields}, type(event))
    with SchemaRegistryClient({"url": settings.registry}) as client:
        write = AvroSerializer(client, text, conf={"auto.register.schemas": False})
        data = write({k: v for k, v in msgspec.to_builtins(wanted).items() if k in fields},
                     SerializationContext(settings.topic(TRADES), MessageField.VALUE))
    assert data[:1] == b"\x00"
    assert codec_for(settings).decode(TRADES, data) == wanted


def test_schemas_of_other_subjects_are_read_where_their_ids_are_named(settings: Settings) -> None:
    subjects.apply(settings)
    event = candle("AUSDT", T0)
    theirs = json.loads(schema_text("market.candles"))
    theirs["fields"].append({"name": "note", "type": "string"})
    schema_id = Registry(settings).register(f"{settings.topic_prefix}Candle", json.dumps(theirs))
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(theirs), msgspec.to_builtins(event) | {"note": "theirs"})
    body = b"\x00" + schema_id.to_bytes(4, "big") + written.getvalue()
    reason, detail = _reason(codec_for(settings), "market.candles", body)
    assert reason == "UNKNOWN_SCHEMA"
    assert f"QUANTUM_REGISTRY_IDS={schema_id} " in detail
    assert "quantum dlq redrive market.candles --reason UNKNOWN_SCHEMA" in detail
    named = settings.replace(registry_ids=f"{schema_id},{schema_id}")
    assert codec_for(named).decode("market.candles", body) == event
    with pytest.raises(RegistryRefused, match="registry_ids names 999999"):
        codec_for(settings.replace(registry_ids="999999"))


@pytest.mark.registry
@pytest.mark.topics
def test_the_registry_of_the_compose_file_keeps_its_ids_in_kafka(prefix: Settings, tmp_path: Path) -> None:
    compose = yaml.safe_load((EXAMPLES.parents[1] / "docker-compose.kafka.yml").read_text())
    environment = compose["services"]["registry"]["environment"] | {
        "APICURIO_KAFKASQL_BOOTSTRAP_SERVERS": prefix.broker, "APICURIO_KAFKASQL_TOPIC": prefix.topic("journal"),
        "APICURIO_KAFKASQL_SNAPSHOTS_TOPIC": prefix.topic("snapshots"),
        "APICURIO_EVENTS_KAFKA_TOPIC": prefix.topic("events")}
    with apicurio(tmp_path / "first", **environment) as url:
        registry = Registry(Settings(registry=url))
        ids = [registry.register(name, schema_text(name)) for name in ("market.candles", TRADES)]
    with apicurio(tmp_path / "second", **environment) as url:
        registry = Registry(Settings(registry=url))
        assert [registry.versions(name)[0].schema_id for name in ("market.candles", TRADES)] == ids
    _, there = topics.connect(prefix)
    assert not [name for name in there if name.startswith(("kafkasql", "registry"))]  # the fixture takes ours away


def test_what_is_no_avro_or_of_another_event_stops_nothing(stub: Stub) -> None:
    settings = Settings(registry=stub.url)
    subjects.apply(settings)
    registry, subject = Registry(settings), subject_of(settings, TRADES)
    protobuf = registry.register(subject, '{"syntax": "proto3"}')
    stub.kinds[protobuf] = "PROTOBUF"
    odd = registry.register(subject, '{"type": "record", "name": "T", "fields": [{"name": "x", "type": "unheard of"}]}')
    other = registry.register(subject, schema_text("market.candles"))
    codec = codec_for(settings)
    frame = [CODEC.encode("market.candles", candle("AUSDT", T0), schema_id) for schema_id in (protobuf, odd, other)]
    assert [_reason(codec, TRADES, data)[0] for data in frame] == ["UNKNOWN_SCHEMA", "UNRESOLVABLE", "UNRESOLVABLE"]
    with pytest.raises(RegistryRefused, match="no Avro schema"):
        codec_for(settings.replace(registry_ids=str(protobuf)))


def test_without_a_registry_nothing_is_asked_and_the_letter_says_so() -> None:
    settings = Settings()
    assert subjects.check(settings) == subjects.apply(settings) == []
    reason, detail = _reason(codec_for(settings), TRADES, b"\x00\x00\x00\x00\x07abc")
    assert reason == "UNKNOWN_SCHEMA"
    assert "schema 7" in detail
    assert "QUANTUM_REGISTRY" in detail


def test_only_apply_writes(stub: Stub) -> None:
    settings = Settings(registry=stub.url)
    subjects.check(settings)
    codec_for(settings)
    assert {method for method, _ in stub.asked} == {"GET"}
    subjects.apply(settings)
    stub.asked.clear()
    subjects.check(settings)
    codec_for(settings)
    assert {path for method, path in stub.asked if method != "GET"} == {
        f"/subjects/{subject_of(settings, t.name)}" for t in event_topics()}  # asked whether that schema is there


def test_a_login_is_sent_and_shown_nowhere(stub: Stub, monkeypatch: pytest.MonkeyPatch,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    stub.login = LOGIN
    user, password = LOGIN
    settings = Settings(registry=stub.url, registry_username=user, registry_password=password)
    assert Registry(settings).subjects() == []
    assert password not in repr(settings)
    wrong = settings.replace(registry_password="other")
    with pytest.raises(RegistryRefused, match="401 who is there"):
        subjects.check(wrong)
    monkeypatch.setenv("QUANTUM_REGISTRY", stub.url)
    monkeypatch.setenv("QUANTUM_REGISTRY_USERNAME", user)
    monkeypatch.setenv("QUANTUM_REGISTRY_PASSWORD", password)
    assert main(["doctor", "--config"]) == Exit.GOOD
    shown = capsys.readouterr().out
    assert user in shown
    assert password not in shown
    monkeypatch.setenv("QUANTUM_REGISTRY_PASSWORD", "other")
    assert next(f for f in doctor.examine(Settings.load()) if f.check == "registry").code == Exit.UNREACHABLE


def test_who_does_not_answer_or_is_none_is_named(stub: Stub) -> None:
    away = f"http://{LOOPBACK}:{free_port()}"
    with pytest.raises(RegistryUnreachable, match=f"{away}: .*refused.*QUANTUM_REGISTRY"):
        codec_for(Settings(registry=away))
    stub.garbled = True
    with pytest.raises(RegistryRefused, match="answers no JSON"):
        codec_for(Settings(registry=stub.url))
    stub.garbled = False
    with pytest.raises(RegistryRefused, match="404"):
        codec_for(Settings(registry=f"{stub.url}/apis"))


@pytest.mark.parametrize(("values", "said"), [
    ({"registry": "localhost:8081"}, "must be http"), ({"registry": "file:///etc/passwd"}, "must be http"),
    ({"registry": "http://ada:sesame@localhost"}, "no login"), ({"registry": "http://a?b=c"}, "must be http"),
    ({"registry": "http://a", "registry_username": "ada"}, "go together"), ({"registry_ids": "7"}, "registry is not"),
    ({"registry_username": "ada", "registry_password": "x"}, "registry is not"),
    ({"framing": "confluent"}, "registry is not"), ({"registry": "http://a", "framing": "avro"}, "framing"),
    ({"registry": "http://a", "registry_ids": "7,x"}, "registry_ids"),
])
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, Any], said: str, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=said) as refused:
        Settings.load(**values)
    assert "sesame" not in str(refused.value)


@pytest.mark.topics("market.candles")
def test_commands_hold_the_registry_against_the_catalogue(prefix: Settings, stub: Stub,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.topics.built_topics", lambda: [TOPICS["market.candles"]])
    monkeypatch.setattr("streams.subjects.built_topics", lambda: [TOPICS["market.candles"]])
    for name in ("broker", "topic_prefix", "app_id"):
        monkeypatch.setenv(f"QUANTUM_{name.upper()}", getattr(prefix, name))
    monkeypatch.setenv("QUANTUM_REGISTRY", stub.url)
    runner = CliRunner()
    checked = runner.invoke(command, ["check", "--json"])
    assert checked.exit_code == Exit.TOPICS_DIFFER
    assert [d["setting"] for d in json.loads(checked.stdout)["differences"]] == ["schema", "compatibility"]
    finding = next(f for f in doctor.examine(Settings.load()) if f.check == "registry")
    assert (finding.state, finding.fix) == (doctor.PROBLEM, "quantum topics apply")
    stub.refuses.add(subject_of(prefix, "market.candles"))
    refused = runner.invoke(command, ["apply", "--json"])
    assert refused.exit_code == Exit.TOPICS_DIFFER
    assert "does not read" in json.loads(refused.stdout)["changes"][0]["reason"]
    stub.refuses.clear()
    assert runner.invoke(command, ["apply"]).exit_code == Exit.GOOD
    assert "subjects at" in runner.invoke(command, ["check"]).stdout
    assert next(f for f in doctor.examine(Settings.load()) if f.check == "registry").state == doctor.GOOD
    monkeypatch.setenv("QUANTUM_REGISTRY", f"http://{LOOPBACK}:{free_port()}")
    assert main(["topics", "check"]) == Exit.UNREACHABLE
    assert main(["worker", "--agents", "features"]) == Exit.UNREACHABLE
    assert main(["tail", "market.candles", "-e"]) == Exit.UNREACHABLE
    assert next(f for f in doctor.examine(Settings.load()) if f.check == "registry").code == Exit.UNREACHABLE


@pytest.mark.topics(*FEATURES)
@in_loop
async def test_a_worker_takes_records_in_confluent_framing(prefix: Settings, stub: Stub,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    settings = prefix.replace(registry=stub.url)
    subjects.apply(settings)
    (version,) = Registry(settings).versions(subject_of(settings, "market.candles"))
    events: list[Candle] = [candle("AUSDT", T0 + 60_000 * n) for n in range(3)]
    good = [CODEC.encode("market.candles", event, version.schema_id) for event in events[:2]]
    good.append(encode_event(CODEC, "market.candles", events[2], "", "x").value or b"")
    unknown = CODEC.encode("market.candles", events[0], 4711)
    send(settings, (("market.candles", b"AUSDT", value, ()) for value in [*good, unknown]), partition=1)
    async with run_agents(settings, {"features": CountingFeatures()}) as worker:
        await until(lambda: count(settings, "market.candles.dlq") >= 1, "the dead letter")
        await until(lambda: count(settings, "market.regime.changed") >= 3, "the good ones")
        assert not worker.failed
    (letter,) = read(settings, "market.candles.dlq")
    headers = dict(letter.headers)
    assert letter.value == unknown
    assert headers["__streams.errors.reason"] == b"UNKNOWN_SCHEMA"
    assert b"QUANTUM_REGISTRY_IDS=4711" in headers["__streams.errors.detail"]
    written = [record.value or b"" for record in read(settings, "market.regime.changed")]
    assert all(value[:2] == b"\xc3\x01" for value in written)  # ours stay as they were
    for name in ("broker", "topic_prefix", "app_id", "registry"):
        monkeypatch.setenv(f"QUANTUM_{name.upper()}", str(getattr(settings, name)))
    shown = CliRunner().invoke(tail, ["market.candles", "-e", "--json"])
    assert [("ts_ms" in line) for line in shown.stdout.splitlines()].count(True) >= 3
