"""ORIGIN: whose data it is, along the chain from candle to policy, and what of it can be computed again.

`source` is a label and `origin` says how far it is proved. What touched one synthetic record is synthetic, so no record
downstream may claim more than its candles. A CLAIMED label is the producer's word, and the cell says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from schemas.catalogue import GLOBAL, AgentIO
from schemas.events import Candle, Decision, Experience, Orphan, Tick, TradeClosed
from streams.log import Record
from streams.records import ERROR, header
from streams.verify.candles import FEED, Candles
from streams.verify.cells import Cell, cell
from streams.verify.evidence import Evidence
from streams.verify.labels import Labels
from streams.verify.paper import PAPER
from streams.verify.shown import Drawn, drawn, partner_of
from streams.verify.ticked import ticked
from streams.verify.trades import bars_of, costs_of, wrong
from streams.verify.view import Spot

TRADES = "execution.trade.closed"
REWARDS = "learning.experience"
LATER = 5
"""Later trades of a book that became experience, from which on an earlier one must have: a trade may wait for a
decision that is copied late."""
SHOWN = 12  # outputs that a cell shows, each with up to four records that it is held against


class Origins:
    """Reads the clock and the candles once, then judges every agent.

    Args:
        evidence: the log.
        sample_seed: draws the records that are shown.

    Attributes:
        clocks: newest tick by symbol; under None that of the clock of all.
    """

    def __init__(self, evidence: Evidence, sample_seed: int = 0) -> None:
        self._evidence = evidence
        self.clocks: dict[str | None, int] = {}
        for _, tick in evidence.stream("system.clock"):  # before the candles: a bar's tick comes behind it
            if isinstance(tick, Tick):
                self.clocks[tick.symbol] = max(self.clocks.get(tick.symbol, 0), tick.ts_ms)
        self._candles = Candles(evidence)
        self._markets = self._candles.markets
        self._seed = sample_seed

    @property
    def newest(self) -> dict[str, tuple[Record, Candle]]:
        """The newest candle of each symbol."""
        return {symbol: m.newest for symbol, m in self._markets.items() if m.newest is not None}

    def judge(self, io: AgentIO) -> Cell:
        """The cell ORIGIN of an agent."""
        if FEED in io.writes:
            return ticked(self._evidence, io)
        sample = Drawn(SHOWN, Random(f"{self._seed}/{io.name}/origin"))
        found = self._judged(io, sample)
        return found.showing_each(self._shown(io, found, sample))

    def _judged(self, io: AgentIO, sample: Drawn) -> Cell:
        evidence, n, last = self._evidence, 0, None
        if not self._markets:
            return cell("IDLE", "no candles, so nothing that could come of them")
        if FEED in io.reads:
            wrong = self._candles.wrong or self._candles.walks()
            if wrong is not None:
                return cell("FAIL", *wrong, evidence.now_ms)
        for topic in io.writes:
            labels = Labels(topic)
            for record in evidence.records(topic):
                if not evidence.covers(record):
                    continue
                if not labels.known(record):
                    event: Any = evidence.decoded(record)
                    if not hasattr(event, "origin") or isinstance(event, Orphan):
                        continue  # an orphan may be of a symbol that nobody has candles of; nothing is learned from it
                    why = self._mismatch(event)
                    if why is not None:
                        sample.first(record)
                        return cell("FAIL", why, record, evidence.now_ms)
                    labels.learn(record, event)
                sample.take(record)
                n, last = n + 1, later(last, record)
        if last is None:
            return cell("NOT PROVEN", f"nothing written to {', '.join(io.writes)}")
        return self._more(io, n, last)

    def _shown(self, io: AgentIO, found: Cell, sample: Drawn) -> Iterator[list[Record | None]]:
        """Drawn outputs, or trades and rewards where the agent writes them, each with what it is held against."""
        evidence, first = self._evidence, {r.place for r in found.records}
        rows: list[tuple[Record, Any]] = [(r, e) for r in sample.kept for e in [evidence.decoded(r)] if e is not None]
        if TRADES in io.writes or REWARDS in io.writes:
            topic = TRADES if TRADES in io.writes else REWARDS
            every = [(r, e) for r, e in evidence.events(topic) if evidence.covers(r)]
            rows = [x for x in every if x[0].place in first] + drawn(every, SHOWN, sample.random)
        against = partner_of(evidence, io)
        found_at = evidence.fetch({spot for _, e in rows for spot in self._bars(e)})
        for record, event in rows:
            yield [record, against.get(getattr(event, "decision_id", None)),
                   *(found_at.get(spot) for spot in self._bars(event))]

    def _bars(self, event: Any) -> list[Spot]:
        symbol = getattr(event, "scope", None) or getattr(event, "symbol", None) or ""
        times = (event.opened_ms, event.ts_ms) if isinstance(event, TradeClosed) else (event.ts_ms,)
        return self._candles.spots(symbol, *times)[:4]

    def _mismatch(self, event: Any) -> str | None:
        """How an event's label goes beyond its candles; None where it does not."""
        symbol = getattr(event, "scope", None) or getattr(event, "symbol", None)
        if symbol == GLOBAL:
            return self._beyond_all(event)
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

    def _beyond_all(self, event: Any) -> str | None:
        """How the label of what spans symbols goes beyond all candles together; None where it does not."""
        origins = {o for m in self._markets.values() for o in m.origins}
        sources = {s for m in self._markets.values() for s in m.sources}
        what = f"{type(event).__name__} of {GLOBAL}"
        if origins == {"SYNTHETIC"} and event.origin != "SYNTHETIC":
            return f"{what} says {event.origin}, but all its candles are synthetic"
        if event.origin not in origins and not (event.origin == "MIXED" and len(origins - {"SYNTHETIC"}) > 1):
            return f"{what} says {event.origin}, but the candles are {', '.join(sorted(origins))}"
        if event.origin in ("CHECKED", "CLAIMED") and not set(event.source.split("+")) & sources:
            return f"{what} says source {event.source}, but the candles come from {', '.join(sorted(sources))}"
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
        bars = bars_of(evidence, (e for _, e in rows), decisions)
        costs = {symbol: costs_of(evidence, symbol) for symbol in {e.symbol for _, e in rows}}
        ids: dict[str, TradeClosed] = {}
        of_decision: dict[str, str] = {}
        expired = 0
        for record, trade in rows:
            if ids.setdefault(trade.trade_id, trade) != trade:
                return cell("FAIL", f"trade {trade.trade_id} is on the log twice, with different numbers", record,
                            evidence.now_ms)
            bad = wrong(trade, decisions.get(trade.decision_id or ""), bars, costs[trade.symbol])
            first = of_decision.setdefault(trade.decision_id or trade.trade_id, trade.trade_id)
            if bad is None and first != trade.trade_id:
                bad = f"{trade.decision_id} was traded before, as {first}"
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
        rewards = [(r, e) for r, e in evidence.events(REWARDS) if isinstance(e, Experience)]  # before their trades
        trades = {e.trade_id: (r, e) for r, e in evidence.events(TRADES) if isinstance(e, TradeClosed)}
        seen: set[str] = set()
        for record, e in rewards:
            if not evidence.covers(record):
                continue
            found = trades.get(e.trade_id or "")
            bad = "it is the second of its decision" if e.decision_id in seen else unearned(e, found and found[1])
            seen.add(e.decision_id)
            if bad is not None:
                return cell("FAIL", f"experience of {e.decision_id}: {bad}", record, evidence.now_ms)
        return self._unlearned(rewards, list(trades.values()))

    def _unlearned(self, rewards: list[tuple[Record, Experience]],
                   trades: list[tuple[Record, TradeClosed]]) -> Cell | None:
        """A trade that became neither experience nor orphan nor dead letter, although later ones of its book did."""
        evidence = self._evidence
        known = {e.trade_id for _, e in rewards} | {
            e.trade_id for _, e in evidence.events("learning.orphan") if isinstance(e, Orphan)}
        refused = {(header(r.headers, f"{ERROR}partition"), header(r.headers, f"{ERROR}offset"))
                   for r in evidence.records(f"{TRADES}.dlq")}
        told: dict[tuple[str, str | None], list[int]] = {}
        for _, e in rewards:
            if e.status == "TRADED":
                told.setdefault((e.symbol, e.book_id), []).append(e.ts_ms)
        for record, t in trades:
            after = sum(ms > t.ts_ms for ms in told.get((t.symbol, t.book_id), ())) if t.trade_id not in known else 0
            if after >= LATER and (str(record.partition), str(record.offset)) not in refused:
                return cell("FAIL", f"trade {t.trade_id} made {t.r_multiple:g} R and became neither experience nor "
                                    f"orphan, while {after} later ones did", record, evidence.now_ms)
        return None


def later(a: Record | None, b: Record) -> Record:
    """The record that was appended last."""
    return b if a is None or (b.timestamp_ms or 0) >= (a.timestamp_ms or 0) else a


def unearned(e: Experience, trade: TradeClosed | None) -> str | None:
    """How a reward differs from what was earned; None where it does not."""
    if e.status == "TRADED" and trade is None:
        return f"its trade {e.trade_id} is not on the log"
    if trade is not None and e.status == "TRADED" and (
            (e.reward_r, e.pnl_usd, e.decision_id) != (trade.r_multiple, trade.pnl_usd, trade.decision_id)):
        return f"reward {e.reward_r:g} R, but its trade made {trade.r_multiple:g} R"
    if e.status != "TRADED" and (e.reward_r or e.pnl_usd):
        return f"{e.status}, but with a reward of {e.reward_r:g} R"
    return None
