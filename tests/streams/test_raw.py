"""Records without an object each: the same records, in order, with their headers; nothing lost over rebalances."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import numpy as np
import pytest

from benchmarks.engines.trades import Trades
from benchmarks.engines.window import WindowAgent, installed
from schemas.catalogue import AgentIO
from streams import topics
from streams.fold import PartitionFold
from streams.host import AgentHost
from streams.log import LogReader
from streams.many import Packed
from streams.records import Headers, Incoming, headers_of
from streams.settings import Settings
from streams.transport import raw
from streams.transport.poll import PollThread
from streams.worker import Worker
from tests.streams.hosting import (
    CODEC,
    PATIENCE_S,
    WorkerProcess,
    committed,
    count,
    folds,
    in_loop,
    read,
    send,
    until,
)

TRADES = ("market.trades", "market.trades.dlq", "state.blobs")


@pytest.fixture(autouse=True)
def readable() -> None:
    assert raw.available(), "another version of confluent-kafka: see raw.HELD"


def test_the_handle_is_where_it_is_looked_for() -> None:
    client = ck.Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "x", "client.id": "known"})
    handle = ctypes.c_void_p.from_address(id(client) + raw._HANDLE_AT).value
    name = ctypes.PyDLL(ck.cimpl.__file__).rd_kafka_name
    name.argtypes, name.restype = [ctypes.c_void_p], ctypes.c_char_p
    assert name(handle).startswith(b"known#consumer-")
    client.close()


def test_an_offset_behind_a_later_one_takes_the_app_down() -> None:
    thread: Any = PollThread.__new__(PollThread)
    thread._last = {}
    thread._in_order(1, 4, 9)
    thread._in_order(2, 0, 3)
    thread._in_order(1, 10, 10)
    with pytest.raises(RuntimeError, match="partition 1: offset 10 came behind 10"):
        thread._in_order(1, 10, 12)


def test_another_version_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ck, "__version__", "2.99.0")
    assert not raw.available()


def test_a_batch_of_messages_is_what_librdkafka_takes_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layout is no interface: where it is another one, messages are not read past the client."""
    made = raw._Library._batch
    monkeypatch.setattr(raw, "_library", None)
    assert raw.available()
    monkeypatch.setattr(raw, "_library", None)
    monkeypatch.setattr(raw._Library, "_batch", lambda self, pointers: made(self, pointers[::-1]))
    assert not raw.available()


def _drawn(seed: int, n: int) -> list[tuple[str, Any, Any, Any]]:
    rng = random.Random(seed)
    out = []
    for i in range(n):
        value = rng.choice([None, b"", rng.randbytes(rng.randrange(1, 200)), b"%d" % i, rng.randbytes(40_000)
                            if rng.random() < .02 else b"x"])
        headers = [] if rng.random() < .6 else [("a", b"1"), ("a", None), (f"h{i}", rng.randbytes(rng.randrange(9)))]
        out.append(("market.trades", rng.choice([None, b"k", b"", b"key%d" % (i % 5)]), value, headers))
    return out


def test_a_region_ends_behind_an_empty_value_too() -> None:
    """A record alone in its batch, without a key and with an empty value: what follows in the copy is another's."""
    memory = ctypes.create_string_buffer(b"\x07" * 9_000, 9_000)
    at = ctypes.addressof(memory)
    start_M, end_M = np.array([0, at + 8_000, at, at + 8_001]), np.array([0, at + 8_001, at, at + 8_009])
    moved_M, copy, ends = raw._copied(start_M, end_M)
    assert copy.startswith(b"\x07" * 9 + b"\0")
    assert moved_M.tolist() == [0, 0, 0, 1]
    assert {0, 9} <= set(ends)


def _read_headers(data: bytes, at: int) -> Headers:
    """Headers in Kafka's format, by its description."""
    def number() -> int:
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at, n, shift = at + 1, n | (byte & 127) << shift, shift + 7
            if byte < 128:
                return n >> 1 ^ -(n & 1)

    def text() -> bytes | None:
        nonlocal at
        size = number()
        at += max(size, 0)
        return None if size < 0 else data[at - size:at]

    return headers_of([((text() or b"").decode(), text()) for _ in range(number())])


