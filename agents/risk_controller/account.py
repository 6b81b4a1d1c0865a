"""The account: all judged books as one, valued in units, so that a book that begins is no profit.

The value of a unit moves by the ratio of the sum of equity after a mark to that before it, books that come with the
mark counted on both sides: a time-weighted return, as funds reckon it.
"""

from __future__ import annotations

from math import log

from msgspec.structs import replace

from agents.risk_controller.config import DAY_MS, RiskConfig
from agents.risk_controller.state import Account, BookNow, Sample
from schemas.events import BookMark, EquityMarked

MIN_SAMPLES = 4
"""Samples below which no slope is fitted; they must span a day."""


def marked(account: Account, mark: EquityMarked, judged: tuple[BookMark, ...], config: RiskConfig) -> Account:
    """The account after a mark.

    Args:
        judged: books of the mark that are judged; one or more.
    """
    old = {(b.symbol, b.book_id): b for b in account.books}
    new = dict(old)
    before = after = 0.0
    for book in judged:
        key = mark.symbol, book.book_id
        had = old.get(key)
        before += book.equity if had is None else had.equity
        after += book.equity
        new[key] = BookNow(symbol=mark.symbol, book_id=book.book_id, equity=book.equity, open=book.position != 0.0,
                           ts_ms=mark.ts_ms)
    others = sum([b.equity for k, b in sorted(old.items()) if new[k] is b])
    name = f"{mark.symbol}@{mark.ts_ms}"
    nav = account.nav
    if before != after:
        nav = max(0.0, nav * (others + after) / (others + before)) if others + before > 0 else 0.0
    account = _on_day(account, max(mark.ts_ms, account.mark_ms))
    return replace(
        account, books=tuple([b for _, b in sorted(new.items())]), nav=nav, peak=max(account.peak, nav),
        peak_mark=name if nav >= account.peak or not account.peak_mark else account.peak_mark,
        mark_ms=max(mark.ts_ms, account.mark_ms), last_mark=name,
        samples=_sampled(account.samples, max(mark.ts_ms, account.mark_ms), nav, config),
    )


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
    held: dict[str, int] = {}
    for book in account.books:
        held[book.book_id] = held.get(book.book_id, 0) + book.open
    return tuple(sorted([name for name, n in held.items() if n >= max_positions]))
