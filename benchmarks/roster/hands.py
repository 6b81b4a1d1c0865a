"""A plain consumer of topics from their beginning, and when each record came into its hands."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, TopicPartition

from schemas.catalogue import MARKET_PARTITIONS
from streams.settings import Settings


class Came(NamedTuple):
    """A record, and when it came, by the clock in use, s."""

    at_s: float
    topic: str
    partition: int
    offset: int
    value: bytes | None


class Hands:
    """Reads in a thread until it is stopped.

    Args:
        settings: broker.
        names: topics by their names on the broker, of `MARKET_PARTITIONS` partitions each.
        clock: seconds.
    """

    def __init__(self, settings: Settings, names: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.came: list[Came] = []
        self._clock = clock
        self._stop = threading.Event()
        self._consumer = Consumer({**settings.client(), "group.id": "hands", "enable.auto.commit": False,
                                   "fetch.queue.backoff.ms": 5})
        self._consumer.assign([TopicPartition(name, p, 0) for name in names for p in range(MARKET_PARTITIONS)])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.came.append(Came(self._clock(), str(message.topic()), int(message.partition() or 0),
                                      int(message.offset() or 0), message.value()))

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()
