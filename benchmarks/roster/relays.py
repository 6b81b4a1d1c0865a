"""A chain of bare relays, a process of its own: what Kafka and its client alone take for so many hops.

    python -m benchmarks.roster.relays SETTINGS TOPIC,TOPIC,...

Each relay is a thread with a consumer and an idempotent producer of confluent-kafka, configured as ours are: it takes
all that waits, hands every record on to the next topic with its key and headers, and nothing else: no group, no
commits, no state. The topics are new. The first argument is a JSON object of `Settings`. Ends when standard input does.
"""

from __future__ import annotations

import json
import sys
import threading
from itertools import pairwise
from typing import Any

import confluent_kafka as ck

from schemas.catalogue import MARKET_PARTITIONS
from streams.settings import Settings
from streams.transport.logs import LIBRDKAFKA

MOST = 5_000
WAIT_S = 0.1


def relay(settings: Settings, source: str, target: str, ready: threading.Barrier, stop: threading.Event) -> None:
    """Hand on what comes, until told to stop."""
    producer = ck.Producer(settings.producer(), logger=LIBRDKAFKA)
    consumer = ck.Consumer({**settings.client(), "group.id": "relay", "enable.auto.commit": False,
                            "fetch.queue.backoff.ms": 5})
    producer.list_topics(target, timeout=30)
    consumer.assign([ck.TopicPartition(source, p, 0) for p in range(MARKET_PARTITIONS)])
    consumer.poll(WAIT_S)
    ready.wait()
    while not stop.is_set():
        first = consumer.poll(WAIT_S)
        if first is None:
            producer.poll(0)
            continue
        for message in (first, *consumer.consume(MOST, 0)):
            if message.error() is None:  # what an error takes away is missing at the end, and counted there
                _hand_on(producer, target, message)
        producer.poll(0)
    producer.flush(10)
    consumer.close()


def _hand_on(producer: Any, target: str, message: Any) -> None:
    while True:
        try:
            producer.produce(target, message.value(), message.key(), headers=message.headers())
            return
        except BufferError:
            producer.poll(0.01)


def main() -> None:
    """Run until the input ends."""
    settings, names = Settings(**json.loads(sys.argv[1])), sys.argv[2].split(",")
    sys.setswitchinterval(0.001)
    stop, ready = threading.Event(), threading.Barrier(len(names))
    threads = [threading.Thread(target=relay, args=(settings, a, b, ready, stop))
               for a, b in pairwise(names)]
    for thread in threads:
        thread.start()
    ready.wait(180)
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
