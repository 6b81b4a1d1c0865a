"""The same agents without a broker: one queue in event time, a clock moved by hand.

Records merge by (event time, topic rank, order of arrival). The rank puts what a bar finishes (trades, outcomes,
experiences, new policies) before what it begins (features, decisions), so a decision at a close sees every policy
learned from that close. Partitions are virtual: a scope's state is the same whatever their number.

The idea is that of Kafka's TopologyTestDriver: the whole topology in one process, nothing mocked below the agents.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from itertools import groupby
from typing import Any
from zlib import crc32

from agents.contract import Agent
from schemas import catalogue
from schemas.catalogue import GLOBAL
from schemas.codec import Codec
from schemas.events import Event
from streams.fold import PartitionFold
from streams.identity import Identity
from streams.records import Incoming, Outgoing, Source, encode_event, event_key
from streams.trainers.jobs import OpenJobs, encoded, failure, has_jobs, reason, returning

RANK = {
    name: rank
    for rank, name in enumerate(
        (
            "system.health.alert", "policy.commands", "policy.config", "market.instruments", "market.trades",
            "market.candles",
            "execution.trade.closed", "decision.outcome", "policy.applied", "execution.equity.marked",
            "learning.experience", "learning.orphan", "learning.drift.detected", "rl.q_learning.updated",
            "rl.meta.updated", "risk.mode.changed", "rl_v3.training.completed", "policy.ledger",
            "policy.current", "market.regime.changed", "market.features", "rl_v3.training.started",
            "rl.meta.strategy_selected", "rl_v3.decision", "system.clock",
        )
    )
}
LAST = len(RANK)


class ObjectCodec(Codec):
    """Leaves events as objects: for long simulations, where the codecs would be half of the time."""

    def encode(self, topic: str, event: Event, schema_id: int | None = None) -> bytes:
        """No bytes at all: the event travels beside the record."""
        return b""


class Driver:
    """Runs agents in memory.

    Args:
        agents: agents to run, by name.
        partitions: virtual partitions an agent.
        codec: codec for every record; `ObjectCodec` passes objects.
        identities: hashes stamped on policies, by agent; none: policies carry no provenance.
        keep: topics whose records are kept in `log`; None keeps all.
        perform: whether jobs are performed as they open, in this process; their results arrive `fit_latency_ms` later.
            False: the results are among the events, as where a log is replayed.
        tap: called with every record that is published, before anything reads it; returns the record to deliver.
    """

    def __init__(
        self,
        agents: Mapping[str, Agent[Any]],
        *,
        partitions: int = 1,
        codec: Codec | None = None,
        identities: Mapping[str, Identity] | None = None,
        keep: Iterable[str] | None = None,
        tap: Callable[[Outgoing], Outgoing | None] | None = None,
        perform: bool = True,
    ) -> None:
        self.codec = codec if codec is not None else Codec()
        self.log: dict[str, list[Outgoing]] = defaultdict(list)
        self.now_ms = 0
        self._keep = None if keep is None else frozenset(keep)
        self._tap = tap
        self._as_objects = isinstance(self.codec, ObjectCodec)
        ids = identities or {}
        self.folds = {
            name: [PartitionFold(agent, p, self.codec, ids.get(name)) for p in range(partitions)]
            for name, agent in agents.items()
        }
        self._open = {name: [OpenJobs(fold) for fold in folds] for name, folds in self.folds.items()
                      if perform and has_jobs(agents[name])}
        self._begun: set[tuple[str, str]] = set()
        self._next = {name: [0] * partitions for name in agents}
        self._readers: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name in agents:
            for topic, route in catalogue.AGENTS[name].reads.items():
                self._readers[topic].append((name, route))
        self._positions: dict[str, int] = defaultdict(int)
        self._queue: list[tuple[int, int, int, Outgoing]] = []
        self._arrivals = 0
        self._external = 0

    def run(self, events: Iterable[tuple[str, Event]]) -> None:
        """Publish events from outside, which must come in order of event time, and all that follows from them."""
        for ts_ms, group in groupby(events, key=lambda pair: pair[1].ts_ms):  # type: ignore[attr-defined]
            self._drain(before_ms=ts_ms)
            for topic, event in group:
                self.push(topic, event)
            self._drain(before_ms=ts_ms + 1)
        self._drain(before_ms=None)

    def push(self, topic: str, event: Event) -> None:
        """Queue one event from outside."""
        self._external += 1
        source = str(getattr(event, "source", "outside"))
        self._enqueue(encode_event(self.codec, topic, event, f"outside:{self._external}", source))

    def _enqueue(self, record: Outgoing, at_ms: int | None = None) -> None:
        ts_ms: int = getattr(record.event, "ts_ms", self.now_ms) if at_ms is None else at_ms
        self._arrivals += 1
        heapq.heappush(self._queue, (ts_ms, RANK.get(record.topic, LAST), self._arrivals, record))

    def _drain(self, before_ms: int | None) -> None:
        queue = self._queue
        while queue and (before_ms is None or queue[0][0] < before_ms):
            ts_ms, _, _, record = heapq.heappop(queue)
            self.now_ms = max(self.now_ms, ts_ms)
            self._deliver(record)

    def _deliver(self, record: Outgoing) -> None:
        if self._tap is not None:
            tapped = self._tap(record)
            if tapped is None:
                return
            record = tapped
        topic = record.topic
        if self._keep is None or topic in self._keep:
            self.log[topic].append(record)
        position = self._positions[topic]
        self._positions[topic] = position + 1
        source = Source(topic, 0, position)
        for name, route in self._readers.get(topic, ()):
            for partition in self._targets(name, route, record):
                self._fold(name, partition, record, source)

    def _targets(self, name: str, route: str, record: Outgoing) -> Iterable[int]:
        count = len(self.folds[name])
        if route == "broadcast":
            return range(count)
        if route == "gather" or (count == 1 and route != "global"):
            return (0,)
        key = record.key if record.key is not None else event_key(record.topic, record.event)  # type: ignore[arg-type]
        scope = catalogue.scope_of(record.topic, key.decode())
        if scope == GLOBAL:
            return range(count)
        return () if route == "global" else (crc32(scope.encode()) % count,)

    def _fold(self, name: str, partition: int, record: Outgoing, source: Source) -> None:
        offset = self._next[name][partition]
        self._next[name][partition] = offset + 1
        event = record.event if self._as_objects else None
        incoming = Incoming(offset, record.key, record.value, record.headers, event, source)
        for out in self.folds[name][partition].apply(incoming):
            if out.event is None:  # a dead letter: nobody folds it
                self.log[out.topic].append(out)
            else:
                self._enqueue(out)
        if name in self._open:
            self._perform(name, partition)

    def _perform(self, name: str, partition: int) -> None:
        """Perform the jobs that the last record opened; what comes of them arrives after the agent's latency."""
        fold = self.folds[name][partition]
        for job_id, asked in self._open[name][partition].look().items():
            if (name, job_id) in self._begun:
                continue
            self._begun.add((name, job_id))
            try:
                done = encoded(self.codec, fold.agent, asked.job, fold.agent.perform(asked.job))
                record = returning(fold.agent, asked, done)
            except Exception as exc:
                record = failure(self.codec, fold.agent, asked, reason(exc), self.now_ms + fold.agent.fit_latency_ms)
            self._enqueue(record, self.now_ms + fold.agent.fit_latency_ms)

    def state(self, agent: str, scope: str) -> Any:
        """State of a scope.

        Raises:
            KeyError: the agent has not seen the scope.
        """
        for fold in self.folds[agent]:
            if scope in fold.scopes:
                return fold.scopes[scope].state
        raise KeyError(f"{agent} has no scope {scope}")

    def scope_hashes(self) -> dict[str, str]:
        """SHA-256 of every scope's state, keyed agent/scope; equal for every partition count."""
        return {
            f"{name}/{scope}": fold.state_hash(scope, entry.state)
            for name, folds in sorted(self.folds.items())
            for fold in folds
            for scope, entry in sorted(fold.scopes.items())
        }

    def events(self, topic: str) -> list[Event]:
        """Events that were kept of a topic, in the order in which they were published."""
        return [record.event for record in self.log[topic] if record.event is not None]

    def digest(self) -> str:
        """SHA-256 over all scope hashes: one line to compare two runs by."""
        lines = "\n".join(f"{k} {v}" for k, v in sorted(self.scope_hashes().items()))
        return sha256(lines.encode()).hexdigest()
