"""Stock Faust on aiokafka, an agent that sees one event after the other; with durable state a table write each."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import fastavro
import faust

from benchmarks.engines.task import PARTITIONS, PREFIX, WINDOW_MS, Job, Watch, Windows, add


def main() -> None:
    """Run."""
    job, watch = Job.given(), Watch()
    schema = fastavro.parse_schema(job.schema)
    windows: Windows = {}
    taken = dict.fromkeys(range(PARTITIONS), 0)
    done = asyncio.Event()
    app = faust.App(
        job.group, broker=f"kafka://{job.broker}", store="memory://", datadir=str(Path(job.folder) / "faust"),
        topic_partitions=PARTITIONS, topic_replication_factor=1, topic_disable_leader=True, web_enabled=False,
        consumer_auto_offset_reset="earliest", table_standby_replicas=0, broker_session_timeout=30.0,
        broker_heartbeat_interval=3.0, autodiscover=False)
    topic = app.topic(job.topic, value_serializer="raw", key_serializer="raw", partitions=PARTITIONS)
    table = app.Table("windows", default=list, partitions=PARTITIONS) if job.durable else None

    def take(event: Any) -> None:
        stream = io.BytesIO(event.value)
        stream.seek(PREFIX)
        trade = fastavro.schemaless_reader(stream, schema, None)
        if table is None:
            add(windows, trade["symbol"], trade["ts_ms"], trade["quantity"], trade["price"])
            return
        key = f"{trade['symbol']}|{trade['ts_ms'] // WINDOW_MS}"
        held = table.get(key)
        n, total = (held[0], held[1]) if held else (0, 0.0)
        table[key] = [n + 1, total + trade["quantity"], trade["price"]]

    @app.agent(topic)
    async def fold(stream: Any) -> None:
        count = 0
        async for event in stream.events():
            if done.is_set():
                await asyncio.sleep(3600)  # the answer is that of the records counted
            watch.start()
            take(event)
            taken[event.message.partition] += 1
            count += 1
            if count >= job.records:
                if table is not None:
                    await app.producer.flush()
                watch.stop()
                done.set()

    async def run() -> None:
        await app.start()
        await done.wait()
        if table is not None:
            for key, value in table.items():
                symbol, _, window = key.rpartition("|")
                windows[symbol, int(window)] = value
        watch.report(taken, windows)
        await app.stop()

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(run())


if __name__ == "__main__":
    main()
