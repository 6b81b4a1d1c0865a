"""Hold the broker's topics against the catalogue.

`check` says what differs and changes nothing. `apply` creates what is missing and sets configs; it never deletes, and
it adds partitions only to a topic that never held a record, because more partitions move keys.

Topics that the catalogue spreads by symbol all have the same number of partitions (`streams.spread`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from schemas.catalogue import MARKET_PARTITIONS, TOPICS, Topic, built_topics
from streams import denied
from streams.heard import Heard, result_of
from streams.settings import Settings
from streams.spread import spread, spread_over

ANSWER_S = 8.0  # a broker in reach answers in milliseconds, one that is just starting in seconds
ASK_S = 1.0  # between two looks whether it was refused
WORK_S = 60.0
PARTITIONS = "partitions"

_silent = logging.Logger("quantum.admin")  # what librdkafka would print goes into the error instead
_silent.addHandler(logging.NullHandler())


class BrokerUnreachable(Exception):
    """No answer from the broker; the message says which address, why, and what to do.

    Attributes:
        denied: it is there, and the login or its certificate is refused.
    """

    def __init__(self, text: str, *, denied: bool = False) -> None:
        super().__init__(text)
        self.denied = denied


class TopicsError(Exception):
    """The broker answered and refused."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where a topic differs from the catalogue.

    Attributes:
        topic: its name in the catalogue, without prefix.
        setting: `partitions`, or the name of a config.
        expected: the catalogue's value.
        found: the broker's value; None where the topic (setting `topic`) or the config is not there.
    """

    topic: str
    setting: str
    expected: str
    found: str | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """What `apply` did about a difference: `created`, `altered`, or `left` with the reason."""

    topic: str
    action: str
    setting: str
    before: str | None
    after: str
    reason: str = ""


def connect(settings: Settings, timeout_s: float = ANSWER_S) -> tuple[AdminClient, dict[str, int]]:
    """An AdminClient that got an answer, and the partitions of every topic on the broker.

    Keep the client until the last of its futures has resolved: one that is collected earlier ends them with _DESTROY.

    Raises:
        BrokerUnreachable: no answer within `timeout_s`.
    """
    heard = Heard()
    config: dict[str, Any] = {**settings.client(), "error_cb": heard}
    client = AdminClient(config, logger=_silent)
    until = time.monotonic() + timeout_s
    while True:
        try:
            metadata = client.list_topics(timeout=max(0.1, min(ASK_S, until - time.monotonic())))
            break
        except KafkaException as exc:
            client.poll(0)  # serves the callback
            for error in heard.errors:
                if (refusal := denied.of_connection(settings, error.code(), error.str())) is not None:
                    raise BrokerUnreachable(refusal, denied=True) from None
            if time.monotonic() < until:
                continue
            raise BrokerUnreachable(
                f"no answer from {settings.broker}: {heard.why(exc.args[0].str())}. Start the embedded broker with "
                "`quantum broker up`, or name another with --broker HOST:PORT"
            ) from None
    return client, {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def check(settings: Settings, only: Collection[str] | None = None) -> list[Difference]:
    """What differs between the catalogue and the broker, in catalogue order.

    Args:
        settings: broker and prefix.
        only: names of topics to look at, without prefix; default all that are built.

    Raises:
        BrokerUnreachable, TopicsError, KeyError: no answer; a refusal; a name that the catalogue does not have.
    """
    client, partitions = connect(settings)
    return _differences(client, settings, _wanted(only, spread(settings, partitions)), partitions)


def apply(settings: Settings, only: Collection[str] | None = None,
          otherwise: int = MARKET_PARTITIONS) -> list[Change]:
    """Make the broker's topics what the catalogue says, where that is safe; returns what was done and what was left.

    Args:
        settings: broker and prefix.
        only: as for `check`.
        otherwise: partitions to spread by symbol over where neither the settings nor the broker say how many.

    Raises:
        BrokerUnreachable, TopicsError, KeyError: as `check`.
    """
    client, partitions = connect(settings)
    wanted = _wanted(only, spread(settings, partitions, otherwise))
    created = [t for t in wanted if settings.topic(t.name) not in partitions]
    changes = [
        Change(topic=t.name, action="created", setting="topic", before=None, after=f"{t.partitions} partitions")
        for t in created
    ]
    _create(client, settings, created)
    fresh = {t.name for t in created}
    differences = _differences(client, settings, [t for t in wanted if t.name not in fresh], partitions)
    configs = [d for d in differences if d.setting != PARTITIONS]
    _alter(client, settings, configs)
    changes += [
        Change(topic=d.topic, action="altered", setting=d.setting, before=d.found, after=d.expected) for d in configs
    ]
    return changes + [_repartition(client, settings, d) for d in differences if d.setting == PARTITIONS]


def _wanted(only: Collection[str] | None, partitions: int) -> list[Topic]:
    """Each once: confluent-kafka dies of a name that stands twice in what is to be created."""
    named = built_topics() if only is None else [TOPICS[name] for name in dict.fromkeys(only)]
    return [spread_over(topic, partitions) for topic in named]


def _differences(
    client: AdminClient, settings: Settings, wanted: list[Topic], partitions: Mapping[str, int]
) -> list[Difference]:
    there = [t for t in wanted if settings.topic(t.name) in partitions]
    configs = _configs(client, [settings.topic(t.name) for t in there])
    found: list[Difference] = []
    for topic in wanted:
        name = settings.topic(topic.name)
        if name not in partitions:
            found.append(Difference(topic=topic.name, setting="topic", expected=f"{topic.partitions} partitions",
                                    found=None))
            continue
        actual = {PARTITIONS: str(partitions[name])} | configs[name]
        for setting, expected in ({PARTITIONS: str(topic.partitions)} | topic.configs()).items():
            if actual.get(setting) != expected:
                found.append(Difference(topic=topic.name, setting=setting, expected=expected,
                                        found=actual.get(setting)))
    return found


def _configs(client: AdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Effective configs of topics: set on the topic, or the broker's default."""
    if not names:
        return {}
    futures = client.describe_configs([ConfigResource(ResourceType.TOPIC, n) for n in names], request_timeout=WORK_S)
    return {resource.name: {key: entry.value for key, entry in _result(future, f"configs of {resource.name}").items()}
            for resource, future in futures.items()}


