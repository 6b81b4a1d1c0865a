"""Benchmarks that no other test runs, in small: they still run and find what they say. No time has a bound."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streams.settings import Settings

ROOT = Path(__file__).parents[2]
SMALL = {
    "bars_throughput": ("--small",),
    "codec": (),  # as it is
    "codec_speed": ("--repeat", "1", "--bars", "100"),
    "fit_stalls": ("--fits", "1", "--seconds", "0.2", "--ballast-mb", "1"),
    "flipped_events": ("--flips", "2"),
    "meta_outcomes": ("--seeds", "1", "--outcomes", "1000", "--jobs", "1"),
    "planted_edge": ("--seeds", "2", "--trades", "20000"),
    "ppo_trader": ("--seeds", "2", "--planted-updates", "1", "--noise-updates", "1"),
    "tabular_gymnasium": ("--seeds", "1"),
}
ON_A_BROKER = {
    "restore": ("--records", "2000", "--scopes", "100"),
    "scrape": ("--symbols", "2", "--scrapes", "2", "--bound-ms", "inf"),
}
BESIDE_PEERS = {"ppo_cartpole": "stable_baselines3"}
ELSEWHERE = frozenset({
    "candle_outcomes", "healthy_runs", "long_run_memory", "q_edge_simulation", "roster_throughput", "step_cost",
    "stream_engines", "trade_to_policy", "worker_stalls",
    "loop_latency",  # its smallest form takes a minute and a half: `make soak`
})


def _run(name: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], capture_output=True, text=True,
                          cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def test_every_program_is_run_by_a_test() -> None:
    programs = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__"}
    assert programs == {*SMALL, *ON_A_BROKER, *BESIDE_PEERS, *ELSEWHERE}
    others = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    named = {name for name in ELSEWHERE for text in others if re.search(rf"benchmarks.*\b{name}\b", text)}
    assert named == ELSEWHERE - {"loop_latency"}


@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name: str) -> None:
    assert _run(name, *SMALL[name])


@pytest.mark.parametrize("name", ON_A_BROKER)
def test_it_runs_on_a_broker_of_its_own(name: str, broker: Settings) -> None:
    assert _run(name, *ON_A_BROKER[name])


@pytest.mark.parametrize("name", BESIDE_PEERS)
def test_it_runs_beside_its_peer_or_says_what_is_missing(name: str) -> None:
    if importlib.util.find_spec(BESIDE_PEERS[name]) is not None:
        pytest.skip("with its peer it takes minutes: make bench")
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--seeds", "1"], capture_output=True, text=True,
                          cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "'.[bench]'" in done.stderr


@pytest.mark.soak
def test_the_loop_at_one_rate(broker: Settings) -> None:
    assert "20" in _run("loop_latency", "--rates", "20", "--seconds", "2")
