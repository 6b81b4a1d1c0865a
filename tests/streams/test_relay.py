"""Routing and murmur2, and what the relay does to a record."""

from __future__ import annotations

import uuid

import confluent_kafka as ck
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.records import FENCE, OWNER, SOURCE_OFFSET
from streams.relay import Relay, targets
from streams.settings import Settings
from streams.transport.murmur2 import murmur2, partition_of
from tests.streams.counting import SYMBOLS
from tests.streams.hosting import read, send

# Apache Kafka, clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java, testMurmur2
KAFKA_VECTORS = [
    (b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "signed"), KAFKA_VECTORS)
def test_murmur2_is_kafkas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed % 2**32


@pytest.mark.topics("market.candles")
def test_partition_is_librdkafkas(prefix: Settings) -> None:
    keys = [*(s.encode() for s in SYMBOLS), *(uuid.uuid4().hex[:n].encode() for n in range(1, 32))]
    send(prefix, (("market.candles", key, b"", ()) for key in keys))
    there = {record.key: record.partition for record in read(prefix, "market.candles")}
    assert there == {key: partition_of(key, 4) for key in keys}


@given(st.binary(max_size=40) | st.none(), st.integers(1, 9),
       st.sampled_from(["market.candles", "policy.ledger", "system.clock"]))
def test_routes(key: bytes | None, partitions: int, topic: str) -> None:
    assert targets("gather", topic, key, partitions) == (0,)
    assert list(targets("broadcast", topic, key, partitions)) == list(range(partitions))
    to = targets("by_scope", topic, key, partitions)
    if not key:
        assert to == "NO_KEY"
    elif isinstance(to, str):
        assert to == "BAD_KEY"
    else:
        assert set(to) <= set(range(partitions))
        assert len(to) == (partitions if key in (b"global", b"q_learning/global") and
                           (topic == "policy.ledger") == (b"/" in key) else 1)


def test_policy_goes_where_its_symbol_goes() -> None:
    for symbol in SYMBOLS:
        assert targets("by_scope", "policy.ledger", f"q_learning/{symbol}".encode(), 8) == \
            targets("by_scope", "market.features", symbol.encode(), 8)
    assert list(targets("by_scope", "policy.ledger", b"risk_controller/global", 4)) == [0, 1, 2, 3]
    assert list(targets("global", "policy.ledger", b"risk_controller/global", 4)) == [0, 1, 2, 3]
    assert targets("global", "policy.ledger", b"q_learning/BTCUSDT", 4) == ()
    assert targets("global", "policy.ledger", b"no-slash", 4) == "BAD_KEY"
    assert targets("by_scope", "policy.ledger", b"no-slash", 4) == "BAD_KEY"
    assert targets("by_scope", "market.candles", b"\xff\xfe", 4) == "BAD_KEY"


def test_nobody_can_forge_a_fence() -> None:
    from schemas.catalogue import AGENTS

    relay = Relay(AGENTS["features"], wire=str, producer=None, committer=None, stats=None, fail=None)  # type: ignore[arg-type]
    relay.owner = "me"
    headers = relay.mark("market.candles", 1, 7, ((FENCE, b"1"), (OWNER, b"you"), ("mine", b"x")))
    assert FENCE not in dict(headers)
    assert dict(headers)[OWNER] == b"me"
    assert dict(headers)[SOURCE_OFFSET] == b"7"
    assert headers[0] == ("mine", b"x")
    assert FENCE in dict(relay.mark("market.candles", 1, None, ()))


def test_librdkafka_version_has_what_we_use() -> None:
    assert ck.libversion()[1] >= 0x020A0000
