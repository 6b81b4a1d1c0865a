"""The learner's book held against the baseline books beside it, bar by bar on the same candles.

A pair is one bar of one symbol: the return of the learner's equity from mark to mark, minus the baseline's over the
same marks. Costs are in it when they are paid, open positions at each close. Differences of the same bars take out what
the market did to both, and every bar counts once, however many decisions fell into it: a comparison by decision would
need both books to decide at the same time, and buy-and-hold never decides.

The interval of the mean difference holds at every number of bars at once (`agents.algorithms.sequential`), so it may be
looked at after each bar; it holds for each pair of books alone, not for all of them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from math import sqrt
from typing import Any

from agents.algorithms.sequential import mean_interval, mixture_rho
from schemas.events import BookMark, EquityMarked

BASELINE = "baseline:"
ALPHA = 0.01
V_OPT = 500.0
"""Bars at which the interval is tightest; the same as the outcomes of a claim."""
MIN_BARS = 100
"""Pairs below which no interval is given: its variance comes from the pairs."""
RHO = mixture_rho(V_OPT, ALPHA)
BPS = 1e4


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A learner's book against a baseline book of the same symbol.

    Attributes:
        symbol: instrument.
        book_id: the learner's book.
        baseline: book that it is held against.
        n: bars that both were marked at, after the first.
        differing: of these, bars in which they earned differently.
        mean_bps: mean difference of their returns, basis points of equity a bar.
        sd_bps: its standard deviation, ddof 1; 0 below two bars.
        low_bps, high_bps: anytime interval of the mean at `ALPHA`; None below `MIN_BARS`.
        total_pct, baseline_total_pct: returns from the first common mark to the last, percent.
        outcomes, baseline_outcomes: of each book since it began; 0 for one that never closes, such as buy-and-hold.
        mean_r, baseline_mean_r: their mean outcome, R; None without one.
        first_ms, last_ms: event times of the first and the last common mark.
    """

    symbol: str
    book_id: str
    baseline: str
    n: int
    differing: int
    mean_bps: float
    sd_bps: float
    low_bps: float | None
    high_bps: float | None
    total_pct: float
    baseline_total_pct: float
    outcomes: int
    baseline_outcomes: int
    mean_r: float | None
    baseline_mean_r: float | None
    first_ms: int
    last_ms: int

    @property
    def verdict(self) -> str:
        """What the interval says of the learner: better, worse, or open."""
        if self.low_bps is None or self.high_bps is None:
            return "open"
        return "better" if self.low_bps > 0 else "worse" if self.high_bps < 0 else "open"

    def as_dict(self) -> dict[str, Any]:
        """All fields and the verdict, for JSON."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass
class _Pair:
    """Running moments of the differences (Welford), and both books at their first and last common mark."""

    first: tuple[BookMark, BookMark]
    last: tuple[BookMark, BookMark]
    first_ms: int
    last_ms: int
    n: int = 0
    differing: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, book: BookMark, baseline: BookMark, ts_ms: int) -> None:
        difference = BPS * (_return(self.last[0], book) - _return(self.last[1], baseline))
        self.n += 1
        self.differing += difference != 0.0
        away = difference - self.mean
        self.mean += away / self.n
        self.squares += away * (difference - self.mean)
        self.last, self.last_ms = (book, baseline), ts_ms


class Pairing:
    """Takes marks as they come; `pairs` may be asked for at any time."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str, str], _Pair] = {}
        self._marked_ms: dict[str, int] = {}

    def add(self, event: EquityMarked) -> None:
        """Take the marks of a bar; a repeat, or one that came late, changes nothing."""
        if event.ts_ms <= self._marked_ms.get(event.symbol, -1):
            return
        self._marked_ms[event.symbol] = event.ts_ms
        baselines = [b for b in event.books if b.book_id.startswith(BASELINE)]
        learners = [b for b in event.books if not b.book_id.startswith(BASELINE)]
        for book, baseline in product(learners, baselines):
            key = (event.symbol, book.book_id, baseline.book_id)
            pair = self._pairs.get(key)
            if pair is None:
                both = (book, baseline)
                self._pairs[key] = _Pair(both, both, event.ts_ms, event.ts_ms)
            else:
                pair.add(book, baseline, event.ts_ms)

    def pairs(self) -> list[Paired]:
        """Every learner's book against every baseline, by symbol, in the order of the marks."""
        order = sorted(self._pairs, key=lambda key: key[:2])
        return [_paired(key, self._pairs[key]) for key in order]


def paired(events: Iterable[EquityMarked]) -> list[Paired]:
    """Learners' books against the baseline books.

    Args:
        events: marks, of each symbol by ascending event time; several symbols may be mixed.
    """
    pairing = Pairing()
    for event in events:
        pairing.add(event)
    return pairing.pairs()


def _return(before: BookMark, after: BookMark) -> float:
    """Return of a book's equity from mark to mark; 0 for a book that has lost all of it."""
    return after.equity / before.equity - 1.0 if before.equity > 0 else 0.0


def _paired(key: tuple[str, str, str], pair: _Pair) -> Paired:
    low = high = None
    if pair.n >= MIN_BARS:
        low, high = mean_interval(pair.n, pair.mean, sqrt(pair.squares / pair.n), RHO, ALPHA)
    book, baseline = pair.last
    return Paired(
        symbol=key[0], book_id=key[1], baseline=key[2], n=pair.n, differing=pair.differing, mean_bps=pair.mean,
        sd_bps=sqrt(pair.squares / (pair.n - 1)) if pair.n > 1 else 0.0, low_bps=low, high_bps=high,
        total_pct=100 * _return(pair.first[0], book), baseline_total_pct=100 * _return(pair.first[1], baseline),
        outcomes=book.outcomes, baseline_outcomes=baseline.outcomes, mean_r=_mean_r(book),
        baseline_mean_r=_mean_r(baseline), first_ms=pair.first_ms, last_ms=pair.last_ms,
    )


def _mean_r(book: BookMark) -> float | None:
    return book.sum_r / book.outcomes if book.outcomes else None
