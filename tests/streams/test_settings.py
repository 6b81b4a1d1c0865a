"""Settings: who wins, what is refused, and that no secret is ever part of a text."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from pydantic import ValidationError

from schemas.catalogue import built_topics
from streams.cli.options import settings_options
from streams.settings import Settings, SettingsError, state_path

SECRET = "hunter2-Zx9!"
SASL = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "ada"}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTUM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("QUANTUM_CACHE_DIR", raising=False)


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().app_id == "quantum"
    (tmp_path / "quantum.toml").write_text('app_id = "file"\nseed = 3\n')
    assert (Settings.load().app_id, Settings.load().seed) == ("file", 3)
    monkeypatch.setenv("QUANTUM_APP_ID", "environment")
    assert (Settings.load().app_id, Settings.load().seed) == ("environment", 3)
    assert Settings.load(app_id="flag", seed=None).app_id == "flag"


def test_the_file_may_be_named_by_flag_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(f'app_id = "{name}"\n')
    monkeypatch.setenv("QUANTUM_CONFIG", str(tmp_path / "a.toml"))
    assert Settings.load().app_id == "a"
    assert Settings.load(config=tmp_path / "b.toml").app_id == "b"
    with pytest.raises(SettingsError, match="is not there"):
        Settings.load(config=tmp_path / "c.toml")


def test_unknown_keys_are_refused_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="sasl_pasword"):
        Settings.load(sasl_pasword="x")
    (tmp_path / "quantum.toml").write_text('sasl_pasword = "x"\n')
    with pytest.raises(SettingsError, match=r"quantum\.toml: unknown key sasl_pasword"):
        Settings.load()
    (tmp_path / "quantum.toml").unlink()
    monkeypatch.setenv("QUANTUM_SASL_PASWORD", "x")
    with pytest.raises(SettingsError, match="QUANTUM_SASL_PASWORD"):
        Settings.load()


@pytest.mark.parametrize("address", ["host", "host:0", "host:70000", "http://h:1", "u:p@h:1", "h:1,,h:2"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="broker"):
        Settings.load(broker=address)


def test_several_addresses_and_ipv6_are_taken() -> None:
    assert Settings.load(broker="a:9092,[::1]:9093").client()["bootstrap.servers"] == "a:9092,[::1]:9093"


def test_the_broker_is_by_default_the_embedded_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().broker == "127.0.0.1:19092"
    state = state_path(tmp_path / "data")
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"address": "127.0.0.1:20001"}))
    assert Settings.load().broker == "127.0.0.1:20001"
    monkeypatch.setenv("QUANTUM_BROKER", "elsewhere:9092")
    assert Settings.load().broker == "elsewhere:9092"
    state.write_text("{torn")
    monkeypatch.delenv("QUANTUM_BROKER")
    assert Settings.load().broker == "127.0.0.1:19092"


@pytest.mark.parametrize("flags", [
    {"security_protocol": "SASL_SSL"},
    {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "ada", "sasl_password": SECRET},
    {"sasl_mechanism": "PLAIN", "sasl_username": "ada", "sasl_password": SECRET},
    {"ssl_ca_location": "ca.pem"},
    {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "a", "sasl_password": SECRET,
     "ssl_ca_location": "ca.pem"},
])
def test_half_a_login_is_refused(flags: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="security_protocol") as caught:
        Settings.load(**flags)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_login_and_tls_reach_librdkafka() -> None:
    tls = {"ssl_ca_location": "/ca.pem", "ssl_certificate_location": "/c.pem", "ssl_key_location": "/k.pem"}
    client = Settings.load(**SASL, **tls, sasl_password=SECRET, ssl_key_password="k-" + SECRET).client()
    assert {k: v for k, v in client.items() if k.startswith(("s", "sasl", "ssl")) and k != "socket.nagle.disable"} == {
        "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "ada",
        "sasl.password": SECRET, "ssl.ca.location": "/ca.pem", "ssl.certificate.location": "/c.pem",
        "ssl.key.location": "/k.pem", "ssl.key.password": "k-" + SECRET,
    }


def test_no_secret_in_any_text(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.load(**SASL, sasl_password=SECRET, ssl_key_password=SECRET)
    logging.getLogger("x").warning("%s %r", settings, settings.client())
    texts = [repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump()), caplog.text,
             repr(settings.client()), str(settings.client()), f"{settings.producer()}", repr(settings.producer())]
    assert not [text for text in texts if SECRET in text]
    assert settings.client()["sasl.password"] == SECRET  # and it is still there for the client


@pytest.mark.parametrize("text", [
    f'sasl_password = "{SECRET}"\nseed = "{SECRET}"\n',
    f'sasl_password = "{SECRET}\n',
    f'sasl_password = ["{SECRET}"]\n',
    f'sasl_password = "{SECRET}"\n',
    f'{{{SECRET}}}',
])
def test_no_secret_in_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "quantum.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_no_secret_in_an_error_of_direct_construction() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**SASL, sasl_password=SECRET, seed=SECRET)  # type: ignore[arg-type]
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_settings_are_frozen_and_replace_reads_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(app_id="a")
    with pytest.raises(ValidationError):
        settings.app_id = "b"  # type: ignore[misc]
    monkeypatch.setenv("QUANTUM_SEED", "9")
    changed = settings.replace(topic_prefix="p.")
    assert changed == Settings(app_id="a", topic_prefix="p.", seed=0, broker=settings.broker)


def test_names() -> None:
    settings = Settings.load(topic_prefix="blue.", app_id="q2")
    assert settings.topic("market.candles") == "blue.market.candles"
    assert settings.group("decision") == "q2.decision"
    for flags in ({"topic_prefix": "a b"}, {"topic_prefix": "ä"}, {"app_id": ""}, {"app_id": "a/b"}):
        with pytest.raises(SettingsError):
            Settings.load(**flags)


def test_clients_take_the_configuration() -> None:
    settings = Settings.load(broker="127.0.0.1:1")
    quiet = {"log_level": 0}
    AdminClient(settings.client() | quiet)
    Consumer(settings.client() | quiet | {"group.id": "g"}).close()
    Producer(settings.producer() | quiet)


def test_a_session_has_room_for_ten_heartbeats() -> None:
    member = Settings(session_timeout_ms=30_000).member()
    assert (member["session.timeout.ms"], member["heartbeat.interval.ms"]) == (30_000, 3_000)
    with pytest.raises(SettingsError, match="session_timeout_ms"):
        Settings.load(session_timeout_ms=10)


def test_the_producer_takes_the_largest_record_of_the_catalogue_and_partitions_as_java_does() -> None:
    producer = Settings.load().producer()
    assert int(producer["message.max.bytes"]) > max(t.max_bytes for t in built_topics())
    assert producer["partitioner"] == "murmur2_random"
    assert (producer["acks"], producer["enable.idempotence"]) == ("all", "true")


def test_flags_of_a_command_become_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    @settings_options
    def show(settings: Settings) -> None:
        click.echo(f"{settings.app_id} {settings.broker} {settings.seed}")

    monkeypatch.setenv("QUANTUM_SEED", "7")
    run = CliRunner().invoke(show, ["--app-id", "flag", "--broker", "h:1"])
    assert (run.exit_code, run.output) == (0, "flag h:1 7\n")
    monkeypatch.setenv("QUANTUM_SASL_PASSWORD", SECRET)
    run = CliRunner().invoke(show, [])
    assert run.exit_code == 2
    assert SECRET not in run.output
