"""Files of ticks to `market.trades`: what a recorder of Binance's websocket writes, one message a line.

    <nanoseconds of arrival> {"stream": "btcusdt@trade", "data": {"e": "trade", "s": "BTCUSDT", "t": 1, ...}}

The number before the message and the envelope `stream` may be missing, and the file may be compressed with gzip. Other
messages (depth, quotes, answers) are counted and left out; so are trades that no order of the book met (`X` other than
MARKET: insurance fund, deleveraging). Fields: https://developers.binance.com/docs/derivatives, "Trade Streams".
"""

from __future__ import annotations

import gzip
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from schemas.codec import Codec
from schemas.events import Instrument, MarketTrade, Origin
from schemas.refused import Refused
from streams.ingest.files import BadInput, digest_met
from streams.ingest.publish import VOLUME_CAP, Costs, Run

if TYPE_CHECKING:
    from streams.settings import Settings

TICKS = "market.trades"
NEEDED = ("market.instruments", TICKS)
TOLD = 10_000  # lines between two calls of `progress`
GZIP = b"\x1f\x8b"
Progress = Callable[[int, int], None]


class _Data(msgspec.Struct):
    """A message; fields of other events than trades are left out."""

    e: str = ""
    s: str = ""
    t: int | None = None
    T: int | None = None
    p: str = ""
    q: str = ""
    m: bool | None = None
    X: str | None = None


class _Message(_Data):
    data: _Data | None = None


_decode = msgspec.json.Decoder(_Message).decode


@dataclass
class TickReport:
    """What a file holds.

    Attributes:
        trades: trades of the market; others: messages that are none, by event.
        missing: numbers that were skipped between neighbouring trades of a symbol.
        repeats, disordered: trades whose number is that of the one before, or below it.
    """

    file: str
    source: str
    origin: Origin
    trades: Counter[str] = field(default_factory=Counter)
    first_ms: int | None = None
    last_ms: int | None = None
    missing: int = 0
    repeats: int = 0
    disordered: int = 0
    others: Counter[str] = field(default_factory=Counter)

    @property
    def findings(self) -> str:
        """What was found, in words."""
        words = ((self.missing, f"{self.missing} number(s) missing"), (self.repeats, f"{self.repeats} repeat(s)"),
                 (self.disordered, f"{self.disordered} out of order"))
        return "; ".join(text for count, text in words if count) or "none"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {"trades": dict(self.trades), "others": dict(self.others)}


@dataclass(frozen=True, kw_only=True)
class TickFile:
    """A file of ticks that was read once and can be published."""

    path: Path
    report: TickReport
    firsts: dict[str, int]
    """Time of the first trade of each symbol."""


