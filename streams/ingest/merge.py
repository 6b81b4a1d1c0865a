"""Many files to one sequence of candles in order of event time, with a report of what was found on the way.

Refused, with the row named: two rows that say different things about one bar, bars that overlap, values that are
missing. Left out and counted: identical repeats, and bars whose high or low contradicts their open and close. Counted:
rows out of order, gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import polars as pl

from schemas.events import Candle, Origin
from streams.ingest.files import (
    PRICES,
    VOLUMES,
    BadInput,
    FileRead,
    find_files,
    interval_ms_of,
    interval_text,
    read_digests,
    read_file,
)

Progress = Callable[[int, int], None]
EVENT_COLUMNS = ("symbol", "interval_ms", "open_time_ms", "ts_ms", *PRICES, *VOLUMES, "source", "origin")


@dataclass(frozen=True, kw_only=True)
class SeriesReport:
    """What was found in the files of one symbol and interval.

    Attributes:
        rows: rows read; candles: rows kept.
        duplicates: identical repeats left out.
        disordered: rows that came before an earlier one of the same file.
        gaps: places where bars are missing; missing: bars missing there; largest_gap: bars in the largest.
        insane: rows left out since high or low contradicts open or close; first_insane names one.
        off_grid: bars that do not start a whole number of intervals after the one before.
    """

    symbol: str
    interval_ms: int
    files: tuple[str, ...]
    source: str
    origin: Origin
    first_open_ms: int
    last_close_ms: int
    rows: int
    candles: int
    duplicates: int
    disordered: int
    gaps: int
    missing: int
    largest_gap: int
    insane: int
    first_insane: str | None
    off_grid: int

    @property
    def name(self) -> str:
        """Such as BTCUSDT-1h."""
        return f"{self.symbol}-{interval_text(self.interval_ms)}"

    @property
    def findings(self) -> str:
        """What was found, in words."""
        words = (
            (self.gaps, f"{self.gaps} gap(s), {self.missing} bars missing, {self.largest_gap} at most in one"),
            (self.duplicates, f"{self.duplicates} repeat(s) left out"),
            (self.insane, f"{self.insane} row(s) with a wrong high or low left out"),
            (self.disordered, f"{self.disordered} row(s) out of order, sorted"),
            (self.off_grid, f"{self.off_grid} bar(s) off the grid"),
        )
        return "; ".join(text for count, text in words if count) or "none"

    @property
    def clean(self) -> bool:
        """Whether nothing at all was found."""
        return not (self.duplicates or self.disordered or self.gaps or self.insane or self.off_grid)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"name": self.name}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Candles ready to publish.

    Attributes:
        frame: one row a candle, columns as `Candle` has them, in order of event time.
        series: one report a symbol and interval.
        left_out: names of series that `only` did not select.
    """

    frame: pl.DataFrame
    series: tuple[SeriesReport, ...]
    left_out: tuple[str, ...] = ()
    symbols: tuple[str, ...] = field(default=())

    def candles(self, limit: int | None = None) -> Iterator[Candle]:
        """The candles, in order of event time, symbol and interval.

        Args:
            limit: at most so many.
        """
        rows = self.frame if limit is None else self.frame.head(limit)
        for row in rows.iter_rows(named=True):
            yield Candle(**row)

    def __len__(self) -> int:
        return len(self.frame)


