"""TLS, logins and rights: what is refused is said with what to do, ends with exit code 4, and loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from schemas.catalogue import AGENTS, TOPICS, built_agents
from streams import broker as embedded
from streams import denied, topics
from streams.acls import Acl, acls, internal, topics_of
from streams.cli import doctor
from streams.cli import topics as topics_cli
from streams.cli.exits import Exit
from streams.settings import Settings
from tests.patience import PATIENCE_S
from tests.streams.counting import SYMBOLS, candle
from tests.streams.hosting import CODEC, FEATURES, committed, count, ends, firsts, produce, read, until
from tests.streams.secured import SecuredBroker, environment

ROOT = Path(__file__).parents[2]
T0 = 1_600_000_020_000  # a whole minute
NEEDED = (*FEATURES, "system.health.alert")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """One for all tests here; skipped where there is no Java."""
    try:
        broker = SecuredBroker(tmp_path_factory.mktemp("secured"))
    except (embedded.NoJava, embedded.FetchFailed) as exc:
        pytest.skip(f"no embedded broker: {str(exc).splitlines()[0]}")
    yield broker
    broker.stop()


@pytest.fixture
def names(secured: SecuredBroker) -> Iterator[dict[str, str]]:
    """A prefix and an app id of the test's own, with the topics of `features`; no rights are left behind."""
    name = f"t{uuid.uuid4().hex[:10]}"
    own = {"topic_prefix": f"{name}.", "app_id": name}
    topics.apply(secured.admin.replace(**own), only=NEEDED)
    yield own
    secured.forbid_all()


