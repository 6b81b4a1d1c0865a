"""A log in memory, as a broker would hold it, written by the driver.

The driver delivers one record at a time and has neither inboxes nor changelogs nor commits. The tape writes down what
it delivers, copies each record into the inboxes of its readers as a relay does, and at `flush` writes the state of the
folds and commits what they took.
"""

from __future__ import annotations

from collections import defaultdict
from zlib import crc32

from schemas import catalogue
from schemas.catalogue import GLOBAL, TOPICS, Route
from schemas.events import Event
from streams.blobs import TOPIC as BLOBS
from streams.driver import Driver
from streams.held import seal
from streams.records import OWNER, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, Outgoing, event_key
from streams.verify.view import MemoryLog


class Tape:
    """Hand it to the driver as `tap`.

    Args:
        partitions: of every topic that is keyed by symbol; the driver's number.
    """

    def __init__(self, partitions: int = 1) -> None:
        self.log = MemoryLog()
        self._partitions = partitions
        for topic in catalogue.built_topics():
            self.log.create(topic.name, 1 if topic.partitions == 1 else partitions)
        self._inboxes: dict[str, list[tuple[str, Route]]] = defaultdict(list)
        for io in catalogue.built_agents():
            for name, route in () if io.direct else io.reads.items():
                self._inboxes[name].append((io.input_topic, route))

    def __call__(self, record: Outgoing) -> Outgoing:
        """Write down a record that the driver is about to deliver."""
        ts_ms: int = getattr(record.event, "ts_ms", self.log.now_ms)
        now_ms = self.log.now_ms = max(self.log.now_ms, ts_ms)
        scope = self._scope(record)
        home = 0 if scope == GLOBAL or self._partitions == 1 else crc32(scope.encode()) % self._partitions
        partition = 0 if TOPICS[record.topic].partitions == 1 else home
        kept = self.log.append(record.topic, partition, record.key, record.value, record.headers, now_ms)
        copied = (*record.headers, (SOURCE_TOPIC, record.topic.encode()), (SOURCE_PARTITION, str(partition).encode()),
                  (SOURCE_OFFSET, str(kept.offset).encode()), (OWNER, b"tape"))
        for inbox, route in self._inboxes.get(record.topic, ()):
            of_all = route in ("by_scope", "global") and scope == GLOBAL
            if route == "global" and not of_all:
                continue
            everywhere = route == "broadcast" or of_all
            for p in range(self._partitions) if everywhere else (0 if route == "gather" else home,):
                self.log.append(inbox, p, record.key, record.value, copied, now_ms)
        return record

    def _scope(self, record: Outgoing) -> str:
        event: Event | None = record.event
        assert event is not None
        return catalogue.scope_of(record.topic, event_key(record.topic, event).decode())

    def flush(self, driver: Driver) -> MemoryLog:
        """Write the state of all folds and commit what they took; returns the log."""
        for name, folds in driver.folds.items():
            io = catalogue.AGENTS[name]
            for fold in folds:
                if fold.offset < 0:
                    continue
                flush = fold.flush()
                for key, chunk in flush.blobs:
                    self.log.append(BLOBS, fold.partition, key, chunk, (), self.log.now_ms)
                for key, value in flush.rows:
                    self.log.append(io.changelog, fold.partition, key, value, seal(value), self.log.now_ms)
            for topic in {io.input_topic, *io.reads}:
                for p, rows in self.log.records[topic].items():
                    self.log.commits[name][topic, p] = len(rows)
        return self.log
