"""An old and a new worker in one group: partitions change hands, nothing is lost, policies say who made them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from schemas.events import HealthAlert, PolicyRecord
from streams.settings import Settings
from tests.patience import PATIENCE_S
from tests.streams.counting import SYMBOLS, CountingLearner, experience
from tests.streams.hosting import (
    CODEC,
    LEARNER,
    WorkerProcess,
    count,
    counts,
    expected,
    firsts,
    in_loop,
    produce,
    read,
    until,
)
from tests.streams.rolling_worker import hash_of

pytestmark = pytest.mark.usefixtures("direct_learner")
ALERTS = "system.health.alert"
T0 = 1_600_000_000_000


def _experiences(n: int, since: int = 0) -> list[Any]:
    return [experience(SYMBOLS[i % len(SYMBOLS)], T0 + i * 1000) for i in range(since, since + n)]


def _worker(settings: Settings, release: str, log: Path) -> WorkerProcess:
    return WorkerProcess(settings, release, log, script="rolling_worker.py")


async def _fed(settings: Settings, n: int, since: int) -> None:
    for at in range(since, since + n, 50):
        await asyncio.to_thread(produce, settings, "learning.experience", _experiences(50, since=at))
        await asyncio.sleep(0.02)


@pytest.mark.topics(*LEARNER, ALERTS)
@in_loop
async def test_two_releases_share_a_group(prefix: Settings, tmp_path: Path) -> None:
    old = _worker(prefix, "old:1", tmp_path / "old.log")
    await _fed(prefix, 500, 0)
    await until(lambda: count(prefix, "policy.ledger") > 0, "the old release's policies")
    new = _worker(prefix, "new:1", tmp_path / "new.log")
    await _fed(prefix, 500, 500)
    await until(lambda: "took up 2 input" in (tmp_path / "new.log").read_text(), "the new release's share")
    await _fed(prefix, 500, 1000)
    assert await asyncio.to_thread(old.terminate) == 0
    await _fed(prefix, 500, 1500)
    await until(lambda: len(firsts(read(prefix, "policy.ledger"))) >= 2000, "policies of everything")
    assert await asyncio.to_thread(new.terminate) == 0
    assert counts(prefix, CountingLearner()) == expected(_experiences(2000))
    made: dict[str, list[tuple[int, str]]] = {}
    for record in firsts(read(prefix, "policy.ledger")).values():
        event = CODEC.decode("policy.ledger", record.value)
        assert isinstance(event, PolicyRecord)
        assert event.provenance is not None
        made.setdefault(event.scope, []).append((event.version, event.provenance.code_hash))
    for scope, versions in made.items():
        assert [n for n, _ in versions] == list(range(1, len(versions) + 1)), f"{scope}: a gap or a fork"
        assert versions[-1][1] == hash_of("new")
    hashes = {by for versions in made.values() for _, by in versions}
    assert hashes == {hash_of("old"), hash_of("new")}, "each version says which code made it"
    assert read(prefix, ALERTS) == []


@pytest.mark.topics(*LEARNER, ALERTS)
@in_loop
async def test_an_old_release_goes_down_rather_than_fold_a_newer_layout(prefix: Settings, tmp_path: Path) -> None:
    new = _worker(prefix, "new:2", tmp_path / "new.log")
    await _fed(prefix, 300, 0)
    await until(lambda: count(prefix, "policy.ledger") >= 300, "policies")
    old = _worker(prefix, "old:1", tmp_path / "old.log")
    give_up = time.monotonic() + PATIENCE_S
    while old.ended() is None and time.monotonic() < give_up:
        await asyncio.sleep(0.2)
    assert old.ended() == 1, "it ends by itself, as failed"
    assert "state format 2, but this version reads 1" in (tmp_path / "old.log").read_text()
    await _fed(prefix, 300, 300)
    await until(lambda: len(firsts(read(prefix, "policy.ledger"))) >= 600, "the new release to go on with everything")

    def said() -> list[str]:
        found = [CODEC.decode(ALERTS, record.value) for record in read(prefix, ALERTS)]
        return [f"{a.component} {a.status}" for a in found if isinstance(a, HealthAlert)]

    await until(lambda: said() == ["q_learning CRITICAL", "q_learning HEALTHY"], "the alert and its end")
    assert await asyncio.to_thread(new.terminate) == 0
    for record in firsts(read(prefix, "policy.ledger")).values():
        event = CODEC.decode("policy.ledger", record.value)
        assert isinstance(event, PolicyRecord)
        assert event.provenance is not None
        assert event.provenance.code_hash == hash_of("new"), "the old release made nothing of the newer state"
