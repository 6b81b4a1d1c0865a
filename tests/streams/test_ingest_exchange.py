"""Bars of an exchange: from a stub of its REST to the log, through failures, gaps, restarts; never the open bar."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from schemas.codec import Codec
from schemas.events import Candle, Event, Instrument, Tick
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.ingest.exchange import ExchangeMarket, Stopped, Unavailable, connect
from streams.ingest.files import BadInput
from streams.ingest.live import follow
from streams.ingest.publish import publish
from streams.ingest.synthetic import synthetic_market
from streams.log import LogReader
from streams.settings import Settings
from tests.streams.exchange_stub import HOUR_MS, START_MS, Stub, stub

NEEDED = ("market.instruments", "market.candles", "system.clock")


@pytest.fixture
def told() -> Iterator[Stub]:
    with stub() as server:
        yield server


def market(told: Stub, **how: Any) -> ExchangeMarket:
    return connect("binance", "BTC/USDT", "1h", base_url=told.url, **how)


def events(settings: Settings, topic: str) -> list[Event]:
    codec = Codec()
    with LogReader(settings) as log:
        return [codec.decode(topic, r.value) for r in log.read(topic)]


def hours(settings: Settings) -> list[int]:
    return [(c.open_time_ms - START_MS) // HOUR_MS for c in events(settings, "market.candles") if isinstance(c, Candle)]


@pytest.mark.topics(*NEEDED)
def test_the_past_then_what_was_missed_and_nothing_twice(prefix: Settings, told: Stub) -> None:
    done = follow(prefix, market(told), "BTCUSDT", since_ms=START_MS + 1, once=True)
    assert (done.candles, done.gaps, done.source) == (1199, 0, "ccxt:binance")
    assert hours(prefix) == list(range(1, 1200)), "bar 1200 is open"
    told.now_ms += 2 * HOUR_MS
    said: list[str] = []
    again = follow(prefix, market(told), "BTCUSDT", since_ms=START_MS, once=True, say=said.append)
    assert again.candles == 2
    assert hours(prefix) == list(range(1, 1202))
    assert "goes on from there" in said[0]
    candle = events(prefix, "market.candles")[0]
    assert isinstance(candle, Candle)
    assert (candle.source, candle.origin, candle.quote_volume, candle.taker_buy_volume) == (
        "ccxt:binance", "CLAIMED", None, None)
    assert (candle.open, candle.high, candle.low, candle.close, candle.volume) == (101, 103, 100, 102, 2)
    (costs,) = events(prefix, "market.instruments")
    assert isinstance(costs, Instrument)
    assert (costs.symbol, costs.ts_ms) == ("BTCUSDT", START_MS + HOUR_MS)
    assert [t.ts_ms for t in events(prefix, "system.clock") if isinstance(t, Tick)] == [
        START_MS + (n + 1) * HOUR_MS for n in range(1, 1202)]


@pytest.mark.topics(*NEEDED)
def test_each_bar_comes_once_it_is_closed(prefix: Settings, told: Stub) -> None:
    stop, waits = threading.Event(), list[float]()

    def pause(seconds: float) -> None:
        waits.append(seconds)
        told.now_ms += HOUR_MS if len(waits) != 2 else 0  # the second time the bar is not there yet
        if len(waits) == 4:
            stop.set()

    done = follow(prefix, market(told), "BTCUSDT", since_ms=told.now_ms - 3 * HOUR_MS, stop=stop, pause=pause,
                  now_ms=lambda: told.now_ms, clock=False)
    assert done.stopped
    assert hours(prefix) == list(range(1198, 1202))
    assert not events(prefix, "system.clock")
    assert waits == pytest.approx([3600.999] * 4), "a second behind the end of the bar that is open"
    stop.clear()
    follow(prefix, market(told), "BTCUSDT", stop=stop, pause=lambda s: (waits.append(s), stop.set()), clock=False,
           now_ms=lambda: told.now_ms + 3 * HOUR_MS)
    assert waits[-1] == 5.0, "by this machine's clock it is late"
    assert hours(prefix)[-1] == 1202


@pytest.mark.topics(*NEEDED)
def test_gaps_are_said_and_long_stretches_without_bars_are_passed(prefix: Settings, told: Stub) -> None:
    told.without = {START_MS + n * HOUR_MS for n in (5, 6, *range(20, 900))}
    told.bent = {START_MS + 10 * HOUR_MS: 1.0}
    said: list[str] = []
    done = follow(prefix, market(told), "BTCUSDT", since_ms=START_MS, once=True, say=said.append)
    assert hours(prefix) == [n for n in range(1200) if n not in (5, 6, 10) and not 20 <= n < 900]
    assert (done.gaps, done.missing, done.insane) == (2, 882, 1)
    assert "2 bar(s) missing between 2024-01-01 05:00:00 UTC and 2024-01-01 07:00:00 UTC" in said[0]
    assert "left out the bar of 2024-01-01 10:00:00 UTC" in said[1]


def test_a_request_that_fails_is_made_again_after_longer_and_longer_pauses(told: Stub) -> None:
    said, waits = list[str](), list[float]()
    m = market(told, say=said.append, pause=waits.append)
    told.failures = [(503, {}), None, (429, {"Retry-After": "17"}), (502, {})]
    rows = m.closed(START_MS)
    assert len(rows) == 500
    assert waits == [1.0, 2.0, 17.0, 8.0]
    assert all("again in" in s for s in said)
    told.failures = [(503, {})] * 9
    with pytest.raises(Unavailable, match="failed 5 times in a row"):
        m.closed(START_MS)
    waits.clear()
    told.failures = [(503, {})] * 9
    assert market(told, patience=None, pause=waits.append).closed(START_MS)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    told.failures = [(503, {})]
    with pytest.raises(Stopped):
        market(told, pause=lambda _: True).closed(START_MS)


def test_without_the_exchanges_clock_the_newest_bar_waits_for_the_next(told: Stub) -> None:
    m = market(told)
    assert m.closed(told.now_ms - 2 * HOUR_MS)[-1][0] == START_MS + 1199 * HOUR_MS
    m.exchange.has["fetchTime"] = False
    m.told_ms = None
    told.now_ms -= 2  # bar 1199 is open, and the last that there is
    assert m.closed(told.now_ms - 3 * HOUR_MS)[-1][0] == START_MS + 1198 * HOUR_MS


@pytest.mark.parametrize(("args", "words"), [
    (("binanze", "BTC/USDT", "1h"), "near it: binance"), (("binance", "BTC/USD", "1h"), "near it: BTC/USDT"),
    (("binance", "BTC/USDT", "7m"), "no bars of 7m; these: 1s, 1m"),
])
def test_names_that_are_none(told: Stub, args: tuple[str, str, str], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        connect(*args, base_url=told.url)


def test_one_request_tells_the_markets(told: Stub) -> None:
    market(told).closed(START_MS)
    assert told.asked == {"exchangeInfo": 1, "time": 1, "klines": 1}


@pytest.mark.topics(*NEEDED)
def test_another_source_of_the_same_bars_is_refused(prefix: Settings, told: Stub) -> None:
    publish(prefix, synthetic_market(1, ["BTCUSDT"], 60)[0], lead=None)
    with pytest.raises(BadInput, match=r"BTCUSDT-1h from synthetic:1.*--name"):
        follow(prefix, market(told), "BTCUSDT", once=True)


@pytest.mark.topics(*NEEDED)
def test_command_line(prefix: Settings, told: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["ingest", "exchange", "--exchange", "binance", "--symbol", "BTC/USDT", "--interval", "1h", "--base-url",
            told.url, "--since", "2024-02-01", "--once", "--json"]
    names = ["--broker", prefix.broker, "--topic-prefix", prefix.topic_prefix, "--app-id", prefix.app_id]
    assert main([*line, "--lead", "none", *names]) == Exit.GOOD
    shown = capsys.readouterr()
    assert json.loads(shown.out)["candles"] == 1200 - 31 * 24
    assert "456 bars of BTCUSDT-1h from ccxt:binance" in shown.err
    assert main([*line, "--broker", "127.0.0.1:1"]) == Exit.UNREACHABLE
    assert main([*line, "--since", "yesterday"]) == Exit.USAGE
    assert main([*line, "--symbol", "BTC/EUR"]) == Exit.FAILED
    assert "has no market BTC/EUR" in capsys.readouterr().err
