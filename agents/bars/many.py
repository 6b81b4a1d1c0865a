"""Many trades at once, in columns: what `Bars.step` comes to row after row, or None where a row needs its judgement.

Rows are put in the order of their scopes, those of a scope in order of arrival. All scopes lie on one line of time, the
moments of scope s moved by s * SPAN_MS, so that one running maximum, search or sort does for all of them. The key of a
bar is its opening on that line.

Dimensions: N rows, S scopes, R runs of trade numbers, B bars that trades come to, M what these are made of, K all bars.
"""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from msgspec.structs import replace

from agents.algorithms.candles import PRICE_MAX, PRICE_MIN, VOLUME_MAX, WEEK_MS
from agents.algorithms.lineage import merge_origin
from agents.algorithms.seen import Seen
from agents.bars.bar import Bar, closed, opening_ms
from agents.contract import Batch, Output, Stepped
from schemas.events import Origin

if TYPE_CHECKING:
    from agents.bars.core import BarsState
    from schemas.columns import Columns
    from schemas.lockstep import Array

SPAN_MS = 1 << 42  # a time is 0 to 4,102,444,800,000, an opening up to a week less; two million scopes have room


class _Rows:
    """A batch in the order of its scopes.

    Attributes:
        row_N: where each row stands in the batch.
        scope_N, moved_N: its scope, and by how much moments of that are moved along the line.
        start_S, end_S: where the rows of each scope begin and end.
    """

    def __init__(self, batch: Batch[BarsState]) -> None:
        self.batch = batch
        scope_N, scopes = batch.scope_N, len(batch.states)
        few_N = scope_N.astype(np.uint16) if scopes <= 1 << 16 else scope_N  # two bytes are sorted by radix
        self.row_N = np.argsort(few_N, kind="stable")
        self.scope_N = scope_N[self.row_N]
        self.moved_N = self.scope_N * SPAN_MS
        self.start_S = np.searchsorted(self.scope_N, np.arange(scopes))
        self.end_S = np.append(self.start_S[1:], len(scope_N))

    def column(self, name: str) -> Array:
        """Values of a field."""
        return self.batch.columns.values[name][self.row_N]


class _Times(NamedTuple):
    """What follows from event time.

    Attributes:
        begins_S: `begins_ms` of each scope.
        key_N, kept_N: key of the bar that each row falls in, and whether that is one since `begins_ms`.
        newest_N, closed_N: `newest_ms` and `closed_ms` behind each row.
    """

    begins_S: Array
    key_N: Array
    kept_N: Array
    newest_N: Array
    closed_N: Array


def stepped(batch: Batch[BarsState], interval_ms: int, lateness_ms: int) -> Stepped[BarsState] | None:
    """What the rows of a batch come to; None where one is refused or a repeat, or may be."""
    if not _sane(batch):
        return None
    rows = _Rows(batch)
    sources, seen, times = _sources(rows), _seen(rows), _times(rows, interval_ms, lateness_ms)
    if sources is None or seen is None or times is None:
        return None
    left: list[list[Bar]] = [[] for _ in batch.states]
    outputs: list[tuple[int, Output]] = []
    for scope, row, bar in _closing(rows, times, _bars(rows, times)):
        if row < 0:
            left[scope].append(bar)
        else:
            candle = closed(bar, batch.scopes[scope], sources[scope], interval_ms)
            outputs.append((row, Output("market.candles", candle)))
    last_S = rows.end_S - 1
    states = [replace(state, source=source, begins_ms=begins_ms, newest_ms=newest_ms, closed_ms=closed_ms, seen=numbers,
                      bars=tuple(bars))
              for state, source, begins_ms, newest_ms, closed_ms, numbers, bars in zip(
                  batch.states, sources, times.begins_S.tolist(), times.newest_N[last_S].tolist(),
                  times.closed_N[last_S].tolist(), seen, left, strict=True)]
    return Stepped(states, rows.row_N[last_S].tolist(), sorted(outputs, key=itemgetter(0)))


# ---------------------------------------------------------------------- what may need a step
def _sane(batch: Batch[BarsState]) -> bool:
    """Whether every price and quantity is in the sane range."""
    price_N, quantity_N = batch.columns.values["price"], batch.columns.values["quantity"]
    return bool(price_N.min() >= PRICE_MIN and price_N.max() <= PRICE_MAX
                and quantity_N.min() > 0 and quantity_N.max() <= VOLUME_MAX)


