"""The host over a real broker: exactly-once state under kills and rebalances, order, dead letters, fences, stopping."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.contract import Output
from schemas import catalogue
from schemas.events import Event, PolicyConfig
from streams.alerts import Alerts
from streams.held import seal, wiped
from streams.records import FENCE, HEAD_KEY, SOURCE_TOPIC, encode_event
from streams.settings import Settings
from streams.unresolved import TOPIC as ALERTS
from streams.unresolved import unresolved
from streams.worker import run_agents
from tests.patience import PATIENCE_S
from tests.streams.counting import SYMBOLS, Count, CountingFeatures, CountingLearner, candle, experience
from tests.streams.hosting import (
    CODEC,
    FEATURES,
    LEARNER,
    WorkerProcess,
    committed,
    count,
    counts,
    ends,
    expected,
    firsts,
    folds,
    in_loop,
    made_anew,
    produce,
    read,
    send,
    until,
)

pytestmark = pytest.mark.usefixtures("direct_learner")
N = 3_000
T0 = 1_600_000_000_000


def _candles(n: int, since: int = 0) -> list[Any]:
    return [candle(SYMBOLS[i % len(SYMBOLS)], T0 + i * 1000) for i in range(since, since + n)]


def _experiences(n: int, since: int = 0) -> list[Any]:
    return [experience(SYMBOLS[i % len(SYMBOLS)], T0 + i * 1000) for i in range(since, since + n)]


def _check_outputs(settings: Settings, topic: str, field: str, events: list[Any]) -> None:
    """Every event left exactly one output by id, and per symbol the first copies stand in order."""
    seen: dict[str, list[int]] = {}
    for record in firsts(read(settings, topic)).values():
        event: Any = CODEC.decode(topic, record.value)
        seen.setdefault(event.symbol, []).append(getattr(event, field))
    assert seen == {s: list(range(1, c.n + 1)) for s, c in expected(events).items()}


@pytest.mark.topics(*FEATURES)
@in_loop
async def test_inbox_agent_counts_every_record_once_and_in_order(prefix: Settings) -> None:
    events = _candles(N)
    produce(prefix, "market.candles", events[: N // 2])
    async with run_agents(prefix, {"features": CountingFeatures()}) as worker:
        produce(prefix, "market.candles", events[N // 2:])
        await until(lambda: count(prefix, "market.regime.changed") >= N, "outputs")
        (figures,) = await worker.measure()
        assert not worker.failed
    assert counts(prefix, CountingFeatures()) == expected(events)
    _check_outputs(prefix, "market.regime.changed", "bars_in_previous", events)
    assert count(prefix, "market.regime.changed") == N, "nothing failed, so nothing is repeated"
    assert sum(committed(prefix, "features", "market.candles").values()) == N
    assert sum(committed(prefix, "features", "features.inbox").values()) == count(prefix, "features.inbox")
    assert figures["relayed"] == N
    assert figures["records_out"] == N


@pytest.mark.topics(*LEARNER)
@in_loop
async def test_batches_grow_under_load(prefix: Settings) -> None:
    produce(prefix, "learning.experience", _experiences(N))
    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        await until(lambda: count(prefix, "learning.drift.detected") >= N, "outputs")
        loaded = worker.hosts[0].stats.batches
        assert N / loaded > 100, "what waited was taken together"
        for event in _experiences(20, since=N):
            await asyncio.to_thread(produce, prefix, "learning.experience", [event])
        await until(lambda: count(prefix, "learning.drift.detected") >= N + 20, "single outputs")
        assert worker.hosts[0].stats.batches - loaded > 5, "what came alone was not held back"


@pytest.mark.topics(*LEARNER, ALERTS)
@in_loop
async def test_an_alert_that_comes_after_its_partitions_were_taken_over_is_taken_back(prefix: Settings) -> None:
    """A worker that goes down leaves the group at once; its last words may be there only when another has looked."""
    def standing() -> list[str]:
        return [found.alert.component for found in unresolved(CODEC, read(prefix, ALERTS))]

    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        host = worker.hosts[0]
        await until(lambda: host.ready and host._recovering.done(), "the first look")
        died = Alerts(prefix, "q_learning")
        await asyncio.to_thread(died.critical, "q_learning", "gone")
        assert await asyncio.to_thread(died.deliver, PATIENCE_S)
        assert standing() == ["q_learning"]
        await until(lambda: not standing(), "the second")
        assert not worker.failed


@pytest.mark.topics(*LEARNER)
@in_loop
async def test_restart_goes_on_behind_the_state_whatever_was_committed(prefix: Settings) -> None:
    import confluent_kafka as ck

    produce(prefix, "learning.experience", _experiences(N))
    async with run_agents(prefix, {"q_learning": CountingLearner()}):
        await until(lambda: count(prefix, "learning.drift.detected") >= N, "outputs")
    rewound = ck.Consumer({**prefix.client(), "group.id": prefix.group("q_learning"), "enable.auto.commit": False})
    topic = prefix.topic("learning.experience")
    rewound.commit(offsets=[ck.TopicPartition(topic, p, 0) for p in range(4)], asynchronous=False)
    rewound.close()
    produce(prefix, "learning.experience", _experiences(100, since=N))
    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        await until(lambda: count(prefix, "learning.drift.detected") >= N + 100, "outputs")
        assert worker.hosts[0].stats.records_in == 100
    assert counts(prefix, CountingLearner()) == expected(_experiences(N + 100))


@pytest.mark.topics(*LEARNER)
@in_loop
async def test_what_the_state_holds_is_committed_though_nothing_more_arrives(prefix: Settings) -> None:
    """A worker killed between flush and commit: the group's lag would speak of records that have long been taken."""
    import confluent_kafka as ck

    produce(prefix, "learning.experience", _experiences(70))
    async with run_agents(prefix, {"q_learning": CountingLearner()}):
        await until(lambda: count(prefix, "learning.drift.detected") >= 70, "outputs")
    ends = committed(prefix, "q_learning", "learning.experience")
    rewound = ck.Consumer({**prefix.client(), "group.id": prefix.group("q_learning"), "enable.auto.commit": False})
    topic = prefix.topic("learning.experience")
    rewound.commit(offsets=[ck.TopicPartition(topic, p, 0) for p in ends], asynchronous=False)
    rewound.close()
    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        await until(lambda: committed(prefix, "q_learning", "learning.experience") == ends, "the commit")
        assert worker.hosts[0].stats.records_in == 0


