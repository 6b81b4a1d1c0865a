"""ORIGIN of what makes candles: each that it wrote carries the label of the trades that it was made of."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from schemas.catalogue import AgentIO
from schemas.events import Candle, MarketTrade
from streams.log import Record
from streams.records import CE_ID, header, output_id
from streams.verify.cells import Cell, cell
from streams.verify.evidence import Evidence

CANDLES = "market.candles"
TICKS = "market.trades"
Bar = tuple[str, int, int]
"""Symbol, interval in ms, opening time in ms."""


class Labels(NamedTuple):
    """Sources and origins of the trades of a bar, and the last of them."""

    sources: set[str]
    origins: set[str]
    last: Record


def ticked(evidence: Evidence, io: AgentIO) -> Cell:
    """The cell ORIGIN of an agent that makes candles of trades."""
    if not any(evidence.log.bounds(TICKS, p)[1] for p in evidence.topics.get(TICKS, ())):
        return cell("IDLE", f"nothing was ever written to {TICKS}, so no candle that could come of it")
    made = list(_made(evidence, io))
    if not made:
        return cell("NOT PROVEN", f"no candle of its own on {CANDLES}")
    of_bar = _labels(evidence, [c for _, c in made])
    shown: list[list[Record | None]] = []
    lost = 0
    for record, candle in made:
        labels = of_bar.get(_bar(candle))
        if labels is None:
            if any(evidence.log.bounds(TICKS, p)[0] for p in evidence.topics.get(TICKS, ())):
                lost += 1
                continue
            return cell("FAIL", f"the bar of {candle.symbol} at {candle.open_time_ms} has no trade on {TICKS}", record,
                        evidence.now_ms)
        bad = _beyond(candle, labels)
        if bad is not None:
            return cell("FAIL", bad, record, evidence.now_ms).showing([labels.last])
        shown.append([record, labels.last])
    if lost == len(made):
        return cell("EXPIRED", f"the trades of all its {lost} candles are deleted", made[-1][0], evidence.now_ms)
    said = ", ".join(sorted({f"{s} {o}" for x in of_bar.values() for s in x.sources for o in x.origins}))
    why = f"{len(made) - lost} candles carry the labels of their trades ({said})"
    if any("CLAIMED" in x.origins for x in of_bar.values()):
        why += "; CLAIMED is the producer's word"
    if lost:
        why += f"; {lost} more have lost their trades"
    return cell("PASS", why, made[-1][0], evidence.now_ms, records=len(made)).showing_each(shown[-4:])


def _made(evidence: Evidence, io: AgentIO) -> Iterator[tuple[Record, Candle]]:
    """Candles that bear the agent's name."""
    for record in evidence.records(CANDLES):
        written = output_id(header(record.headers, CE_ID))
        if written is not None and written[0] == io.name and evidence.covers(record):
            event = evidence.decoded(record)
            if isinstance(event, Candle):
                yield record, event


def _bar(candle: Candle) -> Bar:
    return candle.symbol, candle.interval_ms, candle.open_time_ms


def _labels(evidence: Evidence, made: list[Candle]) -> dict[Bar, Labels]:
    """Labels of the trades of each candle."""
    opens: dict[tuple[str, int], list[int]] = defaultdict(list)
    for candle in made:
        opens[candle.symbol, candle.interval_ms].append(candle.open_time_ms)
    for times in opens.values():
        times.sort()
    found: dict[Bar, Labels] = {}
    for record, event in evidence.stream(TICKS):
        if not isinstance(event, MarketTrade):
            continue
        for (symbol, interval_ms), times in opens.items():
            if symbol != event.symbol:
                continue
            i = bisect_right(times, event.ts_ms) - 1
            if i >= 0 and event.ts_ms < times[i] + interval_ms:
                bar = symbol, interval_ms, times[i]
                sources, origins, _ = found.get(bar, (set(), set(), record))
                found[bar] = Labels(sources | {event.source}, origins | {event.origin}, record)
    return found


def _beyond(candle: Candle, labels: Labels) -> str | None:
    """How a label goes beyond the trades; None where it does not. A trade that was refused may be among them."""
    what = f"the candle of {candle.symbol} at {candle.open_time_ms}"
    if candle.source not in labels.sources:
        return f"{what} says source {candle.source}, but its trades come from {', '.join(sorted(labels.sources))}"
    several = {"MIXED", "SYNTHETIC"} if len(labels.origins) > 1 else set()
    if candle.origin not in labels.origins | several:
        return f"{what} says {candle.origin}, but its trades are {', '.join(sorted(labels.origins))}"
    return None
