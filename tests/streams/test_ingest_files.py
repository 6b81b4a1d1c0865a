"""Reading and merging candle files: layouts, times, digests, and what must be refused."""

from __future__ import annotations

import csv
import hashlib
import io
import random
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.ingest.files import BadInput, interval_ms_of, interval_text, name_tells
from streams.ingest.merge import load

HOUR = 3_600_000
START = 1_704_067_200_000  # 2024-01-01


def bars(n: int, start: int = START, step: int = HOUR) -> list[dict[str, float]]:
    """Plain bars, written down without the code under test."""
    rng = random.Random(n)
    rows, price = [], 100.0
    for i in range(n):
        close = price * (1 + rng.gauss(0, 0.01))
        rows.append({
            "open_time": start + i * step, "open": price, "high": max(price, close) * 1.001,
            "low": min(price, close) * 0.999, "close": close, "volume": rng.uniform(1, 9),
        })
        price = close
    return rows


def kline_csv(rows: list[dict[str, float]], *, header: bool = False, us: bool = False) -> str:
    """Binance's layout as its dumps have it."""
    out = io.StringIO()
    scale = 1000 if us else 1
    if header:
        out.write("open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
                  "taker_buy_quote_volume,ignore\n")
    for r in rows:
        end = (int(r["open_time"]) + HOUR) * scale - 1
        out.write(f"{int(r['open_time']) * scale},{r['open']!r},{r['high']!r},{r['low']!r},{r['close']!r},"
                  f"{r['volume']!r},{end},{r['volume'] * r['close']!r},17,{r['volume'] / 2!r},1.0,0\n")
    return out.getvalue()


def told(path: Path, **kwargs: object) -> list[tuple[int, float, float]]:
    return [(c.open_time_ms, c.open, c.close) for c in load([path], **kwargs).candles()]  # type: ignore[arg-type]


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("us", [False, True])
@pytest.mark.parametrize("kind", ["csv", "zip", "parquet", "feather"])
def test_every_layout_tells_the_same(tmp_path: Path, kind: str, us: bool, header: bool) -> None:
    rows = bars(30)
    text = kline_csv(rows, header=header, us=us)
    path = tmp_path / f"BTCUSDT-1h-2024-01.{kind}"
    if kind == "csv":
        path.write_text(text)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("BTCUSDT-1h-2024-01.csv", text)
    else:
        frame = pl.DataFrame(rows)
        if us:
            frame = frame.with_columns(open_time=pl.from_epoch("open_time", time_unit="ms"))
        frame.write_parquet(path) if kind == "parquet" else frame.write_ipc(path)
    loaded = load([path])
    assert told(path) == [(int(r["open_time"]), r["open"], r["close"]) for r in rows]
    candle = next(loaded.candles())
    assert (candle.symbol, candle.interval_ms, candle.ts_ms) == ("BTCUSDT", HOUR, START + HOUR)
    assert candle.source == ("binance" if kind in ("csv", "zip") else "file:BTCUSDT-1h-2024-01")
    assert candle.origin == "CLAIMED"
    assert loaded.series[0].clean


@pytest.mark.parametrize(("form", "unit"), [
    ("%d.%m.%Y %H:%M:%S.000", "Time"), ("%Y-%m-%d %H:%M:%S", "datetime"), ("%Y-%m-%dT%H:%M:%SZ", "Date"),
    ("%Y-%m-%d %H:%M:%S+00:00", "timestamp"), ("%Y%m%d %H%M%S", "time"),
])
def test_text_times(tmp_path: Path, form: str, unit: str) -> None:
    rows = bars(30, start=1_705_276_800_000)  # 2024-01-15: day and month cannot be exchanged unnoticed
    path = tmp_path / "FOREX_EURUSD_1H_ASK.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([unit, "Open", "High", "Low", "Close"])
        for r in rows:
            when = datetime.fromtimestamp(r["open_time"] / 1000, UTC).strftime(form)
            writer.writerow([when, r["open"], r["high"], r["low"], r["close"]])
    loaded = load([path])
    assert [c.open_time_ms for c in loaded.candles()] == [r["open_time"] for r in rows]
    candle = next(loaded.candles())
    assert (candle.symbol, candle.volume, candle.source) == ("EURUSD", None, "file:FOREX_EURUSD_1H_ASK")


def test_files_merge_by_event_time_and_report(tmp_path: Path) -> None:
    rows = bars(40)
    del rows[20:23]  # a gap of three
    shuffled = rows[10:] + rows[10:12]  # and two identical repeats
    random.Random(0).shuffle(shuffled)
    (tmp_path / "BTCUSDT-1h-b.csv").write_text(kline_csv(shuffled))
    (tmp_path / "BTCUSDT-1h-a.csv").write_text(kline_csv(rows[:12]))
    (tmp_path / "ETHUSDT-1h.csv").write_text(kline_csv(bars(5)))
    loaded = load([tmp_path])
    candles = list(loaded.candles())
    assert [(c.ts_ms, c.symbol) for c in candles] == sorted((c.ts_ms, c.symbol) for c in candles)
    btc, eth = loaded.series
    assert (btc.name, btc.rows, btc.candles, btc.duplicates) == ("BTCUSDT-1h", 41, 37, 4)
    assert (btc.gaps, btc.missing, btc.largest_gap, btc.insane) == (1, 3, 3, 0)
    assert btc.disordered > 0
    assert not btc.clean
    assert eth.clean


