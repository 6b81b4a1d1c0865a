"""JSON lines to records of a topic that others may write: judged, encoded, sent, acknowledged.

A line is judged as the agents will judge the record: unknown fields, types, ranges, and what a trade says against
itself. What is refused is never sent, so it need not be looked for among the dead letters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer

from agents.experience.records import inconsistency
from schemas.catalogue import AGENTS, TOPICS
from schemas.codec import Codec, event_class
from schemas.events import Event, TradeClosed
from schemas.refused import Refused
from schemas.released import newest
from streams.log import NoBroker
from streams.records import Outgoing, encode_event
from streams.settings import Settings
from streams.transport.logs import LIBRDKAFKA

ACK_S = 30.0
TYPE = "type"  # `quantum decode` and `quantum tail` write it; it may be left out


@dataclass(frozen=True)
class Judged:
    """A line, judged.

    Attributes:
        line: its number, from 1.
        record: what to send; None where the line was refused.
        reason: why it was refused: NO_JSON, UNKNOWN_FIELD, WRONG_TYPE, a reason of the codec or INCONSISTENT.
        detail: the field, and what is wrong with it.
    """

    line: int
    record: Outgoing | None
    reason: str = ""
    detail: str = ""


def writable(topic: str) -> str | None:
    """Why people may not produce to a topic; None where they may."""
    known = TOPICS.get(topic)
    if known is None:
        return f"{topic} is not in the catalogue; docs/topics.md names all"
    if not known.built:
        return f"{topic} is in the catalogue, but nothing reads or writes it yet"
    if known.external:
        return None
    writers = [a.name for a in AGENTS.values() if a.built and topic in a.writes] or ["this system"]
    return f"{topic} is written by {' and '.join(writers)} alone"


def external_topics() -> list[str]:
    """Topics that people may produce to."""
    return [t.name for t in TOPICS.values() if t.external and t.built]


def judged(codec: Codec, topic: str, lines: Iterable[str]) -> Iterator[Judged]:
    """Judge lines, one JSON object each; empty lines are skipped."""
    kind = event_class(newest(topic)["name"])
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = _event(kind, line)
            record = encode_event(codec, topic, event, "", str(getattr(event, "source", "produced")))
            _consistent(event)
        except Refused as refused:
            yield Judged(n, None, refused.reason, refused.detail)
            continue
        assert record.value is not None
        digest = hashlib.sha256(codec.canonical(record.value) or b"").hexdigest()
        ce_id = f"produced:{digest[:32]}"  # a repeat of the line has it too
        yield Judged(n, record._replace(headers=(("ce_id", ce_id.encode()), *record.headers[1:])))


def _event(kind: type[Event], line: str) -> Event:
    """The event of a line.

    Raises:
        Refused: it is no JSON object of that event, or contradicts itself.
    """
    try:
        found: Any = json.loads(line)
    except ValueError as exc:
        raise Refused("NO_JSON", f"{exc}: one object a line is needed") from exc
    if not isinstance(found, dict):
        raise Refused("NO_JSON", "the line is JSON, but no object")
    name = found.pop(TYPE, kind.SCHEMA_NAME)
    if name != kind.SCHEMA_NAME:
        raise Refused("WRONG_TYPE", f"type is {name!r}; records of this topic are {kind.SCHEMA_NAME}")
    unknown = sorted(found.keys() - set(kind.__struct_fields__))
    if unknown:
        raise Refused("UNKNOWN_FIELD", f"{', '.join(unknown)}; known are {', '.join(kind.__struct_fields__)}")
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as exc:
        raise Refused("WRONG_TYPE", str(exc).replace("Object missing required field", "missing field")) from exc


def _consistent(event: Event) -> None:
    """Hold a trade against itself, as `experience` will.

    Raises:
        Refused: INCONSISTENT.
    """
    problem = inconsistency(event) if isinstance(event, TradeClosed) else None
    if problem is not None:
        raise Refused("INCONSISTENT", problem)


class Sender:
    """Sends records, idempotently and in order; `places` are known after `done`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = Producer(settings.producer(), logger=LIBRDKAFKA)
        self._problems: list[str] = []
        self.places: dict[int, str] = {}

    def send(self, line: int, record: Outgoing) -> None:
        """Send the record of a line.

        Raises:
            NoBroker: records sent before were not acknowledged.
        """
        topic = self._settings.topic(record.topic)
        while True:
            try:
                self._producer.produce(topic, record.value, record.key, headers=list(record.headers),
                                       on_delivery=self._delivered(line, record.topic))
                self._producer.poll(0)
            except BufferError:
                self._producer.poll(0.1)
                continue
            except KafkaException as exc:
                self._problems.append(f"line {line}: {exc.args[0].str()}")
            break
        self._raise()

    def done(self) -> None:
        """Wait for every acknowledgement.

        Raises:
            NoBroker: some did not come.
        """
        left = self._producer.flush(ACK_S)
        if left:
            self._problems.append(f"{left} were not acknowledged in {ACK_S:.0f} s")
        self._raise()

    def _delivered(self, line: int, topic: str) -> Callable[[Any, Any], None]:
        def delivered(error: Any, message: Any) -> None:
            if error is None:
                self.places[line] = f"{topic}-{message.partition()}@{message.offset()}"
            else:
                self._problems.append(f"line {line}: {error.str()}")
        return delivered

    def _raise(self) -> None:
        if self._problems:
            more = f" (and {len(self._problems) - 1} more)" if len(self._problems) > 1 else ""
            raise NoBroker(f"the broker {self._settings.broker} did not take everything: {self._problems[0]}{more}; "
                           f"{len(self.places)} records are acknowledged, and sending a line again does no harm where "
                           f"its agent knows the id")
