"""What consumer groups have committed, and how many members they have, asked without joining them.

An AdminClient can ask for commits as well, but librdkafka up to 2.16 crashes the process (a null group in
`rd_kafka_handle_OffsetFetch`) where the broker answers with an error, as it does while a coordinator loads. A consumer
that bears the group's name and never subscribes asks safely.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.heard import result_of

if TYPE_CHECKING:
    from streams.settings import Settings

Place = tuple[str, int]
RETRY_S = 0.1
# A coordinator that is being found or loads its log, as after a broker's start: the next answer is another one.
_PASSING = frozenset({KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
                      KafkaError.COORDINATOR_NOT_AVAILABLE})

_silent = logging.Logger("quantum.commits")
_silent.addHandler(logging.NullHandler())


class Commits:
    """Committed offsets of consumer groups; close it at the end.

    Args:
        settings: broker and security.
        timeout_s: how long an answer may take.
    """

    def __init__(self, settings: Settings, timeout_s: float = 10.0) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._consumers: dict[str, Consumer] = {}

    def of(self, group: str, places: Collection[Place]) -> dict[Place, int]:
        """Next offset that a group will take of each place; places without a commit are left out.

        Args:
            group: consumer group.
            places: topics as they are named on the broker, with partition.

        Raises:
            KafkaException: the broker did not answer, or refused.
        """
        if group not in self._consumers:
            self._consumers[group] = Consumer({
                **self._settings.client(), "group.id": group, "enable.auto.commit": False,
            }, logger=_silent)
        asked = [TopicPartition(topic, partition) for topic, partition in places]
        found = self._ask(self._consumers[group], asked) if asked else []
        return {(t.topic, t.partition): t.offset for t in found if t.offset >= 0}

    def _ask(self, consumer: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
        give_up = time.monotonic() + self._timeout_s
        while True:
            try:
                found = list(consumer.committed(asked, timeout=self._timeout_s))
                error = next((t.error for t in found if t.error is not None), None)
            except KafkaException as exc:
                error = exc.args[0]
            if error is None:
                return found
            if error.code() not in _PASSING or time.monotonic() > give_up:
                raise KafkaException(error)
            time.sleep(RETRY_S)

    def close(self) -> None:
        """Leave the broker."""
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()


def members(admin: AdminClient, groups: Collection[str], timeout_s: float) -> dict[str, int]:
    """Members of consumer groups; 0 where the broker never heard of one.

    Raises:
        KafkaException: the broker did not answer, or refused.
        TimeoutError: no answer in time.
    """
    answers = admin.describe_consumer_groups(list(groups), request_timeout=timeout_s)
    return {group: _size(answer, timeout_s) for group, answer in answers.items()}


def _size(answer: Any, timeout_s: float) -> int:
    try:
        return len(result_of(answer, timeout_s).members)
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return 0
        raise
