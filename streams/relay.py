"""The inbox relay: copies source records as bytes into one ordered inbox, re-keyed by scope.

It lives in its agent's app and consumer group. When it takes source partitions over, it first appends a fence with its
owner id to every inbox partition, for people to see who copied what. The fold takes the first copy of each source
offset, in order, whoever made it: so a relay that was frozen and wakes up does no harm (docs/decisions/0024). A source
offset is committed once its copies are acknowledged. Nothing is decoded here.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from faust.types import TP

from schemas import catalogue
from schemas.catalogue import GLOBAL, AgentIO, Route
from streams.records import (
    FENCE,
    OWNER,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    TOPIC_ID,
    Headers,
    Incoming,
    Source,
    dead_letter,
    headers_of,
)
from streams.stats import AgentStats
from streams.transport.commit import Committer
from streams.transport.murmur2 import partition_of
from streams.transport.produce import DriverProducer, Row

log = logging.getLogger(__name__)

SLICE_RECORDS = 1_000  # copied in one go, some ms; then other agents have the event loop
UNACKNOWLEDGED_RECORDS = 20_000
_OURS = frozenset({FENCE, OWNER, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, TOPIC_ID})


@lru_cache(maxsize=65_536)
def targets(route: Route, topic: str, key: bytes | None, partitions: int) -> Sequence[int] | str:
    """Inbox partitions that a record goes to, or the reason why it cannot be routed.

    >>> targets("gather", "system.health.alert", None, 4), targets("broadcast", "system.clock", None, 2)
    ((0,), range(0, 2))
    >>> targets("global", "policy.ledger", b"q_learning/A", 2), targets("global", "policy.ledger", b"risk/global", 2)
    ((), range(0, 2))
    >>> targets("by_scope", "market.candles", None, 4)
    'NO_KEY'
    """
    if route == "gather":
        return (0,)
    if route == "broadcast":
        return range(partitions)
    if not key:
        return "NO_KEY"
    try:
        scope = catalogue.scope_of(topic, key.decode())
    except UnicodeDecodeError:
        return "BAD_KEY"
    if not scope:
        return "BAD_KEY"
    if scope == GLOBAL:
        return range(partitions)
    return () if route == "global" else (partition_of(scope.encode(), partitions),)


class RelayLane:
    """One source partition."""

    def __init__(self, tp: TP, topic: str, relay: Relay) -> None:
        self.tp = tp
        self.topic = topic
        self._relay = relay
        self._route: Route = relay.io.reads[topic]
        self._pending: deque[tuple[int, int, asyncio.Future[Any]]] = deque()
        self._unacknowledged = 0
        self._moved = asyncio.Event()
        self._closed = False

    async def take(self, records: Sequence[Any]) -> None:
        """Copy records, in order."""
        for at in range(0, len(records), SLICE_RECORDS):
            while self._unacknowledged >= UNACKNOWLEDGED_RECORDS and not self._closed:
                self._moved.clear()
                await self._moved.wait()
            if self._closed:
                return
            await self._copy(records[at:at + SLICE_RECORDS])
            await asyncio.sleep(0)

    async def _copy(self, records: Sequence[Any]) -> None:
        rows: list[Row] = []
        for record in records:
            self._rows(record, rows)
        try:
            acks = await self._relay.producer.send_rows(rows)
        except BaseException:
            self._closed = True
            raise
        self._pending.append((records[-1].offset(), len(records), acks))
        self._unacknowledged += len(records)
        self._relay.stats.relayed += len(records)
        acks.add_done_callback(self._advance)

    def _rows(self, record: Any, rows: list[Row]) -> None:
        relay, key, value, offset = self._relay, record.key(), record.value(), record.offset()
        headers = headers_of(record.headers())
        to = targets(self._route, self.topic, key, relay.partitions)
        if isinstance(to, str):
            detail = "no key" if not key else f"the key {key!r} names no scope in UTF-8"
            letter = dead_letter(Source(self.topic, self.tp.partition, offset), Incoming(offset, key, value, headers),
                                 to, detail, relay.io.name)
            rows.append(Row(relay.wire(letter.topic), letter.key, letter.value, letter.headers))
            relay.stats.unroutable += 1
            return
        copied = relay.mark(self.topic, self.tp.partition, offset, headers)
        rows.extend(Row(relay.inbox, key, value, copied, p) for p in to)

    def _advance(self, _: asyncio.Future[Any]) -> None:
        done = -1
        while self._pending and self._pending[0][2].done():
            last, count, acks = self._pending.popleft()
            if acks.cancelled() or acks.exception() is not None:
                self._closed = True
                self._relay.fail(acks.exception() or asyncio.CancelledError())
                break
            done = last
            self._unacknowledged -= count
        if done >= 0 and not self._closed:
            self._relay.committer.mark(self.tp, done + 1)
        self._moved.set()

    async def close(self) -> None:
        """Take no more; wait for what was copied."""
        waiting = [acks for _, _, acks in self._pending]
        if waiting:
            await asyncio.wait(waiting)
            await asyncio.sleep(0)  # the callbacks that mark offsets run
        self.abandon()

    def abandon(self) -> None:
        """Stop where it is."""
        self._closed = True
        self._moved.set()


class Relay:
    """Source partitions of one agent in one worker.

    Args:
        io: what the agent reads.
        wire: name on the broker of a catalogue topic.
        producer: writes the copies.
        committer: takes finished source offsets.
        stats: counters of the agent.
        fail: called with what went wrong in the background.
    """

    def __init__(self, io: AgentIO, *, wire: Callable[[str], str], producer: DriverProducer, committer: Committer,
                 stats: AgentStats, fail: Callable[[BaseException], None]) -> None:
        self.io = io
        self.wire = wire
        self.inbox = wire(io.input_topic)
        self.producer = producer
        self.committer = committer
        self.stats = stats
        self.fail = fail
        self.partitions = 0
        self.owner = ""
        self.lanes: dict[TP, RelayLane] = {}

    def mark(self, topic: str, partition: int, offset: int | None, headers: Headers) -> Headers:
        """Headers of a copy, or of a fence where there is no offset."""
        ours: Headers = (
            (SOURCE_TOPIC, topic.encode()), (SOURCE_PARTITION, str(partition).encode()), (OWNER, self.owner.encode()),
            (FENCE, b"1") if offset is None else (SOURCE_OFFSET, str(offset).encode()),
        )
        return tuple([h for h in headers if h[0] not in _OURS]) + ours if headers else ours

    async def take_up(self, sources: Mapping[TP, str], partitions: int, topic_ids: Mapping[str, str]) -> None:
        """Fence the source partitions off for a new owner and make lanes for them.

        Args:
            sources: catalogue topic of each source partition.
            partitions: partitions of the inbox.
            topic_ids: Kafka's id of each topic, as the broker names it; the fences keep them.
        """
        self.owner = uuid.uuid4().hex
        self.partitions = partitions
        fences = [Row(self.inbox, None, None, (*self.mark(topic, tp.partition, None, ()), (TOPIC_ID, told)), p)
                  for tp, topic in sorted(sources.items()) for told in (topic_ids.get(tp.topic, "").encode(),)
                  for p in range(partitions)]
        await (await self.producer.send_rows(fences))
        self.lanes = {tp: RelayLane(tp, topic, self) for tp, topic in sources.items()}

    async def close(self) -> None:
        """Wait for what was copied, give the sources up."""
        await asyncio.gather(*(lane.close() for lane in self.lanes.values()))
        self.abandon()

    def abandon(self) -> None:
        """Stop where it is."""
        for lane in self.lanes.values():
            lane.abandon()
        self.lanes = {}