def _create(client: AdminClient, settings: Settings, topics: list[Topic]) -> None:
    if not topics:
        return
    new = [
        NewTopic(settings.topic(t.name), num_partitions=t.partitions, replication_factor=settings.replication_factor,
                 config=t.configs())
        for t in topics
    ]
    futures = client.create_topics(new, operation_timeout=WORK_S, request_timeout=WORK_S)
    for name, future in futures.items():
        _result(future, f"create {name}", ignored=(KafkaError.TOPIC_ALREADY_EXISTS,))
    _await(client, {topic.topic for topic in new})


def _await(client: AdminClient, names: set[str]) -> None:
    """Until every partition of the topics has a leader, and that leader knows it and answers for it.

    The metadata name a leader before the leader itself has taken the partition up: whoever asks it then is told
    NOT_LEADER.
    """
    deadline = time.monotonic() + WORK_S
    while time.monotonic() < deadline:
        try:
            topics = client.list_topics(timeout=ANSWER_S).topics
        except KafkaException as exc:
            raise BrokerUnreachable(f"the broker stopped answering: {exc.args[0].str()}") from None
        if all(n in topics and all(p.leader >= 0 for p in topics[n].partitions.values()) for n in names) and _answers(
                client, [TopicPartition(n, p) for n in names for p in topics[n].partitions]):
            return
        time.sleep(0.05)
    raise TopicsError(f"topics were created, but have no leader after {WORK_S:.0f} s")


def _answers(client: AdminClient, places: list[TopicPartition]) -> bool:
    """Whether every partition's leader gives its end offset."""
    futures = client.list_offsets({place: OffsetSpec.latest() for place in places}, request_timeout=WORK_S)
    try:
        for future in futures.values():
            result_of(future, WORK_S)
    except KafkaException:  # whatever it is, the caller asks again until its deadline
        return False
    return True


def _alter(client: AdminClient, settings: Settings, differences: list[Difference]) -> None:
    entries: dict[str, list[ConfigEntry]] = {}
    for d in differences:
        entries.setdefault(settings.topic(d.topic), []).append(
            ConfigEntry(d.setting, d.expected, incremental_operation=AlterConfigOpType.SET))
    if not entries:
        return
    resources = [ConfigResource(ResourceType.TOPIC, n, incremental_configs=e) for n, e in entries.items()]
    for resource, future in client.incremental_alter_configs(resources, request_timeout=WORK_S).items():
        _result(future, f"alter {resource.name}")


def _repartition(client: AdminClient, settings: Settings, difference: Difference) -> Change:
    name, expected, found = settings.topic(difference.topic), int(difference.expected), int(difference.found or 0)
    change = Change(topic=difference.topic, action="left", setting=PARTITIONS, before=difference.found,
                    after=difference.expected)
    if found > expected:
        return _with(change, reason="Kafka cannot take partitions away; make the topic anew")
    if not _never_written(settings, name, found):
        return _with(change, reason="the topic holds or held records, and more partitions would move its keys")
    futures = client.create_partitions([NewPartitions(name, expected)], operation_timeout=WORK_S,
                                       request_timeout=WORK_S)
    _result(futures[name], f"partitions of {name}")
    return _with(change, action="altered")


def _never_written(settings: Settings, name: str, partitions: int) -> bool:
    """Whether every end offset is 0: a topic whose records have expired does not count as never written."""
    consumer = Consumer({**settings.client(), "group.id": settings.group("topics")}, logger=_silent)
    try:
        ends = [consumer.get_watermark_offsets(TopicPartition(name, p), timeout=ANSWER_S)[1]
                for p in range(partitions)]
    except KafkaException as exc:
        raise TopicsError(f"end offsets of {name}: {exc.args[0].str()}") from exc
    finally:
        consumer.close()
    return all(end == 0 for end in ends)


def _with(change: Change, **values: str) -> Change:
    return Change(**{**change.__dict__, **values})


def _result(future: Any, what: str, ignored: tuple[int, ...] = ()) -> Any:
    try:
        return result_of(future, WORK_S)
    except KafkaException as exc:
        error: KafkaError = exc.args[0]
        if error.code() in ignored:
            return None
        if error.code() in denied.RIGHTS:
            raise BrokerUnreachable(
                f"{what}: {error.str().rstrip('.')}. Looking at topics needs Describe and DescribeConfigs on them; "
                "`quantum topics apply` also Create, Alter and AlterConfigs", denied=True) from None
        raise TopicsError(f"{what}: {error.str()}") from exc
