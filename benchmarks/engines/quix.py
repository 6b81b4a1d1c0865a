"""quixstreams: a streaming data frame; with durable state a stateful step, in RocksDB and a changelog topic.

Its own tumbling windows (`tumbling_window(...).agg(...).final()`) keep the same state, at a fraction of the speed
of a step that reads and writes the window itself.
"""

from __future__ import annotations

import io
from typing import Any

import fastavro
from quixstreams import Application, State

from benchmarks.engines.task import PARTITIONS, PREFIX, WINDOW_MS, Job, Watch, Windows, add


def main() -> None:
    """Run."""
    job, watch = Job.given(), Watch()
    schema = fastavro.parse_schema(job.schema)
    windows: Windows = {}
    taken = dict.fromkeys(range(PARTITIONS), 0)
    left = job.records

    def counted(topic: str, partition: int, offset: int) -> None:
        nonlocal left
        taken[partition] += 1
        left -= 1
        if left <= 0:
            app.stop()

    app = Application(broker_address=job.broker, consumer_group=job.group, auto_offset_reset="earliest",
                      state_dir=job.folder, loglevel="ERROR", commit_interval=5.0, on_message_processed=counted,
                      consumer_extra_config={"queued.min.messages": 100_000})
    topic = app.topic(job.topic, key_deserializer="str", value_deserializer="bytes")

    def decoded(value: bytes) -> Any:
        watch.start()
        stream = io.BytesIO(value)
        stream.seek(PREFIX)
        return fastavro.schemaless_reader(stream, schema, None)

    def fold(value: bytes) -> None:
        trade = decoded(value)
        add(windows, trade["symbol"], trade["ts_ms"], trade["quantity"], trade["price"])

    def fold_durably(value: bytes, state: State) -> None:
        trade = decoded(value)
        window = trade["ts_ms"] // WINDOW_MS
        name = str(window)
        held = state.get(name)
        new = [1, trade["quantity"], trade["price"]] if held is None else \
            [held[0] + 1, held[1] + trade["quantity"], trade["price"]]
        state.set(name, new)
        windows[trade["symbol"], window] = new

    if job.durable:
        app.dataframe(topic).update(fold_durably, stateful=True)
    else:
        app.dataframe(topic).update(fold)
    app.run()
    watch.stop()
    watch.report(taken, windows)


if __name__ == "__main__":
    main()
