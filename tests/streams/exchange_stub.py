"""A server on 127.0.0.1 that speaks as much of Binance's REST as ccxt needs for bars, with a clock of its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.streams.serving import on_loopback, serving

HOUR_MS = 3_600_000
START_MS = 1_704_067_200_000  # 2024-01-01
MARKET = {
    "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "baseAssetPrecision": 8,
    "quotePrecision": 8, "quoteAssetPrecision": 8, "orderTypes": ["LIMIT"], "isSpotTradingAllowed": True,
    "permissions": ["SPOT"], "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"}],
}


class Stub:
    """What the server tells.

    Attributes:
        url: where it is.
        now_ms: its clock; the bar that holds this moment is open.
        without: opening times of bars that it lacks.
        bent: opening time to the high that it tells in place of the right one.
        failures: answers to the next requests for bars: (status, headers), or None to break the connection.
        asked: requests by path.
        ranges: `startTime` of each request for bars.
    """

    def __init__(self) -> None:
        self.url = ""
        self.now_ms = START_MS + 1200 * HOUR_MS + 1
        self.without: set[int] = set()
        self.bent: dict[int, float] = {}
        self.failures: list[tuple[int, dict[str, str]] | None] = []
        self.asked: Counter[str] = Counter()
        self.ranges: list[int] = []

    def bars(self, query: dict[str, list[str]]) -> list[list[Any]]:
        """The answer to a request for bars: the open one is the last where the range comes to it."""
        first = max(int(query["startTime"][0]), START_MS)
        self.ranges.append(int(query["startTime"][0]))
        first = -(-first // HOUR_MS) * HOUR_MS
        times = [t for t in range(first, self.now_ms, HOUR_MS) if t not in self.without][:int(query["limit"][0])]
        return [self._bar(t) for t in times]

    def _bar(self, open_ms: int) -> list[Any]:
        n = (open_ms - START_MS) // HOUR_MS
        o, c = 100 + n % 17, 100 + (n + 1) % 17
        high = self.bent.get(open_ms, max(o, c) + 1)
        return [open_ms, str(o), str(high), str(min(o, c) - 1), str(c), str(1 + n % 5), open_ms + HOUR_MS - 1, "0", 7,
                "0", "0", "0"]


@contextmanager
def stub() -> Iterator[Stub]:
    """The server, for as long as the block lasts."""
    told = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            name = url.path.rpartition("/")[2]
            told.asked[name] += 1
            failure = told.failures.pop(0) if name == "klines" and told.failures else (200, {})
            if failure is None:
                self.close_connection = True
                self.connection.close()
                return
            status, headers = failure
            answers = {"time": lambda: {"serverTime": told.now_ms}, "exchangeInfo": lambda: {"symbols": [MARKET]},
                       "klines": lambda: told.bars(parse_qs(url.query))}
            body = json.dumps(answers[name]() if status == 200 else {"code": -1003, "msg": "no"}).encode()
            self.send_response(status)
            for key, value in {**headers, "Content-Type": "application/json",
                               "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(on_loopback(Handler)) as told.url:
        yield told
