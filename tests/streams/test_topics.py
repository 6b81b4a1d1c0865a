"""Topics against the catalogue, on a real broker: every kind of difference is seen, and mended where that is safe."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from schemas.catalogue import TOPICS, built_agents, built_topics
from streams import topics
from streams.cli import main as cli
from streams.cli.exits import Exit
from streams.cli.topics import command
from streams.settings import Settings
from streams.topics import Change, Difference
from tests.patience import PATIENCE_S

DELETE, COMPACT, SPREAD = "market.candles", "policy.current", "market.features"
OTHER = {  # for every config that a catalogue topic may state: a value that it does not
    "cleanup.policy": "compact,delete", "max.message.bytes": "12345", "message.timestamp.type": "CreateTime",
    "compression.type": "zstd", "retention.ms": "604800000", "retention.bytes": "1000000",
    "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "604800001",
}
CASES = [(name, setting) for name in (DELETE, COMPACT) for setting in TOPICS[name].configs()]


def _set(settings: Settings, topic: str, setting: str, value: str) -> None:
    client, _ = topics.connect(settings)
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, settings.topic(topic), incremental_configs=[entry])
    for future in client.incremental_alter_configs([resource]).values():
        future.result()


def _make(settings: Settings, topic: str, partitions: int) -> None:
    client, _ = topics.connect(settings)
    new = NewTopic(settings.topic(topic), num_partitions=partitions, replication_factor=1,
                   config=TOPICS[topic].configs())
    for future in client.create_topics([new]).values():
        future.result()


def _soon(question: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_cases_cover_every_config_of_the_catalogue() -> None:
    stated = {setting for topic in built_topics() for setting in topic.configs()}
    assert stated == set(OTHER) == {setting for _, setting in CASES}


@pytest.mark.topics
def test_everything_is_created_in_one_go_and_then_nothing_differs(prefix: Settings) -> None:
    before = topics.check(prefix)
    assert [d.topic for d in before] == [t.name for t in built_topics()]
    assert {(d.setting, d.found) for d in before} == {("topic", None)}
    names = {t.name for t in built_topics()}
    assert {a.changelog for a in built_agents()} <= names
    assert {a.input_topic for a in built_agents()} <= names
    assert "market.candles.dlq" in names
    changes = topics.apply(prefix)
    assert [(c.topic, c.action) for c in changes] == [(t.name, "created") for t in built_topics()]
    assert topics.check(prefix) == []
    assert topics.apply(prefix) == []


@pytest.mark.topics(DELETE, COMPACT)
def test_every_kind_of_config_that_differs_is_seen_and_set_right(prefix: Settings) -> None:
    only = (DELETE, COMPACT)
    for name, setting in CASES:
        expected = TOPICS[name].configs()[setting]
        _set(prefix, name, setting, OTHER[setting])
        seen = [Difference(topic=name, setting=setting, expected=expected, found=OTHER[setting])]
        _soon(lambda seen=seen: topics.check(prefix, only) == seen)
        assert topics.apply(prefix, only) == [
            Change(topic=name, action="altered", setting=setting, before=OTHER[setting], after=expected)]
        _soon(lambda: topics.check(prefix, only) == [])


@pytest.mark.topics
def test_partitions_are_added_only_to_a_topic_that_never_held_a_record(prefix: Settings) -> None:
    _make(prefix, SPREAD, 1)
    assert topics.check(prefix, [SPREAD]) == [
        Difference(topic=SPREAD, setting="partitions", expected="4", found="1")]
    [change] = topics.apply(prefix, [SPREAD])
    assert (change.action, change.before, change.after) == ("altered", "1", "4")
    _soon(lambda: topics.check(prefix, [SPREAD]) == [])


@pytest.mark.topics
def test_partitions_of_a_topic_with_records_are_left_alone(prefix: Settings) -> None:
    _make(prefix, SPREAD, 1)
    producer = Producer(prefix.producer())
    producer.produce(prefix.topic(SPREAD), b"x", b"BTCUSDT")
    assert producer.flush(30) == 0
    [change] = topics.apply(prefix, [SPREAD])
    assert change.action == "left"
    assert "records" in change.reason
    assert topics.connect(prefix)[1][prefix.topic(SPREAD)] == 1


@pytest.mark.topics
def test_more_partitions_than_the_catalogue_are_said_and_left(prefix: Settings) -> None:
    _make(prefix, SPREAD, 6)
    [change] = topics.apply(prefix, [SPREAD])
    assert (change.action, change.before, change.after) == ("left", "6", "4")


@pytest.mark.topics
def test_partitions_are_as_set_and_later_as_the_candles_have_them(prefix: Settings) -> None:
    first = (DELETE, SPREAD, "system.clock")
    later = ("q_learning.inbox", "q_learning.changelog", "risk_controller.inbox")
    topics.apply(prefix.replace(partitions=3), first)
    assert topics.check(prefix.replace(partitions=3), first) == topics.check(prefix, first) == []
    assert topics.check(prefix.replace(partitions=5), [SPREAD]) == [
        Difference(topic=SPREAD, setting="partitions", expected="5", found="3")]
    topics.apply(prefix, later, otherwise=7)
    there = topics.connect(prefix)[1]
    assert [there[prefix.topic(name)] for name in first + later] == [3, 3, 1, 3, 3, 1]


@pytest.mark.topics
def test_where_nobody_says_how_many_the_caller_may(prefix: Settings) -> None:
    topics.apply(prefix, [DELETE], otherwise=1)
    assert topics.connect(prefix)[1][prefix.topic(DELETE)] == 1


@pytest.mark.topics(DELETE)
def test_foreign_topics_are_not_touched(prefix: Settings) -> None:
    client, _ = topics.connect(prefix)
    foreign = prefix.topic("somebody.elses")
    for future in client.create_topics([NewTopic(foreign, num_partitions=2, replication_factor=1)]).values():
        future.result()
    topics.apply(prefix, [DELETE])
    assert topics.connect(prefix)[1][foreign] == 2


@pytest.mark.topics(DELETE)
def test_a_record_of_the_catalogues_size_is_taken_and_a_larger_one_refused(prefix: Settings) -> None:
    producer = Producer(prefix.producer() | {"compression.type": "none"})
    errors: list[object] = []
    for size in (TOPICS[DELETE].max_bytes - 1024, TOPICS[DELETE].max_bytes + 1024):
        producer.produce(prefix.topic(DELETE), b"x" * size, b"k", on_delivery=lambda e, _: errors.append(e))
        producer.flush(30)
    assert errors[0] is None
    assert errors[1] is not None


def test_a_name_that_the_catalogue_does_not_have_is_refused(broker: Settings) -> None:
    with pytest.raises(KeyError):
        topics.check(broker, ["market.candle"])


def test_no_broker_is_said_with_address_and_remedy() -> None:
    settings = Settings(broker="127.0.0.1:1")
    for question in (topics.check, topics.apply):
        with pytest.raises(topics.BrokerUnreachable, match=r"127\.0\.0\.1:1.*refused.*quantum broker up.*--broker"):
            question(settings)


@pytest.mark.topics(DELETE)
def test_commands(prefix: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--broker", prefix.broker, "--topic-prefix", prefix.topic_prefix]
    run = CliRunner().invoke(command, ["check", "--json", *flags])
    told = json.loads(run.stdout)
    assert run.exit_code == Exit.TOPICS_DIFFER
    assert len(told["differences"]) == len(built_topics()) - 1
    run = CliRunner().invoke(command, ["check", *flags])
    assert run.exit_code == Exit.TOPICS_DIFFER
    assert prefix.topic("policy.ledger") in run.stdout
    run = CliRunner().invoke(command, ["apply", "--json", *flags])
    assert run.exit_code == Exit.GOOD
    assert {c["action"] for c in json.loads(run.stdout)["changes"]} == {"created"}
    assert CliRunner().invoke(command, ["check", *flags]).exit_code == Exit.GOOD
    assert cli.main(["topics", "check", "--broker", "127.0.0.1:1"]) == Exit.UNREACHABLE
    out, err = capfd.readouterr()
    assert (out, "127.0.0.1:1" in err) == ("", True)
