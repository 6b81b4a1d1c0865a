"""Publishing over a real broker: what lies on the log, how far it runs ahead, and when it gives up."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer

from schemas.codec import Codec
from schemas.events import Candle, EquityMarked, Event, Instrument, Tick
from streams.cli.exits import Exit
from streams.cli.ingest import command
from streams.cli.main import main
from streams.ingest import Loaded, publish
from streams.ingest.earlier import earlier
from streams.ingest.lead import Stalled
from streams.ingest.publish import Costs, instruments
from streams.ingest.synthetic import synthetic_market
from streams.log import LogReader, NoBroker, NoTopic
from streams.records import header
from streams.settings import Settings
from tests.patience import PATIENCE_S

NEEDED = ("market.instruments", "market.candles", "system.clock")


def made(bars: int, *symbols: str) -> Loaded:
    return synthetic_market(1, symbols or ("AAA", "BBB"), bars)[0]


def on_log(settings: Settings, topic: str) -> list[tuple[int, Event, str]]:
    codec = Codec()
    with LogReader(settings) as log:
        return [(r.partition, codec.decode(topic, r.value), header(r.headers, "ce_id") or "") for r in log.read(topic)]


@pytest.mark.topics(*NEEDED)
def test_everything_is_on_the_log_in_order(prefix: Settings) -> None:
    loaded = made(50)
    seen: list[tuple[int, int]] = []
    done = publish(prefix, loaded, lead=None, progress=lambda n, of: seen.append((n, of)))
    candles = on_log(prefix, "market.candles")
    assert done.counts == {"market.instruments": 2, "market.candles": 100, "system.clock": 50}
    for symbol in ("AAA", "BBB"):
        mine = [e for _, e, _ in candles if isinstance(e, Candle) and e.symbol == symbol]
        assert mine == [c for c in loaded.candles() if c.symbol == symbol]
    assert len({i for _, _, i in candles}) == 100
    assert all(i == f"candle:{e.symbol}/1h/{e.open_time_ms}" for _, e, i in candles if isinstance(e, Candle))
    costs = [e for _, e, _ in on_log(prefix, "market.instruments") if isinstance(e, Instrument)]
    assert {e.symbol for e in costs} == {"AAA", "BBB"}
    ticks = [e for _, e, _ in on_log(prefix, "system.clock") if isinstance(e, Tick)]
    assert [t.ts_ms for t in ticks] == sorted({c.ts_ms for c in loaded.candles()})
    assert {t.writer for t in ticks} == {f"ingest:{done.run_id}"}
    last = {p: sum(q == p for q, _, _ in candles) - 1 for p, _, _ in candles}
    assert {p: ends for (t, p), ends in done.offsets.items() if t == "market.candles"} == {
        p: (0, end) for p, end in last.items()}
    assert seen[-1] == (100, 100)
    again = publish(prefix, loaded, lead=None, limit=10)
    assert again.counts["market.candles"] == 10
    assert [i for _, _, i in on_log(prefix, "market.candles")].count(candles[0][2]) == 2  # the same ids again


@pytest.mark.topics(*NEEDED, "rl.q_learning.updated")
def test_a_run_goes_on_where_an_earlier_one_was_killed(prefix: Settings) -> None:
    publish(prefix, made(50), lead=None, limit=61)  # killed between two symbols of a bar
    before = earlier(prefix)
    assert dict(before.candles) == {"AAA": 31, "BBB": 30}
    done = publish(prefix, made(50), lead=None, before=before)
    assert done.candles == {"AAA": 19, "BBB": 20}
    for symbol in ("AAA", "BBB"):
        mine = [e for _, e, _ in on_log(prefix, "market.candles") if isinstance(e, Candle) and e.symbol == symbol]
        assert mine == [c for c in made(50).candles() if c.symbol == symbol]
    assert len(on_log(prefix, "market.instruments")) == 2
    again = publish(prefix, made(50), lead=None, before=earlier(prefix))
    assert not again.counts


@pytest.mark.topics(*NEEDED)
def test_a_clock_of_its_own_names_its_symbol_and_comes_before_its_candles(prefix: Settings) -> None:
    done = publish(prefix, made(50), lead=None, own_clocks=True)
    ticks = [e for _, e, _ in on_log(prefix, "system.clock") if isinstance(e, Tick)]
    first_ms = {s: min(c.open_time_ms for c in made(50).candles() if c.symbol == s) for s in ("AAA", "BBB")}
    for symbol in ("AAA", "BBB"):
        mine = [t.ts_ms for t in ticks if t.symbol == symbol]
        assert mine[0] == first_ms[symbol]
        assert len(mine) == 1 + 2  # 50 bars, a tick after every 24th hour
    assert {t.symbol for t in ticks} == {"AAA", "BBB"}, "the clock of all is left alone"
    assert done.candles == {"AAA": 50, "BBB": 50}


def test_outcomes_need_a_lead(broker: Settings) -> None:
    with pytest.raises(ValueError, match="lead"):
        publish(broker, made(5), lead=None, outcomes=3)


class _Marker(threading.Thread):
    """Stands for all agents: marks each candle as they would, and notes how many were in flight."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self.settings, self.codec, self.most, self.seen = settings, Codec(), 0, 0
        self.done = threading.Event()

    def run(self) -> None:
        s = self.settings
        producer = Producer(s.producer())
        consumer = Consumer({**s.client(), "group.id": s.group("marker"), "auto.offset.reset": "earliest",
                             "fetch.wait.max.ms": 10})
        consumer.subscribe([s.topic("market.candles")])
        while not self.done.is_set():
            batch = consumer.consume(1000, timeout=0.02)
            counts: dict[str, int] = {}
            for message in batch:
                candle = self.codec.decode("market.candles", message.value())
                assert isinstance(candle, Candle)
                counts[candle.symbol] = counts.get(candle.symbol, 0) + 1
                mark = EquityMarked(symbol=candle.symbol, interval_ms=candle.interval_ms, ts_ms=candle.ts_ms,
                                    close=candle.close, halted=False, books=(), source="x", origin="SYNTHETIC")
                producer.produce(s.topic("execution.equity.marked"),
                                 self.codec.encode("execution.equity.marked", mark), candle.symbol)
            self.most = max(self.most, *counts.values(), 0) if counts else self.most
            self.seen += len(batch)
            producer.flush(10)
        consumer.close()


