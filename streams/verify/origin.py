"""ORIGIN: whose data it is, along the chain from candle to policy, and what of it can be computed again.

`source` is a label and `origin` says how far it is proved. What touched one synthetic record is synthetic, so no record
downstream may claim more than its candles. A CLAIMED label is the producer's word, and the cell says so.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from math import log, sqrt
from typing import Any

from schemas.catalogue import AgentIO
from schemas.events import Candle, Decision, Experience, Orphan, Tick, TradeClosed
from streams.log import Record
from streams.verify.cells import Cell, cell
from streams.verify.evidence import Evidence
from streams.verify.trades import PAPER, bars_of, wrong

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


class Origins:
    """Reads the clock and the candles once, then judges every agent.

    Args:
        evidence: the log.

    Attributes:
        clocks: newest tick by symbol; under None that of the clock of all.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._markets: dict[str, Market] = defaultdict(Market)
        self._mislabelled: tuple[str, Record] | None = None
        self.clocks: dict[str | None, int] = {}
        for _, tick in evidence.stream("system.clock"):  # before the candles: a bar's tick comes behind it
            if isinstance(tick, Tick):
                self.clocks[tick.symbol] = max(self.clocks.get(tick.symbol, 0), tick.ts_ms)
        for record, c in evidence.stream("market.candles"):
            if isinstance(c, Candle):
                self._take(record, c)

    def _take(self, record: Record, c: Candle) -> None:
        market = self._markets[c.symbol]
        market.sources.add(c.source)
        market.origins.add(c.origin)
        market.last = record
        if market.newest is None or c.ts_ms >= market.newest[1].ts_ms:
            market.newest = (record, c)
        closes = market.closes[c.interval_ms]
        if len(closes) < WALK_BARS_KEPT:
            closes.append(c.close)
        if c.source.startswith("synthetic:") != (c.origin == "SYNTHETIC") and self._mislabelled is None:
            self._mislabelled = (f"source {c.source} with origin {c.origin}", record)

    @property
    def newest(self) -> dict[str, tuple[Record, Candle]]:
        """The newest candle of each symbol."""
        return {symbol: m.newest for symbol, m in self._markets.items() if m.newest is not None}

    def judge(self, io: AgentIO) -> Cell:
        """The cell ORIGIN of an agent."""
        evidence, n, last = self._evidence, 0, None
        if not self._markets:
            return cell("IDLE", "no candles, so nothing that could come of them")
        if "market.candles" in io.reads:
            found = self._of_candles()
            if found is not None:
                return found
        for topic in io.writes:
            for record, event in evidence.stream(topic):
                if not evidence.covers(record) or not hasattr(event, "origin") or isinstance(event, Orphan):
                    continue  # an orphan may be of a symbol that nobody has candles of; nothing is learned from it
                why = self._mismatch(event)
                if why is not None:
                    return cell("FAIL", why, record, evidence.now_ms)
                n, last = n + 1, later(last, record)
        if last is None:
            return cell("NOT PROVEN", f"nothing written to {', '.join(io.writes)}")
        return self._more(io, n, last)

    def _of_candles(self) -> Cell | None:
        """What speaks against the labels of the candles themselves; None where nothing does."""
        now_ms = self._evidence.now_ms
        if self._mislabelled is not None:
            why, record = self._mislabelled
            return cell("FAIL", f"a candle contradicts itself: {why}", record, now_ms)
        for symbol, market in sorted(self._markets.items()):
            if "SYNTHETIC" in market.origins:
                continue
            for closes in market.closes.values():
                signs = gaussian_walk(closes)
                if signs is not None:
                    return cell("FAIL", f"{symbol} is labelled {', '.join(sorted(market.sources))}, but moves like no "
                                        f"market: {signs}", market.last, now_ms)
        return None

    def _mismatch(self, event: Any) -> str | None:
        """How an event's label goes beyond its candles; None where it does not."""
        symbol = getattr(event, "scope", None) or getattr(event, "symbol", None)
        market = self._markets.get(symbol) if symbol is not None else None
        what = f"{type(event).__name__} of {symbol}"
        if market is None:
            return None if self._deleted("market.candles") else f"{what}, of which there is no candle"
        made = {s for s in market.sources if s.startswith("synthetic:")}
        if market.origins == {"SYNTHETIC"}:
            if event.origin != "SYNTHETIC":
                return f"{what} says {event.origin}, but all its candles are synthetic"
            if not made <= set(event.source.split("+")) and not event.source.startswith("synthetic:"):
                return f"{what} says source {event.source}, but its candles come from {', '.join(sorted(made))}"
            return None
        allowed = market.origins | ({"MIXED", "SYNTHETIC"} if len(market.origins) > 1 else {"MIXED"})
        if event.origin not in allowed:
            return f"{what} says {event.origin}, but its candles are {', '.join(sorted(market.origins))}"
        if event.origin in ("CHECKED", "CLAIMED") and not set(event.source.split("+")) & market.sources:
            return f"{what} says source {event.source}, but its candles come from {', '.join(sorted(market.sources))}"
        return None

    def _more(self, io: AgentIO, n: int, last: Record) -> Cell:
        """What can be computed again beyond the labels: trades, and the rewards that were made of them."""
        evidence = self._evidence
        said = ", ".join(sorted({f"{s} {o}" for m in self._markets.values() for s in m.sources for o in m.origins}))
        why = f"{n} records carry the labels of their candles ({said})"
        if any(o == "CLAIMED" for m in self._markets.values() for o in m.origins):
            why += "; CLAIMED is the producer's word"
        if "execution.trade.closed" in io.writes:
            return self._trades(why, n, last)
        if "learning.experience" in io.writes:
            found = self._rewards()
            if found is not None:
                return found
            why += "; every reward is that of its trade"
        return cell("PASS", why, last, evidence.now_ms, records=n)

    def _trades(self, why: str, n: int, last: Record) -> Cell:
        evidence = self._evidence
        rows = [(r, e) for r, e in evidence.events("execution.trade.closed")
                if isinstance(e, TradeClosed) and evidence.covers(r)]
        decisions = {e.decision_id: e for _, e in evidence.events("rl.meta.strategy_selected")
                     if isinstance(e, Decision)}
        bars = bars_of(evidence, (e for _, e in rows))
        ids: dict[str, TradeClosed] = {}
        expired = 0
        for record, trade in rows:
            if ids.setdefault(trade.trade_id, trade) != trade:
                return cell("FAIL", f"trade {trade.trade_id} is on the log twice, with different numbers", record,
                            evidence.now_ms)
            bad = wrong(trade, decisions.get(trade.decision_id or ""), bars)
            if bad is None:
                continue
            if ("no candle" in bad and self._deleted("market.candles")) or (
                    "not on the log" in bad and self._deleted("rl.meta.strategy_selected")):
                expired += 1
                continue
            return cell("FAIL", f"trade {trade.trade_id}: {bad}", record, evidence.now_ms, trades=len(ids))
        if expired and expired == len(ids):
            return cell("EXPIRED", f"candles or decisions of all {expired} trades are deleted", last, evidence.now_ms)
        paper = sum(t.execution.startswith(PAPER) for t in ids.values())
        why += f"; {len(ids) - expired} trades computed again ({paper} on paper)"
        if expired:
            why += f", {expired} more have lost their candles"
        return cell("PASS", why, last, evidence.now_ms, records=n, trades=len(ids), expired=expired)

    def _deleted(self, topic: str) -> bool:
        return any(self._evidence.log.bounds(topic, p)[0] > 0 for p in self._evidence.topics.get(topic, ()))

    def _rewards(self) -> Cell | None:
        evidence = self._evidence
        trades = {e.trade_id: e for _, e in evidence.events("execution.trade.closed") if isinstance(e, TradeClosed)}
        seen: set[str] = set()
        for record, e in evidence.events("learning.experience"):
            if not isinstance(e, Experience) or not evidence.covers(record):
                continue
            bad = None
            trade = trades.get(e.trade_id or "")
            if e.decision_id in seen:
                bad = "it is the second of its decision"
            elif e.status == "TRADED" and trade is None:
                bad = f"its trade {e.trade_id} is not on the log"
            elif e.status == "TRADED" and trade is not None and (
                    (e.reward_r, e.pnl_usd, e.decision_id) != (trade.r_multiple, trade.pnl_usd, trade.decision_id)):
                bad = f"reward {e.reward_r:g} R, but its trade made {trade.r_multiple:g} R"
            elif e.status != "TRADED" and (e.reward_r or e.pnl_usd):
                bad = f"{e.status}, but with a reward of {e.reward_r:g} R"
            seen.add(e.decision_id)
            if bad is not None:
                return cell("FAIL", f"experience of {e.decision_id}: {bad}", record, evidence.now_ms)
        return None


def later(a: Record | None, b: Record) -> Record:
    """The record that was appended last."""
    return b if a is None or (b.timestamp_ms or 0) >= (a.timestamp_ms or 0) else a


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
