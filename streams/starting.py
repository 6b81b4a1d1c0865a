"""Where a fold may start other than at the beginning of its input: the checkpoints and the root on the changelog.

What was folded by other code or configuration is no start; nor is what does not meet its digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from agents.contract import Agent
from schemas.catalogue import AGENTS
from schemas.codec import Codec
from schemas.refused import Refused
from streams.blobs import TOPIC as BLOBS
from streams.blobs import Blobs
from streams.fold import Damaged, OtherFormat, PartitionFold
from streams.held import Held
from streams.identity import Identity, identity_of
from streams.log import Record


class Reads(Protocol):
    """The part of a log that is needed here."""

    def topics(self) -> Mapping[str, Any]:
        """Partitions of every topic."""

    def read(self, topic: str, *, start: Mapping[int, int]) -> Iterator[Record]:
        """Records of the partitions named, from these offsets on."""


class StoredStarts:
    """Starts of one agent, as its changelog holds them; read once a partition.

    Args:
        log: holds the changelog.
        codec: Avro codec.
        agent: as the worker runs it.
        identity: what it stamps on policies; None: what it would here.
    """

    def __init__(self, log: Reads, codec: Codec, agent: Agent[Any], identity: Identity | None = None) -> None:
        self._log, self._codec, self._agent = log, codec, agent
        self._identity = identity_of(agent) if identity is None else identity
        self._held: dict[int, tuple[Held[str], Blobs | None]] = {}

    def __call__(self, partition: int, upto: int) -> PartitionFold:
        """A fold that has taken its input up to `upto` or before: from the newest start there is, else the empty one.

        Args:
            partition: of the agent's input topic.
            upto: offset; -1 asks for the empty fold.
        """
        held, blobs = self._read(partition)
        for snapshot in held.snapshots():
            head, ours = snapshot.head, self._identity
            if head is None or head.input_offset > upto or \
                    (head.code_hash, head.config_hash) != (ours.code_hash, ours.config_hash):
                continue
            fold = PartitionFold(self._agent, partition, self._codec, ours)
            try:
                fold.restore(snapshot.scopes, head, blobs)
            except (Damaged, OtherFormat, Refused):
                continue
            if all(entry.offset <= upto for entry in fold.scopes.values()):
                return fold
        return PartitionFold(self._agent, partition, self._codec, self._identity)

    def _read(self, partition: int) -> tuple[Held[str], Blobs | None]:
        if partition not in self._held:
            self._held[partition] = stored(self._log, self._codec, self._agent, partition)
        return self._held[partition]


def stored(log: Reads, codec: Codec, agent: Agent[Any], partition: int) -> tuple[Held[str], Blobs | None]:
    """What the changelog holds of a partition, and the blobs where the agent keeps heavy state."""
    held, blobs = Held[str](), Blobs(agent.name) if agent.heavy else None
    for r in _records(log, AGENTS[agent.name].changelog, partition):
        held.take(codec, r.place, r.key or b"", r.value, r.headers)
    if blobs is not None:
        for r in _records(log, BLOBS, partition):
            blobs.take(r.key, r.value)
    return held, blobs


def _records(log: Reads, topic: str, partition: int) -> Iterator[Record]:
    return log.read(topic, start={partition: 0}) if partition in log.topics().get(topic, ()) else iter(())
