"""One idempotent librdkafka producer a process, shared by its apps; acknowledgements resolve one future a batch.

Order is kept a partition: the producer is idempotent and gapless, so a record that is lost for good is followed by
nothing (a changelog's head never stands without its scopes) and by a fatal error, which crashes the apps.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import confluent_kafka as ck
from faust.exceptions import ProducerSendError
from faust.transport.producer import Producer
from faust.types.tuples import TP, RecordMetadata

from streams.heard import weakly
from streams.transport.logs import LIBRDKAFKA
from streams.transport.timeouts import MESSAGE_TIMEOUT_MS

FULL_WAIT_S = 0.005
QUEUE_RECORDS = 500_000
TUNING: Mapping[str, str | int] = {
    "enable.gapless.guarantee": "true",
    "message.timeout.ms": MESSAGE_TIMEOUT_MS,  # a broker that is away is waited for; gapless does not cover time-outs
    "sticky.partitioning.linger.ms": 0,
    "batch.num.messages": 100_000,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": QUEUE_RECORDS,
    "topic.metadata.refresh.interval.ms": 60_000,
}


class Row(NamedTuple):
    """A record to produce. Partition -1: by the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int = -1


class Acks:
    """Counts the delivery reports that a batch asked for; its future resolves with the last one."""

    __slots__ = ("_left", "_post", "error", "future", "last")

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop, post: Callable[[Acks], None]) -> None:
        self._left = count
        self._post = post
        self.error: ck.KafkaError | None = None
        self.last: ck.Message | None = None
        self.future: asyncio.Future[ck.Message | None] = loop.create_future()

    def delivered(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        """Delivery report; runs in the producer's thread."""
        if error is not None:
            self.error = error
        self._left -= 1
        if not self._left:
            self.last = message
            self._post(self)

    def settle(self) -> None:
        """Resolve the future; runs in its event loop."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.last)
        else:
            topic = self.last.topic() if self.last is not None else "?"
            self.future.set_exception(ProducerSendError(f"{topic}: {self.error}"))
            self.future.exception()  # whoever waits sees it; nobody waiting is no reason for a second report


class SharedProducer:
    """The process's producer for one client configuration, with the thread that polls it."""

    _all: ClassVar[dict[tuple[tuple[str, str], ...], SharedProducer]] = {}

    def __init__(self, config: Mapping[str, str | int]) -> None:
        self.users = 0
        self.fatal: str | None = None
        self.client = ck.Producer({**config, **TUNING, "error_cb": weakly(self._on_error)}, logger=LIBRDKAFKA)
        self._stop = False
        self._thread = threading.Thread(target=self._poll, name="producer", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, config: Mapping[str, str | int]) -> SharedProducer:
        """The producer of this configuration; give it back with `release`."""
        key = tuple(sorted((k, str(v)) for k, v in config.items()))
        shared = cls._all.get(key)
        if shared is None:
            shared = cls._all[key] = cls(config)
        shared.users += 1
        return shared

    def release(self) -> None:
        """Give the producer back; the last user ends its thread."""
        self.users -= 1
        if self.users == 0:
            self._stop = True
            for key in [k for k, v in self._all.items() if v is self]:
                del self._all[key]

    def _poll(self) -> None:
        while not self._stop:
            try:
                self.client.poll(0.5)
            except ck.KafkaException as exc:  # a fatal error, at every call: reports have to come nevertheless
                self.fatal = str(exc.args[0])
                time.sleep(FULL_WAIT_S)

    def _on_error(self, error: ck.KafkaError) -> None:
        if error.fatal():
            self.fatal = str(error)


class DriverProducer(Producer):
    """Faust's producer on the shared one; `send_rows` is what batches use."""

    app: Any  # a BatchApp; naming it here would be a circle

    def __post_init__(self) -> None:
        super().__post_init__()
        self._shared: SharedProducer | None = None
        self._settled: deque[Acks] = deque()
        self._posted = False
        self._out: set[asyncio.Future[Any]] = set()

    async def on_start(self) -> None:
        """Take the shared producer."""
        self._aio = asyncio.get_running_loop()
        self._shared = SharedProducer.acquire(self.app.producer_config)
        await super().on_start()

    async def on_stop(self) -> None:
        """Wait, for as long as the app's stop allows, for what is under way, and give the producer back."""
        if self._out:
            await asyncio.wait(list(self._out), timeout=self.app.drain_left_s())
        if self._shared is not None:
            self._shared.release()
            self._shared = None

    def _post(self, acks: Acks) -> None:
        self._settled.append(acks)
        if not self._posted:
            self._posted = True
            try:
                self._aio.call_soon_threadsafe(self._settle)
            except RuntimeError:  # the loop is closed: the app has stopped without waiting
                self._settled.clear()

    def _settle(self) -> None:
        self._posted = False
        while self._settled:
            acks = self._settled.popleft()
            self._out.discard(acks.future)
            acks.settle()

    async def send_rows(self, rows: Sequence[Row]) -> asyncio.Future[Any]:
        """Produce rows in order; returns once they are queued, with the future of their acknowledgement.

        A full producer queue is waited for without blocking the event loop.

        Raises:
            ProducerSendError: a row can never be sent (too large, unknown topic), or the producer is dead.
        """
        assert self._shared is not None, "the producer is not started"
        if not rows:
            done = self._aio.create_future()
            done.set_result(None)
            return done
        told = _last_of_each(rows)
        acks = Acks(len(told), self._aio, self._post)
        self._out.add(acks.future)
        produce = self._shared.client.produce
        for n, (topic, key, value, headers, partition) in enumerate(rows):
            report = acks.delivered if n in told else None
            while True:
                try:
                    if headers:
                        produce(topic, value, key, partition, report, headers=list(headers))
                    else:
                        produce(topic, value, key, partition, report)
                    break
                except BufferError:
                    await asyncio.sleep(FULL_WAIT_S)
                except ck.KafkaException as exc:
                    self._out.discard(acks.future)
                    reason = self._shared.fatal or exc.args[0]
                    raise ProducerSendError(f"{topic}: {reason} (value of {len(value or b'')} bytes)") from exc
        return acks.future

    async def send(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None, timestamp: float | None,
        headers: Any, *, transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Faust's own interface, for `topic.send` and the like."""
        given: Iterable[tuple[str, bytes]] = headers.items() if isinstance(headers, Mapping) else headers or ()
        row = Row(topic, key, value, tuple(given), -1 if partition is None else partition)
        future = await self.send_rows([row])
        return asyncio.ensure_future(_metadata(future))

    async def send_and_wait(self, *args: Any, **kwargs: Any) -> RecordMetadata:
        """Send one record and wait for its acknowledgement."""
        return await (await self.send(*args, **kwargs))

    async def flush(self) -> None:
        """Wait for what was sent before this call, at most as long as the app may take to stop."""
        if self._out:
            await asyncio.wait(list(self._out), timeout=self.app.drain_left_s())

    def supports_headers(self) -> bool:
        """Kafka has headers."""
        return True


def _last_of_each(rows: Sequence[Row]) -> frozenset[int]:
    """The rows whose acknowledgement says it all: the last for each partition that rows can be told to share.

    Records of one partition are acknowledged in order, and a lost one is followed by nothing; rows of one topic and key
    lie in one partition. A row with neither key nor partition lies anywhere and is told by itself.
    """
    last = {(topic, partition, key if partition < 0 else None) if key is not None or partition >= 0 else n: n
            for n, (topic, key, _, _, partition) in enumerate(rows)}
    return frozenset(last.values())


async def _metadata(future: asyncio.Future[Any]) -> RecordMetadata:
    message = await future
    tp = TP(message.topic(), message.partition())
    return RecordMetadata(topic=tp.topic, partition=tp.partition, topic_partition=tp, offset=message.offset())
