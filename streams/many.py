"""A fold in columns: many records of a partition at once, exactly as `PartitionFold.apply` takes one after the other.

A batch is decoded in columns (`schemas.columns`) and handed to the agent's `step_many`. What does not go that way, a
record that the decoder leaves or whose key is not its scope's, is applied by itself between the others; where the agent
declines, or an output is refused, the batch is halved until the records that it is about are alone. So offsets, states,
outputs and their ids, dead letters and counters are those of the row path; `tests/streams/test_many.py` holds them so.

Only for an external topic that is folded by scope, directly or out of an inbox, where headers tell which record each is
a copy of (`streams.copies`). Copies of other topics in the inbox are applied by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from agents.contract import Agent, Batch, Output, Stepped
from schemas.catalogue import GLOBAL, TOPICS, AgentIO
from schemas.columns import ColumnDecoder, Columns
from schemas.events import PolicyRecord, RiskModeChanged
from schemas.lockstep import PAD, Array
from schemas.refused import Refused
from streams.copies import Copies, Sources, written
from streams.fold import PartitionFold, Scope
from streams.records import Incoming, Outgoing, headers_of

WEIGHED_BYTES = 256
FEW = 16  # so few records are stepped one by one


@dataclass(slots=True)
class Packed:
    """Records of one partition, their bytes one behind the other; a null has the size -1.

    Attributes:
        offset_N: ascending.
        data: keys, values and headers, and `schemas.lockstep.PAD` bytes behind them.
        headers_N: where headers begin, in Kafka's format; -1: only `row` has them.
        row: one of them as it is, with its headers.
    """

    offset_N: Array
    data: bytes
    key_N: Array
    key_size_N: Array
    value_N: Array
    value_size_N: Array
    headers_N: Array
    row: Callable[[int], Incoming]

    def __len__(self) -> int:
        return len(self.offset_N)

    @property
    def weight(self) -> int:
        """Records, or as many of `WEIGHED_BYTES` as their bytes would make: what waits in memory is counted so."""
        return max(len(self), len(self.data) // WEIGHED_BYTES)

    def part(self, start: int, end: int) -> Packed:
        """The records from start to end."""
        return Packed(self.offset_N[start:end], self.data, self.key_N[start:end], self.key_size_N[start:end],
                      self.value_N[start:end], self.value_size_N[start:end], self.headers_N[start:end],
                      lambda i: self.row(start + i))


def packed(messages: Sequence[Any]) -> Packed:
    """Records of one partition as a client of Kafka hands them out."""
    keys = [message.key() for message in messages]
    values = [message.value() for message in messages]
    headers = [headers_of(message.headers()) for message in messages]
    wire = [written(held) for held in headers]
    key_N, key_size_N = _laid(keys, 0)
    value_N, value_size_N = _laid(values, int(key_size_N.clip(0).sum()))
    headers_N, _ = _laid(wire, int(key_size_N.clip(0).sum() + value_size_N.clip(0).sum()))

    def row(i: int) -> Incoming:
        return Incoming(messages[i].offset(), keys[i], values[i], headers[i])

    data = b"".join([part for part in (*keys, *values, *wire) if part] + [bytes(PAD)])
    offset_N = np.fromiter((message.offset() for message in messages), np.int64, len(messages))
    return Packed(offset_N, data, key_N, key_size_N, value_N, value_size_N, headers_N, row)


def _laid(parts: Sequence[bytes | None], start: int) -> tuple[Array, Array]:
    """Where each part begins when they lie one behind the other, and its size."""
    size_N = np.fromiter((-1 if part is None else len(part) for part in parts), np.int64, len(parts))
    end_N = start + np.cumsum(size_N.clip(0))
    return end_N - size_N.clip(0), size_N


class _Part(NamedTuple):
    """Rows as columns; `sources` where they are copies."""

    offset_N: Array
    columns: Columns
    sources: Sources | None

    def cut(self, start: int, end: int) -> _Part:
        """The rows from start to end."""
        c, s, rows = self.columns, self.sources, slice(start, end)
        columns = Columns(c.good_N[rows], {k: v[rows] for k, v in c.values.items()},
                          {k: v[rows] for k, v in c.present.items()}, c.names)
        sources = None if s is None else Sources(s.good_N[rows], s.topic_N[rows], s.partition_N[rows],
                                                 s.offset_N[rows], s.owner_N[rows], s.topics, s.owners)
        return _Part(self.offset_N[rows], columns, sources)


class ManyFold:
    """The columnar way through a fold.

    Args:
        fold: a fold for which `possible`.
    """

    def __init__(self, fold: PartitionFold) -> None:
        self.fold = fold
        (self._topic,) = _topics(fold.agent, fold.io)
        self._copies = None if fold.io.direct else Copies()
        self._key = TOPICS[self._topic].key
        self._decoder = ColumnDecoder(self._topic)

    @staticmethod
    def possible(agent: Agent[Any], io: AgentIO) -> bool:
        """Whether there is such a way: the agent offers it, and what tells records apart can be read in columns."""
        return len(_topics(agent, io)) == 1

    def apply(self, packed: Packed) -> list[Outgoing]:
        """Fold the records; returns what to publish, in order."""
        columns = self._decoder.decode(packed.data, packed.value_N, packed.value_N + packed.value_size_N)
        code_N = columns.values[self._key]
        good_N = columns.good_N & (packed.value_size_N >= 0)
        good_N &= self._decoder.codes(self._key, packed.data, packed.key_N, packed.key_size_N) == code_N
        good_N &= packed.offset_N > self.fold.offset
        if GLOBAL in columns.names[self._key]:
            good_N &= code_N != columns.names[self._key].index(GLOBAL)
        sources = None
        if self._copies is not None:
            sources = self._copies.read(packed.data, packed.headers_N)
            good_N &= sources.of(self._topic)
        part = _Part(packed.offset_N, columns, sources)
        out: list[Outgoing] = []
        edges = np.flatnonzero(np.diff(good_N)) + 1
        for start, end in pairwise((0, *edges.tolist(), len(packed))):
            out += self._run(packed, part, start, end) if good_N[start] else self._rows(packed, start, end)
        return out

    def _rows(self, packed: Packed, start: int, end: int) -> list[Outgoing]:
        return [out for i in range(start, end) for out in self.fold.apply(packed.row(i))]

    def _run(self, packed: Packed, part: _Part, start: int, end: int) -> list[Outgoing]:
        if end - start <= FEW:
            return self._rows(packed, start, end)
        out = self._many(part.cut(start, end))
        if out is not None:
            return out
        middle = (start + end) // 2
        return self._run(packed, part, start, middle) + self._run(packed, part, middle, end)

    def _fresh(self, sources: Sources) -> dict[tuple[str, int], tuple[str, int]] | None:
        """What the fold's fences come to; None where a record is not beyond the last one of its source partition."""
        out = {}
        for partition in np.unique(sources.partition_N).tolist():
            mine_N = sources.partition_N == partition
            offset_M, place = sources.offset_N[mine_N], (self._topic, partition)
            if offset_M[0] <= self.fold.fences.get(place, ("", -1))[1] or (np.diff(offset_M) <= 0).any():
                return None
            out[place] = sources.owners[sources.owner_N[mine_N][-1]], int(offset_M[-1])
        return out

    def _many(self, part: _Part) -> list[Outgoing] | None:
        """These rows at once; None, and nothing has happened, where that cannot be."""
        fold, cut, offset_N = self.fold, part.columns, part.offset_N
        fences = {} if part.sources is None else self._fresh(part.sources)
        if fences is None:
            return None
        first_S, scope_N = _first_seen(cut.values[self._key])
        names = cut.names[self._key]
        scopes = tuple(names[code] for code in cut.values[self._key][first_S].tolist())
        entries = []
        for scope, first in zip(scopes, first_S.tolist(), strict=True):
            entry = fold.scopes.get(scope)
            if entry is not None and entry.offset >= int(offset_N[0]):
                return None  # its record was durable before the head's
            entries.append(entry if entry is not None else fold.born(scope, int(offset_N[first])))
        try:
            stepped = fold.agent.step_many(Batch(cut, scopes, tuple(e.state for e in entries), scope_N))
            out = None if stepped is None else self._encoded(stepped, offset_N)
        except Exception:  # a defect of the agent: its steps show which record has it
            return None
        if stepped is None or out is None:
            return None
        self._keep(scopes, entries, first_S.tolist(), stepped, offset_N)
        fold.fences |= fences
        fold.counters.applied += len(offset_N)
        fold.counters.emitted += len(out)
        for _, output in stepped.outputs:
            fold.made[output.topic] += 1
        fold.offset = int(offset_N[-1])
        if "ts_ms" in cut.values:
            fold.event_ms = max(fold.event_ms, int(cut.values["ts_ms"].max()))
        return out

    def _encoded(self, stepped: Stepped[Any], offset_N: Array) -> list[Outgoing] | None:
        out: list[Outgoing] = []
        last = -1
        for row, output in stepped.outputs:
            if not _plain(output):
                return None
            if row != last:
                self.fold.number, last = 0, row
            try:
                out.append(self.fold.encoded(*output, int(offset_N[row])))
            except Refused:
                return None
        return out

    def _keep(self, scopes: tuple[str, ...], entries: list[Scope], first: list[int], stepped: Stepped[Any],
              offset_N: Array) -> None:
        fold = self.fold
        for scope, entry, row, state, changed in zip(scopes, entries, first, stepped.states, stepped.changed,
                                                     strict=True):
            if scope not in fold.scopes:
                changed = max(changed, row)
            elif changed < 0:
                continue
            fold.keeper.touch(scope, True)
            fold.scopes[scope] = Scope(state, int(offset_N[changed]), entry.anchor_offset, entry.anchor_hash)


def _topics(agent: Agent[Any], io: AgentIO) -> list[str]:
    """External topics that an agent takes in columns, by scope."""
    return [topic for topic, route in io.reads.items()
            if topic in agent.in_columns and TOPICS[topic].external and route == "by_scope"]


def _plain(output: Output) -> bool:
    """Whether an output is published as it is: without provenance, on one topic."""
    return not isinstance(output.event, PolicyRecord | RiskModeChanged) and output.topic != "policy.applied"


def _first_seen(code_N: Array) -> tuple[Array, Array]:
    """(row at which each scope first comes, in that order; index of each row's scope among these)."""
    first = np.full(int(code_N.max()) + 1, -1, np.int64)
    first[code_N[::-1]] = np.arange(len(code_N) - 1, -1, -1)  # the last assignment stays, which is the first row
    code_S = np.flatnonzero(first >= 0)
    code_S = code_S[np.argsort(first[code_S])]
    index = np.empty(len(first), np.int64)
    index[code_S] = np.arange(len(code_S))
    return first[code_S], index[code_N]
