"""A fold in columns: many records of a partition at once, exactly as `PartitionFold.apply` takes one after the other.

A batch is decoded in columns (`schemas.columns`) and handed to the agent's `step_many`. What does not go that way, a
record that the decoder leaves or whose key is not its scope's, is applied by itself between the others; where the agent
declines, or an output is refused, the batch is halved until the records that it is about are alone. So offsets, states,
outputs and their ids, dead letters and counters are those of the row path; `tests/streams/test_many.py` holds them so.

Only for what needs no headers to be told apart: an agent that folds an external topic directly, by scope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from agents.contract import Agent, Batch, Output, Stepped
from schemas.catalogue import GLOBAL, TOPICS, AgentIO
from schemas.columns import PAD, Array, ColumnDecoder, Columns
from schemas.events import PolicyRecord, RiskModeChanged
from schemas.refused import Refused
from streams.fold import PartitionFold, Scope
from streams.records import Incoming, Outgoing, headers_of

WEIGHED_BYTES = 256
FEW = 16  # so few records are stepped one by one


@dataclass(slots=True)
class Packed:
    """Records of one partition, their bytes one behind the other; a null has the size -1.

    Attributes:
        offset_N: ascending.
        data: keys and values, and `schemas.columns.PAD` bytes behind them.
        row: one of them as it is, with its headers.
    """

    offset_N: Array
    data: bytes
    key_N: Array
    key_size_N: Array
    value_N: Array
    value_size_N: Array
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
                      self.value_N[start:end], self.value_size_N[start:end], lambda i: self.row(start + i))


def packed(messages: Sequence[Any]) -> Packed:
    """Records of one partition as a client of Kafka hands them out."""
    keys = [message.key() for message in messages]
    values = [message.value() for message in messages]
    key_N, key_size_N = _laid(keys, 0)
    keys_size = int(key_size_N.clip(0).sum())
    value_N, value_size_N = _laid(values, keys_size)

    def row(i: int) -> Incoming:
        return Incoming(messages[i].offset(), keys[i], values[i], headers_of(messages[i].headers()))

    data = b"".join([key for key in keys if key] + [value for value in values if value] + [bytes(PAD)])
    offset_N = np.fromiter((message.offset() for message in messages), np.int64, len(messages))
    return Packed(offset_N, data, key_N, key_size_N, value_N, value_size_N, row)


def _laid(parts: list[bytes | None], start: int) -> tuple[Array, Array]:
    """Where each part begins when they lie one behind the other, and its size."""
    size_N = np.fromiter((-1 if part is None else len(part) for part in parts), np.int64, len(parts))
    end_N = start + np.cumsum(size_N.clip(0))
    return end_N - size_N.clip(0), size_N


class ManyFold:
    """The columnar way through a fold.

    Args:
        fold: a fold for which `possible`.
    """

    def __init__(self, fold: PartitionFold) -> None:
        self.fold = fold
        self._topic = fold.io.input_topic
        self._key = TOPICS[self._topic].key
        self._decoder = ColumnDecoder(self._topic)

    @staticmethod
    def possible(agent: Agent[Any], io: AgentIO) -> bool:
        """Whether there is such a way: the agent offers it, and its input tells records apart by offset alone."""
        topic = io.input_topic
        return io.direct and topic in agent.in_columns and TOPICS[topic].external and io.reads[topic] == "by_scope"

    def apply(self, packed: Packed) -> list[Outgoing]:
        """Fold the records; returns what to publish, in order."""
        columns = self._decoder.decode(packed.data, packed.value_N, packed.value_N + packed.value_size_N)
        code_N = columns.values[self._key]
        good_N = columns.good_N & (packed.value_size_N >= 0)
        good_N &= self._decoder.codes(self._key, packed.data, packed.key_N, packed.key_size_N) == code_N
        good_N &= packed.offset_N > self.fold.offset
        if GLOBAL in columns.names[self._key]:
            good_N &= code_N != columns.names[self._key].index(GLOBAL)
        out: list[Outgoing] = []
        edges = np.flatnonzero(np.diff(good_N)) + 1
        for start, end in pairwise((0, *edges.tolist(), len(packed))):
            out += self._run(packed, columns, start, end) if good_N[start] else self._rows(packed, start, end)
        return out

    def _rows(self, packed: Packed, start: int, end: int) -> list[Outgoing]:
        return [out for i in range(start, end) for out in self.fold.apply(packed.row(i))]

    def _run(self, packed: Packed, columns: Columns, start: int, end: int) -> list[Outgoing]:
        if end - start <= FEW:
            return self._rows(packed, start, end)
        out = self._many(packed.offset_N[start:end], columns, start, end)
        if out is not None:
            return out
        middle = (start + end) // 2
        return self._run(packed, columns, start, middle) + self._run(packed, columns, middle, end)

    def _many(self, offset_N: Array, columns: Columns, start: int, end: int) -> list[Outgoing] | None:
        """The rows from start to end at once; None, and nothing has happened, where that cannot be."""
        fold = self.fold
        cut = Columns(columns.good_N[start:end], {k: v[start:end] for k, v in columns.values.items()},
                      {k: v[start:end] for k, v in columns.present.items()}, columns.names)
        first_S, scope_N = _first_seen(cut.values[self._key])
        names = columns.names[self._key]
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