def _produce(settings: Settings, codec: str, rows: list[tuple[str, Any, Any, Any]]) -> None:
    producer = ck.Producer({**settings.producer(), "compression.type": codec, "linger.ms": 20})
    for topic, key, value, headers in rows:
        producer.produce(settings.topic(topic), value, key, headers=headers)
    assert producer.flush(PATIENCE_S) == 0


@pytest.mark.topics("market.trades")
@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_rows_are_what_the_client_hands_out(prefix: Settings, codec: str) -> None:
    """As the poll thread would, were a partition not diverted before: the main queue to its end, then the others."""
    drawn, rows, packed_rows, give_up = _drawn(1, 4_000), [], 0, time.monotonic() + PATIENCE_S
    to_come = [drawn[100:]]
    _produce(prefix, codec, drawn[:100])
    client = ck.Consumer({**prefix.member(), "group.id": uuid.uuid4().hex, "auto.offset.reset": "error"})
    client.assign([ck.TopicPartition(prefix.topic("market.trades"), p, 0) for p in range(4)])
    queue = raw.RawQueues(client, prefix.topic("market.trades"), 700)
    while len(rows) < len(drawn):
        assert time.monotonic() < give_up, f"{len(rows)} of {len(drawn)}"
        if (message := client.poll(0.1)) is not None:
            rows.append((message.partition(), message.offset(), message.key(), message.value(),
                         headers_of(message.headers())))
            queue.divert(message.partition())
            continue
        if len(rows) == 100 and to_come:
            _produce(prefix, codec, to_come.pop())
        for partition, found in queue.take():
            assert isinstance(found, Packed)
            assert [found.row(i).offset for i in range(len(found))] == found.offset_N.tolist()
            rows += [(partition, *found.row(i)[:4]) for i in range(len(found))]
            assert [_read_headers(found.data, at) for at in found.headers_N.tolist()] == [
                found.row(i).headers for i in range(len(found))]
            packed_rows += len(found)
    del found
    queue.close()
    client.close()
    assert packed_rows > 3_000
    expected = [(r.partition, r.offset, r.key, r.value, r.headers) for r in read(prefix, "market.trades")]
    for partition in range(4):
        assert [r for r in rows if r[0] == partition] == [r for r in expected if r[0] == partition]


@pytest.mark.topics("market.trades")
def test_headers_are_asked_for_no_more_once_the_consumer_is_closed(prefix: Settings) -> None:
    send(prefix, [("market.trades", b"k", b"v", [("a", b"1")])] * 50)
    topic = prefix.topic("market.trades")
    client = ck.Consumer({**prefix.member(), "group.id": uuid.uuid4().hex})
    client.assign([ck.TopicPartition(topic, p, 0) for p in range(4)])
    queue, held = raw.RawQueues(client, topic, 10), []
    while not held:
        if (message := client.poll(0.05)) is not None:
            queue.divert(message.partition())
        if sum(map(len, held)) == 0:
            send(prefix, [("market.trades", b"k", b"v", [("a", b"1")])] * 5)
            held = [found for _, found in queue.take() if isinstance(found, Packed)]
    assert held[0].row(0).headers == (("a", b"1"),)
    queue.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        held[0].row(0)


# ---------------------------------------------------------------------- hosted
@pytest.fixture
def window(prefix: Settings) -> Iterator[AgentIO]:
    with installed(f"w{uuid.uuid4().hex[:8]}") as io:
        topics.apply(prefix, only=(io.changelog,))
        yield io


@contextlib.asynccontextmanager
async def hosted(settings: Settings) -> AsyncIterator[AgentHost]:
    host = AgentHost(WindowAgent(), settings, CODEC)
    worker = Worker([host])
    try:
        await worker.start()
        yield host
    finally:
        await worker.stop()


def _published(settings: Settings, trades: Trades, rng: random.Random, part: slice) -> None:
    """Trades with headers on some, and now and then what has to be refused."""
    rows = []
    for event in list(trades.events())[part]:
        value, headers = CODEC.encode("market.trades", event), [("feed", b"x")] if rng.random() < .3 else []
        rows.append(("market.trades", event.symbol.encode(), value, headers))
        if rng.random() < .01:
            rows.append(("market.trades", event.symbol.encode(), value[:rng.randrange(len(value))], [("bad", b"y")]))
    send(settings, rows)


