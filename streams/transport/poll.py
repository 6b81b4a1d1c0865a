"""The thread that owns a librdkafka consumer.

Every call on the consumer runs here, because confluent-kafka lets other threads wait for a running `poll()`; the
rebalance callback serves such calls too, since the event loop commits while the callback waits for it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import confluent_kafka as ck
from faust.types import TP

from streams.transport.logs import LIBRDKAFKA, passing
from streams.transport.timeouts import ANSWER_S, HEARTBEAT_MS, MAX_POLL_MS, REBALANCE_S, SESSION_MS

if TYPE_CHECKING:
    from streams.transport.consume import DriverConsumer

BATCH_RECORDS = 5_000
BACKLOG_RECORDS = 20_000
POLL_S = 0.1  # longest wait of a call for the thread
CALLBACK_POLL_S = 0.005
TUNING: Mapping[str, str | int | bool] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # where to start is said with every assignment
    "partition.assignment.strategy": "range",
    "session.timeout.ms": SESSION_MS,
    "heartbeat.interval.ms": HEARTBEAT_MS,
    "max.poll.interval.ms": MAX_POLL_MS,
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 500,
    "fetch.queue.backoff.ms": 5,  # default 1,000: a full local queue then stalls its partition for a second
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 32_768,
    "topic.metadata.refresh.interval.ms": 60_000,
}
STALE = frozenset({
    ck.KafkaError.ILLEGAL_GENERATION, ck.KafkaError.UNKNOWN_MEMBER_ID, ck.KafkaError.REBALANCE_IN_PROGRESS,
    ck.KafkaError._STATE, ck.KafkaError.FENCED_INSTANCE_ID, ck.KafkaError._NO_OFFSET, ck.KafkaError._ASSIGNMENT_LOST,
})


class FetchFailed(Exception):
    """A partition, or a topic, that cannot be read on.

    Attributes:
        topic, partition, offset: where; partition and offset are -1 or None where it is the topic.
        code: librdkafka's.
    """

    def __init__(self, message: ck.Message, error: ck.KafkaError) -> None:
        self.topic, self.partition, self.offset = message.topic() or "", message.partition(), message.offset()
        self.code = error.code()
        place = self.topic if not self.topic or self.partition in (None, -1) else \
            f"{self.topic}-{self.partition}@{self.offset}"
        super().__init__(f"{place}: {error.str()} ({error.name()})")


class PollThread:
    """The thread that owns a librdkafka consumer."""

    def __init__(self, owner: DriverConsumer, config: Mapping[str, str | int]) -> None:
        self.generation = 0
        self.assigned: set[TP] = set()
        self.received = 0  # written by the thread only; `owner.taken` by the event loop only
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._closing = False
        self._commit_fails = False
        self._client = ck.Consumer({**TUNING, **config, "on_commit": self._on_commit}, logger=LIBRDKAFKA)
        self._thread = threading.Thread(target=self._run, name=f"consumer-{config['group.id']}", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ event loop
    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """Run a consumer call in the thread."""
        future = self._loop.create_future()
        self._calls.put((lambda: function(*args, **kwargs), future))
        return future

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group."""
        await self.call(self._client.subscribe, list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke,
                        on_lost=self._on_revoke)

    async def committed(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        """Committed offset of each partition, None where there is none; a broker that is away is waited for."""
        asked = [ck.TopicPartition(*tp) for tp in tps]
        while True:
            try:
                found = await self.call(self._client.committed, asked, ANSWER_S)
                error = next((at.error for at in found if at.error is not None), None)
            except ck.KafkaException as exc:
                error = exc.args[0]
            if error is None:
                break
            if not passing(error):
                raise ck.KafkaException(error)
            await asyncio.sleep(0.2)
        return {TP(at.topic, at.partition): at.offset if at.offset >= 0 else None for at in found}

    async def assign(self, starts: Mapping[TP, int], generation: int) -> None:
        """Let the partitions flow from these offsets, unless the group has moved on meanwhile."""
        def run() -> None:
            if generation == self.generation:
                self._client.assign([ck.TopicPartition(tp.topic, tp.partition, at) for tp, at in starts.items()])

        await self.call(run)

    async def commit(self, offsets: Mapping[TP, int], wait: bool) -> None:
        """Commit; what the group has taken away meanwhile is left out."""
        given = [ck.TopicPartition(tp.topic, tp.partition, at) for tp, at in offsets.items() if tp in self.assigned]
        if not given:
            return
        try:
            await self.call(self._client.commit, offsets=given, asynchronous=not wait)
        except ck.KafkaException as exc:
            self._judge_commit(exc.args[0])

    async def lags(self) -> dict[TP, tuple[int, int]]:
        """Log-end offset as of the last fetch, and position, of each flowing partition."""
        def run() -> dict[TP, tuple[int, int]]:
            out = {}
            for at in self._client.position(self._client.assignment()):
                _, end = self._client.get_watermark_offsets(at, cached=True)
                out[TP(at.topic, at.partition)] = (end, at.offset)
            return out

        return dict(await self.call(run))

    async def close(self, timeout_s: float) -> None:
        """Leave the group and end the thread."""
        self._closing = True
        await self._loop.run_in_executor(None, self._thread.join, timeout_s)

    # ------------------------------------------------------------------ thread
    def _run(self) -> None:
        try:
            paused_since: float | None = None
            while not self._closing:
                self._serve()
                if self.received - self._owner.taken < BACKLOG_RECORDS:
                    paused_since = None
                    self._poll(POLL_S, BATCH_RECORDS)
                    continue
                # Backpressure by not polling: pause() would throw away what was prefetched. A poll a second keeps the
                # membership of the group and serves rebalances; it brings one record.
                paused_since = paused_since or time.monotonic()
                if time.monotonic() - paused_since > 1.0:
                    paused_since = None
                    self._poll(0, 0)
                time.sleep(0.001)
            self._serve()  # what was asked for before the end, a commit perhaps
            self._client.close()
        except BaseException as exc:
            self._post(self._owner.fail, exc)

    def _poll(self, wait_s: float, more: int) -> None:
        first = self._client.poll(wait_s)
        if first is None:
            return
        by_partition: dict[tuple[str | None, int | None], list[ck.Message]] = defaultdict(list)
        count = 0
        for message in (first, *self._client.consume(more, 0)) if more else (first,):
            error = message.error()
            if error is None:
                by_partition[message.topic(), message.partition()].append(message)
                count += 1
            elif not passing(error):
                self._post(self._owner.fail, FetchFailed(message, error))
        if count:
            self.received += count
            self._post(self._owner.arrived, self.generation, by_partition, count)

    def _post(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed: nobody is there to hear it
            self._closing = True

    def _serve(self, wait_s: float = 0) -> None:
        while True:
            try:
                function, future = self._calls.get(wait_s > 0, wait_s or None)
            except queue.Empty:
                return
            wait_s = 0
            try:
                result, error = function(), None
            except BaseException as exc:
                result, error = None, exc
            self._post(_resolve, future, result, error)

    def _on_commit(self, error: ck.KafkaError | None, partitions: list[ck.TopicPartition]) -> None:
        for problem in (error, *(p.error for p in partitions)):
            if problem is not None:
                self._judge_commit(problem)
                return
        self._commit_fails = False

    def _judge_commit(self, error: ck.KafkaError) -> None:
        """A commit that fails loses nothing, the state's head counts; but lags would be wrong until the next one."""
        if error.code() in STALE:
            return
        if not self._commit_fails:  # said once, not at every try while a broker is away
            self._owner.log.warning("commit of %s, tried again: %s", self._owner.app.conf.id, error)
        self._commit_fails = True
        self._post(self._owner.commit_failed)

    def _wait_for(self, coroutine: Coroutine[Any, Any, None], what: str) -> None:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        until = time.monotonic() + REBALANCE_S
        while not future.done() and time.monotonic() < until and not self._closing:
            self._serve(CALLBACK_POLL_S)
        if not future.done():
            future.cancel()
            self._owner.log.warning("%s was given up after %.0f s", what, REBALANCE_S)
        elif not future.cancelled() and (error := future.exception()) is not None:
            self._post(self._owner.fail, error)

    def _on_assign(self, client: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        client.assign([])  # nothing flows before its owner has taken it up
        if not self._closing:
            self.generation += 1
            self.assigned = {TP(p.topic, p.partition) for p in partitions}
            self._wait_for(self._owner.group_assigned(set(self.assigned), self.generation), "taking up partitions")

    def _on_revoke(self, client: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        if not self._closing:
            self._wait_for(self._owner.group_revoked(set(self.assigned)), "letting partitions go")
        self.assigned = set()
        client.unassign()


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
