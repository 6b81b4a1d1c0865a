"""bytewax: a dataflow that decodes and folds each batch before it hands it on; with durable state a step by symbol.

Handing whole batches to Python is the fastest way it offers: an item a record costs it several times as much. State is
kept by its recovery store (SQLite, a snapshot an epoch of ten seconds, and one at the end).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import bytewax.operators as op
import fastavro
from bytewax._bytewax import run_main
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink

from benchmarks.engines.task import PARTITIONS, PREFIX, Job, Watch, Windows, add


class Symbol(StatefulBatchLogic):
    """Windows of one symbol."""

    def __init__(self, state: Any, answer: Windows) -> None:
        self.windows: dict[tuple[str, int], list[Any]] = {} if state is None else state
        self.answer = answer

    def on_batch(self, values: list[Any]) -> tuple[list[Any], bool]:
        """Merge what batches came to."""
        for key, (n, total, last) in values:
            held = self.windows.get(key)
            merged = [n, total, last] if held is None else [held[0] + n, held[1] + total, last]
            self.windows[key] = self.answer[key] = merged
        return [], False

    def snapshot(self) -> Any:
        """For the recovery store."""
        return dict(self.windows)


def main() -> None:
    """Run."""
    job, watch = Job.given(), Watch()
    schema = fastavro.parse_schema(job.schema)
    answer: Windows = {}
    taken = dict.fromkeys(range(PARTITIONS), 0)

    def fold(messages: list[Any], windows: Windows) -> Windows:
        watch.start()
        for message in messages:
            taken[message.partition] += 1
            stream = io.BytesIO(message.value)
            stream.seek(PREFIX)
            trade = fastavro.schemaless_reader(stream, schema, None)
            add(windows, trade["symbol"], trade["ts_ms"], trade["quantity"], trade["price"])
        return windows

    def in_memory(messages: list[Any]) -> list[Any]:
        fold(messages, answer)
        return []

    def by_symbol(messages: list[Any]) -> list[Any]:
        return [(key[0], (key, value)) for key, value in fold(messages, {}).items()]

    flow = Dataflow("windows")
    source = KafkaSource([job.broker], [job.topic], tail=False, batch_size=5_000,
                         add_config={"queued.min.messages": "100000"})
    messages = op.input("in", flow, source)
    recovery = None
    if job.durable:
        store = Path(job.folder) / "recovery"
        store.mkdir()
        init_db_dir(store, 1)
        recovery = RecoveryConfig(store)
        parts = op.flat_map_batch("fold", messages, by_symbol)
        done = op.stateful_batch("symbols", parts, lambda state: Symbol(state, answer))
    else:
        done = op.flat_map_batch("fold", messages, in_memory)
    op.output("out", done, TestingSink([]))
    run_main(flow, recovery_config=recovery)
    watch.stop()
    watch.report(taken, answer)


if __name__ == "__main__":
    main()
