"""`kill -9` of everything during the demo, started again: it goes on where it was, and verify is green."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from schemas.codec import Codec
from schemas.events import Candle
from streams import broker as embedded
from streams.log import LogReader
from streams.settings import Settings
from tests.streams.test_demo import OUTCOMES, feed

PATIENCE_S = 240.0


def processes(demo: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The demo, its workers and its broker."""
    parent = psutil.Process(demo.pid)
    return [parent, *parent.children(recursive=True)]


def versions_on(settings: Settings) -> int:
    """Policy versions on the log; 0 while the topic is not there."""
    with LogReader(settings) as log:
        return sum(log.bounds("policy.ledger", p)[1] for p in log.topics().get("policy.ledger", ()))


@pytest.mark.soak
def test_everything_is_killed_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    line = [sys.executable, "-m", "streams.cli.main", "demo", "--klines", str(feed(tmp_path)), "--json", "--outcomes",
            str(OUTCOMES), "--seed", "3", "--resume", str(folder)]
    demo = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    own = Settings(data_dir=folder)
    give_up, learned = time.monotonic() + PATIENCE_S, 0
    while learned < 8:
        assert demo.poll() is None, "it ended before it was killed"
        assert time.monotonic() < give_up, "nothing was learned"
        time.sleep(0.3)
        running = embedded.status(own, ephemeral_dir=folder)
        if running.state == "running" and running.broker is not None:
            learned = versions_on(own.replace(broker=running.broker.address))
    everything = processes(demo)
    assert len(everything) >= 4, "demo, broker and two workers"
    for process in everything:
        process.kill()
    psutil.wait_procs(everything, 10)
    demo.wait()
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    report = json.loads(done.stdout)
    assert all(report["checks"].values()), report["checks"]
    cells = {row["agent"]: row["cells"] for row in report["verify"]["agents"]}
    assert cells["q_learning"]["LEARNS"]["state"] == "PASS"
    assert sum(report["policy_versions"].values()) > learned, "it went on learning from where it was"
    assert report["candles"] == len(candles(folder))


def candles(folder: Path) -> list[tuple[str, int]]:
    """Candles on the log, started once more to be read."""
    codec, own, found = Codec(), Settings(data_dir=folder), []
    running = embedded.up(own, ephemeral_dir=folder)
    try:
        with LogReader(own.replace(broker=running.address)) as log:
            for record in log.read("market.candles"):
                event = codec.decode("market.candles", record.value)
                assert isinstance(event, Candle)
                found.append((event.symbol, event.ts_ms))
    finally:
        embedded.down(own, ephemeral_dir=folder)
    assert len(found) == len(set(found)), "a candle was published twice"
    return found
