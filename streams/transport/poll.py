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

from streams.heard import weakly
from streams.transport import raw
from streams.transport.awake import Awake
from streams.transport.logs import LIBRDKAFKA, passing
from streams.transport.raw import RawError, RawQueues
from streams.transport.timeouts import ANSWER_S, HEARTBEAT_MS, MAX_POLL_MS, REBALANCE_S, SESSION_MS

if TYPE_CHECKING:
    from streams.transport.consume import DriverConsumer

BATCH_RECORDS = 5_000
BACKLOG_RECORDS = 20_000
RAW_RECORDS = 20_000  # of a partition at once: columns want to be long
RAW_BACKLOG_RECORDS = 200_000  # as `Packed.weight` counts
POLL_S = 0.1  # longest wait of a call for the thread
FULL_S = 0.001  # until it is looked again whether there is room for more
CALLBACK_POLL_S = 0.005
REJOIN_S = 2.0  # after a gap a group that has given us up says so within this; else we join it anew
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
RAW_TUNING: Mapping[str, str | int | bool] = {
    # Each partition has a queue of its own then. While one is full it is left out of what is asked for; and a request
    # for the others, should they have nothing, waits at the broker, and all partitions with it.
    "queued.min.messages": 50_000,
    "fetch.wait.max.ms": 50,
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

    def __init__(self, message: ck.Message | RawError, error: ck.KafkaError) -> None:
        self.topic, self.partition, self.offset = message.topic() or "", message.partition(), message.offset()
        self.code = error.code()
        place = self.topic if not self.topic or self.partition in (None, -1) else \
            f"{self.topic}-{self.partition}@{self.offset}"
        super().__init__(f"{place}: {error.str()} ({error.name()})")


class PollThread:
    """The thread that owns a librdkafka consumer.

    Args:
        owner: what records are handed to.
        config: librdkafka configuration.
        columns: the one topic of the subscription, if its records are wanted as `streams.many.Packed`, where they can.
    """

    def __init__(self, owner: DriverConsumer, config: Mapping[str, str | int], columns: str | None = None) -> None:
        self.generation = 0
        self.assigned: set[TP] = set()
        self.received = 0  # records; written by the thread only, `owner.taken` by the event loop only
        self.received_packed = 0  # weight of packed ones; ditto, `owner.taken_packed`
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = queue.SimpleQueue()
        self._closing = False
        self._commit_fails = False
        self._topics: list[str] = []
        self._joins = False  # anew, after a gap
        raw_topic = columns if raw.available() else None
        whole: Mapping[str, str | int | bool] = {**TUNING, **(RAW_TUNING if raw_topic else {}), **config}
        self.awake = Awake((int(whole["session.timeout.ms"]) - int(whole["heartbeat.interval.ms"])) / 1000)
        self._client = ck.Consumer({**whole, "on_commit": weakly(self._on_commit)}, logger=LIBRDKAFKA)
        self._raw = RawQueues(self._client, raw_topic, RAW_RECORDS) if raw_topic else None
        self._behind = False  # the main queue may have records of a partition that was diverted late
        self._last: dict[int, int] = {}  # newest offset handed over of each partition that may be diverted
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
        self._topics = list(topics)
        await self.call(self._subscribe)

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
                self._last.clear()
                if self._raw is not None:
                    self._raw.divert(*(tp.partition for tp in starts if tp.topic == self._raw.topic))
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
    def _subscribe(self) -> None:
        self._client.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke,
                               on_lost=self._on_revoke)

    def _look_up(self) -> None:
        """After a gap no state is written before the group has given partitions anew: see that it does."""
        if self.awake.beat() or self._joins or not self._topics:
            return
        if (self.awake.since_gap_s() or 0.0) > REJOIN_S:
            self._owner.log.warning("%s was stopped for as long as its session lasts: it joins its group anew",
                                    self._owner.app.conf.id)
            self._joins = True
            self._client.unsubscribe()
            self._subscribe()

    def _run(self) -> None:
        try:
            paused_since: float | None = None
            while not self._closing:
                self._look_up()
                self._serve()
                if self.received - self._owner.taken < BACKLOG_RECORDS:
                    paused_since = None
                    self._poll()
                    continue
                # Backpressure by not polling: pause() would throw away what was prefetched. A poll a second keeps the
                # membership of the group and serves rebalances; it brings one record.
                paused_since = paused_since or time.monotonic()
                if time.monotonic() - paused_since > 1.0:
                    paused_since = None
                    if (first := self._client.poll(0)) is not None:
                        self._hand_over(first, 0)
                elif self._behind or not self._take_raw():
                    time.sleep(FULL_S)
            self._serve()  # what was asked for before the end, a commit perhaps
            if self._raw is not None:
                self._raw.close()
            self._client.close()
        except BaseException as exc:
            self._post(self._owner.fail, exc)

    def _poll(self) -> None:
        first = self._client.poll(0 if self._raw else POLL_S)
        if first is not None:
            self._hand_over(first, BATCH_RECORDS)
        elif self._raw and self._raw.main_waits():
            return  # a callback was served, and records stand behind it
        else:
            self._behind = False
        if self._raw and not self._behind and not self._take_raw() and first is None:
            self._raw.wait(POLL_S if self._has_room_for_packed() else FULL_S)

    def _has_room_for_packed(self) -> bool:
        return self.received_packed - self._owner.taken_packed < RAW_BACKLOG_RECORDS

    def _take_raw(self) -> bool:
        """Hand over what diverted partitions have, where there is room for it; whether there was anything."""
        queues = self._raw
        if not queues or not self._has_room_for_packed():
            return False
        found: dict[tuple[str | None, int | None], list[Any]] = defaultdict(list)
        for partition, records in queues.take():
            if isinstance(records, RawError):
                if not passing(records.error):
                    self._post(self._owner.fail, FetchFailed(records, records.error))
                continue
            self._in_order(partition, int(records.offset_N[0]), int(records.offset_N[-1]))
            found[queues.topic, partition].append(records)
            self.received_packed += records.weight
        if found:
            self._post(self._owner.arrived, self.generation, found)
        return bool(found)

    def _in_order(self, partition: int, first: int, last: int) -> None:
        """Two queues carry a partition's records: that none overtakes another is seen here.

        Raises:
            RuntimeError: one did; the app goes down before anything of it is folded.
        """
        if first <= self._last.get(partition, -1):
            raise RuntimeError(f"partition {partition}: offset {first} came behind {self._last[partition]}")
        self._last[partition] = last

    def _hand_over(self, first: ck.Message, more: int) -> None:
        """Post a record that came, and what else waits in the main queue."""
        by_partition: dict[tuple[str | None, int | None], list[ck.Message]] = defaultdict(list)
        count = 0
        for message in (first, *self._client.consume(more, 0)) if more else (first,):
            error = message.error()
            if error is None:
                by_partition[message.topic(), message.partition()].append(message)
                count += 1
            elif not passing(error):
                self._post(self._owner.fail, FetchFailed(message, error))
        if self._raw is not None:
            for (topic, partition), messages in by_partition.items():
                if topic == self._raw.topic:
                    self._in_order(partition, messages[0].offset(), messages[-1].offset())  # type: ignore[arg-type]
                    self._raw.divert(partition)  # type: ignore[arg-type]
                    self._behind = True
        if count:
            self.received += count
            self._post(self._owner.arrived, self.generation, by_partition)

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
            self.awake.beat()
            self._serve(CALLBACK_POLL_S)
        if not future.done():
            future.cancel()
            self._owner.log.warning("%s was given up after %.0f s", what, REBALANCE_S)
        elif not future.cancelled() and (error := future.exception()) is not None:
            self._post(self._owner.fail, error)

    def _on_assign(self, client: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        self._last.clear()
        client.assign([])  # nothing flows before its owner has taken it up
        if not self._closing:
            self.awake.renew()
            self._joins = False
            self.generation += 1
            self.assigned = {TP(p.topic, p.partition) for p in partitions}
            self._wait_for(self._owner.group_assigned(set(self.assigned), self.generation), "taking up partitions")

    def _on_revoke(self, client: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        if not self._closing:
            self._wait_for(self._owner.group_revoked(set(self.assigned)), "letting partitions go")
        self.assigned = set()
        self._last.clear()
        client.unassign()


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
