"""How a worker's log is written: lines for people, or one JSON object a line; those of libraries likewise.

Everybody logs through the standard library; structlog writes it down. A line that speaks of a place in the log,
`topic-partition@offset` as everywhere here, also carries it as the fields `topic`, `partition` and `offset`: the first
place where it names several, and without `offset` where it is about a whole partition.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

from schemas.catalogue import TOPICS

_PLACE = re.compile(r"(?<![A-Za-z0-9._-])([A-Za-z0-9._-]+)-(\d+)\b(?!\.\w)")
_OFFSET = re.compile(r"@(\d+)\b")
_NAMES = tuple(TOPICS)
_FIRST = ("at", "level", "logger", "text", "topic", "partition", "offset")  # order in a JSON object


def place_in(text: str) -> dict[str, Any]:
    """Topic, partition and offset that a text speaks of.

    >>> place_in("features took 2.1 s over blue.features.inbox-3@17")
    {'topic': 'blue.features.inbox', 'partition': 3, 'offset': 17}
    >>> place_in("features.inbox-2 holds 5 to 9 now, and features was to take @3 next")
    {'topic': 'features.inbox', 'partition': 2, 'offset': 3}
    >>> place_in("lz4-1 is no topic"), place_in("market.candles-0 begins at 7")
    ({}, {'topic': 'market.candles', 'partition': 0})
    """
    for found in _PLACE.finditer(text):
        at = text.startswith("@", found.end())
        if not at and not found[1].endswith(_NAMES):
            continue
        offset = _OFFSET.search(text, found.end())
        place = {"topic": found[1], "partition": int(found[2])}
        return place if offset is None else place | {"offset": int(offset[1])}
    return {}


def _with_place(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if "topic" not in event:  # who logs may say it
        event.update(place_in(str(event.get("event", ""))))
    return event


def _level(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["level"] = event["_record"].levelname.lower()
    return event


def _ordered(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {name: event.pop(name) for name in _FIRST if name in event}
    return first | dict(event)


def formatter(kind: Literal["console", "json"], *, colors: bool = False) -> logging.Formatter:
    """Formatter of log records.

    Args:
        kind: lines for people, or JSON objects with `at` (ISO 8601, UTC), `level`, `logger`, `text`, the place, and
            `exception` where there is one.
        colors: of lines for people.
    """
    said: list[Any] = [
        structlog.stdlib.add_logger_name, _level, structlog.stdlib.ExtraAdder(), _with_place,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
    ]
    if kind == "json":
        said += [structlog.processors.format_exc_info, structlog.processors.EventRenamer("text"), _ordered,
                 structlog.processors.JSONRenderer(default=str, ensure_ascii=False)]
    else:
        said.append(structlog.dev.ConsoleRenderer(
            colors=colors, timestamp_key="at", pad_event_to=0, sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback))
    return structlog.stdlib.ProcessorFormatter(processors=said)


def to_stderr(level: str, kind: Literal["console", "json"], stream: TextIO | None = None, *,
              colors: bool = False) -> None:
    """Write everything that is logged, warnings of Python too, to standard error.

    Args:
        level: least level that is written.
        kind: see `formatter`.
        stream: instead of standard error.
        colors: for a terminal.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(formatter(kind, colors=colors))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)
