"""Closed bars from an exchange's public REST interface, through ccxt.

    market = connect("binance", "BTC/USDT", "1h")
    rows = market.closed(since_ms)             # (opening time in ms, open, high, low, close, volume), ascending

A bar is closed once the exchange's own clock has passed its end, or once a later bar is there; the one that is still
open is never handed on. Requests keep the pace that ccxt knows of the exchange; one that fails for the network's or the
exchange's sake is made again, after a pause that doubles up to a minute, or after what `Retry-After` asks for.

Volumes in quote currency, trades and what takers bought are not in ccxt's bars.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from streams.ingest.files import BadInput, interval_ms_of

Row = tuple[int, float, float, float, float, float | None]
BATCH = 500  # bars a request; every large exchange gives at least so many, or fewer and says nothing
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
PATIENCE = 5  # failures in a row after which `closed` gives up, unless it is told to go on for ever
INSTALL = "the exchange's library is not installed: pip install 'quantum-streams[exchange]'"


class Unavailable(Exception):
    """The exchange does not answer, or refuses; the message says what it said."""


class Stopped(Exception):
    """The pause between two requests was cut short."""


class ExchangeMarket:
    """One market of one exchange, at one interval.

    Args:
        exchange: ccxt's, its markets loaded.
        symbol: ccxt's name, such as BTC/USDT.
        interval: ccxt's, such as 1h.
        patience: failures in a row after which a call gives up; None: never.
        say: told of every failure and the pause behind it.
        pause: sleeps; True where it was cut short, and nothing is asked any more.

    Attributes:
        told_ms: what the exchange's clock said last; None where it does not tell.
    """

    def __init__(self, exchange: Any, symbol: str, interval: str, *, patience: int | None = PATIENCE,
                 say: Callable[[str], None] = lambda _: None,
                 pause: Callable[[float], bool | None] = time.sleep) -> None:
        self.exchange, self.symbol, self.interval = exchange, symbol, interval
        self.interval_ms = interval_ms_of(interval)
        self.source = f"ccxt:{exchange.id}"
        self.told_ms: int | None = None
        self._patience, self._say, self._pause = patience, say, pause

    def closed(self, since_ms: int) -> list[Row]:
        """Bars that are closed, from an opening time on, at most `BATCH`; ascending, each once.

        Raises:
            Unavailable, Stopped: see `call`.
        """
        if self.exchange.has.get("fetchTime"):
            self.told_ms = self.call(self.exchange.fetch_time)
        now_ms = self.told_ms
        raw = self.call(lambda: self.exchange.fetch_ohlcv(self.symbol, self.interval, since_ms, BATCH))
        rows = {int(r[0]): r for r in raw or () if r and r[0] is not None and int(r[0]) >= since_ms}
        newest = max(rows, default=0)
        return [(t, *(float(x) for x in r[1:5]), None if r[5] is None else float(r[5]))  # type: ignore[misc]
                for t, r in sorted(rows.items())
                if None not in r[1:5] and (t < newest or (now_ms is not None and t + self.interval_ms <= now_ms))]

    def call(self, request: Callable[[], Any]) -> Any:
        """The answer to a request, which is made again where it fails for the network's or the exchange's sake.

        Raises:
            Unavailable: it failed too often, or for a reason that stays.
            Stopped: the pause was cut short.
        """
        import ccxt

        failed = 0
        while True:
            self.exchange.last_response_headers = None
            try:
                return request()
            except ccxt.OperationFailed as exc:
                failed += 1
                if self._patience is not None and failed >= self._patience:
                    raise Unavailable(f"{self.exchange.id} failed {failed} times in a row: {_said(exc)}") from exc
                wait_s = max(min(FIRST_PAUSE_S * 2 ** (failed - 1), LONGEST_PAUSE_S), self._asked_s())
                self._say(f"{self.exchange.id}: {_said(exc)}; again in {wait_s:.0f} s")
                if self._pause(wait_s):
                    raise Stopped from exc
            except ccxt.BaseError as exc:
                raise Unavailable(f"{self.exchange.id}: {_said(exc)}") from exc

    def _asked_s(self) -> float:
        """Seconds that the exchange asked to wait."""
        headers: Mapping[str, str] = self.exchange.last_response_headers or {}
        asked = next((v for k, v in headers.items() if k.lower() == "retry-after"), "")
        return float(asked) if str(asked).isdigit() else 0.0


def connect(exchange: str, symbol: str, interval: str, *, base_url: str | None = None, **how: Any) -> ExchangeMarket:
    """A market of an exchange, its name and interval held against what there is.

    Args:
        exchange: ccxt's id, such as binance.
        symbol: such as BTC/USDT, or BTC/USDT:USDT for a perpetual.
        interval: such as 1h.
        base_url: scheme, host and port in place of the exchange's: a mirror or a gateway that speaks its REST.
        how: see `ExchangeMarket`.

    Raises:
        BadInput: ccxt is not installed, or does not know the exchange, or that the market or the interval.
        Unavailable, Stopped: the exchange does not answer.
    """
    try:
        import ccxt
    except ImportError as exc:
        raise BadInput(INSTALL) from exc
    if exchange not in ccxt.exchanges:
        raise BadInput(f"ccxt knows no exchange {exchange}{_near(exchange, ccxt.exchanges)}")
    made = getattr(ccxt, exchange)({"enableRateLimit": True, "timeout": 20_000})
    if exchange == "binance" and ":" not in symbol:
        made.options["fetchMarkets"] = {"types": ["spot"]}  # or it asks two more hosts for their markets
    if base_url is not None:
        made.urls["api"] = _moved(made.urls["api"], base_url)
    if not made.has.get("fetchOHLCV"):
        raise BadInput(f"{exchange} gives no bars")
    if interval not in (made.timeframes or {}):
        raise BadInput(f"{exchange} gives no bars of {interval}; these: {', '.join(made.timeframes or {})}")
    market = ExchangeMarket(made, symbol, interval, **how)
    market.call(made.load_markets)
    if symbol not in made.markets:
        raise BadInput(f"{exchange} has no market {symbol}{_near(symbol, list(made.markets))}")
    return market


def _said(exc: BaseException) -> str:
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text[:200]}" if text else type(exc).__name__


def _near(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 3)
    return f"; near it: {', '.join(near)}" if near else ""


def _moved(urls: Any, base_url: str) -> Any:
    """URLs with another scheme and host."""
    if isinstance(urls, dict):
        return {name: _moved(url, base_url) for name, url in urls.items()}
    if not isinstance(urls, str):
        return urls
    base, url = urlsplit(base_url), urlsplit(urls)
    return urlunsplit((base.scheme, base.netloc, url.path, url.query, url.fragment))
