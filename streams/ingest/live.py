"""Bars of an exchange to `market.candles`: first those that are missing, then each as it is closed.

It goes on behind the newest bar that the log holds of the symbol and interval, so nothing is sent twice, whoever was
stopped before. Bars that the exchange lacks are said, never invented. Behind each bar comes a tick of the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from agents.algorithms.candles import candle_problem
from schemas.events import Candle
from streams.ingest.exchange import BATCH, ExchangeMarket, Row, Stopped
from streams.ingest.files import BadInput, interval_text
from streams.ingest.lead import TIMEOUT_S, Lead
from streams.ingest.publish import Costs, Run
from streams.ingest.ticks import instrument
from streams.log import LogReader
from streams.records import readable
from streams.subjects import codec_for

if TYPE_CHECKING:
    from streams.settings import Settings

CANDLES = "market.candles"
GRACE_S = 1.0  # behind the end of a bar, before it is asked for
AGAIN_S = 5.0  # until it is asked for again, where it was not there yet


@dataclass
class Followed:
    """What a run did.

    Attributes:
        since_ms: opening of the first bar that was asked for.
        newest_ms: end of the newest bar on the log; None without any.
        gaps: places where bars are missing between two that there are; missing: bars missing there.
        insane: bars left out since they contradict themselves.
    """

    run_id: str
    symbol: str
    interval: str
    source: str
    since_ms: int
    newest_ms: int | None = None
    candles: int = 0
    gaps: int = 0
    missing: int = 0
    insane: int = 0
    stopped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def newest(settings: Settings, symbol: str, interval_ms: int) -> tuple[int | None, set[str]]:
    """End of the newest bar that the log holds of a symbol and interval, and the sources of all of them.

    Raises:
        NoBroker, NoTopic: it cannot be read.
    """
    codec, last, sources = codec_for(settings), None, set[str]()
    with LogReader(settings) as log:
        for _, event in readable(codec, CANDLES, (r for r in log.read(CANDLES) if r.key == symbol.encode())):
            if isinstance(event, Candle) and event.interval_ms == interval_ms:
                last = event.ts_ms if last is None else max(last, event.ts_ms)
                sources.add(event.source)
    return last, sources


def follow(
    settings: Settings, market: ExchangeMarket, symbol: str, *, since_ms: int | None = None, once: bool = False,
    lead: int | None = None, costs: Costs | None = None, clock: bool = True,
    say: Callable[[str], None] = lambda _: None, stop: threading.Event | None = None,
    pause: Callable[[float], object] | None = None, now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
) -> Followed:
    """Publish a market's closed bars.

    Args:
        settings: broker and names.
        market: where they come from.
        symbol: name on the log.
        since_ms: where to begin on a log without bars of it; None: `BATCH` bars ago.
        once: end where the newest closed bar is published; else go on until stopped.
        lead: bars ahead of the slowest agent; None: do not wait for agents.
        costs: what the instrument costs.
        clock: whether a tick comes behind each bar.
        say: told what a person should know.
        stop: ends the run.
        pause: sleeps; default: until `stop` is set, at most so long.
        now_ms: the time of this machine, by which it waits for the next bar.

    Raises:
        BadInput: the log holds bars of this symbol and interval from elsewhere.
        NoBroker, NoTopic: the broker cannot be reached, or lacks a topic.
        Stalled: the agents do not come along.
        Unavailable: the exchange does not answer.
    """
    stop = stop or threading.Event()
    last, sources = newest(settings, symbol, market.interval_ms)
    if sources - {market.source}:
        raise BadInput(f"{CANDLES} holds {symbol}-{interval_text(market.interval_ms)} from "
                       f"{', '.join(sorted(sources))}, and agents take one source only: give another --name")
    run = Run(settings)
    begin_ms = last if last is not None else _grid(market, since_ms, now_ms())
    if last is not None and since_ms is not None and since_ms < last:
        say(f"the log holds {symbol} up to {_utc(last)}: it goes on from there, whatever --since says")
    job = _Job(run, market, symbol, costs or Costs(), clock, say, Followed(
        run.run_id, symbol, market.interval, market.source, begin_ms, last))
    with ExitStack() as stack:
        run.lead = stack.enter_context(Lead(settings, lead, TIMEOUT_S, run.codec)) if lead else None
        while not stop.is_set():
            try:
                caught_up = job.batch(stop, now_ms())
            except Stopped:
                break
            if caught_up and once:
                break
            if caught_up:
                (pause or stop.wait)(job.wait_s(now_ms()))
    run.flush()
    job.done.stopped = stop.is_set()
    return job.done


def _grid(market: ExchangeMarket, since_ms: int | None, now_ms: int) -> int:
    """Opening of the first bar to ask for."""
    step = market.interval_ms
    return now_ms // step * step - BATCH * step if since_ms is None else -(-since_ms // step) * step


def _utc(ts_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ts_ms / 1000))


class _Job:
    """Batches of one market, and where they have come to."""

    def __init__(self, run: Run, market: ExchangeMarket, symbol: str, costs: Costs, clock: bool,
                 say: Callable[[str], None], done: Followed) -> None:
        self._run, self._market, self._symbol, self._costs = run, market, symbol, costs
        self._clock, self._say, self.done = clock, say, done
        self._next_ms = done.since_ms
        self._end_ms = done.newest_ms  # of the newest bar that the exchange had

    def batch(self, stop: threading.Event, now_ms: int) -> bool:
        """Ask for what comes next and publish it; whether nothing more is there yet."""
        rows = self._market.closed(self._next_ms)
        for row in rows:
            while self._run.lead is not None and not self._run.room_for(self._symbol, stop):
                if stop.is_set():
                    return True
            self._take(row)
        self._run.flush()
        if rows:
            self._next_ms = rows[-1][0] + self._market.interval_ms
            return False
        if self._next_ms + BATCH * self._market.interval_ms < (self._market.told_ms or now_ms):
            self._next_ms += BATCH * self._market.interval_ms  # a stretch without a bar, longer than an answer
            return False
        return True

    def wait_s(self, now_ms: int) -> float:
        """Seconds until it is worth asking again."""
        due_ms = self._next_ms + self._market.interval_ms + GRACE_S * 1000
        return max((due_ms - now_ms) / 1000, min(AGAIN_S, self._market.interval_ms / 1000))

    def _take(self, row: Row) -> None:
        """Publish a bar, what the instrument costs before the first."""
        open_ms, o, high, low, close, volume = row
        step, done = self._market.interval_ms, self.done
        before_ms, self._end_ms = self._end_ms, open_ms + step
        if before_ms is not None and open_ms > before_ms:
            missing = (open_ms - before_ms) // step
            done.gaps, done.missing = done.gaps + 1, done.missing + missing
            self._say(f"{missing} bar(s) missing between {_utc(before_ms)} and {_utc(open_ms)}: "
                      f"{self._market.source} has none, and none are made up")
        problem = candle_problem(open_ms=open_ms, ts_ms=open_ms + step, interval_ms=step, open_=o, high=high, low=low,
                                 close=close, volume=volume, taker=None)
        if problem is not None:
            done.insane += 1
            self._say(f"left out the bar of {_utc(open_ms)}: {problem}")
            return
        if done.newest_ms is None:
            first = instrument(self._symbol, open_ms, self._costs, self._market.source, "CLAIMED")
            self._run.send("market.instruments", first, f"instrument:{self._symbol}/{open_ms}")
            self._run.flush()
        self._run.candle(Candle(
            symbol=self._symbol, interval_ms=step, open_time_ms=open_ms, ts_ms=open_ms + step, open=o, high=high,
            low=low, close=close, volume=volume, source=self._market.source, origin="CLAIMED"))
        if self._clock:
            self._run.tick(open_ms + step)
        done.newest_ms, done.candles = open_ms + step, done.candles + 1
