"""The trades, and what any part of them comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import confluent_kafka as ck
import numpy as np

from benchmarks.engines.task import PARTITIONS, SYMBOLS, WINDOW_MS, Windows
from schemas.codec import Codec
from schemas.events import MarketTrade
from streams.settings import Settings
from streams.transport.logs import LIBRDKAFKA
from streams.transport.murmur2 import partition_of

START_MS = 1_700_000_000_000 // WINDOW_MS * WINDOW_MS
IN_A_WINDOW = 250  # trades of a symbol, in the mean
NAMES = tuple(f"SYM{i:03d}USDT" for i in range(SYMBOLS))


@dataclass(frozen=True)
class Trades:
    """Trades in order: [N] symbol's index, event time, price, quantity; [symbols] partition of each."""

    symbol_N: np.ndarray
    ts_ms_N: np.ndarray
    price_N: np.ndarray
    quantity_N: np.ndarray
    partition_of_symbol: np.ndarray

    @classmethod
    def drawn(cls, count: int, seed: int = 1) -> Trades:
        """So many; prices are multiples of 1/8, quantities of 1/64, so that sums are exact in any order."""
        rng = np.random.default_rng(seed)
        step_ms = WINDOW_MS / (IN_A_WINDOW * SYMBOLS)
        return cls(
            rng.integers(0, SYMBOLS, count), START_MS + (np.arange(count) * step_ms).astype(np.int64),
            rng.integers(8_000, 800_000, count) / 8, rng.integers(1, 6_400, count) / 64,
            np.array([partition_of(name.encode(), PARTITIONS) for name in NAMES]),
        )

    def events(self) -> Iterator[MarketTrade]:
        """As events; each symbol's trades are numbered without gaps."""
        numbers = [0] * SYMBOLS
        for i, (symbol, ts_ms, price, quantity) in enumerate(zip(
                self.symbol_N.tolist(), self.ts_ms_N.tolist(), self.price_N.tolist(), self.quantity_N.tolist(),
                strict=True)):
            numbers[symbol] += 1
            yield MarketTrade(symbol=NAMES[symbol], trade_id=numbers[symbol], ts_ms=ts_ms, price=price,
                              quantity=quantity, taker_side="BUY" if i & 1 else "SELL", source="synthetic:1",
                              origin="SYNTHETIC")

    def publish(self, settings: Settings) -> None:
        """Write them as a feed of ours does, but uncompressed: aiokafka reads lz4 only with another package."""
        codec = Codec()
        producer = ck.Producer({**settings.producer(), "compression.type": "none", "linger.ms": 50,
                                "queue.buffering.max.messages": 500_000}, logger=LIBRDKAFKA)
        for trade in self.events():
            value, key = codec.encode("market.trades", trade), trade.symbol.encode()
            while True:
                try:
                    producer.produce(settings.topic("market.trades"), value, key)
                    break
                except BufferError:
                    producer.poll(0.05)
        if producer.flush(60):
            raise SystemExit("the trades could not be written within a minute")

    def windows(self, taken: Mapping[int, int], closed: bool) -> Windows:
        """What the first `taken` records of each partition come to.

        Args:
            taken: records by partition.
            closed: leave out each symbol's newest window.
        """
        part_N = self.partition_of_symbol[self.symbol_N]
        kept = np.zeros(len(part_N), bool)
        for partition, count in taken.items():
            kept[np.flatnonzero(part_N == partition)[:count]] = True
        symbol, window = self.symbol_N[kept], self.ts_ms_N[kept] // WINDOW_MS
        group, inverse = np.unique(symbol * 2**40 + window, return_inverse=True)
        last = np.empty(len(group))
        last[inverse] = self.price_N[kept]  # the last of equal indices stays
        rows = zip((group >> 40).tolist(), (group & (2**40 - 1)).tolist(), np.bincount(inverse).tolist(),
                   np.bincount(inverse, self.quantity_N[kept]).tolist(), last.tolist(), strict=True)
        found: Windows = {(NAMES[s], w): [n, total, price] for s, w, n, total, price in rows}
        if closed:
            newest = dict(sorted(found))
            found = {key: value for key, value in found.items() if newest[key[0]] != key[1]}
        return found
