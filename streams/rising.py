"""Ids of outputs that go on rising where an agent begins on another input than the one it was folded from.

An output's id names the input offset that made it (`agent:partition-offset:n`), and readers drop every id that is not
above the last they took from that agent and partition. An inbox that is new, or was made anew, begins at 0 again: what
the agent published from there would be dropped, in silence, until it came past the old offsets. So the new inbox is
filled with fences up to the highest offset that stands in an id on the log; a fence says who copies and holds no event.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.catalogue import AgentIO
from streams.log import LogReader
from streams.records import (
    CE_ID,
    FENCE,
    OWNER,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    Headers,
    header,
    output_id,
)

Place = tuple[str, int]


def highest_ids(log: LogReader, io: AgentIO) -> dict[int, int]:
    """Highest input offset that the ids of an agent's outputs on the log name, by input partition."""
    found: dict[int, int] = {}
    there = log.topics()
    for topic in (t for t in io.writes if t in there):
        for record in log.read(topic):
            written = output_id(header(record.headers, CE_ID))
            if written is not None and written[0] == io.name:
                found[written[1]] = max(written[2], found.get(written[1], -1))
    return found


def passed_over(log: LogReader, io: AgentIO, partition: int, first: int, last: int) -> dict[Place, int]:
    """Lowest source offset of each source partition of which copies stand in this range of the inbox."""
    found: dict[Place, int] = {}
    for record in log.read(io.input_topic, partitions=[partition], start={partition: first}):
        if record.offset > last:
            break
        topic, p, offset = (header(record.headers, name) for name in (SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET))
        if topic is not None and p is not None and offset is not None and p.isdecimal() and offset.isdecimal():
            found[topic, int(p)] = min(int(offset), found.get((topic, int(p)), int(offset)))
    return found


def fences(io: AgentIO, count: int, by: str) -> Iterator[Headers]:
    """Headers of so many fences; key and value of each are null.

    Args:
        by: who writes them; it stands in them as the owner.
    """
    topic = next(iter(io.reads))
    for _ in range(count):
        yield ((SOURCE_TOPIC, topic.encode()), (SOURCE_PARTITION, b"0"), (OWNER, by.encode()), (FENCE, b"1"))
