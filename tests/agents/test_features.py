"""Features: every field against a vectorised recomputation, no look-ahead, odd bars, a golden run."""

from __future__ import annotations

import json
import math
import os
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from agents.contract import Refused
from agents.features import Features, FeaturesConfig, FeaturesState
from schemas.codec import Codec
from schemas.events import Candle, RegimeChanged
from schemas.events import Features as FeaturesEvent
from tests.agents.check import check_agent, run, summary

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
DATA = Path(os.environ.get("QUANTUM_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
GOLDEN = Path(__file__).parent / "golden" / "features.json"
FLOATS = tuple(f for f in FeaturesEvent.__struct_fields__ if f == "close" or f not in (
    "symbol", "interval_ms", "open_time_ms", "ts_ms", "bar_count", "ready", "regime", "source", "origin"))


def candle(i: int, o: float, h: float, lo: float, c: float, v: float | None = 10.0, **more: Any) -> Candle:
    values: dict[str, Any] = {
        "symbol": "AAA", "interval_ms": HOUR_MS, "open_time_ms": START_MS + i * HOUR_MS,
        "ts_ms": START_MS + (i + 1) * HOUR_MS, "open": o, "high": h, "low": lo, "close": c, "volume": v,
        "source": "test", "origin": "CLAIMED",
    }
    return Candle(**(values | more))


def random_walk(n: int, seed: int, symbol: str = "AAA", sigma: float = 0.01, volume: bool = True) -> list[Candle]:
    """Bars of a random walk whose volatility changes every 300 bars; not a market."""
    g = random.Random(seed)  # its draws stay the same in every version, which the golden run needs
    out, before = [], 100.0
    for i in range(n):
        s = sigma * (1, 3)[i // 300 % 2]
        close = before * math.exp(s * g.gauss(0, 1))
        high, low = max(before, close) * (1 + s * abs(g.gauss(0, 1))), min(before, close) / (1 + s * abs(g.gauss(0, 1)))
        v = g.lognormvariate(3, 1) if volume else None
        taker = v * g.random() if v is not None else None
        out.append(candle(i, before, high, low, close, v, symbol=symbol, taker_buy_volume=taker))
        before = close
    return out


def klines(name: str, rows: int) -> list[Candle]:
    path = DATA / "klines" / f"{name}.feather"
    if not path.exists():
        pytest.skip(f"no real candles: {path} is not there")
    frame = pl.read_ipc(path).head(rows)
    step = frame["open_time"][1] - frame["open_time"][0]
    return [Candle(symbol=name, interval_ms=step, open_time_ms=r["open_time"], ts_ms=r["open_time"] + step,
                   open=r["open"], high=r["high"], low=r["low"], close=r["close"], volume=r["volume"],
                   quote_volume=r["quote_volume"], trades=r["trades"], taker_buy_volume=r["taker_buy_base"],
                   source="binance", origin="CLAIMED") for r in frame.iter_rows(named=True)]


def features(candles: list[Candle], agent: Features | None = None) -> list[FeaturesEvent]:
    agent = agent or Features()
    taken = run(agent, candles)
    return [e for row in taken.rows for _, e in row if isinstance(e, FeaturesEvent)]


# ------------------------------------------------------------------ the oracle: whole columns, written anew
def rolled(x: np.ndarray, n: int, how: Any) -> np.ndarray:
    """how(windows, axis=1) at the last row of each full window, NaN before. [T] -> [T]"""
    out = np.full(len(x), np.nan)
    if len(x) >= n:
        out[n - 1:] = how(sliding_window_view(x, n), axis=1)
    return out


def lagged(x: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([np.full(n, np.nan), x[:-n]])


def ewm(x: np.ndarray, span: int, full: int | None = None) -> np.ndarray:
    out = pl.Series(x).ewm_mean(span=span, adjust=False).to_numpy().copy()
    out[:(full or span) - 1] = np.nan
    return out


def wilder_mean(x: np.ndarray, n: int) -> np.ndarray:
    """Mean of the first n finite values, then (previous * (n - 1) + value) / n, NaN before. [T] -> [T]"""
    out, start = np.full(len(x), np.nan), int(np.argmax(np.isfinite(x)))
    level = x[start:start + n].mean()
    out[start + n - 1] = level
    for i in range(start + n, len(x)):
        level = (level * (n - 1) + x[i]) / n
        out[i] = level
    return out


def usual(v: np.ndarray) -> np.ndarray:
    out, level = np.full(len(v), np.nan), math.nan
    for count, i in enumerate(np.flatnonzero(np.isfinite(v)), start=1):
        weight = max(2 / 3001, 2 / (count + 1))
        level = math.log(v[i]) if count == 1 else level + weight * float(np.clip(math.log(v[i]) - level, -0.3, 0.1))
        out[i] = math.exp(level) if count >= 200 else math.nan
    return out


def columns(candles: list[Candle]) -> dict[str, np.ndarray]:
    """Every float field of `market.features`, recomputed over whole columns."""
    o, h, lo, c = (np.array([getattr(x, f) for x in candles]) for f in ("open", "high", "low", "close"))
    v, taker = (np.array([math.nan if getattr(x, f) is None else getattr(x, f) for x in candles])
                for f in ("volume", "taker_buy_volume"))
    r1 = np.log(c) - np.log(lagged(c, 1))
    std = lambda w, axis: w.std(axis=axis, ddof=1)  # noqa: E731
    out = {"open": o, "high": h, "low": lo, "close": c}
    out |= {"price_range": (h - lo) / c, "taker_buy_share": taker / np.where(v > 0, v, np.nan)}
    out |= {f"return_{n}": np.log(c) - np.log(lagged(c, n)) for n in (1, 5, 15)}
    out |= {f"momentum_{n}": (c - lagged(c, n)) / lagged(c, n) for n in (5, 10, 20)}
    out |= {f"sma_dist_{n}": c / rolled(c, n, np.mean) - 1 for n in (7, 14, 30, 50)}
    out |= {f"ema_dist_{n}": c / ewm(c, n) - 1 for n in (7, 14, 30, 50)}
    out |= {f"volatility_{n}": rolled(r1, n, std) for n in (7, 30)}
    out["volatility_ratio"] = out["volatility_30"] / usual(out["volatility_30"])
    out["trend_strength"] = rolled(r1, 30, np.sum) / (out["volatility_30"] * math.sqrt(30))
    line = ewm(c, 12, 1) - ewm(c, 26, 1)
    full = lambda x, n: np.where(np.arange(len(x)) >= n - 1, x, np.nan)  # noqa: E731
    out["macd"], out["macd_signal"] = full(line, 26) / c, ewm(line, 9, 34) / c
    out["macd_hist"] = out["macd"] - out["macd_signal"]
    middle, deviation = rolled(c, 20, np.mean), rolled(c, 20, np.std)
    out["bollinger_position"], out["bollinger_width"] = (c - middle) / (2 * deviation), 4 * deviation / middle
    lowest, highest = rolled(lo, 14, np.min), rolled(h, 14, np.max)
    out["stochastic_k_14"] = 100 * (c - lowest) / (highest - lowest)
    lowest, highest = lagged(rolled(lo, 20, np.min), 1), lagged(rolled(h, 20, np.max), 1)
    out["range_position"] = (c - lowest) / (highest - lowest)
    out |= wilders(h, lo, c)
    out["volume_ratio_20"] = v / rolled(v, 20, np.mean)
    direction = np.concatenate([[0.0], np.sign(np.diff(c))])
    out["obv_slope_14"] = rolled(v * direction, 14, np.sum) / rolled(v, 14, np.sum)
    return out


def wilders(h: np.ndarray, lo: np.ndarray, c: np.ndarray) -> dict[str, np.ndarray]:
    change, before = c - lagged(c, 1), lagged(c, 1)
    gain, loss = (wilder_mean(np.where(np.isnan(change), np.nan, np.clip(s * change, 0, None)), 14) for s in (1, -1))
    spread = np.max([h - lo, np.abs(h - before), np.abs(lo - before)], axis=0)
    up, down = h - lagged(h, 1), lagged(lo, 1) - lo
    plus = wilder_mean(np.where(np.isnan(up), np.nan, np.where((up > down) & (up > 0), up, 0)), 14)
    minus = wilder_mean(np.where(np.isnan(up), np.nan, np.where((down > up) & (down > 0), down, 0)), 14)
    adx = wilder_mean(100 * np.abs(plus - minus) / (plus + minus), 14)
    return {"rsi_14": 100 - 100 / (1 + gain / loss), "atr_14_pct": wilder_mean(spread, 14) / c, "adx_14": adx}


# Where a value is a difference of near equals (close / mean - 1), its error is one of the terms, which are about 1.
SCALE = {"rsi_14": 100.0, "adx_14": 100.0, "stochastic_k_14": 100.0, "trend_strength": 30.0, "obv_slope_14": 1.0}


def assert_equal_to_columns(candles: list[Candle]) -> None:
    rows, oracle = features(candles), columns(candles)
    assert set(oracle) == set(FLOATS)
    assert [r.bar_count for r in rows] == list(range(1, len(candles) + 1))
    for name in FLOATS:
        got = np.array([math.nan if getattr(r, name) is None else getattr(r, name) for r in rows])
        want = oracle[name]
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want), err_msg=name)
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-14 * SCALE.get(name, 1.0), err_msg=name)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("volume", [True, False])
def test_equal_to_a_vectorised_recomputation_on_random_walks(seed: int, volume: bool) -> None:
    assert_equal_to_columns(random_walk(2500, seed, volume=volume))


@pytest.mark.parametrize("name", ["BTCUSDT-1h", "XRPUSDT-1h", "ETHUSDT-15m"])
def test_equal_to_a_vectorised_recomputation_on_real_candles(name: str) -> None:
    assert_equal_to_columns(klines(name, 12_000))


# ------------------------------------------------------------------ the suite, look-ahead, golden
def test_the_suite_of_all_agents() -> None:
    bars = [random_walk(400, i, symbol=s) for i, s in enumerate(("AAA", "BBB", "CCC", "DDD"))]
    check_agent(Features, [c for row in zip(*bars, strict=True) for c in row])


prices = st.floats(0.5, 2.0)


@st.composite
def drawn_candles(draw: st.DrawFn) -> list[Candle]:
    out, i = [], 0
    for o, c, up, down, v, gap in draw(st.lists(st.tuples(
            prices, prices, st.floats(1, 2), st.floats(1, 2), st.none() | st.floats(0, 1e6),
            st.sampled_from([1] * 20 + [2, 9, 200])), min_size=2, max_size=80)):
        i += gap
        out.append(candle(i, o, max(o, c) * up, min(o, c) / down, c, v))
    return out


@settings(max_examples=60, deadline=None)
@given(drawn_candles(), drawn_candles(), st.data())
def test_the_future_changes_nothing_past(bars: list[Candle], other: list[Candle], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(bars)))
    shift = (bars[cut - 1].open_time_ms - START_MS) // HOUR_MS + 1
    tail = [msgspec.structs.replace(c, open_time_ms=c.open_time_ms + shift * HOUR_MS, ts_ms=c.ts_ms + shift * HOUR_MS)
            for c in other]
    past = run(Features(), bars).rows[:cut]
    assert run(Features(), bars[:cut] + tail).rows[:cut] == past
    assert run(Features(), bars[:cut]).rows == past


