"""The worker's counters as Prometheus reads them; made anew for each scrape, in the scrape's thread.

The event loop goes on meanwhile: whatever it changes is copied first, in one step of the interpreter. A scrape may so
see one agent a moment later than another, and never a torn value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from streams.host import AgentHost
from streams.metrics.health import Pulse

BATCH_LE = (1, 8, 64, 512, 4096)  # a batch has 5,000 records at most
FLUSH_LE_MS = (4, 16, 64, 256, 1024, 8192)
_OF_AGENT, _OF_PARTITION = ("agent",), ("agent", "partition")


class WorkerCollector:
    """Collects the agents of a worker.

    Args:
        hosts: of the agents.
        pulse: of the event loop.
        now_ms: the wall clock, milliseconds since 1970.
    """

    def __init__(self, hosts: Sequence[AgentHost], pulse: Pulse,
                 now_ms: Callable[[], float] = lambda: time.time() * 1000) -> None:
        self._hosts = hosts
        self._pulse = pulse
        self._now_ms = now_ms

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known when values are."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield GaugeMetricFamily("quantum_loop_late_seconds", "How late the event loop's last beat came, or the next "
                                "one is by now.", value=max(self._pulse.late_s, self._pulse.overdue_s()))
        yield from self._agents()
        yield from self._lags()
        yield from self._partitions()

    def _agents(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("quantum_ready", "1 where the agent has its partitions with their state.",
                                  labels=_OF_AGENT)
        took = GaugeMetricFamily("quantum_take_up_seconds", "What taking its partitions up cost last.",
                                 labels=_OF_AGENT)
        counters = {name: CounterMetricFamily(f"quantum_{name}", text, labels=_OF_AGENT) for name, text in (
            ("rebalances", "Times that the agent took partitions up."),
            ("relayed_records", "Source records copied into the inbox."),
            ("unroutable_records", "Source records without a scope, sent to the dead letters by the relay."),
            ("fits_done", "Results of trainer processes that were published."),
            ("fits_failed", "Fits that failed."))}
        batch = HistogramMetricFamily("quantum_batch_records", "Records in a batch.", labels=_OF_AGENT)
        flush = HistogramMetricFamily("quantum_flush_seconds", "A flush of a partition, from its beginning until its "
                                      "records are acknowledged.", labels=_OF_AGENT)
        for host in self._hosts:
            labels, stats = (host.agent.name,), host.stats
            ready.add_metric(labels, host.ready)
            took.add_metric(labels, stats.take_up_s)
            for name, value in (("rebalances", stats.rebalances), ("relayed_records", stats.relayed),
                                ("unroutable_records", stats.unroutable), ("fits_done", stats.jobs_done),
                                ("fits_failed", stats.jobs_failed)):
                counters[name].add_metric(labels, value)
            batch.add_metric(labels, _buckets(dict(stats.batch_sizes), BATCH_LE, 1), stats.batched)
            flush.add_metric(labels, _buckets(dict(stats.flush_ms), FLUSH_LE_MS, 1000), stats.flush_s)
        yield from (ready, took, *counters.values(), batch, flush)

    def _lags(self) -> Iterator[Metric]:
        lag = GaugeMetricFamily("quantum_lag_records", "Records of the log not folded yet, of sources not fetched; a "
                                "second or two old.", labels=("agent", "topic", "partition"))
        for host in self._hosts:
            for place, records in host.stats.lag.copy().items():
                topic, _, partition = place.rpartition("-")
                lag.add_metric((host.agent.name, topic, partition), records)
        yield lag

    def _partitions(self) -> Iterator[Metric]:
        step = SummaryMetricFamily("quantum_step_seconds", "Folding of records, until their outputs are queued.",
                                   labels=_OF_PARTITION)
        delay = GaugeMetricFamily("quantum_event_delay_seconds", "The clock here less the newest event time that was "
                                  "folded; absent before the first one.", labels=_OF_PARTITION)
        made = CounterMetricFamily("quantum_outputs", "Events that the agent has made, by topic, since it took the "
                                   "partition up.", labels=(*_OF_PARTITION, "topic"))
        changed = CounterMetricFamily("quantum_decisions_changed", "Decisions executed as a policy recommended and not "
                                      "as the baseline would have, since the agent took the partition up.",
                                      labels=_OF_PARTITION)
        letters = CounterMetricFamily("quantum_dead_letters", "Records refused since the partition's genesis.",
                                      labels=_OF_PARTITION)
        scopes = GaugeMetricFamily("quantum_scopes", "Scopes with state: symbols, mostly.", labels=_OF_PARTITION)
        restored = GaugeMetricFamily("quantum_restored_ratio", "Share of the changelog partition that is read, of the "
                                     "state that is restored now or was last.", labels=_OF_PARTITION)
        for host in self._hosts:
            name, stats = host.agent.name, host.stats
            for tp, lane in host.lanes.copy().items():
                fold, at, labels = lane.fold, tp.partition, (name, str(tp.partition))
                step.add_metric(labels, stats.steps.get(at, 0), stats.step_s.get(at, 0.0))
                if fold.event_ms > 0:
                    delay.add_metric(labels, (self._now_ms() - fold.event_ms) / 1000)
                for topic, count in dict(fold.made).items():
                    made.add_metric((*labels, topic), count)
                if "policy.applied" in fold.io.writes:
                    changed.add_metric(labels, fold.changed)
                letters.add_metric(labels, fold.counters.refused)
                scopes.add_metric(labels, len(fold.scopes))
            for at, share in host.progress.shares().items():
                restored.add_metric((name, str(at)), share)
        yield from (step, delay, made, changed, letters, scopes, restored)


def _buckets(counts: Mapping[int, int], bounds: Sequence[int], unit: int) -> list[tuple[str, float]]:
    """Cumulative buckets from counts by the power of two at or above a value.

    >>> _buckets({1: 2, 8: 1, 64: 1}, (1, 16), 1)
    [('1.0', 2), ('16.0', 3), ('+Inf', 4)]
    """
    found: list[tuple[str, float]] = [(str(le / unit), sum(n for size, n in counts.items() if size <= le))
                                      for le in bounds]
    return [*found, ("+Inf", sum(counts.values()))]
