"""What the tests of the inspection commands share: topics of their own, and records produced as the host would."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from confluent_kafka import Producer

from schemas.catalogue import AGENTS
from schemas.codec import Codec
from schemas.events import (
    STRATEGY_SYMBOLS,
    Candle,
    Cell,
    Event,
    Features,
    PartitionHead,
    PolicyRecord,
    ScopeState,
    Tabular,
)
from streams.records import (
    OWNER,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    Incoming,
    Outgoing,
    Source,
    dead_letter,
    encode_event,
)
from streams.settings import Settings
from streams.topics import apply

CODEC = Codec()
HOUR_MS = 3_600_000
T0_MS = 1_640_995_200_000  # 2022-01-01T00:00:00Z


def own_names(broker: Settings, *topics: str) -> Settings:
    """Settings with a prefix and app id that no other test uses; the topics are created as the catalogue says."""
    mark = uuid.uuid4().hex[:8]
    settings = broker.replace(topic_prefix=f"t{mark}.", app_id=f"a{mark}")
    apply(settings, only=topics)
    return settings


def produce(settings: Settings, records: Iterable[Outgoing], partition: int | None = None) -> list[str]:
    """Send records; returns `topic-partition@offset` of each, in order, by catalogue names."""
    places: dict[int, str] = {}
    producer = Producer(settings.producer())
    for i, r in enumerate(records):

        def done(error, message, i=i, topic=r.topic):
            assert error is None, error
            places[i] = f"{topic}-{message.partition()}@{message.offset()}"

        where = {} if partition is None else {"partition": partition}
        producer.produce(settings.topic(r.topic), key=r.key, value=r.value, headers=list(r.headers),
                         on_delivery=done, **where)
    assert producer.flush(20) == 0
    return [places[i] for i in sorted(places)]


def candle(symbol: str = "BTCUSDT", bar: int = 0, close: float = 100.5) -> Candle:
    open_ms = T0_MS + bar * HOUR_MS
    return Candle(symbol=symbol, interval_ms=HOUR_MS, open_time_ms=open_ms, ts_ms=open_ms + HOUR_MS, open=100.0,
                  high=110.0, low=90.0, close=close, volume=12.0, source="binance", origin="CLAIMED")


def record(topic: str, event: Event, ce_id: str = "test:0", source: str = "binance") -> Outgoing:
    return encode_event(CODEC, topic, event, ce_id, source)


def candles(n: int, symbol: str = "BTCUSDT", first: int = 0) -> list[Outgoing]:
    return [record("market.candles", candle(symbol, first + i), f"ingest:{symbol}:{first + i}") for i in range(n)]


def flags(settings: Settings) -> list[str]:
    return ["--broker", settings.broker, "--topic-prefix", settings.topic_prefix, "--app-id", settings.app_id]


def features(symbol: str = "BTCUSDT", bar: int = 0) -> Features:
    open_ms = T0_MS + bar * HOUR_MS
    return Features(symbol=symbol, interval_ms=HOUR_MS, open_time_ms=open_ms, ts_ms=open_ms + HOUR_MS,
                    bar_count=bar + 1, ready=False, close=100.0, source="binance", origin="CLAIMED")


def policy(version: int = 1, symbol: str = "BTCUSDT") -> PolicyRecord:
    cells = tuple(Cell(state_key=f"{regime}|vol:{b}", probabilities=(0.25,) * 4, q=(0.0,) * 4, se=(1.0,) * 4,
                       visits=(0,) * 4, greedy="neutral")
                  for regime in ("bull", "bear", "sideways", "volatile") for b in range(3))
    return PolicyRecord(policy_id=f"q_learning/{symbol}", version=version, agent="q_learning", scope=symbol,
                        ts_ms=T0_MS, valid_from_ms=T0_MS, fallback="neutral", status="ACTIVE", reason="genesis",
                        outcomes=0, mask=(), actions=STRATEGY_SYMBOLS,
                        tabular=Tabular(volatility_edges=(0.01, 0.02), cells=cells),
                        source="binance", origin="CLAIMED")


def head(agent: str, partition: int, applied: int = 0, refused: int = 0) -> Outgoing:
    io = AGENTS[agent]
    row = PartitionHead(agent=agent, format_version=1, input_topic=io.input_topic, input_partition=partition,
                        input_offset=applied, digest="0" * 64, fences=(), seen=(), sticky=(), applied=applied,
                        repeated=1, refused=refused, emitted=applied, root_offset=-1)
    return Outgoing(io.changelog, b"head", CODEC.encode("state.head", row), ())


def scope_state(agent: str, scope: str, state: bytes, format_version: int = 1) -> Outgoing:
    row = ScopeState(agent=agent, scope=scope, format_version=format_version, input_offset=7, anchor_offset=-1,
                     state=state)
    return Outgoing(AGENTS[agent].changelog, f"scope:{scope}".encode(), CODEC.encode("state.scope", row), ())


def relayed(agent: str, sent: Outgoing, partition: int, offset: int) -> Outgoing:
    """A source record as the relay copies it."""
    more = ((SOURCE_TOPIC, sent.topic.encode()), (SOURCE_PARTITION, str(partition).encode()),
            (SOURCE_OFFSET, str(offset).encode()), (OWNER, b"relay-1"))
    return Outgoing(AGENTS[agent].input_topic, sent.key, sent.value, sent.headers + more)


def refused(sent: Outgoing, offset: int, reason: str = "OUT_OF_RANGE", by: str = "features",
            partition: int = 1) -> Outgoing:
    """The dead letter that the fold makes of a record."""
    return dead_letter(Source(sent.topic, partition, offset), Incoming(offset, sent.key, sent.value, sent.headers),
                       reason, f"{reason} in a test", by)
