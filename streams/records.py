"""Records as they stand on the log: keys, headers, dead letters, output ids; text that needs no decoder.

Header names with `__streams.errors.` tell why a record was refused, those with `src_` and `relay_` where a relay copied
it from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, TypeVar

from agents.contract import Tombstone
from schemas import catalogue
from schemas.catalogue import TOPICS
from schemas.codec import Codec
from schemas.events import Event, PolicyRecord
from schemas.refused import Refused

Headers = tuple[tuple[str, bytes], ...]

SOURCE_TOPIC = "src_topic"
SOURCE_PARTITION = "src_partition"
SOURCE_OFFSET = "src_offset"
OWNER = "relay_owner"
FENCE = "relay_fence"
TOPIC_ID = "relay_topic_id"
CE_ID = "ce_id"
CE_TYPE = "ce_type"
SOURCE = "source"
ERROR = "__streams.errors."
REDRIVEN_FROM = "redriven_from"
REDRIVEN_FOR = "redriven_for"
HEAD_KEY = b"head"
PARTITION_DIGITS, OFFSET_DIGITS = 9, 18  # in headers; an int and a long of Avro hold them, whatever they are
SCOPE_PREFIX = "scope:"


class Outgoing(NamedTuple):
    """A record to publish. `event` is None for dead letters."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    event: Event | None = None


class Source(NamedTuple):
    """Where a record stood before the relay copied it."""

    topic: str
    partition: int
    offset: int


class Incoming(NamedTuple):
    """A record of the folded partition.

    A caller that made the order itself (the driver) hands over the event and where it stood; a record from a broker
    carries them as bytes and headers.
    """

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    event: Event | None = None
    source: Source | None = None


def headers_of(
    raw: Iterable[tuple[str, bytes | str | None]] | Mapping[str, bytes | str | None] | None,
) -> Headers:
    """Kafka headers as they come from a client, made plain: names to bytes."""
    if not raw:
        return ()
    if type(raw) is list:  # as a consumer has them: none to be made plain, nearly always
        for _, value in raw:
            if type(value) is not bytes:
                break
        else:
            return tuple(raw)
    pairs = raw.items() if isinstance(raw, Mapping) else raw
    return tuple([(k, v if isinstance(v, bytes) else b"" if v is None else v.encode()) for k, v in pairs])


def header(headers: Headers, name: str) -> str | None:
    """Last header of a name, as text; None where there is none or it is not UTF-8."""
    for key, value in reversed(headers):
        if key == name:
            return text_of(value)
    return None


def text_of(value: bytes | None) -> str | None:
    """A header's value as text; None where there is none or it is not UTF-8."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


class _Valued(Protocol):
    @property
    def value(self) -> bytes | None:
        """Bytes of a record."""


V = TypeVar("V", bound=_Valued)


def readable(codec: Codec, topic: str, records: Iterable[V]) -> Iterator[tuple[V, Event]]:
    """Records of a topic with their events; those that cannot be decoded are passed over, as the agents refuse them."""
    for record in records:
        try:
            event = codec.decode(topic, record.value)
        except Refused:
            continue
        yield record, event


def event_key(topic: str, event: Event) -> bytes:
    """Record key of an event, by the catalogue."""
    name = TOPICS[topic].key
    return str(getattr(event, name, name)).encode()


def encode_event(codec: Codec, topic: str, event: Event, ce_id: str, source: str) -> Outgoing:
    """An event as a record: key and headers in plain text, value in Avro, framed by the codec; a tombstone has none."""
    headers: Headers = ((CE_ID, ce_id.encode()), (CE_TYPE, event.SCHEMA_NAME.encode()), (SOURCE, source.encode()))
    if isinstance(event, PolicyRecord):
        headers += (("policy_id", event.policy_id.encode()), ("version", str(event.version).encode()))
    value = None if isinstance(event, Tombstone) else codec.encode(topic, event, codec.ids.get(topic))
    return Outgoing(topic, event_key(topic, event), value, headers, event)


def dead_letter(source: Source, record: Incoming, reason: str, detail: str, by: str) -> Outgoing:
    """The refused record, key, value and headers intact, with the reason in further headers."""
    more = (
        ("reason", reason), ("detail", detail[:2000]), ("by", by), ("topic", source.topic),
        ("partition", str(source.partition)), ("offset", str(source.offset)),
    )
    kept = tuple(h for h in record.headers if h[0] not in _RELAY_HEADERS)
    return Outgoing(f"{source.topic}.dlq", record.key, record.value,
                    kept + tuple((ERROR + k, v.encode()) for k, v in more))


_RELAY_HEADERS = frozenset({SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET, OWNER, FENCE, TOPIC_ID})


def output_id(ce_id: str | None) -> tuple[str, int, int, int] | None:
    """(writer, partition, offset, n) of an output id `agent:partition-offset:n`; None for any other id.

    >>> output_id("decision:3-120:1")
    ('decision', 3, 120, 1)
    """
    parts = ce_id.split(":") if ce_id is not None and ce_id.isascii() else ()
    if len(parts) != 3 or parts[0] not in catalogue.AGENTS:
        return None
    partition, _, offset = parts[1].partition("-")
    n = parts[2]
    if not (partition.isdigit() and offset.isdigit() and n.isdigit()):
        return None
    if len(partition) > PARTITION_DIGITS or len(offset) > OFFSET_DIGITS or len(n) > PARTITION_DIGITS:
        return None
    return parts[0], int(partition), int(offset), int(n)
