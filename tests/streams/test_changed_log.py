"""Offsets outside of the log, topics made anew, state that is gone, another cluster: found, explained, alarmed.

Each case over a real broker. What is checked: the worker does not wait and does not go on, its reason names the place
and the command, and the alert with it is on `system.health.alert` although the host is down.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient

from schemas.events import HealthAlert
from streams import topics
from streams.settings import Settings
from streams.worker import Worker, run_agents
from tests.patience import PATIENCE_S
from tests.streams.counting import SYMBOLS, CountingFeatures, CountingLearner, candle, experience
from tests.streams.hosting import (
    CODEC,
    FEATURES,
    LEARNER,
    WorkerProcess,
    count,
    counts,
    deleted,
    expected,
    folds,
    in_loop,
    made_anew,
    produce,
    read,
    send,
    until,
)
from tests.streams.test_broker_loss import Broker, own

__all__ = ["own"]  # a fixture
pytestmark = pytest.mark.usefixtures("direct_learner")
ALERTS = "system.health.alert"
T0 = 1_600_000_000_000
OUT = {"features": "market.regime.changed", "q_learning": "learning.drift.detected"}


def _candles(n: int) -> list[Any]:
    return [candle(SYMBOLS[i % len(SYMBOLS)], T0 + i * 1000) for i in range(n)]


def _experiences(n: int) -> list[Any]:
    return [experience(SYMBOLS[i % len(SYMBOLS)], T0 + i * 1000) for i in range(n)]


def _alerts(settings: Settings) -> list[HealthAlert]:
    found = [CODEC.decode(ALERTS, record.value) for record in read(settings, ALERTS)]
    return [alert for alert in found if isinstance(alert, HealthAlert)]


async def _worked(settings: Settings, agent: Any, n: int) -> None:
    """Run the agent until it has put out n records, and stop it."""
    async with run_agents(settings, {agent.name: agent}):
        await until(lambda: count(settings, OUT[agent.name]) >= n, "outputs")


async def _reason(settings: Settings, agent: Any) -> str:
    """Why a worker of the agent goes down; its alert says the same and is on the log by the time it has stopped."""
    async with run_agents(settings, {agent.name: agent}) as worker:
        return await _down(settings, worker)


async def _down(settings: Settings, worker: Worker) -> str:
    async with asyncio.timeout(PATIENCE_S):
        await worker.wait_failed()
    reason = str(worker.hosts[0].app.crash_reason)
    assert await worker.stop()
    alert = (await asyncio.to_thread(_alerts, settings))[-1]
    assert alert.status == "CRITICAL"
    assert alert.writer == f"host:{worker.hosts[0].agent.name}"
    assert alert.reason[:200] == reason[:200]
    return reason


async def _drop_below(settings: Settings, topic: str, keep: int) -> None:
    """Do what retention does: delete all but the newest records of every partition."""
    client = AdminClient(dict(settings.client()))
    there = topics.connect(settings)[1][settings.topic(topic)]
    reader = ck.Consumer({**settings.client(), "group.id": "ends"})
    ends = {p: reader.get_watermark_offsets(ck.TopicPartition(settings.topic(topic), p), 10)[1] for p in range(there)}
    reader.close()
    futures = client.delete_records([ck.TopicPartition(settings.topic(topic), p, max(0, end - keep))
                                     for p, end in ends.items()])
    for future in futures.values():
        await asyncio.to_thread(future.result)


@pytest.mark.topics(*FEATURES, ALERTS)
@in_loop
async def test_retention_beyond_what_a_relay_has_copied(prefix: Settings) -> None:
    produce(prefix, "market.candles", _candles(300))
    await _worked(prefix, CountingFeatures(), 300)
    produce(prefix, "market.candles", _candles(600)[300:])
    await _drop_below(prefix, "market.candles", 5)
    reason = await _reason(prefix, CountingFeatures())
    assert "were deleted (retention) before features had copied them" in reason
    assert f"{prefix.topic('market.candles')}-" in reason
    assert "quantum reset features" in reason
    assert _alerts(prefix)[-1].component.startswith(f"features:{prefix.topic('market.candles')}-")


@pytest.mark.topics(*LEARNER, ALERTS)
@in_loop
async def test_retention_overtakes_a_worker_that_is_behind(prefix: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from streams.transport import poll

    monkeypatch.setattr(poll, "TUNING", {**poll.TUNING, "queued.min.messages": 1, "fetch.max.bytes": 4096,
                                         "max.partition.fetch.bytes": 4096, "message.max.bytes": 4096})
    monkeypatch.setattr(poll, "BACKLOG_RECORDS", 50)
    held = asyncio.Event()
    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        lane_take = worker.hosts[0]._fold_batch

        async def waiting(batch: Any) -> None:
            await held.wait()
            await lane_take(batch)

        monkeypatch.setattr(worker.hosts[0], "_fold_batch", waiting)
        for at in range(0, 6_000, 500):  # batches of their own, so that few are fetched ahead
            produce(prefix, "learning.experience", _experiences(6_000)[at: at + 500])
        await _drop_below(prefix, "learning.experience", 5)
        held.set()
        reason = await _down(prefix, worker)
    assert "records were deleted (retention) before it had taken them" in reason
    assert "quantum reset q_learning" in reason


@pytest.mark.parametrize("grown", [10, 900], ids=["shorter", "grown past the offset"])
@pytest.mark.topics(*FEATURES, ALERTS)
@in_loop
async def test_a_source_topic_made_anew(prefix: Settings, grown: int) -> None:
    produce(prefix, "market.candles", _candles(300))
    await _worked(prefix, CountingFeatures(), 300)
    await made_anew(prefix, "market.candles")
    produce(prefix, "market.candles", _candles(grown))
    reason = await _reason(prefix, CountingFeatures())
    assert "another topic than the one that features has copied" in reason
    assert "quantum topics check" in reason
    assert counts(prefix, CountingFeatures()) == expected(_candles(300)), "nothing of it was folded"


@pytest.mark.parametrize("grown", [0, 900], ids=["empty", "grown past the offset"])
@pytest.mark.topics(*LEARNER, ALERTS)
@in_loop
async def test_a_direct_input_made_anew(prefix: Settings, grown: int) -> None:
    produce(prefix, "learning.experience", _experiences(300))
    await _worked(prefix, CountingLearner(), 300)
    await made_anew(prefix, "learning.experience")
    produce(prefix, "learning.experience", _experiences(grown))
    reason = await _reason(prefix, CountingLearner())
    assert "made anew" in reason
    assert "quantum reset q_learning" in reason
    assert count(prefix, "learning.drift.detected") == 300, "nothing of it was folded"


@pytest.mark.topics(*FEATURES, ALERTS)
@in_loop
async def test_an_inbox_made_anew(prefix: Settings) -> None:
    produce(prefix, "market.candles", _candles(300))
    await _worked(prefix, CountingFeatures(), 300)
    await made_anew(prefix, "features.inbox")
    assert "made anew" in await _reason(prefix, CountingFeatures())


@pytest.mark.parametrize("name", ["learning.experience", "q_learning.changelog"])
@pytest.mark.topics(*LEARNER, ALERTS)
@in_loop
async def test_a_topic_made_anew_under_a_running_worker(prefix: Settings, name: str) -> None:
    produce(prefix, "learning.experience", _experiences(300))
    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        await until(lambda: count(prefix, "learning.drift.detected") >= 300, "outputs")
        await made_anew(prefix, name)
        reason = await _down(prefix, worker)
    assert f"{prefix.topic(name)}" in reason
    assert "made anew" in reason or "not on the broker" in reason, reason


@pytest.mark.topics(*LEARNER, ALERTS)
@in_loop
async def test_a_changelog_that_is_gone_is_folded_again_and_said(prefix: Settings) -> None:
    produce(prefix, "learning.experience", _experiences(300))
    await _worked(prefix, CountingLearner(), 300)
    await made_anew(prefix, "q_learning.changelog")
    async with run_agents(prefix, {"q_learning": CountingLearner()}):
        await until(lambda: count(prefix, "learning.drift.detected") >= 600, "the repeats")
        await until(lambda: [a.status for a in _alerts(prefix)].count("HEALTHY") == 4, "the alerts to be over")
    first = _alerts(prefix)[0]
    assert first.status == "DEGRADED"
    assert "holds no state" in first.reason
    assert first.component.startswith("q_learning-")
    assert counts(prefix, CountingLearner()) == expected(_experiences(300))


@pytest.mark.topics(*LEARNER, ALERTS)
@in_loop
async def test_damaged_state_is_an_alert_with_its_place_until_it_is_repaired(prefix: Settings) -> None:
    produce(prefix, "learning.experience", _experiences(300))
    await _worked(prefix, CountingLearner(), 300)
    partition, fold = next((p, f) for p, f in folds(prefix, CountingLearner()).items() if f.scopes)
    scope = next(iter(fold.scopes))
    send(prefix, [("q_learning.changelog", f"scope:{scope}".encode(), b"\xc3\x01garbage", ())], partition)
    where = f"{prefix.topic('q_learning.changelog')}-{partition}@"
    async with run_agents(prefix, {"q_learning": CountingLearner()}):
        await until(lambda: [a.status for a in _alerts(prefix)] == ["DEGRADED", "HEALTHY"], "the alert and its end")
    ill, well = _alerts(prefix)
    assert ill.component == well.component == f"q_learning-{partition}"
    assert ill.reason.startswith(where), ill.reason
    assert f"key scope:{scope}: BAD_CHECKSUM" in ill.reason
    assert "restored from" in ill.reason
    assert well.reason.startswith("the state is folded again up to")
    async with run_agents(prefix, {"q_learning": CountingLearner()}):
        await asyncio.sleep(1)
    assert len(_alerts(prefix)) == 2, "repaired: nothing is said of it again"
    assert counts(prefix, CountingLearner()) == expected(_experiences(300))


@pytest.mark.topics(*LEARNER, ALERTS)
@in_loop
async def test_a_changelog_that_is_gone_with_the_inputs_beginning_is_the_end(prefix: Settings) -> None:
    produce(prefix, "learning.experience", _experiences(300))
    await _worked(prefix, CountingLearner(), 300)
    await made_anew(prefix, "q_learning.changelog")
    await _drop_below(prefix, "learning.experience", 5)
    reason = await _reason(prefix, CountingLearner())
    assert "cannot be folded again" in reason
    assert "quantum reset q_learning" in reason


@pytest.mark.topics(*(name for name in FEATURES if name != "market.candles"), ALERTS)
@in_loop
async def test_a_topic_that_is_missing_at_the_start(prefix: Settings) -> None:
    reason = await _reason(prefix, CountingFeatures())
    assert f"{prefix.topic('market.candles')} is not on the broker" in reason
    assert "quantum topics apply" in reason
    topics.apply(prefix, only=["market.candles"])
    produce(prefix, "market.candles", _candles(50))
    async with run_agents(prefix, {"features": CountingFeatures()}):
        await until(lambda: count(prefix, OUT["features"]) >= 50, "outputs")
        await until(lambda: _alerts(prefix)[-1].status == "HEALTHY", "the alert to be over")
    assert _alerts(prefix)[-1].component == "features"


@pytest.mark.parametrize("name", ["market.candles", "market.features"])
@pytest.mark.topics(*FEATURES, ALERTS)
@in_loop
async def test_a_topic_that_is_deleted_under_a_running_worker(prefix: Settings, name: str) -> None:
    produce(prefix, "market.candles", _candles(50))
    async with run_agents(prefix, {"features": CountingFeatures()}) as worker:
        await until(lambda: count(prefix, OUT["features"]) >= 50, "outputs")
        await deleted(prefix, name)
        reason = await _down(prefix, worker)
    assert f"{prefix.topic(name)} is not on the broker" in reason
    assert "quantum topics apply" in reason


@in_loop
async def test_a_broker_that_is_emptied_under_a_running_worker(own: Broker, tmp_path: Path) -> None:
    log, settings = tmp_path / "worker.log", own.settings
    worker = WorkerProcess(settings, "features", log)
    produce(settings, "market.candles", _candles(300))
    await until(lambda: count(settings, OUT["features"]) >= 300, "outputs")
    await asyncio.to_thread(own.kill)
    shutil.rmtree(own.folder / "broker" / "kafka")
    await asyncio.to_thread(own.up)
    await asyncio.to_thread(topics.apply, settings, [*FEATURES, ALERTS])
    await until(lambda: worker.ended() is not None, "the worker to end")
    assert worker.ended() == 1
    said = log.read_text()
    assert "the broker's cluster is" in said or "not on the broker" in said, said
    await until(lambda: len(read(settings, ALERTS)) > 0, "the alert")
    assert _alerts(settings)[-1].status == "CRITICAL"
    assert count(settings, OUT["features"]) == 0, "nothing was started from 0 in silence"
