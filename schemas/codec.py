"""Avro in and out: single-object encoding without a registry, Confluent framing with one; both are read.

A record begins with C3 01 and the CRC-64-AVRO fingerprint of its writer's schema (Avro specification, "Single-object
encoding"), or with 00 and a registry's schema id. Writers of older releases are known from the history and resolved to
the newest schema. Whatever cannot be decoded, or lies outside of the ranges that the schema states (see
`schemas.limits`), is `Refused` with a reason a person can filter by. Records are compared by `Codec.canonical`, in
which both framings of the same record are the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import fastavro
import msgspec

from schemas import events as _events
from schemas.events import Event
from schemas.fast import tried
from schemas.fast_reading import FastReader, fast_reader
from schemas.fast_source import Unsupported
from schemas.fast_writing import FastWriter, fast_writer
from schemas.reading import Reader, compile_reader, read_whole
from schemas.refused import Refused
from schemas.released import fingerprint_of, history_texts, newest, resolved, schema_names, schema_text
from schemas.structs import avro_schema_of, direct_schema_of
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
    encode: FastWriter
    decode: _Decode
    prepare: tuple[Callable[[], None], ...]

    @classmethod
    def of(cls, topic: str) -> _Current:
        schema = newest(topic)
        mark = SINGLE_OBJECT + fingerprint_of(json.loads(schema_text(topic)))
        write, read = compile_writer(schema), compile_reader(schema, make=event_class)
        encode, make_encode = tried(partial(fast_writer, schema), partial(write_whole, write))
        decode, make_decode = tried(partial(fast_reader, schema, make=event_class), partial(read_whole, read))
        return cls(schema, event_class(schema["name"]), mark, write, read, encode, decode, (make_encode, make_decode))

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
            return self.decode(self.encode(b"", event), 0)

        return decode


def _copy(schema: Any) -> Any:
    """A schema of its own for `fastavro.parse_schema`, which marks what it was given."""
    return json.loads(json.dumps(schema))


def mark_of(writer: Any) -> bytes | None:
    """First ten bytes of records of a schema in single-object encoding; None where it is no schema.

    Args:
        writer: a registry's schema, as text or parsed.
    """
    try:
        return SINGLE_OBJECT + fingerprint_of(json.loads(writer) if isinstance(writer, str) else writer)
    except Exception:  # somebody else's text: parsers raise many kinds
        return None


class Codec:
    """Encodes and decodes every event of the catalogue.

    Args:
        registry: writer schemas of a schema registry by id, for records in Confluent framing; None: there is none.
        ids: of the newest schemas of topics there, for those that are to be written in Confluent framing.

    Attributes:
        ids: as given.
        unnamed: topics of which a record in Confluent framing was refused because there is no registry.
    """

    def __init__(self, registry: Mapping[int, Any] | None = None, ids: Mapping[str, int] | None = None) -> None:
        self._registry = None if registry is None else dict(registry)
        self.ids: Mapping[str, int] = {} if ids is None else dict(ids)
        self.unnamed: set[str] = set()
        self._marks: dict[bytes, bytes | None] = {}
        self._current: dict[str, _Current] = {}
        self._decoders: dict[tuple[str, bytes], _Decode] = {}
        self._names: dict[bytes, str] = {}
        self._states: dict[type, tuple[FastWriter, FastReader]] = {}
        self._prepared: dict[type, tuple[Callable[[], None], ...]] = {}
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

    def prepare(self, topics: Iterable[str], state_types: Iterable[type[msgspec.Struct]] = ()) -> None:
        """Generate the functions of topics and states now: at their first record it takes up to 20 ms each.

        Args:
            topics: those without an event are passed over.
        """
        makes = [make for topic in topics if topic in self._current for make in self._current[topic].prepare]
        for state_type in state_types:
            self._state_codec(state_type)
            makes += self._prepared[state_type]
        for make in makes:
            make()

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
        return current.encode(begin, event)

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
        """Topic whose schema a record names; of topics that share one, the first by name.

        Raises:
            Refused: NULL_VALUE, EMPTY, NOT_AVRO or UNKNOWN_SCHEMA.
        """
        if data is None:
            raise Refused("NULL_VALUE", "a tombstone names no schema")
        if not data:
            raise Refused("EMPTY", "no bytes")
        named = self.canonical(data) or b""
        if named[:1] == CONFLUENT and len(named) >= CONFLUENT_PREFIX:
            raise Refused("UNKNOWN_SCHEMA", f"it names the schema {int.from_bytes(named[1:5], 'big')} of a registry, "
                          + ("and none is set: QUANTUM_REGISTRY=URL" if self._registry is None else
                             "which no subject of ours has"))
        if named[:2] != SINGLE_OBJECT or len(named) < SINGLE_PREFIX:
            raise Refused("NOT_AVRO", f"begins with {data[:10].hex()}, neither single-object (c301) nor Confluent (00)")
        if named[:SINGLE_PREFIX] not in self._names:
            raise Refused("UNKNOWN_SCHEMA", f"no schema has the fingerprint {named[2:10].hex()}")
        return self._names[named[:SINGLE_PREFIX]]

    def canonical(self, data: bytes | None) -> bytes | None:
        """A value as values are compared: the mark of the writer's schema, its fingerprint, then the Avro body.

        So it is in single-object encoding already. Where Confluent framing names a schema that was not known at the
        start, or one that cannot be read, and for whatever is no record at all, the bytes are what they are.
        """
        if data is None or data[:1] != CONFLUENT or len(data) < CONFLUENT_PREFIX:
            return data
        mark = self._mark_of(data[:CONFLUENT_PREFIX])
        return data if mark is None else mark + data[CONFLUENT_PREFIX:]

    def framed(self, topic: str, data: bytes) -> bytes:
        """A value in single-object encoding by the newest schema of the topic, framed as this codec writes it."""
        schema_id = self.ids.get(topic)
        if schema_id is None or data[:SINGLE_PREFIX] != self._current[topic].mark:
            return data
        return CONFLUENT + schema_id.to_bytes(4, "big") + data[SINGLE_PREFIX:]

    def _mark_of(self, prefix: bytes) -> bytes | None:
        """Mark of the schema that a Confluent prefix names; None where it is not known, or cannot be read."""
        if prefix not in self._marks:
            writer = (self._registry or {}).get(int.from_bytes(prefix[1:], "big"))
            self._marks[prefix] = None if writer is None else mark_of(writer)
        return self._marks[prefix]

    def _registered(self, topic: str, mark: bytes) -> _Decode:
        if (topic, mark) not in self._decoders:
            self._decoders[topic, mark] = self._of_registry(topic, int.from_bytes(mark[1:], "big"))
        return self._decoders[topic, mark]

    def _of_registry(self, topic: str, schema_id: int) -> _Decode:
        again = f"then quantum dlq redrive {topic} --reason UNKNOWN_SCHEMA"
        if self._registry is None:
            self.unnamed.add(topic)
            raise Refused("UNKNOWN_SCHEMA", f"the record names the schema {schema_id} of a registry, and none is set: "
                                            f"start the worker with QUANTUM_REGISTRY=URL, {again}")
        if schema_id not in self._registry:
            raise Refused("UNKNOWN_SCHEMA", f"no subject of ours had the registry's schema {schema_id} when the worker "
                                            f"started: start it again, with QUANTUM_REGISTRY_IDS={schema_id} where the "
                                            f"schema is not under <topic>-value, {again}")
        current, writer = self._current[topic], self._registry[schema_id]
        try:
            writer = json.loads(writer) if isinstance(writer, str) else writer
            return current.decode if mark_of(writer) == current.mark else current.decoder_of(writer)
        except Exception as exc:  # somebody else's text: parsers raise many kinds, and no record may stop a stream
            raise Refused("UNRESOLVABLE", f"the registry's schema {schema_id} cannot be read: "
                                          f"{type(exc).__name__}: {exc}"[:500]) from exc

    def encode_state(self, state: msgspec.Struct) -> bytes:
        """An agent's state in plain Avro by the schema of its class; the envelope names agent and format version.

        Raises:
            Refused: INVALID or OUT_OF_RANGE: a value has not the type of its field.
        """
        return self._state_codec(type(state))[0](b"", state)

    def decode_state(self, state_type: type[S], data: bytes) -> S:
        """The inverse of `encode_state`.

        Raises:
            Refused: the bytes are not such a state.
        """
        state: S = self._state_codec(state_type)[1](data, 0)
        return state

    def _state_codec(self, state_type: type) -> tuple[FastWriter, FastReader]:
        if state_type not in self._states:
            schema = resolved(avro_schema_of(state_type))
            write = partial(write_whole, compile_writer(schema, ranges=False))
            encode, make_encode = tried(partial(fast_writer, schema, ranges=False), write)
            decode, make_decode = tried(partial(_fast_state, state_type), _state_reader(state_type, schema))
            self._states[state_type] = encode, decode
            self._prepared[state_type] = make_encode, make_decode
        return self._states[state_type]


def _fast_state(state_type: type[msgspec.Struct]) -> FastReader:
    direct = direct_schema_of(state_type)
    if direct is None:
        raise Unsupported(f"{state_type} is more than its fields")
    schema, classes = direct
    return fast_reader(schema, make=classes.__getitem__, ranges=False)


def _state_reader(state_type: type[msgspec.Struct], schema: Any) -> FastReader:
    """The judge of a state: all of its bytes to a dict, and msgspec makes the state from it."""
    read = compile_reader(schema, ranges=False)

    def judge(data: bytes, start: int) -> Any:
        try:
            return msgspec.convert(read_whole(read, data, start), state_type)
        except msgspec.ValidationError as exc:
            raise Refused("INVALID", f"state of {state_type.__module__}: {exc}") from exc

    return judge