def test_insane_high_or_low_is_left_out_and_named(tmp_path: Path) -> None:
    rows = bars(10)
    rows[3]["high"] = rows[3]["low"] * 0.9
    rows[7]["low"] = rows[7]["high"] * 1.1
    path = tmp_path / "X1-1h.csv"
    path.write_text(kline_csv(rows))
    loaded = load([path], symbol="X1")
    assert (loaded.series[0].insane, loaded.series[0].candles, loaded.series[0].gaps) == (2, 8, 2)
    assert "data row 4" in str(loaded.series[0].first_insane)


def test_conflicting_repeat_is_refused_with_both_rows(tmp_path: Path) -> None:
    rows = bars(10)
    (tmp_path / "BTCUSDT-1h-a.csv").write_text(kline_csv(rows))
    rows[4]["close"] *= 1.00001
    (tmp_path / "BTCUSDT-1h-b.csv").write_text(kline_csv(rows[3:6]))
    with pytest.raises(BadInput, match=r"told twice(?s:.)*1h-a.csv data row 5(?s:.)*1h-b.csv data row 2") as caught:
        load([tmp_path])
    assert str(rows[4]["open_time"]) in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "inf", "", "-1", "0"])
def test_prices_that_are_none_are_refused(tmp_path: Path, value: str) -> None:
    lines = kline_csv(bars(6)).splitlines()
    parts = lines[4].split(",")
    parts[2] = value
    lines[4] = ",".join(parts)
    path = tmp_path / "BTCUSDT-1h.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadInput, match="data row 5"):
        load([path])


def test_digest_makes_checked_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-1h.csv"
    path.write_text(kline_csv(bars(6)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    other = tmp_path / "sums.CHECKSUM"
    other.write_text(f"{digest}  BTCUSDT-1h.csv\n")
    assert load([path]).series[0].origin == "CLAIMED"
    assert load([path], digest=other).series[0].origin == "CHECKED"
    sibling = tmp_path / "BTCUSDT-1h.csv.CHECKSUM"
    sibling.write_text(f"{digest} *BTCUSDT-1h.csv\n")
    assert next(load([path]).candles()).origin == "CHECKED"
    sibling.write_text(f"{'0' * 64}  BTCUSDT-1h.csv\n")
    with pytest.raises(BadInput, match="SHA-256"):
        load([path])
    sibling.write_text(f"{digest}  another.csv\n")
    with pytest.raises(BadInput, match="no line for"):
        load([path])
    other.write_text("not a digest\n")
    with pytest.raises(BadInput, match="line 1"):
        load([path], digest=other)


def test_interval_must_agree_with_the_spacing(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT-4h.csv"
    path.write_text(kline_csv(bars(6)))
    with pytest.raises(BadInput, match="1h apart, but the name says 4h"):
        load([path])
    plain = tmp_path / "prices.csv"
    plain.write_text(kline_csv(bars(6)))
    with pytest.raises(BadInput, match="--symbol"):
        load([plain])
    assert load([plain], symbol="BTCUSDT").series[0].name == "BTCUSDT-1h"
    plain.write_text(kline_csv(bars(1)))
    with pytest.raises(BadInput, match="--interval"):
        load([plain], symbol="BTCUSDT")


def test_overlapping_bars_are_refused(tmp_path: Path) -> None:
    rows = bars(10)
    rows[5]["open_time"] += HOUR // 2
    path = tmp_path / "BTCUSDT-1h.csv"
    path.write_text(kline_csv(rows))
    with pytest.raises(BadInput, match="before the bar of 1h before it has ended"):
        load([path])


def test_only_selects_and_names_the_rest(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT-1h.csv").write_text(kline_csv(bars(5)))
    (tmp_path / "BTCUSDT-15m.csv").write_text(kline_csv(bars(5, step=HOUR // 4)))
    loaded = load([tmp_path], only="*-1h")
    assert ([s.name for s in loaded.series], loaded.left_out) == (["BTCUSDT-1h"], ("BTCUSDT-15m",))
    with pytest.raises(BadInput, match="selects none"):
        load([tmp_path], only="ETH*")


@pytest.mark.parametrize(("path", "message"), [
    ("nothing.csv", "no such file"), ("empty", "no .csv"), ("a.txt", "known are"), ("bad.zip", "cannot be read"),
    ("columns.csv", "needed are"),
])
def test_paths_that_cannot_be_taken(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match=message):
        load([tmp_path / path])


def test_names() -> None:
    assert name_tells("ETHUSDT-15m-2025-01-03") == ("ETHUSDT", 900_000)
    assert name_tells("BTCUSDT-1M-2024") == (None, None)  # a month has no fixed length
    assert name_tells("STOCKS_GOOGL") == (None, None)
    with pytest.raises(BadInput):
        interval_ms_of("1M")


@given(st.integers(1, 500), st.sampled_from("smhdw"))
@settings(max_examples=50, deadline=None)
def test_interval_text_is_the_inverse(n: int, unit: str) -> None:
    assert interval_ms_of(interval_text(interval_ms_of(f"{n}{unit}"))) == interval_ms_of(f"{n}{unit}")
