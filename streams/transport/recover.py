"""Partitions read up to their end by a consumer of their own. Blocking: run in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

import confluent_kafka as ck
from faust.types import TP

from streams.transport.logs import LIBRDKAFKA, passing
from streams.transport.timeouts import ANSWER_S

Take = Callable[[TP, ck.Message], None]
READ_RECORDS = 10_000
UNKNOWN_S = 30.0  # a broker that has just started may not know a partition for so long


def watermarks(
    client: Mapping[str, str | int], tps: Iterable[TP], stop: Callable[[], bool],
) -> dict[TP, tuple[int, int]]:
    """First offset held and next offset to be written of each partition; a broker that is away is waited for.

    Args:
        client: librdkafka client configuration.
        tps: partitions.
        stop: asked between questions; a true answer ends the waiting, with what was found by then.

    Raises:
        confluent_kafka.KafkaException: the broker refuses.
    """
    consumer = ck.Consumer(_reader(client), logger=LIBRDKAFKA)
    try:
        found: dict[TP, tuple[int, int]] = {}
        until = time.monotonic() + UNKNOWN_S
        for tp in tps:
            while tp not in found and not stop():
                try:
                    found[tp] = consumer.get_watermark_offsets(ck.TopicPartition(*tp), timeout=ANSWER_S)
                except ck.KafkaException as exc:
                    unknown = exc.args[0].code() == ck.KafkaError._UNKNOWN_PARTITION  # by a broker that just started
                    if not passing(exc.args[0]) and (not unknown or time.monotonic() > until):
                        raise
                    time.sleep(0.2)
        return found
    finally:
        consumer.close()


def read_to_end(client: Mapping[str, str | int], tps: Iterable[TP], take: Take, stop: Callable[[], bool],
                starts: Mapping[TP, int] | None = None) -> None:
    """Give every record of the partitions to `take(tp, message)`, each partition in order, up to its end.

    Which of several records of a key counts is for `take` to say: compaction leaves the newest one at least, but the
    newest need not be the one that contains most.

    Args:
        client: librdkafka client configuration.
        tps: changelog partitions.
        take: called for every record.
        stop: asked between polls; a true answer ends the reading early.
        starts: offset of each partition to begin with; None: with what is there.

    Raises:
        confluent_kafka.KafkaException: a partition cannot be read.
    """
    left = set(tps)
    if not left:
        return
    known = {tuple(tp): tp for tp in left}
    consumer = ck.Consumer(_reader(client), logger=LIBRDKAFKA)
    consumer.assign([ck.TopicPartition(*tp, ck.OFFSET_BEGINNING if starts is None else starts[tp]) for tp in left])
    try:
        while left and not stop():
            first = consumer.poll(0.2)
            if first is None:
                continue
            for message in (first, *consumer.consume(READ_RECORDS, 0)):
                error = message.error()
                if error is None:
                    take(known[message.topic(), message.partition()], message)
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    left.discard(known[message.topic(), message.partition()])
                elif not passing(error):
                    raise ck.KafkaException(error)
    finally:
        consumer.close()


def _reader(client: Mapping[str, str | int]) -> dict[str, str | int | bool]:
    return {
        **client,
        "group.id": f"{client.get('client.id', 'quantum')}.recovery",  # never joined, but its coordinator is asked for
        "enable.auto.commit": False, "enable.partition.eof": True,
        "fetch.wait.max.ms": 50, "fetch.queue.backoff.ms": 5, "auto.offset.reset": "error",
    }