@settings(max_examples=60, deadline=None)
@given(drawn_candles())
def test_every_output_can_be_encoded(bars: list[Candle]) -> None:
    codec = Codec()
    for row in run(Features(), bars).rows:
        for topic, event in row:
            codec.encode(topic, event)


def test_golden_run() -> None:
    """To renew after a meant change: delete the file, run once, and say in the commit why numbers moved."""
    taken = run(Features(), random_walk(600, 20240101))
    rows = [msgspec.to_builtins(e) for row in taken.rows for _, e in row if isinstance(e, FeaturesEvent)]
    got = {"hash": summary(taken), "rows": {str(i): rows[i] for i in (0, 40, 299, 599)}}
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(got, indent=1) + "\n")
        pytest.fail("there was no golden run; it is written now, look at it")
    want = json.loads(GOLDEN.read_text())
    for i, row in want["rows"].items():
        for name, value in row.items():
            expected = pytest.approx(value, rel=1e-9, abs=1e-14) if isinstance(value, float) else value
            assert got["rows"][i][name] == expected, f"{name} of bar {i}"
    if want["rows"] == got["rows"]:  # bit for bit; another libm may differ in the last place of log and exp
        assert got["hash"] == want["hash"]


# ------------------------------------------------------------------ readiness and regimes
def test_ready_only_when_all_windows_are_full_and_for_ever_after() -> None:
    rows = features(random_walk(400, 1))
    at = next(i for i, r in enumerate(rows) if r.ready)
    assert at == 229  # 30 returns need 31 bars, 200 values of their deviation 199 more
    assert all(r.ready for r in rows[at:])
    assert all(getattr(r, name) is not None for r in rows[at:] for name in FLOATS)
    assert [r.regime is not None for r in rows] == [r.ready for r in rows]


