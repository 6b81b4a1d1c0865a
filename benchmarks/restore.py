"""How fast state comes back: a changelog of a million records that was never compacted, read and judged as at a start.

    python -m benchmarks.restore [--records 1000000] [--scopes 1000] [--json FILE]

The records are flushes of an agent with a small state, written to a broker of its own, all on one partition. Clock and
processor time are those of `streams.restore.restore`: reading, checksums, decoding, digest, the fold made; each time in
a process of its own, of which the peak memory is said, and how much of that was there before.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from faust.types import TP

from schemas.codec import Codec
from schemas.events import Experience
from streams import broker as embedded
from streams import topics
from streams.fold import PartitionFold
from streams.held import seal
from streams.records import Incoming
from streams.restore import restore
from streams.settings import Settings
from streams.transport.logs import LIBRDKAFKA
from tests.streams.counting import CountingLearner, experience

CODEC = Codec()
NAMES = ("q_learning.inbox", "q_learning.changelog", "state.blobs", "learning.experience", "policy.commands")


def fill(settings: Settings, records: int, scopes: int) -> tuple[int, int]:
    """Write flushes until there are so many records; the records written and the input offset reached."""
    fold = PartitionFold(CountingLearner(), 0, CODEC)
    producer, written, offset = Producer(settings.producer(), logger=LIBRDKAFKA), 0, -1
    changelog = settings.topic("q_learning.changelog")
    event: Experience = experience("AUSDT", 1)
    symbols = [f"S{i:05d}" for i in range(scopes)]
    while written < records:
        for symbol in symbols:
            offset += 1
            changed = Experience(**{f: getattr(event, f) for f in event.__struct_fields__} | {
                "symbol": symbol, "decision_id": f"{symbol}/{offset}"})
            value = CODEC.encode("learning.experience", changed)
            fold.apply(Incoming(offset, symbol.encode(), value, (
                ("src_topic", b"learning.experience"), ("src_partition", b"0"),
                ("src_offset", str(offset).encode()), ("relay_owner", b"bench"))))
        for key, row in fold.flush().rows:
            written += 1
            while True:
                try:
                    producer.produce(changelog, row, key, 0, headers=list(seal(row)))
                    break
                except BufferError:
                    producer.poll(0.1)
    producer.flush()
    return written, offset


def measure(settings: Settings) -> dict[str, Any]:
    """One restoring."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KB on Linux
    began, cpu = time.perf_counter(), time.process_time()
    found = restore(settings.client(), CODEC, lambda p: PartitionFold(CountingLearner(), p, CODEC),
                    [TP(settings.topic("q_learning.inbox"), 0)], settings.topic("q_learning.changelog"), lambda: False)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    (one,) = found.values()
    assert one.damage is None, one.damage
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "scopes": len(one.fold.scopes),
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "rss_before_mb": before // 1024}


def main() -> int:
    """Measure three times, print, perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--scopes", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quantum-restore-") as folder:
        settings = Settings(data_dir=Path(folder))
        running = embedded.up(settings, ephemeral_dir=Path(folder))
        try:
            settings = settings.replace(broker=running.address)
            topics.apply(settings, only=NAMES)
            written, offset = fill(settings, args.records, args.scopes)
            inbox = Producer(settings.producer(), logger=LIBRDKAFKA)
            for _ in range(offset + 1):  # the input must reach as far as the state
                while True:
                    try:
                        inbox.produce(settings.topic("q_learning.inbox"), b"", b"x", 0)
                        break
                    except BufferError:
                        inbox.poll(0.1)
            inbox.flush()
            with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                runs = [pool.apply(measure, (settings,)) for _ in range(3)]
        finally:
            embedded.down(settings, ephemeral_dir=Path(folder))
    best = min(r["seconds"] for r in runs)
    result = {"records": written, "runs": runs, "records_per_s": round(written / best)}
    print(json.dumps(result))
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
