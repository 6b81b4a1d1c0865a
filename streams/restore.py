"""State of input partitions, back from the changelog, and where each partition goes on.

A partition starts at the offset behind its head, whatever the group has committed: head and state say together what is
contained. Where the newest state cannot be trusted, the newest checkpoint that can be is taken and the records since
are folded again; without one, the whole input is. Outputs are then repeats with the same ids, which readers drop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from faust.types import TP

from schemas.codec import Codec
from schemas.refused import Refused
from streams.blobs import TOPIC as BLOBS
from streams.blobs import Blobs
from streams.fold import Damaged, PartitionFold
from streams.held import Held, Snapshot
from streams.records import HEAD_KEY, SCOPE_PREFIX
from streams.transport.recover import read_to_end, watermarks

log = logging.getLogger(__name__)


class InputLost(Exception):
    """The offset at which a partition has to go on is not in the log."""


@dataclass(slots=True)
class Restored:
    """A fold ready to go on.

    Attributes:
        start: input offset to go on at.
        wipe: keys of the changelog partition to delete first.
        end: of the input as it was then.
        damage: what was wrong with the state and what it was restored from instead, in words; None if nothing was.
    """

    fold: PartitionFold
    start: int
    wipe: tuple[bytes, ...] = ()
    damage: str | None = None
    end: int = 0


class Progress:
    """How far changelog partitions are read. Written by the thread that reads, read by any.

    Args:
        wanted: whether anybody looks: it costs a question to the broker for each partition.
    """

    def __init__(self, wanted: bool = True) -> None:
        self.wanted = wanted
        self._bounds: dict[int, tuple[int, int]] = {}
        self._next: dict[int, int] = {}
        self._read = False

    def begin(self, bounds: Mapping[int, tuple[int, int]]) -> None:
        """First offset held and next offset to be written of each partition that is read now."""
        self._next = {}
        self._bounds, self._read = dict(bounds), False

    def at(self, partition: int, offset: int) -> None:
        """A record was read."""
        self._next[partition] = offset + 1

    def end(self) -> None:
        """All is read."""
        self._read = True

    def shares(self) -> dict[int, float]:
        """Share of each partition that is read, 0 to 1: by offsets, of which compaction may have left few."""
        return {p: 1.0 if self._read or high <= low else min(1.0, (self._next.get(p, low) - low) / (high - low))
                for p, (low, high) in self._bounds.items()}

    @property
    def share(self) -> float | None:
        """Of all partitions together; None where nothing is being read."""
        shares = self.shares()
        return None if self._read or not shares else sum(shares.values()) / len(shares)


def restore(
    client: Mapping[str, str | int], codec: Codec, new: Callable[[int], PartitionFold], inputs: Iterable[TP],
    changelog: str, stop: Callable[[], bool], blobs_topic: str = BLOBS, progress: Progress | None = None,
) -> dict[TP, Restored]:
    """Read the changelog partitions of these input partitions; blocking.

    Args:
        client: librdkafka client configuration.
        codec: decodes heads and scopes.
        new: makes an empty fold of a partition.
        inputs: input partitions as the broker names them.
        changelog: changelog topic as the broker names it.
        stop: asked between polls; a true answer ends the reading.
        blobs_topic: `state.blobs` as the broker names it; read where the agent keeps heavy state.
        progress: is told how far the changelog is read.

    Raises:
        InputLost: the offset to go on at is not in the log.
        OtherFormat: the state is of a layout that this version does not read.
    """
    inputs = list(inputs)
    held: dict[int, Held[int]] = {
        tp.partition: Held(place=partial(_place, changelog, tp.partition)) for tp in inputs}

    def take(tp: TP, message: Any) -> None:
        held[tp.partition].take(codec, message.offset(), message.key() or b"", message.value(), message.headers())
        if watched is not None:
            watched.at(tp.partition, message.offset())

    changelogs = {TP(changelog, p) for p in held}
    watched = progress if progress is not None and progress.wanted else None
    if watched is not None:
        watched.begin({tp.partition: bounds for tp, bounds in watermarks(client, changelogs, stop).items()})
    read_to_end(client, changelogs, take, stop)
    blobs = _blobs(client, new, held, blobs_topic, stop)
    ends = watermarks(client, inputs, stop)
    if stop():
        return {}
    if watched is not None:
        watched.end()
    return {tp: replace(chosen(new, tp, held[tp.partition], blobs.get(tp.partition), ends[tp]), end=ends[tp][1])
            for tp in inputs}


def _place(topic: str, partition: int, offset: int) -> str:
    return f"{topic}-{partition}@{offset}"


def _blobs(client: Mapping[str, str | int], new: Callable[[int], PartitionFold], partitions: Iterable[int], topic: str,
           stop: Callable[[], bool]) -> dict[int, Blobs]:
    agents = {p: new(p).agent for p in partitions}
    found = {p: Blobs(agent.name) for p, agent in agents.items() if agent.heavy}
    read_to_end(client, {TP(topic, p) for p in found},
                lambda tp, message: found[tp.partition].take(message.key(), message.value()), stop)
    return found


def chosen(new: Callable[[int], PartitionFold], tp: TP, held: Held[Any], blobs: Blobs | None,
         ends: tuple[int, int]) -> Restored:
    """The fold of a partition: from the newest snapshot that is whole, else from the beginning of its input."""
    low, high = ends
    trouble: list[str] = list(held.refused.values())
    for nth, snapshot in enumerate(held.snapshots()):
        fold = new(tp.partition)
        try:
            fold.restore(snapshot.scopes, snapshot.head, blobs)
            _check_start(fold, snapshot.head is not None, tp, low, high)
        except (Damaged, Refused) as damage:
            trouble.append(f"{snapshot.name}: {damage}")
            continue
        fold.keeper.adopt(held, blobs)
        return _taken_up(fold, snapshot, held, trouble, newest=nth == 0, low=low)
    what = "; ".join(trouble)
    if low > 0:
        raise InputLost(f"{tp.topic}-{tp.partition} begins at {low}: its first records are deleted, so the damaged "
                        f"state cannot be folded again: {what}")
    log.error("%s; folding %s-%d again from its beginning, outputs will be repeats", what, tp.topic, tp.partition,
              extra={"topic": tp.topic, "partition": tp.partition})
    return Restored(new(tp.partition), 0, tuple(sorted(held.keys)),
                    f"{what}; {tp.topic}-{tp.partition} is folded again from its beginning")


def _taken_up(fold: PartitionFold, snapshot: Snapshot, held: Held[Any], trouble: list[str], *, newest: bool,
              low: int) -> Restored:
    start = low if snapshot.head is None else fold.offset + 1
    if not trouble:
        return Restored(fold, start)
    what = f"{'; '.join(trouble)}; restored from {snapshot.name}"
    log.error("%s", what)
    fold.keeper.rewrite()
    if newest:  # whole without what was refused; its keys are written anew, others deleted
        known = {(SCOPE_PREFIX + scope).encode() for scope in fold.scopes} | {HEAD_KEY}
        return Restored(fold, start, tuple(sorted(set(held.refused) & held.keys - known)), what)
    old = {key for key in held.keys if key == HEAD_KEY or key.startswith(SCOPE_PREFIX.encode())} | set(held.refused)
    return Restored(fold, start, tuple(sorted(old)), what)


def _check_start(fold: PartitionFold, headed: bool, tp: TP, low: int, high: int) -> None:
    """Whether the input is there from where the state ends.

    Raises:
        Damaged: it is not, for want of a head.
        InputLost: it is not.
    """
    if not headed:
        if low > 0 and fold.scopes:
            raise Damaged(f"there is no head, and {tp.topic}-{tp.partition} begins at {low}")
        return
    start = fold.offset + 1
    if not low <= start <= high:
        raise InputLost(
            f"{tp.topic}-{tp.partition} holds {low} to {high}, but the state of {fold.agent.name} goes on at {start}: "
            + ("records that were never folded are deleted" if start < low else
               "the topic is shorter than what was folded; was it deleted and made anew? The changelog "
               f"{fold.io.changelog} belongs to the old one")
        )
