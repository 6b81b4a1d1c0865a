"""Offsets of many partitions in one question, by an AdminClient that lives long.

A broker that was killed leads its partitions under a new epoch. librdkafka's AdminClient goes on asking with the epoch
that it has cached and is refused each time, FENCED_LEADER_EPOCH, for ever (seen in 2.16; a consumer looks again by
itself): so the metadata are fetched anew before the question is put once more.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.heard import result_of

Place = tuple[str, int]
_OUTDATED = frozenset({KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH})


def offsets(admin: AdminClient, places: Collection[Place], spec: Any, timeout_s: float = 60.0) -> dict[Place, int]:
    """Offset of each partition by its name on the broker.

    Args:
        admin: asks.
        places: topic as it is named on the broker, and partition.
        spec: which offset, an `OffsetSpec`.
        timeout_s: how long an answer may take.

    Raises:
        KafkaException: no answer, or a refusal.
    """
    try:
        return _asked(admin, places, spec, timeout_s)
    except KafkaException as exc:
        if exc.args[0].code() not in _OUTDATED:
            raise
    admin.list_topics(timeout=timeout_s)
    return _asked(admin, places, spec, timeout_s)


def _asked(admin: AdminClient, places: Collection[Place], spec: Any, timeout_s: float) -> dict[Place, int]:
    if not places:
        return {}
    answers = admin.list_offsets({TopicPartition(*place): spec for place in places}, request_timeout=timeout_s)
    return {(at.topic, at.partition): int(result_of(answer, timeout_s).offset) for at, answer in answers.items()}