@pytest.mark.topics(*FEATURES)
@in_loop
async def test_state_is_exact_after_sigkills(prefix: Settings, tmp_path: Path) -> None:
    chance = random.Random(7)
    events = _candles(N)
    for start in range(0, N, N // 4):
        process = WorkerProcess(prefix, "features", tmp_path / "worker.log")
        before = count(prefix, "market.regime.changed")
        produce(prefix, "market.candles", events[start: start + N // 4])
        await until(lambda before=before: count(prefix, "market.regime.changed") > before, "outputs")
        await asyncio.sleep(chance.random() * 0.2)
        process.kill()
    last = WorkerProcess(prefix, "features", tmp_path / "last.log")
    await until(lambda: "running" in (tmp_path / "last.log").read_text(), "the last worker")
    await until(lambda: len(firsts(read(prefix, "market.regime.changed"))) >= N, "outputs")
    await until(lambda: committed(prefix, "features", "features.inbox") == ends(prefix, "features.inbox"),
                "the last worker, for one that was killed may have written the outputs and not the state")
    assert last.terminate() == 0
    assert counts(prefix, CountingFeatures()) == expected(events)
    _check_outputs(prefix, "market.regime.changed", "bars_in_previous", events)


@pytest.mark.topics(*FEATURES)
@in_loop
async def test_state_is_exact_across_rebalances(prefix: Settings, tmp_path: Path) -> None:
    events = _candles(N)
    one = WorkerProcess(prefix, "features", tmp_path / "one.log")
    produce(prefix, "market.candles", events[: N // 3])
    await until(lambda: count(prefix, "market.regime.changed") > 0, "outputs")
    two = WorkerProcess(prefix, "features", tmp_path / "two.log")
    for at in range(N // 3, 2 * N // 3, 100):
        produce(prefix, "market.candles", events[at: at + 100])
        await asyncio.sleep(0.05)
    await until(lambda: "took up 2 input" in (tmp_path / "two.log").read_text(), "the second worker's share")
    assert one.terminate() == 0
    produce(prefix, "market.candles", events[2 * N // 3:])
    await until(lambda: len(firsts(read(prefix, "market.regime.changed"))) >= N, "outputs")
    assert two.terminate() == 0
    assert counts(prefix, CountingFeatures()) == expected(events)
    _check_outputs(prefix, "market.regime.changed", "bars_in_previous", events)


class _Configured(CountingFeatures):
    """A configuration changes nothing here."""

    def step(self, state: Count, event: Event) -> tuple[Count, tuple[Output, ...]]:
        return (state, ()) if isinstance(event, PolicyConfig) else super().step(state, event)


@pytest.mark.topics(*FEATURES, "policy.config", "policy.config.dlq")
@in_loop
async def test_a_configuration_that_stands_on_the_log_comes_before_what_it_holds_for(
        prefix: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the consumer would have read first; and it is copied once."""
    agents: Any = catalogue.AGENTS
    io = catalogue.AGENTS["features"]
    monkeypatch.setitem(agents, "features", replace(io, reads={**io.reads, "policy.config": "broadcast"}))

    def config(n: int) -> PolicyConfig:
        return PolicyConfig(config_id=f"config-{n}", agent="features", ts_ms=n, values="{}", actor="ann", reason="so")

    def copied() -> dict[int, list[str]]:
        by_partition: dict[int, list[str]] = {}
        for record in read(prefix, "features.inbox"):
            headers = dict(record.headers)
            if FENCE not in headers:
                by_partition.setdefault(record.partition, []).append(headers[SOURCE_TOPIC].decode())
        return by_partition

    events = _candles(N)
    produce(prefix, "market.candles", events)
    produce(prefix, "policy.config", [config(1), config(2)])
    async with run_agents(prefix, {"features": _Configured()}):
        await until(lambda: count(prefix, "market.regime.changed") == N, "all outputs")
        produce(prefix, "policy.config", [config(3)])
        await until(lambda: committed(prefix, "features", "policy.config") == {0: 3}, "the last one")
    found = copied()
    assert len(found) == 4
    for topics in found.values():
        assert topics[:2] == ["policy.config"] * 2
        assert topics.count("policy.config") == 3
    assert counts(prefix, _Configured()) == expected(events)


@pytest.mark.topics(*FEATURES)
@in_loop
async def test_a_frozen_relay_that_wakes_does_no_harm(prefix: Settings, tmp_path: Path) -> None:
    events = _candles(N)
    frozen = WorkerProcess(prefix, "features", tmp_path / "frozen.log")
    produce(prefix, "market.candles", events[: N // 2])
    await until(lambda: count(prefix, "market.regime.changed") > 0, "outputs")
    frozen.pause(True)
    other = WorkerProcess(prefix, "features", tmp_path / "other.log")
    produce(prefix, "market.candles", events[N // 2:])
    await until(lambda: len(firsts(read(prefix, "market.regime.changed"))) >= N, "the other worker's outputs")
    frozen.pause(False)
    await until(lambda: (tmp_path / "other.log").read_text().count("took up") > 1, "both to share again")
    more = _candles(700, since=N)
    produce(prefix, "market.candles", more)
    await until(lambda: len(firsts(read(prefix, "market.regime.changed"))) >= N + 700, "outputs")
    other.terminate()
    frozen.terminate()
    assert counts(prefix, CountingFeatures()) == expected(events + more)


@pytest.mark.topics(*LEARNER)
@in_loop
async def test_a_flush_torn_before_its_head_is_taken_up(prefix: Settings) -> None:
    events = _experiences(700)
    produce(prefix, "learning.experience", events)
    async with run_agents(prefix, {"q_learning": CountingLearner()}):
        await until(lambda: count(prefix, "learning.drift.detected") >= 700, "outputs")
    more = _experiences(70, since=700)
    produce(prefix, "learning.experience", more)
    for partition, fold in folds(prefix, CountingLearner()).items():  # fold on by hand and write all but the head
        from streams.records import Incoming

        records = [r for r in read(prefix, "learning.experience") if r.partition == partition]
        out = [o for r in records for o in fold.apply(Incoming(r.offset, r.key, r.value, r.headers))]
        send(prefix, ((o.topic, o.key, o.value, o.headers) for o in out))
        send(prefix, (("q_learning.changelog", k, v, seal(v)) for k, v in fold.flush().rows if k != HEAD_KEY),
             partition)
    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        await until(lambda: worker.hosts[0].stats.records_in >= 70, "the tail")
    assert counts(prefix, CountingLearner()) == expected(events + more)
    _check_outputs(prefix, "learning.drift.detected", "window_before", events + more)


@pytest.mark.topics(*LEARNER)
@in_loop
async def test_damaged_state_is_refused_and_written_anew(prefix: Settings, caplog: pytest.LogCaptureFixture) -> None:
    events = _experiences(700)
    produce(prefix, "learning.experience", events)
    async with run_agents(prefix, {"q_learning": CountingLearner()}):
        await until(lambda: count(prefix, "learning.drift.detected") >= 700, "outputs")
    fold = folds(prefix, CountingLearner())[0]
    scope = next(iter(fold.scopes))
    send(prefix, [("q_learning.changelog", b"head", None, wiped("test"))], 0)  # with no head, all is folded again
    send(prefix, [("q_learning.changelog", f"scope:{scope}".encode(), b"\xc3\x01garbage", ())], 0)
    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        await until(lambda: worker.hosts[0].stats.records_in >= fold.offset + 1, "the second folding")
    assert f"key scope:{scope}: BAD_CHECKSUM" in caplog.text
    caplog.clear()
    assert counts(prefix, CountingLearner()) == expected(events)
    assert "BAD_CHECKSUM" not in caplog.text, "the record that was damaged is written anew"
    _check_outputs(prefix, "learning.drift.detected", "window_before", events)


@pytest.mark.topics(*FEATURES)
@in_loop
async def test_what_is_refused_is_in_the_dead_letters_as_it_came(prefix: Settings) -> None:
    good = encode_event(CODEC, "market.candles", candle("AUSDT", T0), "", "x")
    unlucky = encode_event(CODEC, "market.candles", candle("AUSDT", T0 + 13), "", "x")
    defect = encode_event(CODEC, "market.candles", candle("AUSDT", T0 + 66), "", "x")
    headers = (("mine", b"\x00\xff"), ("mine", b"twice"), ("relay_owner", b"forged"))
    bad = [
        ("NO_KEY", None, good.value), ("NO_KEY", b"", good.value), ("BAD_KEY", b"\xff\xfe", good.value),
        ("KEY_MISMATCH", b"BUSDT", good.value), ("NULL_VALUE", b"AUSDT", None), ("EMPTY", b"AUSDT", b""),
        ("NOT_AVRO", b"AUSDT", b"{}"), ("UNKNOWN_SCHEMA", b"AUSDT", b"\xc3\x01" + bytes(12)),
        ("TRAILING_BYTES", b"AUSDT", (good.value or b"") + b"\0"), ("UNLUCKY", b"AUSDT", unlucky.value),
        ("STEP_FAILED", b"AUSDT", defect.value), ("NOT_AVRO", b"AUSDT", b"\x01" * 2_000_000),
    ]
    send(prefix, (("market.candles", key, value, headers) for _, key, value in bad), partition=2)
    send(prefix, [("market.candles", good.key, good.value, ())], partition=2)
    async with run_agents(prefix, {"features": CountingFeatures()}) as worker:
        await until(lambda: count(prefix, "market.candles.dlq") >= len(bad), "dead letters")
        await until(lambda: count(prefix, "market.regime.changed") >= 1, "the good one")
        assert not worker.failed
    letters = sorted(read(prefix, "market.candles.dlq"),
                     key=lambda r: int(dict(r.headers)["__streams.errors.offset"]))
    assert [(dict(r.headers)["__streams.errors.reason"].decode(), r.key, r.value) for r in letters] == bad
    for record in letters:
        assert record.headers[:2] == headers[:2]
        assert dict(record.headers)["__streams.errors.topic"] == b"market.candles"
    assert committed(prefix, "features", "market.candles")[2] == len(bad) + 1
    assert counts(prefix, CountingFeatures()) == {**expected([candle("AUSDT", T0)])}


@pytest.mark.topics(*LEARNER)
@in_loop
async def test_a_failed_batch_acknowledges_nothing_and_stops_in_time(
    prefix: Settings, monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        producer = worker.hosts[0].app.producer
        send_rows = producer.send_rows

        async def failing(rows: Any) -> Any:
            if any(row.topic.endswith("drift.detected") for row in rows):
                raise RuntimeError("no room")
            return await send_rows(rows)

        monkeypatch.setattr(producer, "send_rows", failing)
        produce(prefix, "learning.experience", _experiences(100))
        async with asyncio.timeout(PATIENCE_S):
            await worker.wait_failed()
        began = time.monotonic()
        assert await worker.stop(), "a part was left behind"
        assert time.monotonic() - began < 10, "ten seconds are the promise"
    assert counts(prefix, CountingLearner()) == {}
    assert max(committed(prefix, "q_learning", "learning.experience").values(), default=0) == 0
    async with run_agents(prefix, {"q_learning": CountingLearner()}):
        await until(lambda: count(prefix, "learning.drift.detected") >= 100, "outputs")
    assert counts(prefix, CountingLearner()) == expected(_experiences(100))


@pytest.mark.topics(*LEARNER)
@in_loop
async def test_a_slow_step_is_named(prefix: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async with run_agents(prefix, {"q_learning": CountingLearner()}):
        produce(prefix, "learning.experience", [experience("AUSDT", T0 + 99)])
        await until(lambda: count(prefix, "learning.drift.detected") >= 1, "the output")
    (record,) = read(prefix, "learning.experience")
    assert f"over {prefix.topic('learning.experience')}-{record.partition}@{record.offset}" in caplog.text


@pytest.mark.topics(*LEARNER)
@in_loop
async def test_a_state_ahead_of_the_log_is_explained(prefix: Settings) -> None:
    produce(prefix, "learning.experience", _experiences(50))
    async with run_agents(prefix, {"q_learning": CountingLearner()}):
        await until(lambda: count(prefix, "learning.drift.detected") >= 50, "outputs")
    await made_anew(prefix, "learning.experience")
    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        async with asyncio.timeout(PATIENCE_S):
            await worker.wait_failed()
        assert "made anew" in str(worker.hosts[0].app.crash_reason)
