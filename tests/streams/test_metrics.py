"""Metrics and probes of a worker: they move with load, lag and dead letters, and end with the worker."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from agents.contract import Output
from schemas.events import PolicyApplied
from streams.broker.node import free_port
from streams.fold import PartitionFold
from streams.metrics import PortTaken
from streams.metrics.collect import WorkerCollector
from streams.metrics.health import BEAT_S, STALLED_S, Pulse, alive, ready
from streams.metrics.serve import served
from streams.records import Incoming, Source, encode_event
from streams.restore import Progress
from streams.settings import Settings
from streams.stats import AgentStats
from streams.worker import run_agents
from tests.patience import PATIENCE_S
from tests.streams.counting import Count, CountingFeatures, candle
from tests.streams.hosting import CODEC, FEATURES, WorkerProcess, in_loop, produce, until

T0 = 1_600_000_000_000
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _get(address: str, path: str, accept: str = "") -> tuple[int, str]:
    """Status and body; 0 where nobody listens."""
    request = urllib.request.Request(f"http://{address}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
    except OSError:
        return 0, ""


def _values(address: str) -> Values:
    status, text = _get(address, "/metrics")
    assert status == 200
    return {(s.name, tuple(sorted(s.labels.items()))): s.value
            for family in text_string_to_metric_families(text) for s in family.samples}


def _sum(values: Values, name: str, **labels: str) -> float:
    return sum(v for (n, at), v in values.items() if n == name and labels.items() <= dict(at).items())


def _candles(n: int, residue: int = 0, since: int = 0) -> list[Any]:
    return [candle(f"SYM{i % 40:02d}USDT", T0 + (since + i) * 1000 + residue) for i in range(n)]


@pytest.mark.topics(*FEATURES)
def test_a_worker_tells_of_its_work_and_is_silent_behind_its_end(
        prefix: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    monkeypatch.setenv("QUANTUM_METRICS_PORT", str(port))
    produce(prefix, "market.candles", _candles(500) + _candles(3, residue=13, since=500))
    worker = WorkerProcess(prefix, "features", tmp_path / "log")
    try:
        asyncio.run(until(lambda: _get(address, "/readyz")[0] == 200, "readiness"))
        assert _get(address, "/healthz") == (200, "ok\n")
        asyncio.run(until(lambda: _sum(_values(address), "quantum_outputs_total") == 500
                          and _sum(_values(address), "quantum_lag_records") == 0, "the work"))
        values = _values(address)
        assert _sum(values, "quantum_outputs_total", topic="market.regime.changed") == 500
        assert _sum(values, "quantum_dead_letters_total", agent="features") == 3
        assert _sum(values, "quantum_scopes") == 40
        assert _sum(values, "quantum_ready", agent="features") == 1
        assert _sum(values, "quantum_restored_ratio") == 4
        assert _sum(values, "quantum_relayed_records_total") == 503
        folded = _sum(values, "quantum_step_seconds_count")
        assert folded >= 503
        assert _sum(values, "quantum_batch_records_sum") == folded
        assert _sum(values, "quantum_batch_records_bucket", le="+Inf") == _sum(values, "quantum_batch_records_count")
        assert _sum(values, "quantum_flush_seconds_count") > 0
        assert _sum(values, "quantum_step_seconds_sum") > 0
        newest_s = (T0 + 502_000) / 1000
        delays = [v for (name, _), v in values.items() if name == "quantum_event_delay_seconds"]
        assert min(delays) == pytest.approx(time.time() - newest_s, abs=60)
        assert _sum(values, "process_resident_memory_bytes") > 0
        assert "SYM0" not in _get(address, "/metrics")[1], "no label by symbol"
        assert "# EOF" in _get(address, "/metrics", "application/openmetrics-text; version=1.0.0")[1]
        assert _get(address, "/")[0] == 404
        assert worker.terminate() == 0
        assert _get(address, "/healthz")[0] == 0
        assert f"metrics at http://{address}/metrics" in worker.log.read_text()
    finally:
        worker.kill()


@pytest.mark.topics(*FEATURES)
def test_lag_and_lateness_show_while_an_agent_is_slow(
        prefix: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    monkeypatch.setenv("QUANTUM_METRICS_PORT", str(port))
    worker = WorkerProcess(prefix, "features", tmp_path / "log")
    try:
        asyncio.run(until(lambda: _get(address, "/readyz")[0] == 200, "readiness"))
        inbox, fed, lag, late_s = f"{prefix.topic_prefix}features.inbox", 0, 0.0, 0.0
        values: Values = {}

        def shown() -> bool:  # a scrape is answered while the loop is not: a step takes 1.2 s
            nonlocal fed, lag, late_s, values
            values = _values(address)
            lag = max(lag, _sum(values, "quantum_lag_records", topic=inbox))
            late_s = max(late_s, _sum(values, "quantum_loop_late_seconds"))
            if not (lag and late_s > 0.5) and _sum(values, "quantum_outputs_total") == fed:
                produce(prefix, "market.candles", _candles(6, residue=99, since=fed) + _candles(100, since=fed + 6))
                fed += 106  # the lag is asked for once a second, and the loop may do all of the rest in one go
            return bool(lag) and late_s > 0.5

        def done() -> bool:
            return shown() and _sum(values, "quantum_outputs_total") == fed and not _sum(values, "quantum_lag_records")

        asyncio.run(until(done, "lag and lateness, and then the rest of the work"))
        assert _sum(values, "quantum_step_seconds_sum") > 6 * 1.2
        assert worker.terminate() == 0
    finally:
        worker.kill()


@pytest.mark.topics(*FEATURES)
@in_loop
async def test_a_worker_without_partitions_is_ready_and_one_that_stops_is_not(prefix: Settings) -> None:
    async with run_agents(prefix, {"features": CountingFeatures()}) as worker:
        (host,) = worker.hosts
        assert ready(worker.hosts, Pulse()).good
        assert ready([], Pulse()).good
    assert ready([host], Pulse()).reasons == ("features: is stopping",)


class _Applier(CountingFeatures):
    """Executes what the policy recommends, at every third candle what the baseline would, at every fifth neither."""

    name = "paper_execution"

    def output(self, event: Any, state: Count) -> Output:
        done = "neutral" if state.n % 3 == 0 else "momentum" if state.n % 5 else "breakout"
        return Output("policy.applied", PolicyApplied(
            decision_id="d", symbol=event.symbol, ts_ms=event.ts_ms, policy_id="p/S", policy_version=1,
            recommended_action="neutral" if state.n % 3 == 0 else "momentum", executed_action=done,
            baseline_action="neutral", applier="paper_execution", source=event.source, origin=event.origin))


def test_decisions_that_a_policy_changed_are_counted() -> None:
    fold = PartitionFold(_Applier(), 2, CODEC)
    for i in range(15):
        row = encode_event(CODEC, "market.candles", candle("S", T0 + i * 1000), "", "test")
        fold.apply(Incoming(i, row.key, row.value, (), source=Source("market.candles", 0, i)))
    host = _host(agent=fold.agent, stats=AgentStats("paper_execution"),
                 lanes={TP("paper_execution.inbox", 2): SimpleNamespace(fold=fold)})
    registry = CollectorRegistry()
    registry.register(WorkerCollector([host], Pulse(), now_ms=lambda: T0 + 20_000))
    at = {"agent": "paper_execution", "partition": "2"}
    assert registry.get_sample_value("quantum_decisions_changed_total", at) == 8, "15, less 5 and 2"
    assert registry.get_sample_value("quantum_outputs_total", at | {"topic": "policy.applied"}) == 15
    assert registry.get_sample_value("quantum_event_delay_seconds", at) == 6.0


def _host(**changes: Any) -> Any:
    app = SimpleNamespace(failed=asyncio.Event(), should_stop=False)
    return SimpleNamespace(**{"agent": SimpleNamespace(name="a"), "app": app, "ready": False, "progress": Progress()}
                           | changes)


def test_readiness_says_what_it_waits_for() -> None:
    host = _host()
    assert ready([host], Pulse()).reasons == ("a: waits for its partitions",)
    host.progress.begin({0: (10, 20), 1: (0, 0), 2: (5, 25)})
    host.progress.at(0, 14)
    assert host.progress.shares() == {0: 0.5, 1: 1.0, 2: 0.0}
    assert ready([host], Pulse()).reasons == ("a: restores its state, 50% of the changelog is read",)
    host.progress.end()
    host.ready = True
    assert ready([host], Pulse()).good
    host.app.failed.set()
    assert ready([host], Pulse()).reasons == ("a: failed",)


def test_a_loop_that_does_not_turn_is_not_alive() -> None:
    now = [100.0]
    pulse = Pulse(lambda: now[0])
    assert alive(pulse).good
    now[0] += STALLED_S + BEAT_S + 1
    assert alive(pulse).reasons == ("the event loop has not turned for 12 s",)
    assert not ready([], pulse).good


def test_a_taken_port_is_said_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(metrics_port=taken.getsockname()[1])
        with pytest.raises(PortTaken, match=r"127\.0\.0\.1:\d+ for metrics: Address already in use"), \
                served(settings, [], Pulse()):
            pass


def test_a_silent_client_hinders_nobody_and_no_thread_is_left() -> None:
    before = threading.active_count()
    settings = Settings(metrics_port=free_port())
    with served(settings, [], Pulse()) as address, socket.create_connection(("127.0.0.1", settings.metrics_port)):
        assert _get(address, "/healthz") == (200, "ok\n")
        assert _sum(_values(address), "quantum_loop_late_seconds") >= 0
    deadline = time.monotonic() + PATIENCE_S
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before
    assert _get(address, "/healthz")[0] == 0
