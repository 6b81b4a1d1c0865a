"""The candles, read once: their labels, where each stands, and what prices alone can tell."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from math import log, sqrt

from schemas.events import Candle
from streams.log import Record
from streams.verify.evidence import Evidence
from streams.verify.view import Spot

FEED = "market.candles"
WALK_BARS = 1000
"""Fewest returns at which a series is held against a Gaussian walk: hourly and daily candles of real markets have fat
tails (kurtosis well above 3; Cont 2001, Empirical properties of asset returns), and 1,000 are enough to see them."""
WALK_BARS_KEPT = 5000  # of each symbol, the first that came
LIMIT = 3.0  # standard errors


@dataclass
class Market:
    """What the candles of a symbol are labelled, their first closes by interval, and the newest by event time."""

    sources: set[str] = field(default_factory=set)
    origins: set[str] = field(default_factory=set)
    closes: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    last: Record | None = None
    newest: tuple[Record, Candle] | None = None


class Candles:
    """All candles of the log.

    Args:
        evidence: the log.

    Attributes:
        markets: by symbol.
        wrong: the first candle that contradicts itself or an earlier one, with the sentence; None where none does.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.markets: dict[str, Market] = defaultdict(Market)
        self.wrong: tuple[str, Record] | None = None
        self._at: dict[tuple[str, int, int], tuple[int, int, bytes]] = {}
        for record, c in evidence.stream(FEED):
            if isinstance(c, Candle):
                self._take(record, c)

    def _take(self, record: Record, c: Candle) -> None:
        market = self.markets[c.symbol]
        market.sources.add(c.source)
        market.origins.add(c.origin)
        market.last = record
        if market.newest is None or c.ts_ms >= market.newest[1].ts_ms:
            market.newest = (record, c)
        numbers = _numbers(c)
        first = self._at.setdefault((c.symbol, c.interval_ms, c.open_time_ms),
                                    (record.partition, record.offset, numbers))
        if first[:2] == (record.partition, record.offset):
            closes = market.closes[c.interval_ms]
            if len(closes) < WALK_BARS_KEPT:
                closes.append(c.close)
        if self.wrong is not None:
            return
        if c.source.startswith("synthetic:") != (c.origin == "SYNTHETIC"):
            self.wrong = f"a candle contradicts itself: source {c.source} with origin {c.origin}", record
        elif first[2] != numbers:
            self.wrong = (f"the bar of {c.symbol} at {c.open_time_ms} is on the log twice, with different numbers; the "
                          f"first is {FEED}-{first[0]}@{first[1]}"), record

    def spots(self, symbol: str, *times_ms: int) -> list[Spot]:
        """Where the bars of a symbol stand that open or close at one of these times."""
        market = self.markets.get(symbol)
        found = []
        for interval_ms in () if market is None else market.closes:
            for ms in times_ms:
                for open_ms in (ms, ms - interval_ms):
                    at = self._at.get((symbol, interval_ms, open_ms))
                    if at is not None:
                        found.append((FEED, at[0], at[1]))
        return found

    def walks(self) -> tuple[str, Record | None] | None:
        """A market with a real label that moves like none, with the sentence; None where there is none."""
        for symbol, market in sorted(self.markets.items()):
            if "SYNTHETIC" in market.origins:
                continue
            for closes in market.closes.values():
                signs = gaussian_walk(closes)
                if signs is not None:
                    return (f"{symbol} is labelled {', '.join(sorted(market.sources))}, but moves like no market: "
                            f"{signs}"), market.last
        return None


def _numbers(c: Candle) -> bytes:
    """Digest of what a bar says, labels left out."""
    said = (c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trades, c.taker_buy_volume)
    return blake2b(repr(said).encode(), digest_size=8).digest()


def gaussian_walk(closes: list[float]) -> str | None:
    """Whether closes look like a walk with independent normal steps; the signs that say so, None where they do not.

    Both must hold: no fat tails (excess kurtosis within three standard errors of 0) and no clusters of volatility (no
    correlation of neighbouring absolute returns beyond three). A walk with fat tails, clusters, or a copy of real
    candles is not seen.
    """
    returns = [log(b / a) for a, b in pairwise(closes)]
    n = len(returns)
    if n < WALK_BARS:
        return None
    mean = sum(returns) / n
    variance = sum((x - mean) ** 2 for x in returns) / n
    if variance == 0.0:
        return "its price never moves"
    kurtosis = sum((x - mean) ** 4 for x in returns) / n / variance**2
    if abs(kurtosis - 3.0) > LIMIT * sqrt(24 / n):
        return None
    sizes = [abs(x - mean) for x in returns]
    middle = sum(sizes) / n
    spread = sum((x - middle) ** 2 for x in sizes)
    together = sum((a - middle) * (b - middle) for a, b in pairwise(sizes)) / spread
    if abs(together) > LIMIT / sqrt(n):
        return None
    return f"{n} independent normal steps (kurtosis {kurtosis:.2f}, volatility clusters {together:+.3f})"