class Ended:
    """What came of a command."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


def _command(settings: Settings, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "streams.cli.main", *arguments]


def _quantum(settings: Settings, *arguments: str) -> Ended:
    return Ended(subprocess.run(_command(settings, *arguments), cwd=ROOT, env=os.environ | environment(settings),
                                capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_S,
                                check=False))


def _worker(settings: Settings) -> subprocess.Popen[str]:
    return subprocess.Popen(_command(settings, "worker", "--agents", "features"), cwd=ROOT, text=True,
                            env=os.environ | environment(settings), stderr=subprocess.PIPE)


def test_the_right_login_is_let_in(secured: SecuredBroker, names: dict[str, str]) -> None:
    user = secured.user.replace(**names)
    secured.allow(acls(user, ["features"]))
    assert denied.missing(user, acls(user, ["features"])) == []
    ended = _quantum(user, "worker", "--agents", "features", "--until-eof", "--json")
    assert (ended.code, json.loads(ended.out)["stopped"]) == (Exit.GOOD, "clean"), ended.err


def test_a_wrong_password(secured: SecuredBroker, names: dict[str, str]) -> None:
    user = secured.user.replace(**names, sasl_password="not-it")
    for arguments in (("topics", "check"), ("worker", "--agents", "features"), ("tail", "market.candles")):
        ended = _quantum(user, *arguments)
        assert ended.code == Exit.UNREACHABLE, ended.err
        assert "Authentication failed" in ended.err
        assert "not-it" not in ended.err + ended.out
    assert "refuses the login of quantum by PLAIN" in _quantum(user, "worker").err
    found = next(f for f in doctor.examine(user) if f.check == "broker")
    assert (found.state, found.code) == (doctor.PROBLEM, Exit.UNREACHABLE)
    assert "QUANTUM_SASL_PASSWORD" in found.fix


def test_a_wrong_certificate(secured: SecuredBroker, names: dict[str, str]) -> None:
    user = secured.user.replace(**names, ssl_ca_location=secured.other_ca)
    for arguments in (("topics", "check"), ("worker", "--agents", "features")):
        ended = _quantum(user, *arguments)
        assert ended.code == Exit.UNREACHABLE, ended.err
        assert "certificate verify failed" in ended.err
        assert "QUANTUM_SSL_CA_LOCATION" in ended.err
    found = next(f for f in doctor.examine(user) if f.check == "broker")
    assert "QUANTUM_SSL_CA_LOCATION" in found.fix


def test_each_right_of_the_list_is_missed_before_anything_is_read(
        secured: SecuredBroker, names: dict[str, str]) -> None:
    user = secured.user.replace(**names)
    rights = acls(user, ["features"])
    secured.allow(rights)
    ended = _quantum(user, "worker", "--agents", "features", "--until-eof")  # from here on the group is known
    assert ended.code == Exit.GOOD, ended.err
    for right in rights:
        secured.forbid([right])
        assert denied.missing(user, rights) == [right]
        secured.allow([right])
    secured.forbid([rights[-1]])
    ended = _quantum(user, "worker", "--agents", "features")
    assert ended.code == Exit.UNREACHABLE
    assert f"does not allow quantum: {rights[-1].operation} on topic {rights[-1].name}" in ended.err
    assert "quantum topics check --acls" in ended.err


@pytest.mark.parametrize(("resource", "name", "operation"), [
    ("Topic", "market.features", "Write"), ("Topic", "features.changelog", "Write"),
    ("Topic", "features.inbox", "Read"), ("Topic", "market.candles", "Read"),
])
def test_a_right_that_is_taken_away_ends_the_worker_and_loses_nothing(
        secured: SecuredBroker, names: dict[str, str], resource: str, name: str, operation: str) -> None:
    admin, user = secured.admin.replace(**names), secured.user.replace(**names)
    rights = acls(user, ["features"])
    secured.allow(rights)
    candles = [candle(SYMBOLS[i % len(SYMBOLS)], T0 + i // len(SYMBOLS) * 60_000) for i in range(400)]
    produce(admin, "market.candles", candles[:200])
    worker = _worker(user)
    try:
        asyncio.run(until(lambda: count(admin, "market.features") >= 200, "the first half"))
        secured.forbid([r for r in rights if (r.resource, r.name, r.operation) == (
            resource, user.topic(name), operation)])
        produce(admin, "market.candles", candles[200:])
        _, told = worker.communicate(timeout=PATIENCE_S)
        assert worker.returncode == Exit.UNREACHABLE, told
        assert f"does not allow quantum: {operation} on topic {user.topic(name)}" in told
        assert "quantum topics check --acls" in told
    finally:
        worker.kill()
    secured.allow(rights)
    worker = _worker(user)
    try:
        asyncio.run(until(lambda: committed(admin, "features", "features.inbox") == ends(admin, "features.inbox")
                          and len(_made(admin)) == 400, "the rest"))  # outputs may be whole before this one runs at all
        worker.terminate()
        _, told = worker.communicate(timeout=PATIENCE_S)
        assert worker.returncode == Exit.GOOD, told
    finally:
        worker.kill()
    assert _made(admin) == sorted((c.symbol, c.ts_ms) for c in candles)


def _made(settings: Settings) -> list[tuple[str, int]]:
    """Symbol and time of every output, repeats by id left out."""
    events: list[Any] = [CODEC.decode("market.features", record.value or b"")
                         for record in firsts(read(settings, "market.features")).values()]
    return sorted((e.symbol, e.ts_ms) for e in events)


def test_topics_are_made_by_others(secured: SecuredBroker, names: dict[str, str]) -> None:
    user = secured.user.replace(**names)
    secured.allow(acls(user, ["features"]))
    ended = _quantum(user, "topics", "apply")
    assert ended.code == Exit.UNREACHABLE
    assert "uthorization failed" in ended.err
    assert "needs Describe and DescribeConfigs" in ended.err


# ---------------------------------------------------------------------- the list
def _listed(*arguments: str) -> str:
    run = CliRunner().invoke(topics_cli.command, ["check", "--acls", "--broker", "k:9092", *arguments])
    assert run.exit_code == Exit.GOOD, run.output
    return run.stdout


def test_the_list_as_json() -> None:
    told = json.loads(_listed("--agents", "features", "--topic-prefix", "p.", "--app-id", "blue", "--clock", "--json"))
    rights = {(a["agent"], a["resource"], a["name"], a["operation"]) for a in told["acls"]}
    assert rights == {
        *(("features", "Topic", f"p.{n}", "Read") for n in (
            "market.candles", "features.inbox", "features.changelog", "system.health.alert")),
        *(("features", "Topic", f"p.{n}", "Write") for n in (
            "features.inbox", "features.changelog", "market.features", "market.regime.changed", "market.candles.dlq",
            "system.health.alert")),
        ("features", "Group", "blue.features", "Read"), ("features", "Group", "blue.reader", "Describe"),
        ("features", "Group", "blue.recovery", "Describe"), ("clock", "Topic", "p.system.clock", "Write")}
    assert {a["pattern"] for a in told["acls"]} == {"Literal"}
    assert told["groups"] == ["blue.features"]
    assert {t["name"] for t in told["topics"] if t["internal"]} == {"p.features.inbox", "p.features.changelog"}
    assert {t["name"] for t in told["topics"]} == {a["name"] for a in told["acls"] if a["resource"] == "Topic"}


def test_the_list_with_partitions_of_ones_own() -> None:
    made = [line for line in map(shlex.split, _listed("--partitions", "16", "--clock").splitlines())
            if line and line[0] == "kafka-topics"]
    found = {line[line.index("--topic") + 1]: line[line.index("--partitions") + 1] for line in made}
    assert found == {name: "1" if TOPICS[name].partitions == 1 else "16" for name in found}
    assert {"market.candles", "system.clock"} <= found.keys()


def test_the_list_as_commands() -> None:
    lines = [shlex.split(line) for line in _listed("--principal", "User:o'hara").splitlines() if line[0] != "#"]
    assert {line[0] for line in lines} == {"kafka-acls", "kafka-topics"}
    allowed = {(line[i + 1], operation) for line in lines for i, word in enumerate(line) if word == "--topic"
               for j, flag in enumerate(line) if flag == "--operation" for operation in [line[j + 1]]}
    settings = Settings(broker="k:9092")
    rights = acls(settings, [a.name for a in built_agents()])
    assert allowed == {(r.name, r.operation) for r in rights if r.resource == "Topic"}
    assert all("User:o'hara" in line for line in lines if line[0] == "kafka-acls")
    created = {line[line.index("--topic") + 1] for line in lines if line[0] == "kafka-topics"}
    assert created == {t.name for t in topics_of(rights, settings)}
    assert not any("Create" in line or "--cluster" in line for line in lines)


def test_every_agent_may_do_what_the_catalogue_says_and_no_more() -> None:
    settings = Settings()
    for io in built_agents():
        rights = {(r.name, r.operation) for r in acls(settings, [io.name]) if r.resource == "Topic"}
        read_only = {t for t in io.reads if t not in io.writes and t != "system.health.alert"}
        assert {(t, "Write") for t in read_only} & rights == set()
        assert {(t, "Read") for t in io.reads} | {(t, "Write") for t in io.writes} <= rights
        assert not [name for name, _ in rights for other in AGENTS if other != io.name
                    and name in (f"{other}.inbox", f"{other}.changelog")]
        assert all(internal(t) or not t.name.endswith((".inbox", ".changelog")) for t in topics_of(
            acls(settings, [io.name]), settings))


def test_failures_by_a_right_are_told_from_others() -> None:
    lost = RuntimeError("market.features: KafkaError{str=\"Broker: Topic authorization failed\"}")
    assert denied.of_failure(lost)
    wrapped = RuntimeError("x")
    wrapped.__cause__ = lost
    assert denied.of_failure(wrapped)
    assert not denied.of_failure(RuntimeError("market.candles-0@3: no leader"))
    assert not denied.of_failure(None)
    right = Acl(agent="a", resource="Topic", name="t", operation="Write")
    assert "b:1 does not allow this user: Write on topic t." in denied.told(Settings(broker="b:1"), [right, right])
