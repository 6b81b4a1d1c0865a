"""A training run of the real trader over a broker: its worker is killed in the midst, and what counts is made again."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from agents.ppo_trader import PpoTraderAgent
from schemas.catalogue import AGENTS
from schemas.events import PolicyRecord, TrainingCompleted
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.settings import Settings
from streams.worker import run_agents
from tests.agents.traders import SMALL, bars
from tests.streams.hosting import CODEC, in_loop, produce, read, trainers, until
from tests.streams.log_fixtures import flags
from tests.streams.rostered import worker
from tests.streams.trainers.test_trainers import a_trainer

NAME, COMPLETED, LEDGER = "ppo_trader", "rl_v3.training.completed", "policy.ledger"
SLOW = replace(SMALL, hidden=(128, 128), epochs=100, training_episodes_per_run=64, training_interval_minutes=240)
"""The day's first slot has 16 bars, and a run of some seconds."""
CONFIG = f"{NAME}={msgspec.json.encode(SLOW).decode()}"
READS, WRITES = AGENTS[NAME].reads, AGENTS[NAME].writes


@in_loop
async def killed(settings: Settings, log: Path) -> None:
    """A run whose worker is killed, and a successor's, until its version is there."""
    produce(settings, "market.features", bars(n=18))
    with worker(settings, log, NAME, CONFIG) as process:
        trainer = await a_trainer(process.pid)
        process.kill()
        await until(lambda: not trainer.is_running(), "the end of an orphan")
    assert read(settings, COMPLETED) == []
    async with run_agents(settings, {NAME: PpoTraderAgent(SLOW)}):
        await until(lambda: bool(read(settings, LEDGER)), "the version of the run")
    assert trainers() == []


@pytest.mark.topics(*READS, *WRITES, *(f"{topic}.dlq" for topic in READS), f"{NAME}.inbox", f"{NAME}.changelog",
                    "state.blobs", "policy.current", "system.health.alert")
def test_a_worker_killed_during_a_run_one_result_counts_and_is_made_again_bit_for_bit(
    prefix: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUANTUM_SESSION_TIMEOUT_MS", "6000")  # until then the group waits for the worker that is dead
    killed(prefix, tmp_path / "worker.log")
    (result,), (version,) = ([CODEC.decode(t, r.value) for r in read(prefix, t)] for t in (COMPLETED, LEDGER))
    assert isinstance(result, TrainingCompleted)
    assert isinstance(version, PolicyRecord)
    assert (result.success, result.attempt, version.version) == (True, 1, 1), "a death of the worker is no failure"
    assert main(["policy", "rederive", f"{NAME}/T", "--json", "--agent-config", CONFIG, *flags(prefix)]) == Exit.GOOD
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert (answer["version"], answer["outcome"]) == (1, "MATCH")
    (refit,) = answer["refits"]
    assert refit["job_id"] == result.job_id
    assert refit["log"] == refit["made"]
