"""Counters of an agent in a worker: for people and pacing. Evidence comes from the log, never from here."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.fold import Counters


@dataclass(slots=True)
class AgentStats:
    """What an agent did in this process.

    Attributes:
        batch_sizes: batches by size, counted by the power of two at or above it.
        last_offset: last input offset folded, by partition.
        flushed_offset: last input offset in a flush that was acknowledged, by partition.
        refused: dead letters since genesis of the partitions held now, by partition.
        jobs_done: results of trainer processes that were published; `jobs_failed`: failures.
        lag: records that are not folded yet, of sources not fetched, as of the last fetch, by topic-partition.
        batched: records in all batches.
        steps: records folded, by partition; `step_s`: what that took, in seconds.
        flush_ms: flushes by their milliseconds, counted by the power of two at or above; `flush_s`: all together, s.
        unroutable: source records that the relay sent to the dead letters.
        take_up_s: what taking partitions up cost last, s.
    """

    agent: str
    records_in: int = 0
    records_out: int = 0
    relayed: int = 0
    batches: int = 0
    flushes: int = 0
    rebalances: int = 0
    batch_sizes: Counter[int] = field(default_factory=Counter)
    last_offset: dict[int, int] = field(default_factory=dict)
    flushed_offset: dict[int, int] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)
    lag: dict[str, int] = field(default_factory=dict)
    jobs_done: int = 0
    jobs_failed: int = 0
    batched: int = 0
    steps: dict[int, int] = field(default_factory=dict)
    step_s: dict[int, float] = field(default_factory=dict)
    flush_ms: Counter[int] = field(default_factory=Counter)
    flush_s: float = 0.0
    unroutable: int = 0
    take_up_s: float = 0.0

    def batch(self, size: int) -> None:
        """A batch was cut."""
        self.batches += 1
        self.batched += size
        self.batch_sizes[1 << (size - 1).bit_length()] += 1

    def folded(self, partition: int, records: int, out: int, offset: int, counters: Counters,
               took_s: float) -> None:
        """Records were folded, in so many seconds, and their outputs queued."""
        self.records_in += records
        self.records_out += out
        self.last_offset[partition] = offset
        self.refused[partition] = counters.refused
        self.steps[partition] = self.steps.get(partition, 0) + records
        self.step_s[partition] = self.step_s.get(partition, 0.0) + took_s

    def flushed(self, partition: int, records: int, offset: int, took_s: float) -> None:
        """A flush was acknowledged, so many seconds after it began."""
        self.flushes += 1
        self.flush_s += took_s
        self.flush_ms[1 << max(0, math.ceil(took_s * 1000) - 1).bit_length()] += 1
        self.flushed_offset[partition] = offset

    def row(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "agent": self.agent, "records_in": self.records_in, "records_out": self.records_out,
            "relayed": self.relayed, "batches": self.batches, "flushes": self.flushes, "rebalances": self.rebalances,
            "batch_sizes": {str(k): self.batch_sizes[k] for k in sorted(self.batch_sizes)},
            "last_offset": {str(k): v for k, v in sorted(self.last_offset.items())},
            "flushed_offset": {str(k): v for k, v in sorted(self.flushed_offset.items())},
            "refused": sum(self.refused.values()), "lag": dict(sorted(self.lag.items())),
            "lag_total": sum(self.lag.values()), "jobs_done": self.jobs_done, "jobs_failed": self.jobs_failed,
            "step_s": round(sum(self.step_s.values()), 3),
        }
