"""Avro in and out: single-object encoding without a registry, Confluent framing with one; both are read.

A record begins with C3 01 and the CRC-64-AVRO fingerprint of its writer's schema (Avro specification, "Single-object
encoding"), or with 00 and a registry's schema id. Writers of older releases are known from the history and resolved to
the newest schema. Whatever cannot be decoded, or lies outside of the ranges that the schema states (see
`schemas.limits`), is `Refused` with a reason a person can filter by.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import fastavro
import msgspec

from schemas import events as _events
from schemas.events import Event
from schemas.reading import Reader, compile_reader, read_whole
from schemas.refused import Refused
from schemas.released import fingerprint_of, history_texts, newest, resolved, schema_names, schema_text
from schemas.structs import avro_schema_of
from schemas.writing import Writer, compile_writer, write_whole

SINGLE_OBJECT = b"\xc3\x01"
CONFLUENT = b"\x00"
SINGLE_PREFIX = 10
CONFLUENT_PREFIX = 5
S = TypeVar("S", bound=msgspec.Struct)
_Decode = Callable[[bytes, int], Event]


def event_class(full_name: str) -> type[Event]:
    """Class of the event that a schema's full name stands for."""
    found: type[Event] = getattr(_events, full_name.rpartition(".")[2])
    return found


@dataclass(frozen=True, slots=True)
class _Current:
    """The newest schema of a topic, compiled both ways."""

    schema: Any
    event: type[Event]
    mark: bytes
    write: Writer
    read: Reader

    @classmethod
    def of(cls, topic: str) -> _Current:
        schema = newest(topic)
        mark = SINGLE_OBJECT + fingerprint_of(json.loads(schema_text(topic)))
        reader = compile_reader(schema, make=event_class)
        return cls(schema, event_class(schema["name"]), mark, compile_writer(schema), reader)

    def decode(self, data: bytes, start: int) -> Event:
        event: Event = read_whole(self.read, data, start)
        return event

    def decoder_of(self, writer: Any) -> _Decode:
        """Decoder of another writer's schema: read as written, resolve, then hold against the newest ranges."""
        written = resolved(writer)
        parsed, wanted = fastavro.parse_schema(_copy(written)), fastavro.parse_schema(_copy(self.schema))
        read = compile_reader(written, ranges=False)

        def decode(data: bytes, start: int) -> Event:
            record = read_whole(read, data, start)
            try:
                canonical = io.BytesIO()
                fastavro.schemaless_writer(canonical, parsed, record, disable_tuple_notation=True)
                canonical.seek(0)
                event = msgspec.convert(fastavro.schemaless_reader(canonical, parsed, wanted), self.event)
            except Exception as exc:  # fastavro and msgspec raise many kinds, none of which we want to stop a stream
                raise Refused("UNRESOLVABLE", f"{type(exc).__name__}: {exc}"[:500]) from exc
            return self.decode(write_whole(self.write, b"", event), 0)

        return decode


def _copy(schema: Any) -> Any:
    """A schema of its own for `fastavro.parse_schema`, which marks what it was given."""
    return json.loads(json.dumps(schema))


