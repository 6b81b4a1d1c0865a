"""Inputs for `check`: the partitions that a relay would write, broken records, bent events."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from agents.contract import Agent, Refused
from schemas import catalogue
from schemas.codec import Codec
from schemas.events import Event
from streams.records import FENCE, OWNER, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, Headers, Incoming, event_key

CODEC = Codec()


def topic_of(agent: Agent[Any], event: Event) -> str:
    """Topic on which an agent reads an event.

    Raises:
        AssertionError: the agent reads no such event.
    """
    for topic in catalogue.AGENTS[agent.name].reads:
        if catalogue.TOPICS[topic].event == event.SCHEMA_NAME:
            return topic
    raise AssertionError(f"{agent.name} does not read {event.SCHEMA_NAME}")


class Log:
    """Input partitions of an agent, as the host's relay would write them."""

    def __init__(self, agent: Agent[Any], partitions: int) -> None:
        self.agent, self.io, self.partitions = agent, catalogue.AGENTS[agent.name], partitions
        self.offsets = [-1] * partitions
        self.source_offsets: dict[str, int] = {}
        self.places: dict[str, int] = {}

    def records(self, events: Iterable[Event], gap: int = 1) -> Iterable[tuple[int, Incoming]]:
        """(partition, record) of every event, fences first; `gap` leaves room between offsets."""
        if not self.io.direct:
            for p in range(self.partitions):
                for topic in self.io.reads:
                    yield p, Incoming(self._next(p, gap), None, None, self._headers(topic, -1, fence=True))
        for event in events:
            topic = topic_of(self.agent, event)
            offset = self.source_offsets[topic] = self.source_offsets.get(topic, -1) + gap
            key, value = event_key(topic, event), CODEC.encode(topic, event)
            for p in self._places(topic, key):
                headers = () if self.io.direct else self._headers(topic, offset)
                yield p, Incoming(self._next(p, gap), key, value, headers)

    def again(self, record: Incoming, value: bytes | None) -> Incoming:
        """A record right behind another one, with another value."""
        if self.io.direct:
            return Incoming(record.offset + 1, record.key, value, ())
        had = dict(record.headers)
        topic, offset = had[SOURCE_TOPIC].decode(), int(had[SOURCE_OFFSET]) + 1
        return Incoming(record.offset + 1, record.key, value, self._headers(topic, offset))

    def _places(self, topic: str, key: bytes) -> list[int]:
        route = self.io.reads[topic]
        scope = catalogue.scope_of(topic, key.decode())
        if route == "broadcast" or (scope == catalogue.GLOBAL and route != "gather"):
            return list(range(self.partitions))
        if route == "gather":
            return [0]
        return [self.places.setdefault(scope, len(self.places) % self.partitions)]  # neighbours part where they can

    def _next(self, partition: int, gap: int) -> int:
        self.offsets[partition] += gap
        return self.offsets[partition]

    def _headers(self, topic: str, offset: int, fence: bool = False) -> Headers:
        rows = [(SOURCE_TOPIC, topic), (SOURCE_PARTITION, "0"), (SOURCE_OFFSET, str(offset)), (OWNER, "check")]
        return tuple((k, v.encode()) for k, v in rows + [(FENCE, "1")] * fence)


def broken_value(value: bytes, n: int, rng: random.Random) -> bytes | None:
    """One of six ways to break a record so that no decoder can take it."""
    ways: tuple[Callable[[], bytes | None], ...] = (
        lambda: None,
        lambda: b"",
        lambda: value[:rng.randrange(1, len(value))],
        lambda: value + b"\0",
        lambda: b"\xc3\x02" + value[2:],
        lambda: value[:5] + bytes([value[5] ^ 0x40]) + value[6:],
    )
    return ways[n % len(ways)]()


def bent(event: Event, rng: random.Random) -> Event:
    """An event whose numbers of kind float are scaled by one factor, where the schema allows it; else as it was."""
    factor = rng.choice((0.5, 0.9, 1.1, 2.0))
    floats = {f: v * factor for f in event.__struct_fields__ if isinstance(v := getattr(event, f), float)}
    changed = msgspec.structs.replace(event, **floats)
    topic = next(t.name for t in catalogue.TOPICS.values() if t.event == event.SCHEMA_NAME)
    try:
        CODEC.encode(topic, changed)
    except Refused:
        return event
    return changed
