"""The account: all judged books as one, valued in units, so that a book that begins is no profit.

The value of a unit moves by the ratio of the sum of equity after a mark to that before it, books that come with the
mark counted on both sides: a time-weighted return, as funds reckon it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from math import log
from operator import attrgetter

from msgspec.structs import replace

from agents.risk_controller.config import DAY_MS, RiskConfig
from agents.risk_controller.state import Account, BookNow, Books, Held, Label, Sample, Shelf, summed, symbols_of
from schemas.events import BookMark, EquityMarked

_SYMBOL = attrgetter("symbol")
MIN_SAMPLES = 4
"""Samples below which no slope is fitted; they must span a day."""
SHELF = 64
"""Symbols on a shelf, at most: what a mark copies is so long, and not as long as there are symbols."""
CANCELLED = 1e-6
"""What is left of the account beside a symbol is summed up anew below this multiple of it: it may be rounding."""


def marked(account: Account, mark: EquityMarked, judged: tuple[BookMark, ...], config: RiskConfig) -> Account:
    """The account after a mark.

    Args:
        judged: books of the mark that are judged; one or more.
    """
    ts_ms = max(mark.ts_ms, account.mark_ms)
    account = _on_day(account, ts_ms)
    had = {b.book_id: b for b in books_of(account, mark.symbol)}
    now = had | {b.book_id: BookNow(book_id=b.book_id, equity=b.equity, open=b.position != 0.0, ts_ms=mark.ts_ms)
                 for b in judged}
    before, after = sum([had.get(name, b).equity for name, b in now.items()]), sum([b.equity for b in now.values()])
    here = sum([b.equity for b in had.values()])
    elsewhere = account.total - here
    if elsewhere <= here * CANCELLED:
        elsewhere = sum([b.equity for there in symbols_of(account) if there.symbol != mark.symbol for b in there.books])
    nav, name = account.nav, f"{mark.symbol}@{mark.ts_ms}"
    if before != after:
        nav = max(0.0, nav * (elsewhere + after) / (elsewhere + before)) if elsewhere + before > 0 else 0.0
    shelves = put(account.shelves, Books(symbol=mark.symbol, books=tuple([b for _, b in sorted(now.items())])))
    return replace(
        account, shelves=shelves, books=account.books + len(now) - len(had), total=elsewhere + after,
        held=_held(account.held, had, now), nav=nav, peak=max(account.peak, nav),
        peak_mark=name if nav >= account.peak or not account.peak_mark else account.peak_mark,
        mark_ms=ts_ms, last_mark=name, samples=_sampled(account.samples, ts_ms, nav, config),
    )


def _shelf(shelves: tuple[Shelf, ...], symbol: str) -> int:
    return max(0, bisect_right(shelves, symbol, key=_first) - 1)


def books_of(account: Account, symbol: str) -> tuple[BookNow, ...]:
    """Books of a symbol; () where it has none."""
    if not account.shelves:
        return ()
    here = account.shelves[_shelf(account.shelves, symbol)].symbols
    low, high = span(here, symbol)
    return here[low].books if low < high else ()


def put(shelves: tuple[Shelf, ...], books: Books) -> tuple[Shelf, ...]:
    """The shelves with the books of a symbol in their place; one that gets longer than `SHELF` becomes two."""
    at = _shelf(shelves, books.symbol)
    row = list(shelves[at].symbols) if shelves else []
    low, high = span(row, books.symbol)
    row[low:high] = [books]
    half = (len(row) + 1) // 2 if len(row) > SHELF else len(row)
    made = [Shelf(symbols=tuple(part)) for part in (row[:half], row[half:]) if part]
    return (*shelves[:at], *made, *shelves[at + 1:])


def _held(held: tuple[Held, ...], had: Mapping[str, BookNow], now: Mapping[str, BookNow]) -> tuple[Held, ...]:
    """The names with open positions once a symbol's books are others."""
    moved = {name: b.open - (name in had and had[name].open) for name, b in now.items()}
    if not any(moved.values()):
        return held
    counts = {h.book_id: h.symbols for h in held}
    for name, by in moved.items():
        counts[name] = counts.get(name, 0) + by
    return tuple([Held(book_id=name, symbols=n) for name, n in sorted(counts.items()) if n])


def _first(shelf: Shelf) -> str:
    return shelf.symbols[0].symbol


def span(items: Sequence[Books] | Sequence[Label], symbol: str) -> tuple[int, int]:
    """Where those of a symbol begin and end, in what is in order of symbols: thousands of others are not looked at."""
    low = bisect_left(items, symbol, key=_SYMBOL)
    return low, bisect_right(items, symbol, lo=low, key=_SYMBOL)


def _on_day(account: Account, ts_ms: int) -> Account:
    """The account on the UTC day of a mark. A mark at midnight closes the day before: bars end with their close."""
    day = (ts_ms - 1) // DAY_MS
    if day == account.day:
        return account
    bad = account.bad_days
    if account.nav > account.day_nav:
        bad = 0
    elif account.nav < account.day_nav or account.day_trades:
        bad += 1
    first = account.day < 0
    return replace(summed(account), day=day, day_nav=account.nav, day_trades=0, bad_days=0 if first else bad)


def _sampled(samples: tuple[Sample, ...], ts_ms: int, nav: float, config: RiskConfig) -> tuple[Sample, ...]:
    if samples and samples[-1].ts_ms // config.sample_ms == ts_ms // config.sample_ms:
        return samples
    oldest = ts_ms - config.slope_days * DAY_MS
    return (*[s for s in samples if s.ts_ms >= oldest], Sample(ts_ms=ts_ms, nav=nav))


def drawdown(account: Account) -> float:
    """Fraction below the running peak."""
    return 1.0 - account.nav / account.peak


def day_loss(account: Account) -> float:
    """Loss since the start of the UTC day, as a fraction of the equity then; below 0 a profit."""
    return 1.0 - account.nav / account.day_nav if account.day_nav > 0 else 1.0


def slope_per_day(account: Account) -> tuple[float, int] | None:
    """Least-squares slope of the logarithm of equity, a day, with its number of samples; None where there are too few.
    """
    points = [*account.samples]
    if points and points[-1].ts_ms < account.mark_ms:
        points.append(Sample(ts_ms=account.mark_ms, nav=account.nav))
    if len(points) < MIN_SAMPLES or points[-1].ts_ms - points[0].ts_ms < DAY_MS or min(p.nav for p in points) <= 0:
        return None
    days = [(p.ts_ms - points[0].ts_ms) / DAY_MS for p in points]
    logs = [log(p.nav) for p in points]
    n = len(points)
    mean_day, mean_log = sum(days) / n, sum(logs) / n
    spread = sum([(d - mean_day) ** 2 for d in days])
    return sum([(d - mean_day) * (v - mean_log) for d, v in zip(days, logs, strict=True)]) / spread, n


def full_books(account: Account, max_positions: int) -> tuple[str, ...]:
    """Books that hold as many positions as they may, by their newest marks."""
    return tuple([h.book_id for h in account.held if h.symbols >= max_positions])