def test_a_feed_without_volume_becomes_ready() -> None:
    rows = features(random_walk(300, 1, volume=False))
    assert rows[-1].ready
    assert rows[-1].volume_ratio_20 is rows[-1].obv_slope_14 is rows[-1].taker_buy_share is None


def test_volume_that_stops_and_starts_is_null_until_its_windows_are_full_again() -> None:
    bars = random_walk(300, 1)
    bars[250] = msgspec.structs.replace(bars[250], volume=None, taker_buy_volume=None)
    rows = features(bars)
    assert [i for i, r in enumerate(rows) if r.volume_ratio_20 is None and i > 19] == list(range(250, 270))
    assert [i for i, r in enumerate(rows) if r.obv_slope_14 is None and i > 13] == list(range(250, 264))
    assert [i for i, r in enumerate(rows) if r.taker_buy_share is None] == [250]
    assert all(r.ready for r in rows[229:])


def test_regime_changes_chain_and_agree_with_the_features() -> None:
    taken = run(Features(), random_walk(2000, 3))
    label: str | None = None
    held = 0
    for row in taken.rows:
        bar = row[0].event
        assert isinstance(bar, FeaturesEvent)
        for _, change in row[1:]:
            assert isinstance(change, RegimeChanged)
            assert (change.previous, change.bars_in_previous) == (label, held if label else 0)
            assert change.current == bar.regime != label
            assert (change.trend_strength, change.volatility_ratio) == (bar.trend_strength, bar.volatility_ratio)
            label, held = change.current, 0
        assert bar.regime == label
        held += 1
    assert label is not None


