"""A fold of one input partition at work: take, publish, flush, commit; the next records fold meanwhile.

Order: outputs and dead letters of a record leave as soon as it is folded. A flush holds the state at a record boundary,
and is written only when the outputs of everything in it are acknowledged; when the flush is acknowledged, the offset
may be committed. One flush is under way at a time, and what was folded meanwhile goes into the next one, so that
flushes grow with the load while latency does not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter, thread_time
from typing import Any

from faust.types import TP

from streams.blobs import TOPIC as BLOBS
from streams.fold import PartitionFold
from streams.held import seal
from streams.many import ManyFold, Packed, packed
from streams.records import Incoming, Outgoing, headers_of
from streams.stats import AgentStats
from streams.trainers.jobs import Asked, OpenJobs
from streams.transport.commit import Committer
from streams.transport.produce import DriverProducer, Row

log = logging.getLogger(__name__)

Offer = Callable[[TP, Mapping[str, Asked], int], None]
"""Input partition, its open jobs by id, newest event time; see `streams.trainers.trainers.Trainers.offer`."""

SLICE_S = 0.01  # the other agents of the process wait no longer than this for the event loop
SLOW_STEP_S = 1.0
FLUSH_INTERVAL_S = 0.2  # least time between two flushes of a partition
FLUSH_INTERVAL_MAX_S = 1.0  # longest: what a crash folds again at most
FLUSH_SHARE = 1 / 256  # of the event loop's time, which some dozens of partitions share
MANY_RECORDS = 64  # fewer are not worth columns
CHUNK_RECORDS = 10_000  # most that are taken in columns at once, and least, however long they take
LEAST_RECORDS = 1_000
FOLD_SHARE = 1 / 16  # of the fold's own time, in columns: a second of that is a million records, which flush sooner
UNFLUSHED_RECORDS = 50_000  # the fold waits when so many records await their flush
UNFLUSHED_IN_COLUMNS = 500_000  # the same where a record is folded in less than a microsecond


class FoldLane:
    """One partition of an agent's input.

    Args:
        tp: the input partition, as the broker names it.
        fold: the restored fold.
        producer: publishes outputs and state.
        committer: takes finished offsets.
        wire: name on the broker of a catalogue topic.
        stats: counters of the agent.
        fail: called once with what went wrong in the background.
        offer: takes the open jobs of the state each time that one is durable; None: the agent has none.
        end: input offset up to which the log reached when the state was taken up: until that is folded, a job that is
            open may have its result there.
        ours: asked before state is written: False where the group may have given the partition to another meanwhile;
            then nothing is written any more, and the owner of the partitions is told to let them go.
    """

    def __init__(self, tp: TP, fold: PartitionFold, *, producer: DriverProducer, committer: Committer,
                 wire: Callable[[str], str], stats: AgentStats, fail: Callable[[BaseException], None],
                 offer: Offer | None = None, end: int = 0, ours: Callable[[], bool] = lambda: True) -> None:
        self.tp = tp
        self.fold = fold
        self.broken = False
        self._many = ManyFold(fold) if ManyFold.possible(fold.agent, fold.io) else None
        self._chunk = CHUNK_RECORDS
        self._producer = producer
        self._committer = committer
        self._wire = wire
        self._changelog = wire(fold.io.changelog)
        self._blobs = wire(BLOBS)
        self._stats = stats
        self._fail = fail
        self._offer = offer
        self._end = end
        self._ours = ours
        self._jobs = OpenJobs(fold)
        self._closed = False
        self._boundary = asyncio.Lock()  # held while records are folded whose outputs have not left yet
        self._flushing = asyncio.Lock()
        self._acks: list[asyncio.Future[Any]] = []
        self._flushed = fold.offset
        self._unflushed = 0
        self._flush_s = 0.0  # what the newest flush took of the event loop's time
        self._fold_s = 0.0  # what was folded since took
        self._most = UNFLUSHED_RECORDS if self._many is None else UNFLUSHED_IN_COLUMNS
        self._room = asyncio.Event()
        self._room.set()
        self._full = asyncio.Event()  # the contrary
        self._worth = asyncio.Event()  # a flush costs little beside what was folded since the last one
        self._flusher: asyncio.Task[None] | None = None

    async def take(self, records: Sequence[Any]) -> None:
        """Fold records, in slices that leave the event loop to others."""
        at = 0
        if self._many is not None:
            records = list(self._units(records))
        while at < len(records):
            await self._room.wait()
            async with self._boundary:
                if self._closed or self.broken:
                    return
                at = await self._slice(records, at)
            self._flush_soon()
            if at < len(records):
                await asyncio.sleep(0)

    async def _slice(self, records: Sequence[Any], at: int) -> int:
        fold, rows, began, count = self.fold, [], perf_counter(), 0
        until = step_began = began
        until += SLICE_S
        try:
            while at < len(records):
                outs, folded = self._fold_unit(records[at])
                at += 1
                count += folded
                for out in outs:
                    rows.append(Row(self._wire(out.topic), out.key, out.value, out.headers))
                now = perf_counter()
                if now - step_began > SLOW_STEP_S:
                    log.warning("%s took %.1f s over %s-%d@%d", fold.agent.name, now - step_began, self.tp.topic,
                                self.tp.partition, fold.offset)
                step_began = now
                if now > until:
                    break
            if rows:
                self._acks.append(await self._producer.send_rows(rows))
        except BaseException:
            self.broken = True  # folded, but not published: nothing of this may be flushed
            raise
        self._unflushed += count
        self._fold_s += step_began - began
        if self._unflushed >= self._most:
            self._room.clear()
            self._full.set()
        if self._many is not None and self._fold_s * FOLD_SHARE > self._flush_s:
            self._worth.set()
        self._stats.folded(self.tp.partition, count, len(rows), fold.offset, fold.counters,
                           step_began - began)
        return at

    def _units(self, records: Sequence[Any]) -> Iterator[Any]:
        """What is folded at a time: a record, or packed ones, a slice's worth as far as one knows."""
        few: list[Any] = []
        for record in records:
            if isinstance(record, Packed):
                yield from few
                few = []
                for start in range(0, len(record), self._chunk):
                    yield record.part(start, start + self._chunk)
            else:
                few.append(record)
        if self._many is None or len(few) < MANY_RECORDS:
            yield from few
        else:
            yield from (packed(few[start:start + self._chunk]) for start in range(0, len(few), self._chunk))

    def _fold_unit(self, unit: Any) -> tuple[list[Outgoing], int]:
        """What to publish, and how many records were folded."""
        if not isinstance(unit, Packed):
            return self.fold.apply(Incoming(unit.offset(), unit.key(), unit.value(), headers_of(unit.headers()))), 1
        assert self._many is not None, "packed records for an agent that does not take them"
        began = thread_time()  # not the clock: what others take of the processor says nothing of the records
        outs = self._many.apply(unit)
        fitting = int(len(unit) * SLICE_S / max(thread_time() - began, 1e-6))
        self._chunk = min(max(fitting, LEAST_RECORDS), CHUNK_RECORDS)  # less where many are taken by themselves
        return outs, len(unit)

    # ------------------------------------------------------------------ state out
    def start(self) -> None:
        """Write what has to be written without any input: a repaired state, the root of an epoch. Offer open jobs."""
        if self._offer is not None:
            self._offer_jobs(self._jobs.look(), self.fold.offset, self.fold.event_ms)
        if self.fold.keeper.unsaved:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush_loop())

    async def _flush_loop(self) -> None:
        try:
            while (self.fold.offset > self._flushed or self.fold.keeper.unsaved) and not self.broken:
                await self.flush()
                await _set_within(self._full, FLUSH_INTERVAL_S)
                if not self._full.is_set():
                    most = min(self._flush_s / FLUSH_SHARE, FLUSH_INTERVAL_MAX_S)
                    await _set_within(self._worth, max(most - FLUSH_INTERVAL_S, 0))
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            self._fail(exc)

    async def flush(self) -> None:
        """Write what has changed, once the outputs of everything in it are acknowledged."""
        async with self._flushing:
            async with self._boundary:
                if self.broken or not (self.fold.offset > self._flushed or self.fold.keeper.unsaved):
                    return
                if not self._ours():
                    return
                acks, self._acks = self._acks, []
                count, self._unflushed, offset = self._unflushed, 0, self.fold.offset
                self._fold_s = 0.0
                self._full.clear()
                self._worth.clear()
                began = perf_counter()
                try:
                    flush = self.fold.flush()
                    jobs, event_ms = self._jobs.look(), self.fold.event_ms
                except BaseException:
                    self.broken = True
                    raise
                self._flush_s = perf_counter() - began
            try:
                for ack in acks:
                    await ack
                if not self._ours():
                    self.broken = True
                    return
                if flush.blobs:
                    await (await self._producer.send_rows(
                        [Row(self._blobs, key, value, (), self.tp.partition) for key, value in flush.blobs]))
                rows = [Row(self._changelog, key, value, seal(value), self.tp.partition) for key, value in flush.rows]
                await (await self._producer.send_rows(rows))
            except BaseException:
                self.broken = True  # the fold thinks that this is written
                raise
        self._flushed = offset
        self._room.set()
        if flush.offset is not None:
            self._committer.mark(self.tp, flush.offset + 1)
        self._stats.flushed(self.tp.partition, count, offset, perf_counter() - began)
        self._offer_jobs(jobs, offset, event_ms)

    def _offer_jobs(self, jobs: Mapping[str, Asked], offset: int, event_ms: int) -> None:
        if self._offer is not None and offset >= self._end - 1 and not self._closed:
            self._offer(self.tp, jobs, event_ms)

    async def close(self) -> None:
        """Take no more, flush what was folded; after a failure nothing is flushed."""
        self._closed = True
        self._room.set()
        try:
            if not self.broken:
                await self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stop where it is."""
        self._closed = self.broken = True
        self._room.set()
        if self._flusher is not None:
            self._flusher.cancel()


async def _set_within(event: asyncio.Event, most_s: float) -> None:
    """Until an event is set, or so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(most_s):
            await event.wait()