def _sources(rows: _Rows) -> list[str] | None:
    """Source of each scope; None where there are two."""
    code_N, names = rows.column("source"), rows.batch.columns.names["source"]
    code_S = code_N[rows.start_S]
    sources = [names[code] for code in code_S.tolist()]
    known = all(state.source in ("", source) for state, source in zip(rows.batch.states, sources, strict=True))
    return sources if known and (code_N == code_S[rows.scope_N]).all() else None


def _seen(rows: _Rows) -> list[Seen] | None:
    """Trade numbers of each scope; None where one came before or is too old."""
    id_N = rows.column("trade_id")
    starts_N = np.append(True, id_N[1:] - 1 != id_N[:-1])
    starts_N[rows.start_S] = True
    start_R = np.flatnonzero(starts_N)
    first, last = id_N[start_R].tolist(), id_N[np.append(start_R[1:], len(id_N)) - 1].tolist()
    edges = [*np.searchsorted(start_R, rows.start_S).tolist(), len(first)]
    seen = []
    for state, (start, end) in zip(rows.batch.states, pairwise(edges), strict=True):
        numbers = state.seen.with_all(first[start:end], last[start:end])
        if numbers is None:
            return None
        seen.append(numbers)
    return seen


def _times(rows: _Rows, interval_ms: int, lateness_ms: int) -> _Times | None:
    """Times; None where a row comes behind the one that closed its bar."""
    states, scope_N, start_S, moved_N = rows.batch.states, rows.scope_N, rows.start_S, rows.moved_N
    ts_N = rows.column("ts_ms")
    open_N = opening_ms(ts_N, interval_ms)
    new_S = np.array([not state.source for state in states])
    begins_S = np.where(new_S, open_N[start_S] + interval_ms, [state.begins_ms for state in states])
    closed_S = np.array([state.closed_ms for state in states])
    newest_N = ts_N + moved_N
    newest_N[start_S] = np.maximum(newest_N[start_S], [s * SPAN_MS + state.newest_ms for s, state in enumerate(states)])
    newest_N = np.maximum.accumulate(newest_N) - moved_N
    until_N = opening_ms(np.maximum(newest_N - lateness_ms, 0), interval_ms)
    closed_N = np.where(until_N > np.maximum(closed_S, begins_S)[scope_N], until_N, closed_S[scope_N])
    before_N = np.roll(closed_N, 1)
    before_N[start_S] = closed_S
    kept_N = open_N >= begins_S[scope_N]
    if (kept_N & (open_N < before_N)).any():
        return None
    return _Times(begins_S, open_N + moved_N, kept_N, newest_N, closed_N)


# ---------------------------------------------------------------------- bars
def _parted(key: Array) -> tuple[Array, Array]:
    """Scopes and openings of keys."""
    scope, above = np.divmod(key + WEEK_MS, SPAN_MS)
    return scope, above - WEEK_MS


def _closing(rows: _Rows, times: _Times, bars: dict[int, Bar]) -> list[tuple[int, int, Bar]]:
    """(scope, row that closes it or -1, bar), by scope and opening."""
    keys = sorted(bars)
    key_K = np.array(keys, np.int64)
    scope_K, _ = _parted(key_K)
    at_K = np.searchsorted(times.closed_N + rows.moved_N, key_K, side="right")
    row_K = np.where(at_K < rows.end_S[scope_K], rows.row_N.take(at_K, mode="clip"), -1)
    return list(zip(scope_K.tolist(), row_K.tolist(), map(bars.__getitem__, keys), strict=True))


def _bars(rows: _Rows, times: _Times) -> dict[int, Bar]:
    """Bars by key with the rows in them, before any is closed."""
    batch = rows.batch
    bars = {scope * SPAN_MS + bar.open_time_ms: bar for scope, state in enumerate(batch.states) for bar in state.bars}
    key_N = times.key_N[times.kept_N]
    keys = np.unique(key_N).tolist()
    if keys:
        begun = {key: bars[key] for key in keys if key in bars}
        key_M = np.concatenate([np.array(list(begun), np.int64), key_N])
        members = _Members(batch.columns, list(begun.values()), rows.row_N[times.kept_N], key_M)
        bars |= zip(keys, members.bars(), strict=True)
    return bars


