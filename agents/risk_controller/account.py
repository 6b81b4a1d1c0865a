"""The account: all judged books as one, valued in units, so that a book that begins is no profit.

The value of a unit moves by the ratio of the sum of equity after a mark to that before it, books that come with the
mark counted on both sides: a time-weighted return, as funds reckon it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from math import log
from operator import attrgetter

from msgspec.structs import replace

from agents.risk_controller.config import DAY_MS, RiskConfig
from agents.risk_controller.state import Account, BookNow, Label, Sample
from schemas.events import BookMark, EquityMarked

_SYMBOL = attrgetter("symbol")
MIN_SAMPLES = 4
"""Samples below which no slope is fitted; they must span a day."""


def marked(account: Account, mark: EquityMarked, judged: tuple[BookMark, ...], config: RiskConfig) -> Account:
    """The account after a mark.

    Args:
        judged: books of the mark that are judged; one or more.
    """
    low, high = span(account.books, mark.symbol)
    mine = {b.book_id: b for b in account.books[low:high]}
    now, before, after = dict(mine), 0.0, 0.0
    for book in judged:
        had = mine.pop(book.book_id, None)
        before += book.equity if had is None else had.equity
        after += book.equity
        now[book.book_id] = BookNow(symbol=mark.symbol, book_id=book.book_id, equity=book.equity,
                                    open=book.position != 0.0, ts_ms=mark.ts_ms)
    name = f"{mark.symbol}@{mark.ts_ms}"
    nav = account.nav
    if before != after:
        rest = (*account.books[:low], *[b for _, b in sorted(mine.items())], *account.books[high:])
        others = sum([b.equity for b in rest])
        nav = max(0.0, nav * (others + after) / (others + before)) if others + before > 0 else 0.0
    account = _on_day(account, max(mark.ts_ms, account.mark_ms))
    return replace(
        account, books=(*account.books[:low], *[b for _, b in sorted(now.items())], *account.books[high:]),
        nav=nav, peak=max(account.peak, nav),
        peak_mark=name if nav >= account.peak or not account.peak_mark else account.peak_mark,
        mark_ms=max(mark.ts_ms, account.mark_ms), last_mark=name,
        samples=_sampled(account.samples, max(mark.ts_ms, account.mark_ms), nav, config),
    )


def span(items: Sequence[BookNow] | Sequence[Label], symbol: str) -> tuple[int, int]:
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
    return replace(account, day=day, day_nav=account.nav, day_trades=0, bad_days=0 if first else bad)


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
    held = Counter([book.book_id for book in account.books if book.open])
    return tuple(sorted([name for name, n in held.items() if n >= max_positions]))
