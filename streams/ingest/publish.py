"""Publishes candles in order of event time, with what they cost before them and the clock after them.

For each distinct close time: its candles, then one tick. Instruments go first, once. Ids come from the content
(`candle:BTCUSDT/1h/<open>`), so a file that is published again brings the same ids again. Symbols with clocks of their
own (the controls, which run faster than time) get ticks that name them instead, the first before their candles.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import polars as pl
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.events import Candle, Event, Instrument, Tick
from streams.ingest.earlier import NOTHING, Earlier
from streams.ingest.files import interval_text
from streams.ingest.lead import TIMEOUT_S, Lead
from streams.ingest.merge import Loaded, Progress
from streams.log import NoBroker, NoTopic
from streams.records import encode_event
from streams.subjects import codec_for
from streams.transport.logs import LIBRDKAFKA

if TYPE_CHECKING:
    from streams.settings import Settings

SATURDAY = 6  # polars counts Monday as 1
VOLUME_CAP = 0.1
DEFAULT_LEAD = 24
OWN_TICK_BARS = 24  # a symbol's own clock ticks after so many bars: it tells how old the newest candle is
FLUSH_S = 60.0
_NEEDED = ("market.instruments", "market.candles", "system.clock")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the instruments cost; None: as the data suggest.

    Attributes:
        fee_bps, half_spread_bps, slippage_bps: of each fill. Defaults: 5 is Binance's taker fee on perpetuals; half a
            basis point of spread and one of slippage hold for its largest pairs.
        days_per_year: None: 365 where there is a bar on a Saturday, else 252.
        volume_cap: largest share of a bar's volume a fill may take; None: .1 for markets open every day, no cap for
            others (the volume of currencies is that of one bank) and where there is no volume.
    """

    fee_bps: float = 5.0
    half_spread_bps: float = 0.5
    slippage_bps: float = 1.0
    days_per_year: int | None = None
    volume_cap: float | None = None


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was published and acknowledged.

    Attributes:
        run_id: stands in the clock's writer, `ingest:<run id>`.
        counts: records by topic.
        candles: candles by symbol.
        first_ts_ms, last_ts_ms: event times of the first and last candle; None without any.
        offsets: first and last offset by topic and partition.
        stopped: whether `stop` ended it early.
    """

    run_id: str
    counts: dict[str, int]
    candles: dict[str, int]
    first_ts_ms: int | None
    last_ts_ms: int | None
    offsets: dict[tuple[str, int], tuple[int, int]]
    seconds: float
    stopped: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        places = {f"{topic}-{p}": list(ends) for (topic, p), ends in sorted(self.offsets.items())}
        return asdict(self) | {"offsets": places}


def instruments(loaded: Loaded, costs: Costs) -> list[Instrument]:
    """One record a symbol, valid from its first bar on."""
    result = []
    for symbol in loaded.symbols:
        rows = loaded.frame.filter(pl.col("symbol") == symbol)
        weekdays = pl.from_epoch(rows["open_time_ms"], time_unit="ms").dt.weekday()
        every_day = bool((weekdays == SATURDAY).any())
        cap = costs.volume_cap
        if cap is None and every_day and rows["volume"].null_count() == 0:
            cap = VOLUME_CAP
        first = rows.row(0, named=True)
        result.append(Instrument(
            symbol=symbol, ts_ms=int(rows["open_time_ms"].min()),  # type: ignore[arg-type]
            days_per_year=costs.days_per_year or (365 if every_day else 252), fee_bps=costs.fee_bps,
            half_spread_bps=costs.half_spread_bps, slippage_bps=costs.slippage_bps, funding_bps=None,
            funding_interval_ms=None, volume_cap=cap, source=first["source"], origin=first["origin"],
        ))
    return result


def candle_id(candle: Candle) -> str:
    """Business id of a candle, made of its content.

    The bar's symbol, interval and open time name it; agents tell repeats from conflicts by the values.
    """
    return f"candle:{candle.symbol}/{interval_text(candle.interval_ms)}/{candle.open_time_ms}"


def publish(
    settings: Settings,
    loaded: Loaded,
    *,
    speed: float | None = None,
    lead: int | None = DEFAULT_LEAD,
    limit: int | None = None,
    costs: Costs | None = None,
    own_clocks: bool = False,
    outcomes: int | None = None,
    before: Earlier = NOTHING,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    pause: Callable[[float], None] = time.sleep,
    patience_s: float = TIMEOUT_S,
) -> Published:
    """Publish instruments, candles and ticks.

    Args:
        settings: broker and names.
        loaded: what to publish.
        speed: times real time; None: as fast as the lead allows.
        lead: bars of event time ahead of the slowest agent; None: do not wait for agents. With a speed there is none.
        limit: at most so many candles.
        costs: what the instruments cost.
        own_clocks: each symbol gets a clock of its own, and the clock of all is left alone.
        outcomes: a symbol's candles end once its learner has made so many updates; needs a lead.
        before: what an earlier run has published: left out here, its updates counted.
        progress: called with candles published and candles in all.
        stop: ends the run after the current close time.
        pause: sleeps; tests hand in their own.
        patience_s: time without progress of the agents after which this gives up.

    Raises:
        ValueError: `outcomes` without a lead.
        NoBroker: the broker cannot be reached, or did not acknowledge.
        NoTopic: a topic is missing.
        Stalled: the agents do not come along.
    """
    if outcomes is not None and (not lead or speed is not None):
        raise ValueError("outcomes are counted by the lead: one is needed, and no speed")
    run = Run(settings, outcomes, before)
    total = len(loaded) if limit is None else min(limit, len(loaded))
    began = time.monotonic()
    with ExitStack() as stack:
        run.lead = stack.enter_context(Lead(settings, lead, patience_s, run.codec)) if lead and speed is None else None
        new = [i for i in instruments(loaded, costs or Costs()) if i.symbol not in before.candles]
        _instruments(run, new, own_clocks)
        candles = (candle for candle in loaded.candles(limit) if not before.has(candle))
        stopped = _feed(run, candles, total, speed, own_clocks, progress, stop or threading.Event(), pause)
        run.flush()
    return Published(
        run_id=run.run_id, counts=dict(run.counts), candles=dict(run.candles), first_ts_ms=run.first_ts_ms,
        last_ts_ms=run.last_ts_ms, offsets=run.offsets, seconds=time.monotonic() - began,
        stopped=stopped,
    )


def _instruments(run: Run, new: list[Instrument], own_clocks: bool) -> None:
    """Publish instruments, each with the first tick of its own clock if it has one."""
    for instrument in new:
        run.send("market.instruments", instrument, f"instrument:{instrument.symbol}/{instrument.ts_ms}")
        if own_clocks:
            run.tick(instrument.ts_ms, instrument.symbol)
    run.flush()


def _feed(
    run: Run, candles: Iterator[Candle], total: int, speed: float | None, own_clocks: bool,
    progress: Progress | None, stop: threading.Event, pause: Callable[[float], None],
) -> bool:
    """Publish candles and ticks, paced; returns whether it was stopped."""
    wall, first_ms = time.monotonic(), None
    for ts_ms, group in groupby(candles, key=lambda candle: candle.ts_ms):
        first_ms = ts_ms if first_ms is None else first_ms
        while speed is not None and not stop.is_set():
            ahead = wall + (ts_ms - first_ms) / 1000 / speed - time.monotonic()
            if ahead <= 0:
                break
            pause(min(ahead, 0.2))
        for candle in group:
            if run.enough(candle.symbol):
                continue
            if not run.room_for(candle.symbol, stop):
                return True
            run.candle(candle)
            if own_clocks and ts_ms // candle.interval_ms % OWN_TICK_BARS == 0:
                run.tick(ts_ms, candle.symbol)
        if not own_clocks:
            run.tick(ts_ms)
        if progress is not None:
            progress(run.counts["market.candles"], total)
        if run.candles and all(map(run.enough, run.candles)):
            break
    return stop.is_set()


class Run:
    """One run's producer, and what it has sent.

    Args:
        settings: broker and names.
        outcomes: updates of its learner after which a symbol has had enough.
        before: what an earlier run has published.
        topics: what will be written to.

    Raises:
        NoBroker, NoTopic: the broker does not answer, or lacks one of the topics.
    """

    def __init__(self, settings: Settings, outcomes: int | None = None, before: Earlier = NOTHING,
                 topics: tuple[str, ...] = _NEEDED) -> None:
        self._outcomes = outcomes
        self._before = before
        self.run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:6]}"
        self.counts: Counter[str] = Counter()
        self.candles: Counter[str] = Counter()
        self.offsets: dict[tuple[str, int], tuple[int, int]] = {}
        self.first_ts_ms: int | None = None
        self.last_ts_ms: int | None = None
        self.lead: Lead | None = None
        self._settings = settings
        self.codec = codec_for(settings, writes=True)
        self._failed: KafkaError | None = None
        self._topics = {settings.topic(name): name for name in topics}
        self._producer = Producer({**settings.producer(), "linger.ms": 2}, logger=LIBRDKAFKA)
        self._look()

    def _look(self) -> None:
        try:
            there = self._producer.list_topics(timeout=10).topics
        except KafkaException as exc:
            raise NoBroker(f"no answer from the broker {self._settings.broker}: {exc.args[0].str()}") from exc
        missing = [name for name in self._topics if name not in there]
        if missing:
            raise NoTopic(f"the broker has no topic {', '.join(missing)}; run 'quantum topics apply'")

    def room_for(self, symbol: str, stop: threading.Event) -> bool:
        """Wait until the lead allows a candle of the symbol; False where the run was stopped meanwhile."""
        while not stop.is_set():
            if self.lead is None or self.lead.ready(symbol):
                return True
            self._producer.poll(0)
            self.lead.wait(0.01)
        return False

    def enough(self, symbol: str) -> bool:
        """Whether a symbol's learner has had as many outcomes as were asked for."""
        if self._outcomes is None or self.lead is None:
            return False
        return self.lead.learned(symbol) + self._before.updates.get(symbol, 0) >= self._outcomes

    def candle(self, candle: Candle) -> None:
        """Send a candle."""
        self.candles[candle.symbol] += 1
        if self.lead is not None:
            self.lead.sent(candle.symbol, candle.interval_ms, candle.ts_ms)
        self.send("market.candles", candle, candle_id(candle))
        self.first_ts_ms = candle.ts_ms if self.first_ts_ms is None else self.first_ts_ms
        self.last_ts_ms = candle.ts_ms

    def tick(self, ts_ms: int, symbol: str | None = None) -> None:
        """Send a tick: of the clock of all, or of one symbol's own."""
        which = "" if symbol is None else f"{symbol}/"
        tick = Tick(ts_ms=ts_ms, writer=f"ingest:{self.run_id}", symbol=symbol)
        self.send("system.clock", tick, f"tick:{self.run_id}/{which}{ts_ms}")

    def send(self, topic: str, event: Event, ce_id: str) -> None:
        """Hand one record to the producer, waiting where its queue is full."""
        if self._failed is not None:
            raise NoBroker(f"the broker {self._settings.broker} did not take a record: {self._failed.str()}")
        record = encode_event(self.codec, topic, event, ce_id, getattr(event, "source", "ingest"))
        while True:
            try:
                self._producer.produce(
                    self._settings.topic(topic), record.value, record.key, headers=list(record.headers),
                    on_delivery=self._acknowledged,
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self.counts[topic] += 1
        self._producer.poll(0)

    def _acknowledged(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed = error
            return
        topic = self._topics[str(message.topic())]
        offset, partition = int(message.offset() or 0), int(message.partition() or 0)
        low, high = self.offsets.get((topic, partition), (offset, offset))
        self.offsets[topic, partition] = (min(low, offset), max(high, offset))
        if self.lead is not None and topic == "market.candles":
            self.lead.acknowledged()

    def flush(self) -> None:
        """Wait until everything is acknowledged.

        Raises:
            NoBroker: it was not.
        """
        left = self._producer.flush(FLUSH_S)
        if left or self._failed is not None:
            why = self._failed.str() if self._failed is not None else f"{left} records not acknowledged"
            raise NoBroker(f"the broker {self._settings.broker} did not take everything: {why}")
