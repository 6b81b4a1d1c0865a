"""What librdkafka says: its log through Python's logging instead of standard error, and which errors pass."""

from __future__ import annotations

import logging

import confluent_kafka as ck

PASSING = frozenset({
    ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN, ck.KafkaError._TIMED_OUT, ck.KafkaError._RESOLVE,
    ck.KafkaError.REQUEST_TIMED_OUT, ck.KafkaError._PARTITION_EOF, ck.KafkaError._MAX_POLL_EXCEEDED,
    ck.KafkaError.COORDINATOR_NOT_AVAILABLE, ck.KafkaError.NOT_COORDINATOR, ck.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    ck.KafkaError._WAIT_COORD, ck.KafkaError._IN_PROGRESS, ck.KafkaError.NOT_LEADER_FOR_PARTITION,
    ck.KafkaError.LEADER_NOT_AVAILABLE,
})


def passing(error: ck.KafkaError) -> bool:
    """Whether waiting helps: the broker is away, starting, or moving a partition."""
    return not error.fatal() and (error.code() in PASSING or error.retriable())


LIBRDKAFKA = logging.getLogger("librdkafka")


def _worth_saying(record: logging.LogRecord) -> bool:
    """Not the remark, at every start, that the gapless guarantee counts as experimental: it is wanted."""
    return "enable.gapless.guarantee" not in record.getMessage()


LIBRDKAFKA.addFilter(_worth_saying)
LIBRDKAFKA.addHandler(logging.NullHandler())  # a command that sets no logging up stays quiet; what matters is raised