@dataclass(frozen=True, kw_only=True)
class PublishedTicks:
    """What a run published."""

    run_id: str
    counts: dict[str, int]
    seconds: float
    stopped: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def look(path: Path, *, source: str | None = None, digests: dict[str, str] | None = None,
         progress: Progress | None = None) -> TickFile:
    """Read a file to its end, and say what it holds.

    Args:
        path: the file.
        source: label; default binance-usdm or binance, as the trades tell by the field `X`.
        digests: SHA-256 by file name; a sibling `<file>.CHECKSUM` is used too. A match makes the origin CHECKED.
        progress: called with bytes read and bytes in all.

    Raises:
        BadInput: it cannot be read, a line is no message, a trade does not fit its schema, there is none, or the digest
            differs.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    report = TickReport(str(path), source or "", "CHECKED" if digest_met(path, digests or {}) else "CLAIMED")
    newest: dict[str, int] = {}
    firsts: dict[str, int] = {}
    codec = Codec()
    for trade in _trades(path, report, progress):
        try:
            codec.encode(TICKS, trade)
        except Refused as exc:
            raise BadInput(f"{path}: trade {trade.trade_id} of {trade.symbol}: {exc.detail}") from exc
        report.trades[trade.symbol] += 1
        report.first_ms = trade.ts_ms if report.first_ms is None else min(report.first_ms, trade.ts_ms)
        report.last_ms = trade.ts_ms if report.last_ms is None else max(report.last_ms, trade.ts_ms)
        firsts.setdefault(trade.symbol, trade.ts_ms)
        step = trade.trade_id - newest.get(trade.symbol, trade.trade_id - 1)
        report.missing += max(step - 1, 0)
        report.repeats += step == 0
        report.disordered += step < 0
        newest[trade.symbol] = max(trade.trade_id, newest.get(trade.symbol, 0))
    if not report.trades:
        said = ", ".join(f"{n} {e}" for e, n in sorted(report.others.items()))
        raise BadInput(f"{path}: no trade in it, but {said or 'nothing'}; needed are lines of a recorder of Binance's "
                       f"trade stream: <nanoseconds> {{\"data\": {{\"e\": \"trade\", ...}}}}")
    return TickFile(path=path, report=report, firsts=firsts)


def publish_ticks(
    settings: Settings, file: TickFile, *, costs: Costs | None = None, speed: float | None = None,
    limit: int | None = None, progress: Progress | None = None, stop: threading.Event | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> PublishedTicks:
    """Publish a file's trades in its order, what their instruments cost before them.

    Args:
        settings: broker and names.
        file: from `look`.
        costs: what the instruments cost.
        speed: times real time; None: as fast as the broker takes them.
        limit: at most so many trades.
        progress: called with trades published and trades in all.
        stop: ends the run after the current trade.
        pause: sleeps; tests hand in their own.

    Raises:
        NoBroker: the broker cannot be reached, or did not acknowledge.
        NoTopic: a topic is missing.
    """
    run, began, stop = Run(settings, topics=NEEDED), time.monotonic(), stop or threading.Event()
    report, costs = file.report, costs or Costs()
    for symbol, ts_ms in sorted(file.firsts.items()):
        run.send("market.instruments", instrument(symbol, ts_ms, costs, report.source, report.origin),
                 f"instrument:{symbol}/{ts_ms}")
    total = sum(report.trades.values()) if limit is None else min(limit, sum(report.trades.values()))
    first_ms = report.first_ms or 0
    again = TickReport(report.file, report.source, report.origin)
    for n, trade in enumerate(_trades(file.path, again, None), 1):
        while speed is not None and not stop.is_set():
            ahead = began + (trade.ts_ms - first_ms) / 1000 / speed - time.monotonic()
            if ahead <= 0:
                break
            pause(min(ahead, 0.2))
        if n > total or stop.is_set():
            break
        run.send(TICKS, trade, f"trade:{trade.symbol}/{trade.trade_id}")
        if progress is not None and n % 100 == 0:
            progress(n, total)
    run.flush()
    return PublishedTicks(run_id=run.run_id, counts=dict(run.counts), seconds=time.monotonic() - began,
                          stopped=stop.is_set())


def instrument(symbol: str, ts_ms: int, costs: Costs, source: str, origin: Origin) -> Instrument:
    """What an instrument of an exchange costs that never closes."""
    cap = VOLUME_CAP if costs.volume_cap is None else costs.volume_cap
    return Instrument(
        symbol=symbol, ts_ms=ts_ms, days_per_year=costs.days_per_year or 365, fee_bps=costs.fee_bps,
        half_spread_bps=costs.half_spread_bps, slippage_bps=costs.slippage_bps, funding_bps=None,
        funding_interval_ms=None, volume_cap=cap, source=source, origin=origin,
    )


def _trades(path: Path, report: TickReport, progress: Progress | None) -> Iterator[MarketTrade]:
    """Trades of a file, in its order; everything else is counted in the report, whose source is set by the first."""
    size = path.stat().st_size
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == GZIP
            raw.seek(0)
            with gzip.open(raw) if zipped else raw as lines:
                for number, line in enumerate(lines, 1):
                    if progress is not None and number % TOLD == 0:
                        progress(raw.tell(), size)
                    trade = _trade(path, number, line, report) if line.strip() else None
                    if trade is not None:
                        yield trade
    except (OSError, EOFError) as exc:
        raise BadInput(f"{path}: cannot be read to its end: {exc}") from exc


def _trade(path: Path, number: int, line: bytes, report: TickReport) -> MarketTrade | None:
    """The trade of a line; None for any other message.

    Raises:
        BadInput: the line is no message, or a trade that lacks something.
    """
    begin = line.find(b"{")
    try:
        if begin < 0 or line[:begin].strip().strip(b"0123456789"):
            raise ValueError("it is not a JSON object behind a number, or alone")
        found = _decode(line[begin:])
        d = found.data or found
        if d.e != "trade":
            report.others[d.e or "other"] += 1
            return None
        if d.X not in (None, "MARKET"):
            report.others[f"trade:{d.X}"] += 1
            return None
        if d.t is None or d.T is None:
            raise ValueError("a trade without its number t or its time T")
        report.source = report.source or ("binance" if d.X is None else "binance-usdm")
        return MarketTrade(
            symbol=d.s, trade_id=d.t, ts_ms=d.T, price=float(d.p), quantity=float(d.q),
            taker_side=None if d.m is None else "SELL" if d.m else "BUY", source=report.source, origin=report.origin,
        )
    except (ValueError, msgspec.MsgspecError) as exc:
        raise BadInput(f"{path}: line {number}: {exc}: {line[:120]!r}") from exc