def test_the_lead_is_kept(prefix: Settings) -> None:
    marker = _Marker(prefix)
    marker.start()
    try:
        done = publish(prefix, made(400), lead=7)
    finally:
        marker.done.set()
        marker.join(PATIENCE_S)
    assert done.counts["market.candles"] == 800
    assert 1 <= marker.most <= 7


def test_without_agents_it_gives_up_and_says_so(prefix: Settings) -> None:
    with pytest.raises(Stalled, match=r"features.*quantum worker.*--lead none"):
        publish(prefix, made(60), lead=5, patience_s=2.0)


def test_stop_ends_it_early(prefix: Settings) -> None:
    stop = threading.Event()
    done = publish(prefix, made(60), lead=None, stop=stop, progress=lambda n, of: stop.set() if n >= 20 else None)
    assert done.stopped
    assert 20 <= done.counts["market.candles"] < 60


@pytest.mark.topics(*NEEDED)
def test_speed_follows_the_clock(prefix: Settings) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)

    done = publish(prefix, made(30, "AAA"), speed=3600 / 0.01, pause=pause)  # a bar of an hour takes 10 ms
    assert done.counts["market.candles"] == 30
    assert done.seconds >= 29 * 0.01
    assert pauses


@pytest.mark.topics("market.candles")
def test_a_missing_topic_is_named(prefix: Settings) -> None:
    with pytest.raises(NoTopic, match=r"market.instruments.*quantum topics apply"):
        publish(prefix, made(60), lead=None)


def test_nobody_there() -> None:
    with pytest.raises(NoBroker, match=r"127\.0\.0\.1:1"):
        publish(Settings(broker="127.0.0.1:1"), made(60), lead=None)


def test_instruments_follow_calendar_and_volume() -> None:
    made_one = made(24 * 8, "AAA")
    (always,) = instruments(made_one, Costs())
    assert (always.days_per_year, always.volume_cap, always.funding_bps) == (365, 0.1, None)
    weekdays = made_one.frame.filter(pl.from_epoch("open_time_ms", time_unit="ms").dt.weekday() < 6)
    (weekly,) = instruments(Loaded(frame=weekdays, series=made_one.series, symbols=made_one.symbols), Costs())
    assert (weekly.days_per_year, weekly.volume_cap) == (252, None)
    (given,) = instruments(made_one, Costs(fee_bps=-1.0, days_per_year=300, volume_cap=0.5))
    assert (given.fee_bps, given.days_per_year, given.volume_cap) == (-1.0, 300, 0.5)


@pytest.mark.topics(*NEEDED)
def test_command_line(prefix: Settings, tmp_path: Path) -> None:
    path = tmp_path / "AAA-1h.parquet"
    made(40, "AAA").frame.select("open_time_ms", "open", "high", "low", "close", "volume").rename(
        {"open_time_ms": "open_time"}).write_parquet(path)
    names = ["--broker", prefix.broker, "--topic-prefix", prefix.topic_prefix, "--app-id", prefix.app_id]
    run = CliRunner().invoke(command, ["file", str(path), "--lead", "none", "--limit", "30", "--json", *names])
    assert run.exit_code == Exit.GOOD, run.output
    result = json.loads(run.stdout)
    assert result["published"]["counts"]["market.candles"] == 30
    assert result["series"][0]["name"] == "AAA-1h"
    assert "AAA-1h" in run.stderr
    run = CliRunner().invoke(command, ["synthetic", "--bars", "70", "--symbols", "X1,X2", "--seed", "5", "--lead",
                                       "none", "--json", *names])
    assert run.exit_code == Exit.GOOD, run.output
    assert json.loads(run.stdout)["series"][0]["source"] == "synthetic:5"
    assert json.loads(run.stdout)["published"]["counts"]["market.candles"] == 140


def test_command_line_without_a_broker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "AAA-1h.parquet"
    frame = made(40, "AAA").frame.select("open_time_ms", "open", "high", "low", "close").rename(
        {"open_time_ms": "open_time"})
    frame.write_parquet(path)
    assert main(["ingest", "file", str(path), "--check", "--json"]) == Exit.GOOD
    assert json.loads(capsys.readouterr().out)["series"][0]["candles"] == 40
    assert main(["ingest", "file", str(path), "--lead", "none", "--broker", "127.0.0.1:1"]) == Exit.UNREACHABLE
    frame[[0, 1, 5, 6, 7]].write_parquet(path)
    assert main(["ingest", "file", str(path), "--check", "--strict"]) == Exit.FAILED
    assert main(["ingest", "file", str(tmp_path / "no.csv")]) == Exit.FAILED
    assert main(["ingest", "file", str(path), "--lead", "0"]) == Exit.USAGE
