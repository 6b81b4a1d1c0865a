"""This project's host: a Faust app on its transport, the agent of `window`, a record at a time or in columns.

With durable state it is the whole `AgentHost`: changelog, heads, acknowledgements, commits; the answer is read back
from the changelog. Without, the same transport and the same agent with states in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import confluent_kafka as ck
from faust.types import TP

from benchmarks.engines.task import PARTITIONS, Job, Watch
from benchmarks.engines.window import WindowAgent, held, installed
from schemas.catalogue import AGENTS
from schemas.codec import Codec
from streams.fold import PartitionFold
from streams.host import AgentHost
from streams.many import ManyFold, Packed, packed
from streams.records import Incoming
from streams.restore import restore
from streams.settings import Settings
from streams.transport.app import BatchApp
from streams.worker import GC_THRESHOLDS, SWITCH_INTERVAL_S, Worker, quiet_libraries


class Memory:
    """Owner of partitions whose state is in memory."""

    async def take_up(self, tps: set[TP], committed: Mapping[TP, int | None]) -> dict[TP, int]:
        """Every partition from its beginning."""
        return dict.fromkeys(tps, ck.OFFSET_BEGINNING)

    async def let_go(self) -> None:
        """There is nothing to store."""

    async def explained(self, failed: Any) -> BaseException | None:
        """No trouble is waited out here."""
        return failed

    def went_down(self, reason: BaseException) -> None:
        """Say so."""
        print(f"went down: {reason}", file=sys.stderr)

    def commit_failed(self) -> None:
        """Nothing is committed."""


async def in_memory(job: Job, settings: Settings, watch: Watch) -> None:
    """States in a dict."""
    agent, codec, done = WindowAgent(), Codec(), asyncio.Event()
    folds = [PartitionFold(agent, p, codec) for p in range(PARTITIONS)]
    many = [ManyFold(fold) for fold in folds] if job.columns else []
    taken = dict.fromkeys(range(PARTITIONS), 0)
    app = BatchApp(job.group, consumer=settings.member(), producer=settings.producer(), owner=Memory(),
                   columns=job.topic if job.columns else None)

    @app.agent(app.batches(job.topic), name="window.memory")
    async def fold(stream: Any) -> None:
        async for batch in stream:
            watch.start()
            records = batch.take()
            plain = [record for record in records if not isinstance(record, Packed)]
            if job.columns:  # objects where `streams.transport.raw` is not available
                units = ([packed(plain)] if plain else []) + [r for r in records if isinstance(r, Packed)]
                for unit in units:
                    many[batch.tp.partition].apply(unit)
                    taken[batch.tp.partition] += len(unit)
            else:
                for record in plain:
                    folds[batch.tp.partition].apply(Incoming(record.offset(), record.key(), record.value(), ()))
                taken[batch.tp.partition] += len(plain)
            if sum(taken.values()) >= job.records:
                watch.stop()
                done.set()
                await asyncio.sleep(3600)  # the answer is that of the records counted

    await app.start()
    await done.wait()
    watch.report(taken, held({s: e.state for fold in folds for s, e in fold.scopes.items()}))
    await app.stop()


async def durable(job: Job, settings: Settings, watch: Watch) -> None:
    """The whole host; done when the state of the last record is acknowledged."""
    host = AgentHost(WindowAgent(), settings, Codec())
    take = host._fold_batch

    async def timed(batch: Any) -> None:
        watch.start()
        await take(batch)

    host._fold_batch = timed  # type: ignore[method-assign]
    worker = Worker([host])
    try:
        await worker.start()
        flushed = host.stats.flushed_offset
        while sum(offset + 1 for offset in flushed.values()) < job.records and not worker.failed:
            await asyncio.sleep(0.01)
        watch.stop()
    finally:
        await worker.stop()
    found = restore(settings.client(), Codec(), lambda p: PartitionFold(WindowAgent(), p, Codec()),
                    [TP(job.topic, p) for p in range(PARTITIONS)], settings.topic(AGENTS[job.name].changelog),
                    lambda: False)
    states: dict[str, Any] = {s: e.state for one in found.values() for s, e in one.fold.scopes.items()}
    watch.report({tp.partition: one.fold.offset + 1 for tp, one in found.items()}, held(states))


def main() -> None:
    """Run."""
    job, watch = Job.given(), Watch()
    settings = Settings(broker=job.broker, app_id=job.group, topic_prefix=job.prefix, data_dir=Path(job.folder))
    quiet_libraries()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    if not job.columns:
        WindowAgent.in_columns = frozenset()
    with contextlib.closing(loop), installed(job.name):
        loop.run_until_complete((durable if job.durable else in_memory)(job, settings, watch))


if __name__ == "__main__":
    main()
