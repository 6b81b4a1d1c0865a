"""The consumer: batches form when the agent touches them.

A thread (`streams.transport.poll`) polls for the first record, takes the rest that waits, groups by partition and hands
over with one call into the event loop. Here a partition with records has one token in its agent's queue. The agent that
takes the token gets everything that waits by then, up to `BATCH_RECORDS`: one record when idle, thousands under load.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any

import confluent_kafka as ck
from faust.transport.consumer import Consumer
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams.many import Packed
from streams.transport.poll import BATCH_RECORDS, FetchFailed, PollThread

_TABLES = "state is not in Faust's tables"


class Batch:
    """A token of one partition. `take` cuts the batch: what waits at that moment."""

    __slots__ = ("_consumer", "message", "tp")

    def __init__(self, consumer: DriverConsumer, tp: TP) -> None:
        self._consumer = consumer
        self.tp = tp
        self.message: ConsumerMessage | None = None

    def take(self) -> list[Any]:
        """The records, in order; none if the partition was revoked meanwhile."""
        return self._consumer.cut(self)


def _portion(waiting: deque[ck.Message | Packed]) -> list[ck.Message | Packed]:
    """What waits first, `BATCH_RECORDS` and what they were packed with."""
    items, count = [], 0
    while waiting and count < BATCH_RECORDS:
        item = waiting.popleft()
        items.append(item)
        count += item.weight if isinstance(item, Packed) else 1
    return items


class DriverConsumer(Consumer):
    """Faust's consumer on a poll thread."""

    app: Any  # a BatchApp; naming it here would be a circle
    thread: PollThread | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._waiting: defaultdict[TP, deque[ck.Message | Packed]] = defaultdict(deque)
        self._tokens: dict[TP, Batch] = {}
        self.taken = 0  # records
        self.taken_packed = 0  # weight of packed ones
        self._flows = False
        self._ending: asyncio.Task[None] | None = None
        super().__init__(*args, **kwargs)

    async def on_start(self) -> None:
        """Start the thread; it joins the group once the agents have said what they read."""
        self.thread = PollThread(self, self.app.consumer_config, self.app.columns)

    async def on_stop(self) -> None:
        """Let go what is left, leave the group."""
        await self.wait_empty()
        if self.thread is not None:
            await self.thread.close(self.app.drain_left_s())

    # ------------------------------------------------------------------ records in
    def arrived(self, generation: int, by_partition: Mapping[tuple[str, int], list[Any]]) -> None:
        """Records from the thread."""
        if self.thread is None or generation != self.thread.generation or not self.thread.assigned:
            for messages in by_partition.values():
                self._took(messages)
            return
        for (topic, partition), messages in by_partition.items():
            tp = TP(topic, partition)
            self._waiting[tp].extend(messages)
            if self._flows and tp not in self._tokens:
                self._deliver(tp)

    def _deliver(self, tp: TP) -> None:
        token: Any = Batch(self, tp)  # Faust's type of a message's value is bytes
        self._tokens[tp] = token
        token.message = message = ConsumerMessage(
            tp.topic, tp.partition, -1, time.time(), 0, [], None, token, None, 0, 0, tp,
            generation_id=self.app.consumer_generation_id,
        )
        for channel in self.app.topics._tp_index[tp]:
            channel.queue.put_nowait(self.app.create_event(None, token, None, message))

    def cut(self, token: Batch) -> list[ck.Message | Packed]:
        """Everything that waits for the token's partition, up to `BATCH_RECORDS`, packed records as they came."""
        tp = token.tp
        if self._tokens.get(tp) is not token:
            return []
        del self._tokens[tp]
        waiting = self._waiting[tp]
        if self.app.columns is not None:
            records = _portion(waiting)
            self._took(records)
        elif len(waiting) <= BATCH_RECORDS:
            records = list(waiting)
            waiting.clear()
            self.taken += len(records)
        else:
            records = [waiting.popleft() for _ in range(BATCH_RECORDS)]
            self.taken += BATCH_RECORDS
        if waiting:
            self._deliver(tp)
        return records

    def _took(self, items: Iterable[ck.Message | Packed]) -> None:
        for item in items:
            if isinstance(item, Packed):
                self.taken_packed += item.weight
            else:
                self.taken += 1

    def _forget(self) -> None:
        self._tokens.clear()
        for waiting in self._waiting.values():
            self._took(waiting)
        self._waiting.clear()

    # ------------------------------------------------------------------ the group
    async def group_assigned(self, tps: set[TP], generation: int) -> None:
        """The group gave us these partitions; Faust rebalances, then calls `perform_seek`."""
        if not self.app.rebalancing:  # the first join revokes nothing, so nobody has said that a rebalance began
            self.app.on_rebalance_start()
        self.app.consumer_generation_id = generation
        await self.on_partitions_assigned(tps, generation)

    async def group_revoked(self, tps: set[TP]) -> None:
        """The group takes everything back."""
        self.app.on_rebalance_start()
        await self.on_partitions_revoked(tps)
        self._forget()

    async def perform_seek(self) -> None:
        """Take the partitions up and let them flow: called by Faust at the end of a rebalance."""
        thread = self.thread
        assert thread is not None, "a seek before the start"
        generation, tps = thread.generation, set(thread.assigned)
        self._flows = False  # an older recovery may have resumed after its partitions were taken away
        try:
            self._forget()
            committed = await thread.committed(tps) if tps else {}
            starts = await self.app.owner.take_up(tps, committed)
            if starts or not tps:  # nothing: the group has moved on, and who takes up what it gave then assigns
                await thread.assign(starts, generation)
        except Exception as exc:
            await self.app.crash(exc)

    def stop_flow(self) -> None:
        """Faust suspends the streams."""
        self._flows = False
        super().stop_flow()

    def resume_flow(self) -> None:
        """Faust has cleared its queues, with every token in them: hand out new ones for what has arrived."""
        super().resume_flow()
        self._flows = True
        self._tokens.clear()
        for tp, waiting in self._waiting.items():
            if waiting:
                self._deliver(tp)

    async def wait_empty(self) -> None:
        """Before a revocation and before the end: finish what was begun."""
        self._flows = False
        self._forget()
        await self.app.owner.let_go()

    def commit_failed(self) -> None:
        """The broker has not taken a commit, though the group is as it was."""
        self.app.owner.commit_failed()

    def fail(self, reason: BaseException) -> None:
        """Something in the thread went wrong that cannot be waited out."""
        if self._ending is None or self._ending.done():
            self._ending = asyncio.ensure_future(self._end(reason))

    async def _end(self, reason: BaseException) -> None:
        found = await self.app.owner.explained(reason) if isinstance(reason, FetchFailed) else reason
        if found is not None:
            await self.app.crash(found)

    # ------------------------------------------------------------------ what Faust asks of a driver
    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group for these topics."""
        assert self.thread is not None, "a subscription before the start"
        await self.thread.subscribe(topics)

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Faust's timer commits nothing: owners commit what they have finished."""
        return False

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        assert self.thread is not None, "a commit before the start"
        await self.thread.commit(offsets, True)
        return True

    async def _drain_messages(self, fetcher: Any) -> None:
        """Faust's fetch loop: records come from the thread instead."""
        while not (self.should_stop or fetcher.should_stop):
            await fetcher.sleep(3600)

    def assignment(self) -> set[TP]:
        """Partitions that the group gave us."""
        return set(self.thread.assigned) if self.thread is not None else set()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Offsets are said with the assignment."""
        return {}

    async def _seek(self, partition: TP, offset: int) -> None:
        raise NotImplementedError("a partition starts at the offset of its state")

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        raise NotImplementedError("records come from the poll thread")

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        raise NotImplementedError("records come from the poll thread")

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    def _get_active_partitions(self) -> set[TP]:
        return self.assignment()

    def on_buffer_full(self, tp: TP) -> None:
        """Queues hold tokens, at most one a partition."""

    def on_buffer_drop(self, tp: TP) -> None:
        """See `on_buffer_full`."""

    def highwater(self, tp: TP) -> int:
        """Only for Faust's tables; see `PollThread.lags`."""
        raise NotImplementedError(_TABLES)

    def highwaters(self, *partitions: TP) -> Any:
        """Only for Faust's tables."""
        raise NotImplementedError(_TABLES)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Only for Faust's tables."""
        raise NotImplementedError(_TABLES)

    async def position(self, tp: TP) -> int | None:
        """Only for Faust's tables."""
        raise NotImplementedError(_TABLES)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Only for Faust's tables."""
        raise NotImplementedError(_TABLES)

    def topic_partitions(self, topic: str) -> int | None:
        """Only for Faust's tables."""
        raise NotImplementedError(_TABLES)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """The producer chooses."""
        return partition

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics are made by `quantum topics apply`."""
        raise NotImplementedError("topics come from the catalogue")

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's watchdog looks at its own fetch loop, which is not used."""
