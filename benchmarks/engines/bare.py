"""A bare confluent-kafka loop: consume, decode with fastavro, a dict of windows; no group, no commits, no state."""

from __future__ import annotations

import io
from collections.abc import Iterator

import confluent_kafka as ck
import fastavro

from benchmarks.engines.task import GROUP_S, PARTITIONS, PREFIX, Job, Watch, Windows, add

BATCH = 5_000


def consumer_of(job: Job) -> ck.Consumer:
    """A consumer of the whole topic from its beginning."""
    consumer = ck.Consumer({"bootstrap.servers": job.broker, "group.id": job.group, "enable.auto.commit": False,
                            "queued.min.messages": 100_000, "fetch.queue.backoff.ms": 5})
    consumer.assign([ck.TopicPartition(job.topic, p, 0) for p in range(PARTITIONS)])
    return consumer


def batches(job: Job, watch: Watch) -> Iterator[list[ck.Message]]:
    """The messages of the topic as they come; the watch runs from the first of them to the last."""
    consumer, count = consumer_of(job), 0
    messages = [consumer.poll(GROUP_S)]
    watch.start()
    while True:
        yield messages
        count += len(messages)
        if count >= job.records:
            break
        messages = consumer.consume(BATCH, 1.0 if count + BATCH > job.records else 60.0)
    watch.stop()


def main() -> None:
    """Run."""
    job, watch = Job.given(), Watch()
    schema = fastavro.parse_schema(job.schema)
    windows: Windows = {}
    taken = dict.fromkeys(range(PARTITIONS), 0)
    for messages in batches(job, watch):
        for message in messages:
            taken[message.partition()] += 1
            stream = io.BytesIO(message.value())
            stream.seek(PREFIX)
            trade = fastavro.schemaless_reader(stream, schema, None)
            add(windows, trade["symbol"], trade["ts_ms"], trade["quantity"], trade["price"])
    watch.report(taken, windows)


if __name__ == "__main__":
    main()
