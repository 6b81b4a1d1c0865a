"""One file of candles to one frame of plain columns, whatever its layout.

Known layouts: the klines of Binance's public dumps (csv or zip, 12 columns, with or without header, times in
milliseconds or, in spot dumps since 2025, microseconds); frames with such columns as parquet or feather; and any csv,
parquet or feather with open/high/low/close[/volume] and a time column.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from hashlib import file_digest
from itertools import pairwise
from pathlib import Path

import polars as pl

SUFFIXES = (".csv", ".zip", ".parquet", ".feather", ".arrow", ".ipc")

KLINE_COLUMNS = (  # https://github.com/binance/binance-public-data, "Klines"
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count", "taker_buy_volume",
    "taker_buy_quote_volume", "ignore",
)
PRICES = ("open", "high", "low", "close")
VOLUMES = ("volume", "quote_volume", "trades", "taker_buy_volume")
_TIMES = ("open_time", "timestamp", "datetime", "date", "time", "gmt time", "local time", "open time")
_ALIASES = {
    "volume": ("volume", "vol"),
    "quote_volume": ("quote_volume", "quote_asset_volume"),
    "trades": ("trades", "count", "number_of_trades"),
    "taker_buy_volume": ("taker_buy_volume", "taker_buy_base", "taker_buy_base_asset_volume"),
}
_TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%d %H:%M:%S%.f%:z",
    "%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%d.%m.%Y %H:%M:%S%.f", "%Y%m%d %H%M%S", "%Y%m%d",
    "%Y.%m.%d %H:%M",
)
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_INTERVAL = re.compile(r"(\d+)(min|s|m|h|d|w)", re.IGNORECASE)


class BadInput(Exception):
    """A file that cannot be taken; the message names the file, the row where there is one, and what to do."""


@dataclass(frozen=True, kw_only=True)
class FileRead:
    """What one file holds.

    Attributes:
        frame: columns open_time_ms, open, high, low, close, volume, quote_volume, trades, taker_buy_volume, row
            (0-based, of the file's data rows), file; a column that the file lacks is null.
        symbol: from the file's name; None where that does not tell.
        interval_ms: from the file's name; None where that does not tell.
        binance: whether the columns are those of Binance's klines.
        checked: whether a digest from outside was met.
    """

    path: Path
    frame: pl.DataFrame
    symbol: str | None
    interval_ms: int | None
    binance: bool
    checked: bool


def interval_ms_of(text: str) -> int:
    """Milliseconds of an interval such as 15m, 1h or 1d. 1M, a month, has no fixed length and is refused.

    >>> interval_ms_of("15m"), interval_ms_of("1H")
    (900000, 3600000)
    """
    found = _INTERVAL.fullmatch(text)
    if not found or text.endswith("M"):
        raise BadInput(f"{text!r} is no interval; write 1m, 15m, 1h, 1d, 1w")
    unit = found[2].lower()
    return int(found[1]) * _UNIT_MS["m" if unit == "min" else unit]


def interval_text(interval_ms: int) -> str:
    """The inverse of `interval_ms_of`, in the largest unit that fits.

    >>> interval_text(3_600_000), interval_text(90_000)
    ('1h', '90s')
    """
    for unit in ("w", "d", "h", "m", "s"):
        if interval_ms % _UNIT_MS[unit] == 0:
            return f"{interval_ms // _UNIT_MS[unit]}{unit}"
    return f"{interval_ms}ms"


def name_tells(stem: str) -> tuple[str | None, int | None]:
    """Symbol and interval from a file's name: the part that is an interval, and the part before it.

    >>> name_tells("BTCUSDT-1h-2024-01"), name_tells("FOREX_EURUSD_1H_ASK"), name_tells("prices")
    (('BTCUSDT', 3600000), ('EURUSD', 3600000), (None, None))
    """
    parts = re.split(r"[-_. ]", stem)
    for before, part in pairwise(parts):
        if _INTERVAL.fullmatch(part) and not part.endswith("M") and re.fullmatch(r"[A-Za-z0-9]{2,64}", before):
            return before.upper(), interval_ms_of(part)
    return None, None


def find_files(paths: list[Path]) -> list[Path]:
    """Files of the known kinds: those named, and those anywhere below named directories, sorted.

    Raises:
        BadInput: a path that does not exist, is of an unknown kind, or a directory without such files.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise BadInput(f"{path}: no {', '.join(SUFFIXES)} file below this directory")
            found += inside
        elif not path.is_file():
            raise BadInput(f"{path}: no such file or directory")
        elif path.suffix.lower() not in SUFFIXES:
            raise BadInput(f"{path}: known are {', '.join(SUFFIXES)}")
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def read_file(path: Path, digests: dict[str, str]) -> FileRead:
    """Read one file.

    Args:
        path: the file.
        digests: SHA-256 by file name, given from outside; a sibling `<file>.CHECKSUM` is used too.

    Raises:
        BadInput: unreadable, columns missing, a digest that differs, a row with a missing or infinite price.
    """
    checked = digest_met(path, digests)
    try:
        raw = _raw(path)
    except (OSError, pl.exceptions.PolarsError, zipfile.BadZipFile) as exc:
        raise BadInput(f"{path}: cannot be read: {exc}") from exc
    raw = raw.rename({name: name.strip().lower() for name in raw.columns})
    frame = _canonical(path, raw)
    symbol, interval_ms = name_tells(path.name.removesuffix(path.suffix))
    binance = {"open_time", "close_time"} <= set(raw.columns) and any(c.startswith("taker_buy") for c in raw.columns)
    return FileRead(path=path, frame=frame, symbol=symbol, interval_ms=interval_ms, binance=binance, checked=checked)


def read_digests(path: Path) -> dict[str, str]:
    """SHA-256 by file name, from a file as `sha256sum` writes it.

    Raises:
        BadInput: a line that is none.
    """
    digests = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        found = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(.+)", line.strip())
        if not found:
            raise BadInput(f"{path}: line {number} is not '<sha256>  <file name>'")
        digests[Path(found[2]).name] = found[1].lower()
    return digests


def digest_met(path: Path, digests: dict[str, str]) -> bool:
    """Whether a file meets a digest that was given or lies beside it; False where there is none.

    Raises:
        BadInput: it differs, or the file beside it does not name this one.
    """
    sibling = path.with_name(path.name + ".CHECKSUM")
    expected = digests.get(path.name)
    if expected is None and sibling.is_file():
        expected = read_digests(sibling).get(path.name)
        if expected is None:
            raise BadInput(f"{sibling}: has no line for {path.name}")
    if expected is None:
        return False
    with path.open("rb") as file:
        actual = file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise BadInput(f"{path}: SHA-256 is {actual}, but the digest says {expected}; fetch the file again")
    return True


def _raw(path: Path) -> pl.DataFrame:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return pl.read_parquet(path)
    if suffix in (".feather", ".arrow", ".ipc"):
        return pl.read_ipc(path)
    if suffix == ".csv":
        return _csv(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith(".csv"))
        if not names:
            raise BadInput(f"{path}: holds no .csv")
        return pl.concat([_csv(archive.read(name)) for name in names])


def _csv(data: bytes) -> pl.DataFrame:
    """A csv with its header, or Binance's 12 columns without one."""
    first = data.split(b"\n", 1)[0].strip()
    if re.match(rb"\d{9,},", first):
        if first.count(b",") != len(KLINE_COLUMNS) - 1:
            raise BadInput(f"a csv without header must have Binance's {len(KLINE_COLUMNS)} columns, "
                           f"this one has {first.count(b',') + 1}")
        names = list(KLINE_COLUMNS)
        return pl.read_csv(io.BytesIO(data), has_header=False, new_columns=names, infer_schema_length=None)
    return pl.read_csv(io.BytesIO(data), infer_schema_length=None)


def _canonical(path: Path, raw: pl.DataFrame) -> pl.DataFrame:
    time_column = next((name for name in _TIMES if name in raw.columns), None)
    missing = [name for name in PRICES if name not in raw.columns]
    if time_column is None or missing:
        raise BadInput(f"{path}: columns {', '.join(raw.columns)}; needed are open, high, low, close and one of "
                       f"{', '.join(_TIMES)}")
    columns = [_open_time_ms(path, raw[time_column]).alias("open_time_ms")]
    for name in PRICES:
        columns.append(_number(path, raw[name], name))
    for name, aliases in _ALIASES.items():
        source = next((a for a in aliases if a in raw.columns), None)
        if source is None:
            columns.append(pl.Series(name, [None] * len(raw), dtype=pl.Float64))
        else:
            columns.append(_number(path, raw[source], name))
    frame = pl.DataFrame(columns).with_columns(pl.col("trades").cast(pl.Int64))
    frame = frame.with_row_index("row").with_columns(pl.lit(str(path)).alias("file"))
    _refuse_rows(path, frame)
    return frame


def _number(path: Path, column: pl.Series, name: str) -> pl.Series:
    try:
        return column.cast(pl.Float64).alias(name)
    except pl.exceptions.PolarsError as exc:
        raise BadInput(f"{path}: column {name} holds something that is no number: {exc}") from exc


def _refuse_rows(path: Path, frame: pl.DataFrame) -> None:
    """Prices must be there, finite and above 0; volumes finite and not negative where they are there."""
    bad_price = pl.any_horizontal(*(pl.col(n).is_null() | ~pl.col(n).is_finite() | (pl.col(n) <= 0) for n in PRICES))
    bad_volume = pl.any_horizontal(
        *((~pl.col(n).cast(pl.Float64).is_finite() | (pl.col(n) < 0)).fill_null(False) for n in VOLUMES)
    )
    bad = frame.filter(bad_price | bad_volume | pl.col("open_time_ms").is_null())
    if len(bad):
        row = bad.row(0, named=True)
        shown = ", ".join(f"{k}={row[k]}" for k in ("open_time_ms", *PRICES, "volume"))
        raise BadInput(f"{path}: {len(bad)} row(s) with a missing, infinite or negative value, the first is data row "
                       f"{row['row'] + 1}: {shown}")


def _open_time_ms(path: Path, column: pl.Series) -> pl.Series:
    """Epoch milliseconds, from numbers (seconds to nanoseconds, told apart by size), dates or text."""
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("ms"))
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.timestamp("ms")
    if column.dtype == pl.String:
        return _parsed(path, column)
    if not column.dtype.is_numeric():
        raise BadInput(f"{path}: column {column.name} is {column.dtype}, not a time")
    # 1e11 s is the year 5138, 1e11 ms is 1973: no market data falls on the wrong side. Rows may differ in unit.
    t = pl.col("t")
    scaled = (
        pl.when(t < 100_000_000_000).then(t * 1000)
        .when(t < 100_000_000_000_000).then(t)
        .when(t < 100_000_000_000_000_000).then(t // 1000)
        .otherwise(t // 1_000_000)
    )
    return column.cast(pl.Int64).alias("t").to_frame().select(scaled.alias("open_time_ms")).to_series()


def _parsed(path: Path, column: pl.Series) -> pl.Series:
    for form in _TIME_FORMATS:
        parsed = column.str.to_datetime(form, time_unit="ms", strict=False, time_zone="UTC" if "%:z" in form else None)
        if not parsed.null_count():
            return parsed.dt.timestamp("ms")
    raise BadInput(f"{path}: times such as {column[0]!r} are in none of the known forms: {', '.join(_TIME_FORMATS)}")
