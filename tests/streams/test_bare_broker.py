"""A broker that lists no broker, as Kafka's does for a moment after a freeze, ends no process that watches it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.patience import PATIENCE_S
from tests.streams.bare_broker import BareBroker

ROOT = Path(__file__).parents[2]
LOOKS_WHILE_BARE = 4
LOOKS = """
import sys
from streams.samelog import Cluster, NoAnswer

cluster = Cluster({"bootstrap.servers": sys.argv[1]})
for _ in sys.stdin:
    try:
        seen = cluster.once(["a", "b"])
    except NoAnswer:
        print("no answer", flush=True)
    else:
        print(seen.cluster_id, *sorted(seen.ids), flush=True)
"""


def test_who_looks_at_a_broker_that_lists_none_lives_on() -> None:
    """librdkafka 2.16 aborts there in DescribeCluster: a worker had ended by SIGABRT once a frozen broker came back."""
    with BareBroker() as broker:
        process = subprocess.Popen(
            [sys.executable, "-c", LOOKS, f"127.0.0.1:{broker.port}"], cwd=ROOT, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for bare in (False, True, False):
                broker.bare, give_up, looks = bare, time.monotonic() + PATIENCE_S, 0
                while looks < LOOKS_WHILE_BARE if bare else time.monotonic() < give_up:
                    looks += 1
                    process.stdin.write("look\n")
                    process.stdin.flush()
                    said = process.stdout.readline().strip()
                    assert said in ("a-cluster a b", "no answer"), f"it ended with {process.wait(PATIENCE_S)}"
                    if not bare and said != "no answer":
                        break
                assert bare or said == "a-cluster a b"
            process.stdin.close()
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.wait()
