"""The made markets of `agents.algorithms.market` as candles, with the costs that its edge is calibrated for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from agents.algorithms import market
from streams.ingest.files import BadInput, interval_ms_of
from streams.ingest.merge import EVENT_COLUMNS, Loaded, SeriesReport
from streams.ingest.publish import Costs

WEEK_MS = 604_800_000
MONDAY_MS = 345_600_000  # the epoch was a Thursday
START_MS = 1_704_067_200_000  # 2024-01-01
SEEDS_APART = 1_000_003  # symbols of one seed get markets of their own


def planted_costs(**changes: Any) -> Costs:
    """Costs that the edge is calibrated for; no volume cap, since the volume is decoration."""
    fixed = {"fee_bps": market.FEE_BPS, "half_spread_bps": market.HALF_SPREAD_BPS,
             "slippage_bps": market.SLIPPAGE_BPS, "days_per_year": 365}
    return Costs(**fixed | changes)


def synthetic_market(
    seed: int, symbols: Sequence[str], bars: int, *, interval: str = "1h", start_ms: int = START_MS,
    params: market.Params | Sequence[market.Params] = market.PLANTED, **costs: Any,
) -> tuple[Loaded, Costs]:
    """Candles of made markets, and what the instruments cost.

    Args:
        seed: of all markets; the source is `synthetic:<seed>`.
        symbols: names; what a symbol is called changes nothing in its bars but which market it gets.
        bars: of each symbol.
        interval: length of a bar.
        start_ms: opening of the first bar, brought down to the interval's grid.
        params: what the markets are made of; a sequence has one for each symbol.
        costs: fields of `Costs` that differ from the calibrated ones.

    Raises:
        BadInput: no symbol, the same one twice, an interval that is none, or not one `params` for each symbol.
    """
    if not symbols or len(set(symbols)) != len(symbols):
        raise BadInput(f"symbols must be one or more different names, not {list(symbols)}")
    interval_ms = interval_ms_of(interval)
    each = [params] * len(symbols) if isinstance(params, market.Params) else list(params)
    if len(each) != len(symbols):
        raise BadInput(f"{len(symbols)} symbols and {len(each)} markets")
    start_ms -= (start_ms - (MONDAY_MS if interval_ms % WEEK_MS == 0 else 0)) % interval_ms
    frames = [made_candles(market.generate(seed * SEEDS_APART + i, bars, made_of), symbol, interval_ms, start_ms, seed)
              for i, (symbol, made_of) in enumerate(zip(symbols, each, strict=True))]
    frame = pl.concat(frames).sort("ts_ms", "symbol", maintain_order=True)
    reports = tuple(
        SeriesReport(
            symbol=symbol, interval_ms=interval_ms, files=(), source=f"synthetic:{seed}", origin="SYNTHETIC",
            first_open_ms=start_ms, last_close_ms=start_ms + bars * interval_ms, rows=bars, candles=bars,
            duplicates=0, disordered=0, gaps=0, missing=0, largest_gap=0, insane=0, first_insane=None, off_grid=0,
        )
        for symbol in symbols
    )
    return Loaded(frame=frame, series=reports, symbols=tuple(sorted(symbols))), planted_costs(**costs)


def made_candles(made: market.Market, symbol: str, interval_ms: int, start_ms: int, seed: int) -> pl.DataFrame:
    """The bars of a made market as candles, columns as `Candle` has them [bars, columns].

    Args:
        seed: stands in the source, `synthetic:<seed>`.
    """
    bars = len(made.close)
    opens = pl.int_range(0, bars, dtype=pl.Int64, eager=True) * interval_ms + start_ms
    frame = pl.DataFrame({
        "open_time_ms": opens, "open": made.open, "high": made.high, "low": made.low, "close": made.close,
        "volume": made.volume,
    })
    return frame.with_columns(
        symbol=pl.lit(symbol), interval_ms=pl.lit(interval_ms, pl.Int64), ts_ms=pl.col("open_time_ms") + interval_ms,
        quote_volume=pl.col("volume") * pl.col("close"), trades=pl.lit(None, pl.Int64),
        taker_buy_volume=pl.lit(None, pl.Float64), source=pl.lit(f"synthetic:{seed}"), origin=pl.lit("SYNTHETIC"),
    ).select(EVENT_COLUMNS)
