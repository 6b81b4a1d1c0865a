"""Labels told from a record's first and last bytes: most records of a topic say the same of their origin as others did.

Avro writes fields in order. Where an event begins with its `symbol` and ends with `source` and `origin`, a record that
begins and ends as one that was decoded and judged good is good as well. Whatever does not is decoded and judged.
"""

from __future__ import annotations

import json
from typing import Any

from schemas.codec import CONFLUENT, CONFLUENT_PREFIX, SINGLE_PREFIX
from schemas.events import ORIGIN_SYMBOLS
from schemas.released import schema_text
from schemas.writing import put_long
from streams.log import Record


class Labels:
    """Beginnings and endings of a topic's records that were judged good.

    Args:
        topic: its name.
    """

    def __init__(self, topic: str) -> None:
        names = [field["name"] for field in json.loads(schema_text(topic))["fields"]]
        self._tells = names[0] == "symbol" and names[-2:] == ["source", "origin"]
        self._good: dict[bytes | None, tuple[bytes, tuple[bytes, ...]]] = {}

    def known(self, record: Record) -> bool:
        """Whether a record of the same key began and ended with the same bytes."""
        good, value = self._good.get(record.key), record.value
        return good is not None and value is not None and value.startswith(good[0]) and value.endswith(good[1])

    def learn(self, record: Record, event: Any) -> None:
        """A record that was judged good."""
        value = record.value
        if not self._tells or value is None:
            return
        mark = CONFLUENT_PREFIX if value[:1] == CONFLUENT else SINGLE_PREFIX  # which schema wrote it
        begin = value[:mark] + _text(event.symbol)
        end = _text(event.source) + _number(ORIGIN_SYMBOLS.index(event.origin))
        if value.startswith(begin) and value.endswith(end):
            ends = self._good[record.key][1] if record.key in self._good else ()
            self._good[record.key] = (begin, (*ends, end))


def _text(text: str) -> bytes:
    raw = text.encode()
    return _number(len(raw)) + raw


def _number(n: int) -> bytes:
    out = bytearray()
    put_long(out, n)
    return bytes(out)