class Codec:
    """Encodes and decodes every event of the catalogue.

    Args:
        registry: writer schemas of a schema registry by id, for records in Confluent framing.
    """

    def __init__(self, registry: Mapping[int, Any] | None = None) -> None:
        self._registry = dict(registry or {})
        self._current: dict[str, _Current] = {}
        self._decoders: dict[tuple[str, bytes], _Decode] = {}
        self._names: dict[bytes, str] = {}
        self._states: dict[type, tuple[Writer, Reader]] = {}
        for name in schema_names():
            self._add(name)

    def _add(self, topic: str) -> None:
        current = self._current[topic] = _Current.of(topic)
        self._decoders[topic, current.mark] = current.decode
        self._names.setdefault(current.mark, topic)
        for text in history_texts(topic):
            schema = json.loads(text)
            mark = SINGLE_OBJECT + fingerprint_of(schema)
            if (topic, mark) not in self._decoders:
                self._decoders[topic, mark] = current.decoder_of(schema)
                self._names.setdefault(mark, topic)

    def encode(self, topic: str, event: Event, schema_id: int | None = None) -> bytes:
        """An event by the newest schema of the topic.

        Args:
            topic: a topic with an event, or `state.scope`, `state.head`.
            event: an event of the topic's class.
            schema_id: id of that schema in a registry, to write Confluent framing; None writes single-object encoding.

        Raises:
            Refused: INVALID, NOT_FINITE or OUT_OF_RANGE: a value does not fit the schema.
            TypeError: the event is not of the topic's class.
        """
        current = self._current[topic]
        if type(event) is not current.event:
            raise TypeError(f"{topic} carries {current.event.__name__}, not {type(event).__name__}")
        begin = current.mark if schema_id is None else CONFLUENT + schema_id.to_bytes(4, "big")
        return write_whole(current.write, begin, event)

    def decode(self, topic: str, data: bytes | None) -> Event:
        """A record's value as the typed event.

        Raises:
            Refused: NULL_VALUE, EMPTY, NOT_AVRO, UNKNOWN_SCHEMA, UNDECODABLE, UNRESOLVABLE, TRAILING_BYTES,
                NOT_FINITE or OUT_OF_RANGE.
        """
        if data is None:
            raise Refused("NULL_VALUE", f"a tombstone means nothing on {topic}")
        decode = self._decoders.get((topic, data[:SINGLE_PREFIX]))
        if decode is not None:
            return decode(data, SINGLE_PREFIX)
        if not data:
            raise Refused("EMPTY", "no bytes")
        if data[:1] == CONFLUENT and len(data) >= CONFLUENT_PREFIX:
            return self._registered(topic, data[:CONFLUENT_PREFIX])(data, CONFLUENT_PREFIX)
        if data[:2] == SINGLE_OBJECT and len(data) >= SINGLE_PREFIX:
            raise Refused("UNKNOWN_SCHEMA", f"no schema of {topic} has the fingerprint {data[2:10].hex()}")
        raise Refused("NOT_AVRO", f"begins with {data[:10].hex()}, neither single-object (c301) nor Confluent (00)")

    def name_of(self, data: bytes | None) -> str:
        """Topic whose schema a record in single-object encoding names; of topics that share one, the first by name.

        Raises:
            Refused: NULL_VALUE, EMPTY, NOT_AVRO or UNKNOWN_SCHEMA.
        """
        if data is None:
            raise Refused("NULL_VALUE", "a tombstone names no schema")
        if not data:
            raise Refused("EMPTY", "no bytes")
        if data[:2] != SINGLE_OBJECT or len(data) < SINGLE_PREFIX:
            raise Refused("NOT_AVRO", f"begins with {data[:10].hex()}, not with the single-object mark c301")
        if data[:SINGLE_PREFIX] not in self._names:
            raise Refused("UNKNOWN_SCHEMA", f"no schema has the fingerprint {data[2:10].hex()}")
        return self._names[data[:SINGLE_PREFIX]]

    def _registered(self, topic: str, mark: bytes) -> _Decode:
        if (topic, mark) not in self._decoders:
            schema_id = int.from_bytes(mark[1:], "big")
            if schema_id not in self._registry:
                raise Refused("UNKNOWN_SCHEMA", f"no schema with the registry id {schema_id} is known")
            current, writer = self._current[topic], self._registry[schema_id]
            writer = json.loads(writer) if isinstance(writer, str) else writer
            same = SINGLE_OBJECT + fingerprint_of(writer) == current.mark
            self._decoders[topic, mark] = current.decode if same else current.decoder_of(writer)
        return self._decoders[topic, mark]

    def encode_state(self, state: msgspec.Struct) -> bytes:
        """An agent's state in plain Avro by the schema of its class; the envelope names agent and format version.

        Raises:
            Refused: INVALID or OUT_OF_RANGE: a value has not the type of its field.
        """
        return write_whole(self._state_codec(type(state))[0], b"", state)

    def decode_state(self, state_type: type[S], data: bytes) -> S:
        """The inverse of `encode_state`.

        Raises:
            Refused: the bytes are not such a state.
        """
        try:
            return msgspec.convert(read_whole(self._state_codec(state_type)[1], data, 0), state_type)
        except msgspec.ValidationError as exc:
            raise Refused("INVALID", f"state of {state_type.__module__}: {exc}") from exc

    def _state_codec(self, state_type: type) -> tuple[Writer, Reader]:
        if state_type not in self._states:
            schema = resolved(avro_schema_of(state_type))
            self._states[state_type] = compile_writer(schema, ranges=False), compile_reader(schema, ranges=False)
        return self._states[state_type]
