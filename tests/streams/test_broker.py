"""The embedded broker, really started: durable, found again, never twice, clear when it cannot start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition

from streams import broker as embedded
from streams import topics
from streams.broker import node, process
from streams.broker.node import Layout
from streams.cli.broker import command
from streams.cli.exits import Exit
from streams.settings import Settings, state_path
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.usefixtures("broker")  # skips where there is no Java or no jar


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Settings]:
    """Settings for a data directory of its own, whose broker is stopped behind the test."""
    settings = Settings(data_dir=tmp_path / "data", broker_port=node.free_port())
    yield settings
    embedded.down(settings)


def _write(address: str, settings: Settings, values: list[bytes]) -> None:
    producer = Producer(settings.replace(broker=address).producer())
    for value in values:
        producer.produce("market.candles", value, b"BTCUSDT")
    assert producer.flush(30) == 0


def _read(address: str, settings: Settings) -> list[bytes]:
    consumer = Consumer({**settings.replace(broker=address).client(), "group.id": "g", "enable.partition.eof": "true",
                         "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition("market.candles", p, 0) for p in range(4)])
    values: list[bytes] = []
    ends = 0
    while ends < 4:
        message = consumer.poll(20)
        assert message is not None
        if message.error():
            ends += 1
        else:
            values.append(message.value())
    consumer.close()
    return values


def test_data_outlive_a_killed_broker_and_it_comes_back_at_its_address(home: Settings) -> None:
    first = embedded.up(home)
    topics.apply(home.replace(broker=first.address), only=["market.candles"])
    values = [b"%d" % n for n in range(1000)]
    _write(first.address, home, values)

    os.kill(first.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first.pid)] if psutil.pid_exists(first.pid) else [], timeout=10)
    assert embedded.status(home).state == "stopped"
    scratch = Layout(state_path(home.data_dir).parent).scratch
    left = set(scratch.iterdir())
    assert left, "it has unpacked a library, to look into what was written, and could not remove it"

    second = embedded.up(home)
    assert not left & set(scratch.iterdir())
    assert second.pid != first.pid
    assert (second.address, second.cluster_id) == (first.address, first.cluster_id)
    assert _read(second.address, home) == values
    assert topics.check(home.replace(broker=second.address), only=["market.candles"]) == []

    again = embedded.up(home)
    assert (again.already_running, again.pid) == (True, second.pid)
    assert embedded.status(home).state == "running"
    assert int(Layout(state_path(home.data_dir).parent).pid.read_text()) == second.pid
    assert os.getsid(second.pid) == second.pid  # a session of its own
    assert Settings(data_dir=home.data_dir).broker == second.address

    assert embedded.down(home) is True
    assert not psutil.pid_exists(second.pid)
    assert embedded.down(home) is False
    assert not state_path(home.data_dir).exists()


def test_two_starts_at_once_make_one_broker_that_outlives_its_starters(home: Settings) -> None:
    with socket.socket() as taken:  # and the first port is somebody else's
        taken.bind(("127.0.0.1", home.broker_port))
        taken.listen()
        arguments = [sys.executable, "-m", "streams.cli.main", "broker", "up", "--json", "--data-dir",
                     str(home.data_dir)]
        environment = os.environ | {"QUANTUM_BROKER_PORT": str(home.broker_port)}
        environment.pop("QUANTUM_TEST_RUN", None)
        running = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
                                    cwd=Path(__file__).parents[2]) for _ in range(2)]
        results = [child.communicate(timeout=PATIENCE_S) for child in running]
    assert [child.returncode for child in running] == [0, 0], results
    facts = [json.loads(out) for out, _ in results]
    assert facts[0]["pid"] == facts[1]["pid"]
    assert sorted(f["already_running"] for f in facts) == [False, True]
    assert int(facts[0]["address"].split(":")[1]) > home.broker_port
    assert embedded.status(home).state == "running"


def test_it_starts_at_the_address_on_loopback_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = node.free_port()
    monkeypatch.setenv("QUANTUM_BROKER", f"127.0.0.1:{port}")
    monkeypatch.delenv("QUANTUM_BROKER_PORT", raising=False)
    try:
        run = CliRunner().invoke(command, ["up", "--json", "--data-dir", str(tmp_path / "data")])
        assert json.loads(run.stdout)["address"] == f"127.0.0.1:{port}"
        assert "note" not in run.stderr
    finally:
        embedded.down(Settings(data_dir=tmp_path / "data"))


def test_a_stale_state_file_is_seen_through_when_its_pid_lives_as_something_else(home: Settings) -> None:
    layout = Layout(state_path(home.data_dir).parent)
    layout.home.mkdir(parents=True)
    state = {"address": "127.0.0.1:1", "pid": os.getpid(), "data_dir": str(layout.home), "log_path": str(layout.log),
             "cluster_id": "x", "started_s": psutil.Process().create_time()}
    layout.state.write_text(json.dumps(state))
    assert embedded.status(home).state == "stopped"
    assert embedded.down(home) is False  # and nobody was killed: this line is reached
    assert not layout.state.exists()


@pytest.mark.parametrize("text", ["", "{torn", "[]", '{"pid": "x"}', '{"unknown": 1}'])
def test_a_damaged_state_file_is_no_broker(text: str, home: Settings) -> None:
    layout = Layout(state_path(home.data_dir).parent)
    layout.home.mkdir(parents=True)
    layout.state.write_text(text)
    assert embedded.status(home).state == "stopped"


def test_a_failed_start_shows_the_end_of_the_log_and_leaves_nothing(home: Settings) -> None:
    layout = Layout(state_path(home.data_dir).parent)
    layout.logs.mkdir(parents=True)
    (layout.logs / "meta.properties").write_text("version=1\nnode.id=77\ncluster.id=elAU-KFnQeCSIeTjnzXRsg\n")
    with pytest.raises(embedded.StartFailed, match=r"node\.id|nodeId|node id|77"):
        embedded.up(home)
    assert not layout.state.exists()
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(layout.properties) in (p.info["cmdline"] or [])]


def test_a_broker_that_does_not_answer_in_time_is_ended(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_TIMEOUT_S", 0.5)
    with pytest.raises(embedded.StartFailed, match="did not answer"):
        embedded.up(home)
    assert embedded.status(home).state == "stopped"


def test_commands(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTUM_BROKER_PORT", str(home.broker_port))

    def quantum(*arguments: str) -> tuple[int, str]:
        run = CliRunner().invoke(command, [*arguments, "--data-dir", str(home.data_dir)])
        return run.exit_code, run.stdout

    code, out = quantum("status", "--json")
    assert (code, json.loads(out)["state"]) == (Exit.UNREACHABLE, "stopped")
    assert quantum("logs")[0] == Exit.FAILED
    assert quantum("down") == (Exit.GOOD, "it did not run\n")
    code, out = quantum("up", "--json")
    assert code == Exit.GOOD
    facts = json.loads(out)
    assert facts["address"] == f"127.0.0.1:{home.broker_port}"
    code, out = quantum("status", "--json")
    assert (code, json.loads(out)["state"], json.loads(out)["pid"]) == (Exit.GOOD, "running", facts["pid"])
    monkeypatch.setenv("QUANTUM_BROKER", "127.0.0.1:1")
    again = CliRunner().invoke(command, ["up", "--data-dir", str(home.data_dir)])
    assert again.exit_code == Exit.GOOD
    assert f"export QUANTUM_BROKER={facts['address']}" in again.stderr
    monkeypatch.setenv("QUANTUM_BROKER_PORT", "1")
    assert "not at port 1, which was asked for" in CliRunner().invoke(
        command, ["up", "--data-dir", str(home.data_dir)]).stderr
    monkeypatch.delenv("QUANTUM_BROKER")
    monkeypatch.setenv("QUANTUM_BROKER_PORT", str(home.broker_port))
    code, out = quantum("logs", "-n", "3")
    assert (code, len(out.splitlines())) == (Exit.GOOD, 3)
    assert quantum("down") == (Exit.GOOD, "stopped\n")
