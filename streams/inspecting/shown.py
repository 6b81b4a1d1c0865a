"""A record as people read it: decoded by the schema that belongs to it, else its reason and its bytes in hex.

Inbox records are decoded by the topic they were copied from, changelog records by the agent whose state they hold, dead
letters by the topic that refused them. Plain data only: text, numbers, lists, objects, as `FIELDS` says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from schemas.catalogue import AGENTS, TOPICS
from schemas.codec import Codec
from schemas.events import Event, ScopeState
from schemas.refused import Refused
from streams.held import kind_of
from streams.log import Record
from streams.records import (
    ERROR,
    FENCE,
    OWNER,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    header,
)

FIELDS: dict[str, str] = {
    "topic": "name on the broker",
    "partition": "number",
    "offset": "number",
    "timestamp_ms": "when the broker appended it, epoch milliseconds UTC; null if it says nothing",
    "key": 'text; {"hex": "..."} where it is not UTF-8; null where there is none',
    "headers": "list of [name, value], in order; values as key",
    "event": "name of the event's schema; Fence for a relay's fence; null where nothing was decoded",
    "value": 'the event as an object, bytes as {"hex": "..."}, NaN and infinities as text; null where not decoded',
    "error": 'null, or {"reason", "detail"}: why nothing was decoded; reason TOMBSTONE for a null value',
    "hex": "all bytes of a value that was not decoded; null otherwise",
    "source": 'on inboxes and dead letters {"topic", "partition", "offset"} of the original; else null',
    "dead_letter": 'on dead letters {"reason", "detail", "by"}; else null',
}
StateTypes = Callable[[str], type[msgspec.Struct] | None]
DLQ = ".dlq"


def roster_state_type(agent: str) -> type[msgspec.Struct] | None:
    """State class of a built agent; None where the roster does not have it."""
    from agents.roster import ROSTER  # loads the learners' libraries: only where a changelog is read

    found = ROSTER.get(agent)
    return None if found is None else found.state_type


def show(codec: Codec, record: Record, prefix: str = "", state_type: StateTypes = roster_state_type) -> dict[str, Any]:
    """A record as plain data with the keys of `FIELDS`.

    Args:
        prefix: the settings' topic prefix, put before `topic` again.
        state_type: finds an agent's state class.
    """
    out: dict[str, Any] = dict.fromkeys(FIELDS)
    out |= {"topic": prefix + record.topic, "partition": record.partition, "offset": record.offset,
            "timestamp_ms": record.timestamp_ms, "key": _text(record.key),
            "headers": [[name, _text(value)] for name, value in record.headers],
            "source": source_of(record), "dead_letter": dead_letter_of(record)}
    if header(record.headers, FENCE) is not None and record.topic.endswith(".inbox"):
        return out | {"event": "Fence", "value": {"owner": header(record.headers, OWNER)}}
    try:
        event = decoded(codec, record)
        out |= {"event": event.SCHEMA_NAME, "value": plain(event)}
        if isinstance(event, ScopeState):
            out["value"]["state"] = _state(codec, event, state_type)
    except Refused as refused:
        reason = "TOMBSTONE" if record.value is None else refused.reason
        out |= {"error": {"reason": reason, "detail": refused.detail},
                "hex": None if record.value is None else record.value.hex()}
    return out


def decoded(codec: Codec, record: Record) -> Event:
    """The typed event of a record.

    Raises:
        Refused: as `Codec.decode`, and NO_SCHEMA where no schema belongs to the record.
    """
    name = schema_topic(record)
    if name is None:
        raise Refused("NO_SCHEMA", f"no schema belongs to records like this one on {record.topic}")
    return codec.decode(name, record.value)


def schema_topic(record: Record) -> str | None:
    """Name of the schema that a record should be decoded with; None where none is known."""
    topic: str | None = record.topic
    if record.topic.endswith(DLQ):
        topic = record.topic.removesuffix(DLQ)
    elif record.topic.endswith(".inbox"):
        topic = header(record.headers, SOURCE_TOPIC)
    elif record.topic.endswith(".changelog"):
        return kind_of(record.key or b"")
    known = TOPICS.get(topic or "")
    return known.name if known is not None and known.built and known.event is not None else None


def source_of(record: Record) -> dict[str, Any] | None:
    """Where a copied or refused record first stood."""
    names = {False: (SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET),
             True: (ERROR + "topic", ERROR + "partition", ERROR + "offset")}[record.topic.endswith(DLQ)]
    topic, partition, offset = (header(record.headers, name) for name in names)
    if topic is None:
        return None
    return {"topic": topic, "partition": _number(partition), "offset": _number(offset)}


def dead_letter_of(record: Record) -> dict[str, Any] | None:
    """Why a record was refused and by whom; None for records that are no dead letters."""
    if not record.topic.endswith(DLQ):
        return None
    return {name: header(record.headers, ERROR + name) for name in ("reason", "detail", "by")}


def plain(value: Any) -> Any:
    """Structs and tuples as objects and lists; bytes as hex; numbers that JSON does not have as text."""
    return _plain(msgspec.to_builtins(value, builtin_types=(bytes,)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _state(codec: Codec, row: ScopeState, state_type: StateTypes) -> Any:
    found = state_type(row.agent) if row.agent in AGENTS else None
    if found is None:
        return plain(row.state)
    try:
        return plain(codec.decode_state(found, row.state))
    except Refused as refused:  # another format version: the bytes stay readable, with the reason beside them
        return {"hex": row.state.hex(), "error": {"reason": refused.reason, "detail": refused.detail}}


def _text(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,18}", text) else None


# ---------------------------------------------------------------------- one line for people
def line(shown: dict[str, Any]) -> str:
    """A shown record as one line: place, event time, key, event, fields."""
    value = shown["value"] or {}
    ts_ms = value.get("ts_ms", shown["timestamp_ms"])
    words = [f"{shown['topic']}-{shown['partition']}@{shown['offset']}", iso(ts_ms), brief(shown["key"])]
    if shown["dead_letter"] is not None:
        letter = shown["dead_letter"]
        words.append(f"{letter['reason']} from {place_of(shown['source'])} by {letter['by']}: {letter['detail']}")
    elif shown["source"] is not None:
        words.append(f"from {place_of(shown['source'])}")
    if shown["error"] is not None:
        words.append("TOMBSTONE" if shown["hex"] is None else _undecoded(shown))
    else:
        words.append(shown["event"])
        words += [f"{k}={brief(v)}" for k, v in value.items() if k != "ts_ms" and v is not None]
    return one_line("  ".join(words[:3]) + "  " + " ".join(words[3:]))


def _undecoded(shown: dict[str, Any]) -> str:
    size = len(shown["hex"]) // 2
    head = shown["hex"][:64] + ("..." if size > 32 else "")
    return f"not decoded: {shown['error']['reason']} ({shown['error']['detail']}); {size} bytes {head}"


def one_line(text: str) -> str:
    """Control characters escaped: a record must not draw on the reader's terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def brief(value: Any) -> str:
    """A value in few characters: numbers to 6 digits, lists and objects by their size where they are long."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict) and set(value) == {"hex"}:
        return f"0x{value['hex'][:16]}" + (f"...({len(value['hex']) // 2} bytes)" if len(value["hex"]) > 16 else "")
    if isinstance(value, dict):
        return "{" + f"{len(value)} fields" + "}"
    if isinstance(value, list):
        short = len(value) <= 6 and not any(isinstance(v, (dict, list)) for v in value)
        return "[" + (",".join(brief(v) for v in value) if short else f"{len(value)} items") + "]"
    return str(value)


def place_of(source: dict[str, Any] | None) -> str:
    """`topic-partition@offset` of a source; a dash where it is not known."""
    return "-" if source is None else f"{source['topic']}-{source['partition']}@{source['offset']}"


def iso(ts_ms: int | None) -> str:
    """Epoch milliseconds as UTC time; the number itself where no calendar holds it.

    >>> iso(1_640_995_200_000), iso(1_640_995_200_250)
    ('2022-01-01T00:00:00Z', '2022-01-01T00:00:00.250Z')
    """
    if ts_ms is None:
        return "-"
    try:
        when = datetime.fromtimestamp(ts_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(ts_ms)
    return when.isoformat(timespec="milliseconds" if ts_ms % 1000 else "seconds").replace("+00:00", "Z")


def hexdump(data: bytes, n_bytes: int) -> list[str]:
    """Offset, 16 bytes in hex, and as ASCII, a line each; `n_bytes` 0 is all."""
    part = data[:n_bytes] if n_bytes else data
    lines = []
    for at in range(0, len(part), 16):
        row = part[at:at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"    {at:08x}  {row.hex(' '):<47}  {text}")
    if len(part) < len(data):
        lines.append(f"    ... {len(data) - len(part)} more bytes; --bytes 0 prints all")
    return lines
