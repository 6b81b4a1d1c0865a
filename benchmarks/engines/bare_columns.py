"""A bare confluent-kafka loop with the columnar decoder of this project; no group, no commits, no state."""

from __future__ import annotations

import numpy as np

from benchmarks.engines.bare import batches
from benchmarks.engines.task import PARTITIONS, WINDOW_MS, Job, Watch, Windows
from schemas.columns import ColumnDecoder
from schemas.lockstep import PAD


def main() -> None:
    """Run."""
    job, watch = Job.given(), Watch()
    decoder = ColumnDecoder("market.trades")
    windows: Windows = {}
    taken = dict.fromkeys(range(PARTITIONS), 0)
    for messages in batches(job, watch):
        values = [message.value() for message in messages]
        size_N = np.fromiter(map(len, values), np.int64, len(values))
        end_N = np.cumsum(size_N)
        columns = decoder.decode(b"".join([*values, bytes(PAD)]), end_N - size_N, end_N)
        if not columns.good_N.all():
            raise SystemExit("a trade was not read")
        window_N = columns.values["ts_ms"] // WINDOW_MS
        base, names = int(window_N.min()), columns.names["symbol"]
        group_N = (window_N - base) * len(names) + columns.values["symbol"]
        n_G, quantity_G = np.bincount(group_N), np.bincount(group_N, columns.values["quantity"])
        last_G = np.zeros(len(n_G))
        last_G[group_N] = columns.values["price"]
        for group in np.flatnonzero(n_G).tolist():
            key = names[group % len(names)], base + group // len(names)
            held = windows.setdefault(key, [0, 0.0, 0.0])
            windows[key] = [held[0] + int(n_G[group]), held[1] + float(quantity_G[group]), float(last_G[group])]
        for partition, n in enumerate(np.bincount([message.partition() for message in messages]).tolist()):
            taken[partition] += n
    watch.report(taken, windows)


if __name__ == "__main__":
    main()
