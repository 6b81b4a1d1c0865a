"""What librdkafka says: its log through Python's logging instead of standard error, and which errors pass."""

from __future__ import annotations

import logging
import re

import confluent_kafka as ck

PASSING = frozenset({
    ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN, ck.KafkaError._TIMED_OUT, ck.KafkaError._RESOLVE,
    ck.KafkaError.REQUEST_TIMED_OUT, ck.KafkaError._PARTITION_EOF, ck.KafkaError._MAX_POLL_EXCEEDED,
    ck.KafkaError.COORDINATOR_NOT_AVAILABLE, ck.KafkaError.NOT_COORDINATOR, ck.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    ck.KafkaError._WAIT_COORD, ck.KafkaError._IN_PROGRESS, ck.KafkaError.NOT_LEADER_FOR_PARTITION,
    ck.KafkaError.LEADER_NOT_AVAILABLE,
    ck.KafkaError._TIMED_OUT_QUEUE,  # a question waited here for a connection: the process, or the broker, was stopped
    ck.KafkaError._DESTROY_BROKER,  # a question was put to a connection that librdkafka just exchanged for another one
})


def passing(error: ck.KafkaError) -> bool:
    """Whether waiting helps: the broker is away, starting, or moving a partition."""
    return not error.fatal() and (error.code() in PASSING or error.retriable())


LIBRDKAFKA = logging.getLogger("librdkafka")


_SAID_BY_THE_WATCH = re.compile(
    r"^(FAIL|ERROR|REQTMOUT|GETPID|CONNECT)\b.*("
    r"Connection refused|Connection reset|Connect to .* failed|Disconnected|Connection setup timed out|timed out|"
    r"brokers are down|Connection closed|Broken pipe|Coordinator load in progress)", re.DOTALL)


def _worth_saying(record: logging.LogRecord) -> bool:
    """Not that a connection is lost, hundreds of times from every client: `streams.watch` says it once, with its end.

    Nor the remark, at every start, that the gapless guarantee counts as experimental: it is wanted. A refused login or
    certificate is said.
    """
    text = record.getMessage()
    return "enable.gapless.guarantee" not in text and _SAID_BY_THE_WATCH.match(text) is None


LIBRDKAFKA.addFilter(_worth_saying)
LIBRDKAFKA.addHandler(logging.NullHandler())  # a command that sets no logging up stays quiet; what matters is raised
