"""State of input partitions, back from the changelog, and where each partition goes on.

A partition starts at the offset behind its head, whatever the group has committed: head and state say together what is
contained. Where the changelog cannot be trusted the partition is folded again from the beginning of its input; outputs
are then repeats with the same ids, which readers drop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from faust.types import TP

from schemas.codec import Codec
from schemas.events import PartitionHead, ScopeState
from schemas.refused import Refused
from streams.fold import Damaged, PartitionFold
from streams.records import HEAD_KEY
from streams.transport.recover import read_to_end, watermarks

log = logging.getLogger(__name__)


class InputLost(Exception):
    """The offset at which a partition has to go on is not in the log."""


@dataclass(slots=True)
class Held:
    """What a changelog partition holds: of every key the record that contains most input."""

    scopes: dict[bytes, ScopeState] = field(default_factory=dict)
    head: PartitionHead | None = None
    damage: dict[bytes, str] = field(default_factory=dict)
    keys: set[bytes] = field(default_factory=set)

    def take(self, codec: Codec, tp: TP, key: bytes, value: bytes | None) -> None:
        """One changelog record."""
        if value is None:
            self.scopes.pop(key, None)
            self.damage.pop(key, None)
            self.head = None if key == HEAD_KEY else self.head
            self.keys.discard(key)
            return
        self.keys.add(key)
        try:
            row = codec.decode("state.head" if key == HEAD_KEY else "state.scope", value)
        except Refused as refused:
            self.damage[key] = f"{tp.topic}-{tp.partition}, key {key!r}: {refused.reason}: {refused.detail}"
            return
        if isinstance(row, PartitionHead):
            if self.head is None or row.input_offset >= self.head.input_offset:
                self.head = row
        elif isinstance(row, ScopeState):
            old = self.scopes.get(key)
            if old is None or row.input_offset >= old.input_offset:
                self.scopes[key] = row


@dataclass(slots=True)
class Restored:
    """A fold ready to go on.

    Attributes:
        start: input offset to go on at.
        wipe: keys of the changelog partition to delete first, where the partition is folded again.
    """

    fold: PartitionFold
    start: int
    wipe: tuple[bytes, ...] = ()


def restore(
    client: Mapping[str, str | int], codec: Codec, new: Callable[[int], PartitionFold], inputs: Iterable[TP],
    changelog: str, stop: Callable[[], bool],
) -> dict[TP, Restored]:
    """Read the changelog partitions of these input partitions; blocking.

    Args:
        client: librdkafka client configuration.
        codec: decodes heads and scopes.
        new: makes an empty fold of a partition.
        inputs: input partitions as the broker names them.
        changelog: changelog topic as the broker names it.
        stop: asked between polls; a true answer ends the reading.

    Raises:
        InputLost: the offset to go on at is not in the log.
    """
    inputs = list(inputs)
    held = {TP(changelog, tp.partition): Held() for tp in inputs}
    read_to_end(client, held, lambda tp, key, value: held[tp].take(codec, tp, key, value), stop)
    if stop():
        return {}
    ends = watermarks(client, inputs)
    return {tp: _one(new, tp, held[TP(changelog, tp.partition)], ends[tp]) for tp in inputs}


def _one(new: Callable[[int], PartitionFold], tp: TP, held: Held, ends: tuple[int, int]) -> Restored:
    low, high = ends
    fold = new(tp.partition)
    try:
        if held.damage:
            raise Damaged("; ".join(held.damage.values()))
        fold.restore(held.scopes.values(), held.head)
    except (Damaged, Refused) as damage:
        log.error("%s; folding %s-%d again from its beginning, outputs will be repeats", damage, tp.topic, tp.partition)
        if low > 0:
            raise InputLost(f"{tp.topic}-{tp.partition} begins at {low}: its first records are deleted, so the "
                            f"damaged state ({damage}) cannot be folded again") from damage
        return Restored(new(tp.partition), 0, tuple(sorted(held.keys)))
    if held.head is None:
        return Restored(fold, low)
    start = fold.offset + 1
    if not low <= start <= high:
        raise InputLost(
            f"{tp.topic}-{tp.partition} holds {low} to {high}, but the state of {fold.agent.name} goes on at {start}: "
            + ("records that were never folded are deleted" if start < low else
               "the topic is shorter than what was folded; was it deleted and made anew? The changelog "
               f"{fold.io.changelog} belongs to the old one")
        )
    return Restored(fold, start)
