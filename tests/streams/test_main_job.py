"""The whole roster on a real broker: a broker that goes away, clients that partition differently."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import polars as pl
import pytest

from agents.algorithms.market import generate
from schemas.codec import Codec
from schemas.events import Decision, Event, Experience, TradeClosed
from streams import broker as embedded
from streams import topics
from streams.ingest import Loaded, publish
from streams.records import encode_event
from streams.settings import Settings
from tests.patience import PATIENCE_S
from tests.streams.hosting import read
from tests.streams.rostered import same_as_its_log, until_done, worker

HOUR_MS = 3_600_000
CODEC = Codec()


def made(symbols: int, bars: int) -> Loaded:
    """Candles of the made market, as if read from a file."""
    rows: list[dict[str, Any]] = []
    for seed in range(symbols):
        m = generate(seed, bars)
        rows += [
            {"symbol": f"MADE{seed}", "interval_ms": HOUR_MS, "open_time_ms": t * HOUR_MS, "ts_ms": (t + 1) * HOUR_MS,
             "open": float(m.open[t]), "high": float(m.high[t]), "low": float(m.low[t]), "close": float(m.close[t]),
             "volume": None, "quote_volume": None, "trades": None, "taker_buy_volume": None,
             "source": f"synthetic:{seed}", "origin": "SYNTHETIC"}
            for t in range(bars)
        ]
    return Loaded(frame=pl.DataFrame(rows, schema_overrides={
        "volume": pl.Float64, "quote_volume": pl.Float64, "trades": pl.Int64, "taker_buy_volume": pl.Float64,
    }).sort("ts_ms", "symbol"), series=())


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Settings]:
    """A broker of the test's own, that may be stopped."""
    settings = Settings(data_dir=tmp_path / "data")
    try:
        running = embedded.up(settings, ephemeral_dir=settings.data_dir)
    except (embedded.NoJava, embedded.FetchFailed) as exc:
        pytest.skip(f"no embedded broker: {str(exc).splitlines()[0]}")
    settings = settings.replace(broker=running.address, app_id="own")
    topics.apply(settings)
    yield settings
    embedded.down(settings, ephemeral_dir=settings.data_dir)


def test_a_broker_stopped_and_started_in_the_middle_loses_nothing(own_broker: Settings, tmp_path: Path) -> None:
    settings, log, bars = own_broker, tmp_path / "worker.log", 500
    failures: list[Exception] = []
    halfway = threading.Event()

    def feed() -> None:
        try:
            publish(settings, made(2, bars), lead=24,
                    progress=lambda done, total: halfway.set() if done > total * 0.6 else None)
        except Exception as exc:
            failures.append(exc)
            halfway.set()

    with worker(settings, log) as process:
        feeder = threading.Thread(target=feed)
        feeder.start()
        assert halfway.wait(PATIENCE_S)
        embedded.down(settings, ephemeral_dir=settings.data_dir)
        again = embedded.up(settings, ephemeral_dir=settings.data_dir)
        assert again.address == settings.broker
        feeder.join(PATIENCE_S)
        assert not feeder.is_alive()
        assert not failures, failures
        until_done(settings, process, log)

    assert len(read(settings, "market.candles")) >= 2 * bars
    features = {(e.symbol, e.ts_ms) for e in events(settings, "market.features")}  # type: ignore[attr-defined]
    assert len(features) == 2 * bars
    decided = {e.decision_id for e in events(settings, "rl.meta.strategy_selected")}  # type: ignore[attr-defined]
    learned = Counter(e.decision_id for e in events(settings, "learning.experience"))  # type: ignore[attr-defined]
    assert set(learned) <= decided
    assert len(decided) - len(learned) <= 4
    folded = same_as_its_log(settings)
    assert min(folded.values()) > 0


def events(settings: Settings, topic: str) -> list[Event]:
    """Events of a topic, repeats of an output id dropped as every reader does."""
    first: dict[bytes, Event] = {}
    for record in read(settings, topic):
        first.setdefault(dict(record.headers)["ce_id"], CODEC.decode(topic, record.value))
    return list(first.values())


def decision(symbol: str, n: int) -> Decision:
    ts_ms = (n + 1) * 4 * HOUR_MS
    return Decision(
        decision_id=f"{symbol}/q_learning/{ts_ms}", symbol=symbol, book_id="q_learning", decider="q_learning",
        ts_ms=ts_ms, interval_ms=HOUR_MS, next_ts_ms=ts_ms + 4 * HOUR_MS, action="breakout", greedy_action="breakout",
        baseline_action="neutral", propensity=0.5, forced=False, policy_id=f"q_learning/{symbol}", policy_version=1,
        state_key="bull|vol:0", regime="bull", volatility=0.01, close=100.0, atr_pct=0.01, signals=(1, 0, 1, 0),
        size_multiplier=1.0, source="feed", origin="CLAIMED",
    )


def trade(of: Decision) -> TradeClosed:
    pnl = (101.0 - 100.0) * 2.0 - 0.1
    return TradeClosed(
        trade_id=f"{of.decision_id}/t", decision_id=of.decision_id, book_id=of.book_id, symbol=of.symbol, side="LONG",
        ts_ms=of.ts_ms + 4 * HOUR_MS, opened_ms=of.ts_ms, entry_price=100.0, exit_price=101.0, quantity=2.0,
        size_multiplier=1.0, leverage=0.02, equity_at_open=10_000.0, notional_at_open=200.0, risk_at_open=4.0,
        stop_price=98.0, fees=0.1, funding=0.0, spread_cost=0.0, slippage=0.0, pnl_usd=pnl, pnl_pct=pnl / 10_000.0,
        r_multiple=pnl / 4.0, exit_reason="HORIZON", strategy="breakout", policy_id=of.policy_id, policy_version=1,
        execution="exchange:test", source="feed", origin="CLAIMED",
    )


def test_joins_are_right_whatever_partitioner_a_producer_uses(prefix: Settings, tmp_path: Path) -> None:
    """librdkafka's own default (CRC-32) and Java's murmur2 put the same symbol into different partitions."""
    ours = ck.Producer({**prefix.producer()})
    theirs = ck.Producer({**prefix.client()})
    decisions = [decision(f"SYM{i}", n) for n in range(20) for i in range(30)]
    placed: dict[str, set[int]] = {}

    def placed_at(error: Any, message: Any) -> None:
        assert error is None
        placed.setdefault(message.key().decode(), set()).add(message.partition())

    for i, d in enumerate(decisions):
        send(ours, prefix, "rl.meta.strategy_selected", d, None)
        send(theirs if (i + i // 30) % 2 else ours, prefix, "execution.trade.closed", trade(d), placed_at)
    assert ours.flush(60) == 0
    assert theirs.flush(60) == 0
    assert any(len(partitions) > 1 for partitions in placed.values()), "both clients agreed: nothing was tested"
    log = tmp_path / "worker.log"
    with worker(prefix, log, "experience") as process:
        until_done(prefix, process, log, only=("experience",))
    learned = [CODEC.decode("learning.experience", r.value) for r in read(prefix, "learning.experience")]
    assert Counter((e.decision_id, e.status) for e in learned if isinstance(e, Experience)) == {
        (d.decision_id, "TRADED"): 1 for d in decisions}
    assert read(prefix, "learning.orphan") == []


def send(producer: ck.Producer, settings: Settings, topic: str, event: Event, told: Any) -> None:
    r = encode_event(CODEC, topic, event, "", "feed")
    producer.produce(settings.topic(topic), r.value, r.key, headers=list(r.headers), on_delivery=told)
    producer.poll(0)

