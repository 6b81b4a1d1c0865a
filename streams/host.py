"""The host of one agent: a Faust app in which its pure fold and its inbox relay run.

    consume -> fold (skip, step, publish) -> flush -> acknowledge -> commit

`streams.lane` is that line for one partition, `streams.relay` fills the inbox, `streams.restore` brings state back,
`streams.transport` is the Faust transport underneath. The agents here are ordinary Faust agents.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import confluent_kafka as ck
from faust.types import TP

from agents.contract import Agent
from schemas import catalogue
from schemas.codec import Codec
from streams.alerts import Alerts
from streams.blobs import TOPIC as BLOBS
from streams.fold import PartitionFold
from streams.held import wiped
from streams.identity import Identity
from streams.lane import FoldLane
from streams.logcheck import LogCheck
from streams.many import ManyFold, Packed
from streams.records import Outgoing
from streams.relay import Relay
from streams.restore import InputLost, Progress, Restored, restore
from streams.settings import Settings
from streams.stats import AgentStats
from streams.trainers.jobs import has_jobs
from streams.trainers.trainers import Trainers
from streams.transport.app import BatchApp
from streams.transport.commit import Committer
from streams.transport.poll import FetchFailed
from streams.transport.produce import Row
from streams.transport.timeouts import ALERT_S

log = logging.getLogger(__name__)

REPAIRED_S = 0.5  # between two looks whether what is folded again is stored


class AgentHost:
    """Runs one agent in this process; the owner of its app's partitions.

    Args:
        agent: the pure agent.
        settings: broker, names, prefix.
        codec: shared codec.
        identity: hashes stamped on policies; None leaves provenance off.
        slots: held by each trainer process; shared by the hosts of a worker. None: the settings' number for this one.
    """

    def __init__(self, agent: Agent[Any], settings: Settings, codec: Codec, identity: Identity | None = None,
                 slots: asyncio.Semaphore | None = None) -> None:
        self.agent = agent
        self.settings = settings
        self.io = catalogue.AGENTS[agent.name]
        self.stats = AgentStats(agent.name)
        self.lanes: dict[TP, FoldLane] = {}
        self.ready = False  # the partitions that the group gave are taken up, with their state
        self.progress = Progress(wanted=settings.metrics_port > 0)
        self.codec = codec
        self._identity = identity
        self._names = {settings.topic(name): name for name in (*self.io.reads, self.io.input_topic)}
        self._input = settings.topic(self.io.input_topic)
        self._changelog = settings.topic(self.io.changelog)
        self.alerts = Alerts(settings, agent.name, codec=codec)
        self.log = LogCheck(self.io, settings, self.alerts)
        self.trainers = Trainers(agent, codec, slots=slots or asyncio.Semaphore(settings.trainers), alerts=self.alerts,
                                 stats=self.stats, publish=self._publish, fail=self.fail) if has_jobs(agent) else None
        self._crashing: asyncio.Future[None] | None = None
        self._taking_up = 0
        self._looking_again: asyncio.Future[None] | None = None
        self._committer: Committer | None = None
        self._relay: Relay | None = None
        self.app = BatchApp(settings.group(agent.name), consumer=settings.member(), producer=settings.producer(),
                            owner=self, columns=self._input if ManyFold.possible(agent, self.io) else None)
        self._bind()

    def _bind(self) -> None:
        """Two Faust agents: one folds the input, one fills the inbox."""
        @self.app.agent(self.app.batches(self._input), name=f"{self.agent.name}.fold")
        async def fold(stream: Any) -> None:
            async for batch in stream:
                await self._guard(self._fold_batch(batch))

        if self.io.direct:
            return
        sources = [self.settings.topic(name) for name in self.io.reads]

        @self.app.agent(self.app.batches(*sources), name=f"{self.agent.name}.relay")
        async def relay(stream: Any) -> None:
            async for batch in stream:
                await self._guard(self._relay_batch(batch))

    async def _guard(self, work: Any) -> None:
        """A batch that fails takes the app down; nothing of it is acknowledged."""
        try:
            await work
        except Exception as exc:
            self.fail(exc)

    async def _fold_batch(self, batch: Any) -> None:
        lane = self.lanes.get(batch.tp)
        if lane is None:
            return
        records = batch.take()
        if records:
            self.stats.batch(sum(len(r) if isinstance(r, Packed) else 1 for r in records))
            await lane.take(records)

    async def _relay_batch(self, batch: Any) -> None:
        lane = self._relay.lanes.get(batch.tp) if self._relay is not None else None
        if lane is not None:
            await lane.take(batch.take())

    async def explained(self, failed: FetchFailed) -> BaseException | None:
        """Why a partition, or a topic, cannot be read on; None where it can again."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self.log.explain, failed, lambda: bool(self.app.should_stop))

    def went_down(self, reason: BaseException) -> None:
        """The app has crashed: this worker cannot go on."""
        text = str(reason) if isinstance(reason, InputLost) else f"{type(reason).__name__}: {reason}"
        self.alerts.critical(getattr(reason, "component", None) or self.agent.name, text)

    def fail(self, reason: BaseException) -> None:
        """Bring the app down: what is not acknowledged is done again by the next worker."""
        if self.app.failed.is_set() or self._crashing is not None:
            return
        log.error("%s failed: %s: %s", self.agent.name, type(reason).__name__, reason)
        self._abandon()
        if self.trainers is not None:
            self.trainers.abandon()
        self._crashing = asyncio.ensure_future(self.app.crash(reason))

    # ------------------------------------------------------------------ owner of partitions
    async def take_up(self, tps: set[TP], committed: Mapping[TP, int | None]) -> dict[TP, int]:
        """Restore the input partitions, fence the source partitions off, say where each starts."""
        self._taking_up = turn = self._taking_up + 1
        self._abandon()
        began = time.monotonic()

        def stale() -> bool:
            return self._taking_up != turn or self.app.should_stop or not awake.beat()

        loop, producer, thread = asyncio.get_running_loop(), self.app.sender, self.app.poll_thread
        assert thread is not None, "partitions come from a running consumer"
        awake = thread.awake
        seen = await loop.run_in_executor(None, self.log.look, stale)
        if seen is None:
            return {}
        committer = Committer(thread.commit)
        inputs = {tp for tp in tps if tp.topic == self._input}
        sources = {} if self.io.direct else {tp: self._names[tp.topic] for tp in tps - inputs}
        try:
            restored = await loop.run_in_executor(
                None, restore, self.settings.client(), self.codec, self._new_fold, inputs, self._changelog, stale,
                self.settings.topic(BLOBS), self.progress)
        except InputLost as lost:
            raise self.log.of_restoring(lost) from lost
        self.log.check_inputs(restored, committed, seen)
        starts, first = {tp: found.start for tp, found in restored.items()}, {}
        if sources:
            bounds = await loop.run_in_executor(None, self.log.source_starts, sources, committed, restored, seen, stale)
            first = await loop.run_in_executor(None, self.log.settings_first, sources, bounds, stale)
            starts |= {tp: start for tp, (start, _) in bounds.items()}
        relay = Relay(self.io, wire=self.settings.topic, producer=producer, committer=committer, stats=self.stats,
                      fail=self.fail)
        if stale() or len(starts) < len(tps):
            return {}  # the group has moved on; a fence now would shut the new owner out
        await self._wipe(restored)
        await relay.take_up(sources, seen.partitions[self._input], seen.ids)
        for tp, records in first.items():
            await relay.lanes[tp].take(records)
            starts[tp] = (records[-1].offset() or 0) + 1 if records else starts[tp]
        if stale():
            return {}
        self._committer, self._relay, self.log.seen = committer, relay, seen
        if self.trainers is not None:
            self.trainers.keep(inputs)
        self.lanes = {
            tp: FoldLane(tp, found.fold, producer=producer, committer=committer, wire=self.settings.topic,
                         stats=self.stats, fail=self.fail, end=found.end, ours=awake.beat,
                         offer=None if self.trainers is None else self.trainers.offer)
            for tp, found in restored.items()
        }
        for lane in self.lanes.values():
            lane.start()
        for tp, found in restored.items():
            if found.start > (committed.get(tp) or 0):  # a worker was killed between its flush and its commit
                committer.mark(tp, found.start)
        self._report(restored, sources, time.monotonic() - began)
        self.ready = True
        self._recovering = asyncio.ensure_future(self._recover(starts, committed, turn))
        self._looking_again = asyncio.ensure_future(self._look_again(starts))
        return starts

    def _new_fold(self, partition: int) -> PartitionFold:
        return PartitionFold(self.agent, partition, self.codec, self._identity)

    async def _recover(self, starts: Mapping[TP, int], committed: Mapping[TP, int | None], turn: int) -> None:
        """Take back the alerts of what is well; of what is folded again, once it is stored as far as it was."""
        await asyncio.get_running_loop().run_in_executor(None, self.log.well, starts)
        for tp in starts:
            component = f"{self.agent.name}-{tp.partition}"
            if tp.topic != self._input or component not in self.log.troubled:
                continue
            while self.stats.flushed_offset.get(tp.partition, -1) < (committed[tp] or 0) - 1:
                await asyncio.sleep(REPAIRED_S)
                if self._taking_up != turn or self.app.failed.is_set():
                    return
            self.alerts.healthy(component, f"the state is folded again up to {tp.topic}-{tp.partition}@"
                                           f"{self.stats.flushed_offset[tp.partition]}")

    async def _look_again(self, starts: Mapping[TP, int]) -> None:
        """Who went down before us may have left the group before its alert was there."""
        await asyncio.sleep(ALERT_S)
        await asyncio.get_running_loop().run_in_executor(None, self.log.well, starts)

    async def _publish(self, record: Outgoing) -> None:
        """Publish what a trainer process made; returns once it is acknowledged."""
        row = Row(self.settings.topic(record.topic), record.key, record.value, record.headers)
        await (await self.app.sender.send_rows([row]))

    async def _wipe(self, restored: Mapping[TP, Restored]) -> None:
        rows = [Row(self._changelog, key, None, wiped(found.damage or "folded again"), tp.partition)
                for tp, found in restored.items() for key in found.wipe]
        await (await self.app.sender.send_rows(rows))

    def _report(self, restored: Mapping[TP, Restored], sources: Mapping[TP, str], took_s: float) -> None:
        self.stats.rebalances += 1
        self.stats.take_up_s = took_s
        self.stats.last_offset = {tp.partition: found.fold.offset for tp, found in restored.items()}
        self.stats.flushed_offset = dict(self.stats.last_offset)
        self.stats.refused = {tp.partition: found.fold.counters.refused for tp, found in restored.items()}
        self.stats.lag = {}
        log.info("%s took up %d input and %d source partitions in %.2f s; scopes restored: %d", self.agent.name,
                 len(restored), len(sources), took_s, sum(len(found.fold.scopes) for found in restored.values()))

    async def let_go(self) -> None:
        """Flush what was folded, wait for what was copied, commit; in time, whatever happens."""
        self._taking_up += 1
        self.ready = False
        lanes, self.lanes = list(self.lanes.values()), {}
        if self.trainers is not None and self.app.should_stop:
            await self.trainers.stop()
        if self._committer is None or self._relay is None:
            return
        try:
            async with asyncio.timeout(self.app.drain_left_s()):
                await asyncio.gather(*(lane.close() for lane in lanes), self._relay.close())
                await self._committer.finish()
        except Exception as exc:
            log.warning("%s let its partitions go unfinished (%s: %s); they are folded again from the last flush",
                        self.agent.name, type(exc).__name__, exc)
        finally:
            for lane in lanes:
                lane.abandon()
            self._abandon()

    def commit_failed(self) -> None:
        """Commit the newest offsets again."""
        if self._committer is not None:
            self._committer.again()

    def _abandon(self) -> None:
        self.ready = False
        for lane in self.lanes.values():
            lane.abandon()
        self.lanes = {}
        if self._relay is not None:
            self._relay.abandon()
        if self._committer is not None:
            self._committer.forget()
        if self._looking_again is not None:
            self._looking_again.cancel()

    # ------------------------------------------------------------------ figures
    async def measure(self) -> dict[str, Any]:
        """Counters with the lag as of the last fetch."""
        thread = self.app.poll_thread
        if thread is not None and thread.assigned and not self.app.failed.is_set():
            try:
                lags = await asyncio.wait_for(thread.lags(), 2)
                folded = {tp: lane.fold.offset + 1 for tp, lane in self.lanes.items()}  # what was fetched may wait here
                self.stats.lag = {f"{tp.topic}-{tp.partition}": max(0, end - folded.get(tp, at))
                                  for tp, (end, at) in lags.items() if end >= 0 and at >= 0}
            except (TimeoutError, ck.KafkaException):
                pass  # the figures of a second ago stand; the next second asks again
        return self.stats.row()
