"""Speed of the codec on one record of each kind, in microseconds: encode, decode, and fastavro beside them.

fastavro checks no ranges and makes dicts, so its columns are what could be had at best with it.

    python -m benchmarks.codec
"""

from __future__ import annotations

import io
import json
import random
import timeit
from time import process_time
from typing import Any

import fastavro
import msgspec

from schemas.codec import Codec, event_class
from schemas.released import schema_text
from tests.schemas.samples import sample

TOPICS = ("market.candles", "market.features", "rl.meta.strategy_selected", "learning.experience", "policy.ledger")
TIMES = 1_000


def microseconds(call: Any) -> float:
    """CPU time of one call, the best of nine runs."""
    return min(timeit.repeat(call, timer=process_time, number=TIMES, repeat=9)) / TIMES * 1e6


def fastavro_write(schema: Any, record: dict[str, Any]) -> None:
    """One record into memory."""
    fastavro.schemaless_writer(io.BytesIO(), schema, record)


def main() -> None:
    """Print the table."""
    codec = Codec()
    print(f"{'topic':28} {'bytes':>6} {'encode':>8} {'decode':>8} {'fastavro':>9} {'fastavro':>9}")
    for topic in TOPICS:
        text = json.loads(schema_text(topic))
        record = sample(topic, random.Random(topic))
        schema, event = fastavro.parse_schema(text), msgspec.convert(record, event_class(text["name"]))
        data = codec.encode(topic, event)
        body = data[10:]
        figures = (
            microseconds(lambda t=topic, e=event: codec.encode(t, e)),
            microseconds(lambda t=topic, d=data: codec.decode(t, d)),
            microseconds(lambda s=schema, r=record: fastavro_write(s, r)),
            microseconds(lambda s=schema, b=body: fastavro.schemaless_reader(io.BytesIO(b), s, None)),
        )
        print(f"{topic:28} {len(data):6} " + " ".join(f"{f:8.1f}" for f in figures))


if __name__ == "__main__":
    main()
