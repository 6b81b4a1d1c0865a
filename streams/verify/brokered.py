"""The log of a broker, as the judge sees it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from schemas.catalogue import AGENTS
from streams.commits import Commits
from streams.log import BEGINNING, LogReader, Record, ask
from streams.verify.view import Place, Spot

if TYPE_CHECKING:
    from streams.settings import Settings


class BrokerLog:
    """Reads without leaving a trace: no group is joined, nothing is committed.

    Args:
        settings: broker and names.
        reader: a reader on the same broker.

    Raises:
        NoBroker: from every method, where the broker does not answer.
    """

    def __init__(self, settings: Settings, reader: LogReader) -> None:
        self._settings = settings
        self._reader = reader
        self._commits = Commits(settings)
        self._topics: Mapping[str, Sequence[int]] | None = None

    @property
    def now_ms(self) -> int:
        """This machine's clock; the broker's stamps the records."""
        return int(time.time() * 1000)

    @property
    def cluster_id(self) -> str:
        """Kafka's own id of the cluster."""
        return self._reader.cluster_id()

    def topics(self) -> Mapping[str, Sequence[int]]:
        """Partitions of every topic, as they were when first asked."""
        if self._topics is None:
            self._topics = self._reader.topics()
        return self._topics

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset kept, and one past the last."""
        return self._reader.bounds(topic, partition)

    def read(self, topic: str, start: Mapping[int, int] | None = None,
             until: Mapping[int, int] | None = None) -> Iterator[Record]:
        """Records to the end as it is now; one reading at a time."""
        yield from self._reader.read(topic, start=BEGINNING if start is None else start, until=until)

    def fetch(self, spots: Collection[Spot]) -> Mapping[Spot, Record]:
        """Single records by their offsets: one of each partition in a round, neighbours together."""
        runs: dict[Place, list[tuple[int, int]]] = defaultdict(list)  # last run first
        for topic, partition, offset in sorted(set(spots), reverse=True):
            of = runs[topic, partition]
            if of and of[-1][0] == offset + 1:
                of[-1] = (offset, of[-1][1])
            else:
                of.append((offset, offset + 1))
        found: dict[Spot, Record] = {}
        while left := [place for place, of in runs.items() if of]:
            for record in self._reader.scan({place: runs[place].pop() for place in left}):
                found[record.topic, record.partition, record.offset] = record
        return found

    def committed(self, agent: str) -> Mapping[Place, int]:
        """Committed offsets of an agent's group."""
        io, name = AGENTS[agent], self._settings.topic
        asked = {(name(t), p): (t, p) for t in {io.input_topic, *io.reads} for p in self.topics().get(t, ())}
        found = ask(lambda: self._commits.of(self._settings.group(agent), list(asked)), self._settings.broker)
        return {asked[place]: offset for place, offset in found.items()}

    def close(self) -> None:
        """Leave the broker."""
        self._commits.close()