def load(
    paths: Sequence[str | Path],
    *,
    symbol: str | None = None,
    interval: str | None = None,
    source: str | None = None,
    only: str | None = None,
    digest: str | Path | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Read, merge and check files of candles.

    Args:
        paths: files or directories.
        symbol: instrument of all files, whatever their names say.
        interval: length of the bars, such as 1h; must agree with their spacing.
        source: label; default `binance` where the layout is Binance's, else `file:<stem>`.
        only: pattern on `SYMBOL-interval`, such as `*-1h`; other series are left out and named.
        digest: file in the form of sha256sum; siblings `<file>.CHECKSUM` are used anyway.
        limit: keep the first so many candles of the merged sequence; the reports are of all.
        progress: called with files read and files in all.

    Raises:
        BadInput: see the module.
    """
    digests = read_digests(Path(digest)) if digest is not None else {}
    files = find_files([Path(p) for p in paths])
    unused = set(digests) - {f.name for f in files}
    if digests and unused == set(digests):
        raise BadInput(f"{digest}: names none of the files: {', '.join(sorted(unused))}")
    groups: dict[tuple[str, int], list[FileRead]] = {}
    for number, path in enumerate(files, 1):
        read = read_file(path, digests)
        key = _identify(read, symbol, interval)
        groups.setdefault(key, []).append(read)
        if progress is not None:
            progress(number, len(files))
    names = {key: f"{key[0]}-{interval_text(key[1])}" for key in groups}
    left_out = tuple(sorted(n for n in names.values() if only is not None and not fnmatch(n, only)))
    chosen = {key: reads for key, reads in sorted(groups.items()) if names[key] not in left_out}
    if not chosen:
        raise BadInput(f"--only {only} selects none of {', '.join(left_out)}")
    parts = [_series(key, reads, source) for key, reads in chosen.items()]
    frame = pl.concat([p for p, _ in parts]).sort("ts_ms", "symbol", "interval_ms", maintain_order=True)
    frame = frame if limit is None else frame.head(limit)
    return Loaded(
        frame=frame, series=tuple(r for _, r in parts), left_out=left_out,
        symbols=tuple(sorted(frame["symbol"].unique())),
    )


def _identify(read: FileRead, symbol: str | None, interval: str | None) -> tuple[str, int]:
    name = symbol or read.symbol
    if name is None:
        raise BadInput(f"{read.path}: the name does not tell the symbol (as BTCUSDT-1h.csv would); give --symbol")
    stated = interval_ms_of(interval) if interval is not None else read.interval_ms
    steps = read.frame["open_time_ms"].unique().sort().diff().drop_nulls()
    if not len(steps):
        if stated is None:
            raise BadInput(f"{read.path}: {len(read.frame)} row(s) do not tell the length of a bar; give --interval")
        return name, stated
    usual = int(steps.mode().min())  # type: ignore[arg-type]
    if stated is not None and usual != stated:
        raise BadInput(f"{read.path}: the bars are {interval_text(usual)} apart, but "
                       f"{'--interval' if interval else 'the name'} says {interval_text(stated)}")
    return name, usual


def _series(key: tuple[str, int], reads: list[FileRead], source: str | None) -> tuple[pl.DataFrame, SeriesReport]:
    symbol, interval_ms = key
    # One label for the whole series: agents take one source a symbol and interval.
    label = source or ("binance" if all(r.binance for r in reads) else f"file:{reads[0].path.stem}")
    parts = []
    for read in reads:
        origin = "CHECKED" if read.checked else "CLAIMED"
        parts.append(read.frame.with_columns(source=pl.lit(label), origin=pl.lit(origin)))
    rows = pl.concat(parts).with_columns(
        symbol=pl.lit(symbol), interval_ms=pl.lit(interval_ms, pl.Int64),
        ts_ms=pl.col("open_time_ms") + interval_ms,
    )
    if not len(rows):
        raise BadInput(f"{', '.join(str(r.path) for r in reads)}: no rows")
    disordered = sum(int((p["open_time_ms"].diff() < 0).sum()) for p in parts)
    ordered, insane, first_insane = _sane(rows.sort("open_time_ms", maintain_order=True))
    kept = _once(ordered)
    steps = kept["open_time_ms"].diff().drop_nulls()
    _no_overlap(kept, interval_ms)
    gaps = steps.filter(steps > interval_ms)
    origins = kept["origin"].unique().to_list()
    report = SeriesReport(
        symbol=symbol, interval_ms=interval_ms, files=tuple(str(r.path) for r in reads),
        source=", ".join(sorted(kept["source"].unique())), origin=origins[0] if len(origins) == 1 else "MIXED",
        first_open_ms=kept["open_time_ms"][0], last_close_ms=kept["ts_ms"][-1], rows=len(rows), candles=len(kept),
        duplicates=len(ordered) - len(kept), disordered=disordered, gaps=len(gaps),
        missing=int((gaps // interval_ms - 1).sum()), insane=insane, first_insane=first_insane,
        largest_gap=max(gaps.to_list(), default=interval_ms) // interval_ms - 1,
        off_grid=int((steps % interval_ms != 0).sum()),
    )
    return kept.select(EVENT_COLUMNS), report


def _where(row: dict[str, Any]) -> str:
    return f"{row['file']} data row {row['row'] + 1}"


def _sane(rows: pl.DataFrame) -> tuple[pl.DataFrame, int, str | None]:
    """Rows whose high is the highest and whose low is the lowest; how many were not, and the first of them."""
    sane = (pl.col("high") >= pl.max_horizontal(*PRICES)) & (pl.col("low") <= pl.min_horizontal(*PRICES))
    bad = rows.filter(~sane)
    if not len(bad):
        return rows, 0, None
    row = bad.row(0, named=True)
    return rows.filter(sane), len(bad), f"{_where(row)}: " + ", ".join(f"{n}={row[n]}" for n in PRICES)


def _once(ordered: pl.DataFrame) -> pl.DataFrame:
    """One row a bar. Repeats must agree wherever both have a value.

    Raises:
        BadInput: two rows differ about one bar.
    """
    values = [*PRICES, *VOLUMES]
    same_bar = pl.col("open_time_ms") == pl.col("open_time_ms").shift(1)
    differs = pl.any_horizontal(*((pl.col(n) != pl.col(n).shift(1)).fill_null(False) for n in values))
    conflicts = ordered.with_row_index("at").filter(same_bar & differs)
    if len(conflicts):
        second = conflicts.row(0, named=True)
        first = ordered.row(second["at"] - 1, named=True)
        shown = ", ".join(f"{n} {first[n]} and {second[n]}" for n in values if first[n] != second[n])
        raise BadInput(f"{len(conflicts)} bar(s) are told twice and differently; the first begins at "
                       f"{second['open_time_ms']}: {_where(first)} and {_where(second)}: {shown}")
    return ordered.unique("open_time_ms", keep="first", maintain_order=True)


def _no_overlap(kept: pl.DataFrame, interval_ms: int) -> None:
    close = kept.filter(pl.col("open_time_ms").diff() < interval_ms)
    if len(close):
        row = close.row(0, named=True)
        raise BadInput(f"{_where(row)}: begins at {row['open_time_ms']}, before the bar of "
                       f"{interval_text(interval_ms)} before it has ended")