def test_a_market_that_stands_still_has_nulls_but_no_invented_values() -> None:
    rows = features([candle(i, 5.0, 5.0, 5.0, 5.0, 0.0) for i in range(300)])
    last = rows[-1]
    assert (last.volatility_30, last.return_1, last.price_range, last.adx_14) == (0.0, 0.0, 0.0, 0.0)
    assert last.rsi_14 is last.bollinger_position is last.trend_strength is last.stochastic_k_14 is None
    assert last.volume_ratio_20 is last.obv_slope_14 is last.volatility_ratio is last.regime is None
    assert not last.ready


# ------------------------------------------------------------------ odd bars
BARS = random_walk(300, 9)


def refusal(bars: list[Candle], odd: Candle) -> str:
    agent = Features()
    state = agent.new("AAA")
    for bar in bars:
        state, _ = agent.step(state, bar)
    with pytest.raises(Refused) as caught:
        agent.step(state, odd)
    return caught.value.reason


def test_repeats_are_ignored_and_return_the_same_state() -> None:
    agent = Features()
    state = agent.new("AAA")
    for bar in BARS:
        state, _ = agent.step(state, bar)
    for bar in BARS[-16:]:
        again = agent.step(state, msgspec.structs.replace(bar))
        assert again[0] is state
        assert again[1] == ()


def test_conflicts_and_late_bars_are_refused() -> None:
    for i in (-1, -16):
        for change in ({"close": BARS[i].low}, {"volume": 1.0, "taker_buy_volume": 0.5}, {"volume": None}):
            assert refusal(BARS, msgspec.structs.replace(BARS[i], **change)) == "CONFLICT"
    assert refusal(BARS, BARS[-17]) == "LATE"
    assert refusal([*BARS[:100], *BARS[101:]], BARS[100]) == "LATE"
    assert refusal([*BARS[:-2], BARS[-1]], BARS[-2]) == "LATE"