class _Members:
    """What bars are made of: trades, and a bar that was begun before, as one more of them in front of its own.

    Args:
        columns: of the batch.
        begun: bars that more trades come to.
        row_N: where the trades stand in the batch, those of a bar in order of arrival.
        key_M: keys of `begun`, then of the trades.
    """

    def __init__(self, columns: Columns, begun: list[Bar], row_N: Array, key_M: Array) -> None:
        self.columns, self.begun, self.row_N = columns, begun, row_N
        self.order_M = np.argsort(key_M, kind="stable")
        self.key_M = key_M[self.order_M]
        starts_M = np.append(True, self.key_M[1:] != self.key_M[:-1])
        self.start_B, self.bar_M = np.flatnonzero(starts_M), np.cumsum(starts_M) - 1

    def of(self, field: str) -> Array:
        """A field of the trades."""
        return self.columns.values[field][self.row_N]

    def joined(self, of_begun: list[Any], of_N: Array) -> Array:
        """A value of every member: bar by bar, in order."""
        return np.concatenate([np.array(of_begun, of_N.dtype), of_N])[self.order_M]

    def field(self, name: str, of_N: Array) -> Array:
        """A field of bars, given what it is where a bar has one trade."""
        return self.joined([getattr(bar, name) for bar in self.begun], of_N)

    def outermost(self, most: np.ufunc, *names: str) -> list[list[Any]]:
        """Time, number and price of the first or the last trade of each bar; the names of these fields."""
        ms_M, id_M, price_M = map(self.field, names, (self.of("ts_ms"), self.of("trade_id"), self.of("price")))
        at = np.flatnonzero(ms_M == most.reduceat(ms_M, self.start_B)[self.bar_M])
        id_B = most.reduceat(id_M[at], np.searchsorted(at, self.start_B))
        at_B = at[id_M[at] == id_B[self.bar_M[at]]]
        return [of_M[at_B].tolist() for of_M in (ms_M, id_M, price_M)]

    def sums(self, of_M: Array) -> list[float]:
        """Sum of each bar; `bincount` adds in order, as steps do."""
        sum_B: list[float] = np.bincount(self.bar_M, of_M).tolist()
        return sum_B

    def bought(self) -> list[float | None]:
        """What takers bought of each bar; None where the side of a trade is not known."""
        known_N, buy = self.columns.present["taker_side"][self.row_N], self.columns.names["taker_side"].index("BUY")
        bought_N = np.where(self.of("taker_side") == buy, self.of("quantity"), 0.0)
        known_M = self.joined([bar.bought is not None for bar in self.begun], known_N)
        known_B = np.logical_and.reduceat(known_M, self.start_B).tolist()
        sums = self.sums(self.joined([bar.bought or 0.0 for bar in self.begun], bought_N))
        return [bought if known else None for bought, known in zip(sums, known_B, strict=True)]

    def origins(self) -> list[Origin]:
        """Merged origins; in which order they are merged makes no difference."""
        names: list[Any] = self.columns.names["origin"]
        bits_M = self.joined([1 << names.index(bar.origin) for bar in self.begun], 1 << self.of("origin"))
        bits_B = np.bitwise_or.reduceat(bits_M, self.start_B).tolist()
        merged = {bits: reduce(merge_origin, [name for i, name in enumerate(names) if bits >> i & 1])
                  for bits in set(bits_B)}
        return [merged[bits] for bits in bits_B]

    def bars(self) -> list[Bar]:
        """The bars, by key."""
        start_B, price_N, quantity_N = self.start_B, self.of("price"), self.of("quantity")
        fields = zip(
            _parted(self.key_M[start_B])[1].tolist(),
            *self.outermost(np.minimum, "first_ms", "first_id", "open"),
            *self.outermost(np.maximum, "last_ms", "last_id", "close"),
            np.maximum.reduceat(self.field("high", price_N), start_B).tolist(),
            np.minimum.reduceat(self.field("low", price_N), start_B).tolist(),
            self.sums(self.field("volume", quantity_N)),
            self.sums(self.field("turnover", price_N * quantity_N)),
            self.bought(),
            np.add.reduceat(self.field("trades", np.ones(len(price_N), np.int64)), start_B).tolist(),
            self.origins(), strict=True)
        return [Bar(open_time_ms=open_ms, first_ms=first_ms, first_id=first_id, last_ms=last_ms, last_id=last_id,
                    open=first, high=high, low=low, close=last, volume=volume, turnover=turnover, bought=bought,
                    trades=trades, origin=origin)
                for open_ms, first_ms, first_id, first, last_ms, last_id, last, high, low, volume, turnover, bought,
                trades, origin in fields]