def _expected(settings: Settings) -> tuple[dict[str, Any], list[Any]]:
    """Scopes and dead letters of the topic as it is, a record at a time."""
    scopes: dict[str, Any] = {}
    letters: list[Any] = []
    by_partition = {p: PartitionFold(WindowAgent(), p, CODEC) for p in range(4)}
    for record in read(settings, "market.trades"):
        fold = by_partition[record.partition]
        letters += fold.apply(Incoming(record.offset, record.key, record.value, record.headers))
    for fold in by_partition.values():
        scopes |= fold.scopes
    return scopes, letters


def _stored(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for fold in folds(settings, WindowAgent()).values():  # type: ignore[arg-type]
        found |= fold.scopes
    return found


@pytest.mark.topics(*TRADES)
@in_loop
async def test_hosted_in_columns_over_rebalances(prefix: Settings, window: AgentIO,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    rng, trades = random.Random(3), Trades.drawn(24_000)
    objects: list[Any] = []
    monkeypatch.setattr(PollThread, "_hand_over", lambda self, first, more: objects.append(first))
    _published(prefix, trades, rng, slice(0, 8_000))
    async with hosted(prefix) as first:
        await until(lambda: sum(first.stats.steps.values()) > 4_000, "the first worker")
        async with hosted(prefix) as second:
            await asyncio.to_thread(_published, prefix, trades, rng, slice(8_000, 16_000))
            await until(lambda: sum(second.stats.steps.values()) > 500, "the second worker")
        await asyncio.to_thread(_published, prefix, trades, rng, slice(16_000, 24_000))
        with LogReader(prefix) as log:
            ends = {p: log.bounds("market.trades", p)[1] for p in range(4)}
        await until(lambda: all(first.stats.flushed_offset.get(p, -1) == end - 1 for p, end in ends.items()),
                    "the first worker alone")
    assert not objects, "a record came by the main queue"
    scopes, letters = _expected(prefix)
    assert _stored(prefix) == scopes
    found = {(r.key, r.value, r.headers) for r in read(prefix, "market.trades.dlq")}
    assert found == {(letter.key, letter.value, letter.headers) for letter in letters}
    assert count(prefix, "market.trades.dlq") >= len(letters) > 50


@pytest.mark.topics(*TRADES)
@in_loop
async def test_columns_are_exact_after_kills_and_a_freeze(prefix: Settings, window: AgentIO, tmp_path: Path) -> None:
    """Three workers that are killed in the middle, and one that sleeps for longer than its session and wakes again."""
    rng, trades, share = random.Random(5), Trades.drawn(24_000), 4_800

    def all_committed() -> bool:
        with LogReader(prefix) as log:
            ends = {p: log.bounds("market.trades", p)[1] for p in range(4)}
        return committed(prefix, window.name, "market.trades") == ends

    def worker(name: str) -> WorkerProcess:
        return WorkerProcess(prefix, window.name, tmp_path / f"{name}.log", "window_worker.py")

    for part in range(4):
        process = worker(f"w{part}")
        await until(partial(process.says, "took up 4 input"), "its partitions")
        await asyncio.to_thread(_published, prefix, trades, rng, slice(part * share, (part + 1) * share))
        await asyncio.sleep(rng.random() * 0.3)
        if part < 3:
            process.kill()
    process.pause(True)
    other = worker("other")
    await until(partial(other.says, "took up 4 input"), "the partitions of the worker that sleeps")
    await until(all_committed, "all that is there")
    process.pause(False)
    await asyncio.to_thread(_published, prefix, trades, rng, slice(4 * share, None))
    await until(all_committed, "the rest")
    assert (await asyncio.to_thread(other.terminate), await asyncio.to_thread(process.terminate)) == (0, 0)
    scopes, letters = _expected(prefix)
    assert _stored(prefix) == scopes
    found = {(r.key, r.value, r.headers) for r in read(prefix, "market.trades.dlq")}
    assert found == {(letter.key, letter.value, letter.headers) for letter in letters}