def test_another_source_is_refused_per_interval() -> None:
    following = candle(300, 100, 101, 99, 100)
    assert refusal(BARS, msgspec.structs.replace(following, source="other")) == "SOURCE_CONFLICT"
    daily = candle(0, 100, 101, 99, 100, interval_ms=HOUR_MS // 2, ts_ms=START_MS + HOUR_MS // 2, source="other")
    assert len(features([*BARS, daily])) == len(BARS) + 1


@pytest.mark.parametrize("odd", [
    {"low": 100.5}, {"high": 100.0, "low": 101.0}, {"open": 102.0}, {"close": 98.0}, {"ts_ms": START_MS + 1},
    {"open_time_ms": START_MS + 1, "ts_ms": START_MS + 1 + HOUR_MS}, {"taker_buy_volume": 11.0},
    {"high": 1e13}, {"low": 1e-13}, {"volume": 1e19}, {"high": math.nan}, {"volume": math.nan},
    {"interval_ms": 7 * 24 * HOUR_MS, "open_time_ms": 0, "ts_ms": 7 * 24 * HOUR_MS},
])
def test_bars_that_contradict_themselves_are_refused(odd: dict[str, Any]) -> None:
    assert refusal([], candle(0, 100, 101, 99, 100, **odd)) == "BAD_CANDLE"


def test_weekly_bars_open_on_mondays() -> None:
    week = 7 * 24 * HOUR_MS
    monday = 4 * 24 * HOUR_MS + 2800 * week  # 2023-09-04
    bar = candle(0, 100, 101, 99, 100, interval_ms=week, open_time_ms=monday, ts_ms=monday + week)
    assert len(features([bar])) == 1


def test_intervals_do_not_touch_each_other_and_are_few() -> None:
    half = [msgspec.structs.replace(b, interval_ms=HOUR_MS // 2, ts_ms=b.open_time_ms + HOUR_MS // 2) for b in BARS]
    both = features(sorted(BARS + half, key=lambda b: b.ts_ms))
    assert [r for r in both if r.interval_ms == HOUR_MS] == features(BARS)
    many = [candle(0, 100, 101, 99, 100, interval_ms=n * 1000, open_time_ms=0, ts_ms=n * 1000) for n in range(1, 10)]
    assert refusal(many[:8], many[8]) == "TOO_MANY_INTERVALS"


@pytest.mark.parametrize(("missing", "starts_anew"), [(1, False), (12, False), (95, False), (96, False), (97, True)])
def test_short_gaps_carry_on_and_long_ones_start_anew(missing: int, starts_anew: bool) -> None:
    after = [msgspec.structs.replace(b, open_time_ms=b.open_time_ms + missing * HOUR_MS,
                                     ts_ms=b.ts_ms + missing * HOUR_MS) for b in BARS[240:]]
    whole, rows = features(BARS), features([*BARS[:240], *after])
    same = [f for f in FeaturesEvent.__struct_fields__ if f not in ("ts_ms", "open_time_ms")]
    if not starts_anew:
        assert [[getattr(r, f) for f in same] for r in rows] == [[getattr(r, f) for f in same] for r in whole]
        return
    fresh = features(BARS[240:])
    same.remove("bar_count")
    assert [[getattr(r, f) for f in same] for r in rows[240:]] == [[getattr(r, f) for f in same] for r in fresh]
    assert [r.bar_count for r in rows] == list(range(1, 301))
    assert not any(r.ready for r in rows[240:])


def test_origin_of_mixed_bars() -> None:
    def last(*origins: str) -> str:
        return features([msgspec.structs.replace(b, origin=o) for b, o in zip(BARS, origins, strict=False)])[-1].origin

    assert last("CHECKED", "CHECKED") == "CHECKED"
    assert last("CHECKED", "CLAIMED", "CHECKED") == "MIXED"
    assert last("CHECKED", "SYNTHETIC", "CHECKED") == "SYNTHETIC"


def test_state_stays_small() -> None:
    agent = Features()
    state: FeaturesState = agent.new("AAA")
    sizes = []
    for bar in random_walk(1200, 4):
        state, _ = agent.step(state, bar)
        sizes.append(len(Codec().encode_state(state)) if bar.open_time_ms % (100 * HOUR_MS) == 0 else 0)
    large = [s for s in sizes if s]
    assert max(large) < 2500
    assert all(b - a < 10 for a, b in pairwise(large[3:]))


def test_configuration_is_validated() -> None:
    with pytest.raises(ValueError, match="threshold"):
        FeaturesConfig(volatile_enter=1.0, volatile_exit=1.2)
    with pytest.raises(msgspec.ValidationError, match="unknown"):
        msgspec.convert({"volatile_entry": 1.0}, FeaturesConfig)
