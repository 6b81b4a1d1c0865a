"""One input partition folded again from its beginning, and what comes out held against what was published."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from schemas.catalogue import AGENTS, TOPICS
from schemas.events import Event, Experience, PartitionHead, PolicyRecord, ScopeState, TrainingCompleted
from schemas.refused import Refused
from streams.blobs import Blobs
from streams.fold import Damaged, OtherFormat, PartitionFold, Scope
from streams.held import Snapshot
from streams.identity import Identity
from streams.log import Record
from streams.records import CE_ID, Incoming, Outgoing, header
from streams.verify.evidence import Evidence, Stored, written_to

LEDGER = "policy.ledger"
NOTED = frozenset(t.name for t in TOPICS.values() if t.event in (Experience.__name__, TrainingCompleted.__name__))
SHOWN = 3  # how many differing records a sentence names


class Before(NamedTuple):
    """The scope's state before a record, and the record: what an update can be made again from."""

    scope: str
    entry: Scope | None
    record: Record


@dataclass(slots=True)
class Refolded:
    """A partition folded again.

    Attributes:
        fold: as it stands behind the last record folded.
        compared: outputs that met a published record, byte for byte but for the framing.
        differing: places of published records that are not what follows from the input.
        missing: ids of outputs that follow from the input and were never published.
        policies: ids of the policy versions that follow from the input.
        learnable: outcomes in the input that the agent must learn from.
        unlearned: learnable outcomes that came while the policy was frozen or retired.
        status: of the newest version of each scope.
        before: by offset of the record.
    """

    fold: PartitionFold
    compared: int = 0
    differing: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)
    learnable: int = 0
    unlearned: int = 0
    status: dict[str, str] = field(default_factory=dict)
    before: dict[int, Before] = field(default_factory=dict)

    @property
    def contradicts(self) -> str | None:
        """What does not follow, in words; None where all does."""
        if self.differing:
            return f"{len(self.differing)} published records are not what the input gives: {_some(self.differing)}"
        if self.missing:
            return f"{len(self.missing)} records follow from the input and were never published: {_some(self.missing)}"
        return None


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")


def incoming(record: Record, event: Event | None = None) -> Incoming:
    """A record of the log as the fold takes it, with its event where it was decoded."""
    return Incoming(record.offset, record.key, record.value, record.headers, event)


def root_of(evidence: Evidence, name: str, partition: int) -> Snapshot | None:
    """The state with which the epoch of the stored head began; None where it began with nothing."""
    stored = evidence.stored[name].get(partition)
    if stored is None or stored.head is None or stored.head.root_offset < 0:
        return None
    root = stored.held.root
    return root if root is not None and root.head is not None \
        and root.head.input_offset == stored.head.root_offset else None


def first_offset(evidence: Evidence, name: str, partition: int) -> int:
    """Input offset with which the epoch began, from which all can be folded again."""
    stored = evidence.stored[name].get(partition)
    return 0 if stored is None or stored.head is None else stored.head.root_offset + 1


def begins(evidence: Evidence, name: str, partition: int) -> bool:
    """Whether the input is there from the beginning of the epoch, and so is the root of one that is not the first."""
    io, first = AGENTS[name], first_offset(evidence, name, partition)
    return partition in evidence.topics.get(io.input_topic, ()) and \
        evidence.log.bounds(io.input_topic, partition)[0] <= first and \
        (not first or root_of(evidence, name, partition) is not None)


def refold(evidence: Evidence, name: str, partition: int, upto: int, *, identity: Identity | None = None,
           keep: Collection[int] = ()) -> Refolded:
    """Fold a partition from the beginning of its epoch to an offset, inclusive.

    Args:
        evidence: the log.
        name: agent.
        partition: of its input topic.
        upto: last input offset.
        identity: stamped on policies; default that of the agent as it would run here.
        keep: offsets before which the state is wanted.
    """
    fold = PartitionFold(evidence.roster[name], partition, evidence.codec, identity or evidence.identities[name])
    root = root_of(evidence, name, partition)
    if root is not None:
        fold.restore(root.scopes, root.head, evidence.blobs(name, partition))
    return fold_on(evidence, fold, first_offset(evidence, name, partition), upto, keep)


def fold_on(evidence: Evidence, fold: PartitionFold, first: int, upto: int, keep: Collection[int] = ()) -> Refolded:
    """Fold the records behind a state, up to an offset, inclusive, where they are there.

    Args:
        fold: holds the state, and is folded on.
        first, upto: input offsets.
        keep: see `refold`.
    """
    io, done = fold.io, Refolded(fold)
    published = {topic: evidence.published(topic) for topic in io.writes}  # before the input is read: one at a time
    for record in evidence.records(io.input_topic, {fold.partition: first}, {fold.partition: upto + 1}):
        event = _note(evidence, done, record, keep) if LEDGER in io.writes else None
        for out in fold.apply(incoming(record, event)):
            compare(out, published, done)
            if isinstance(out.event, PolicyRecord):
                done.status[out.event.scope] = out.event.status
    return done


def _note(evidence: Evidence, done: Refolded, record: Record, keep: Collection[int]) -> Event | None:
    """Count what is learned from, keep the state before it where that is wanted; the event, where it was decoded."""
    if written_to(record) not in NOTED:
        return None  # most of an inbox
    event = evidence.decoded(record)
    if not isinstance(event, (Experience, TrainingCompleted)):
        return event
    if isinstance(event, Experience) and event.learnable and event.book_id == done.fold.agent.name:
        learns = done.status.get(event.symbol, "ACTIVE") == "ACTIVE"
        done.learnable += learns
        done.unlearned += not learns
    if record.offset in keep:
        done.before[record.offset] = Before(event.symbol, done.fold.scopes.get(event.symbol), record)
    return event


def compare(out: Outgoing, published: dict[str, dict[str, tuple[bytes, str]]], done: Refolded) -> None:
    """Hold an output against the published record of its id. Dead letters and views are not outputs of record."""
    if out.event is None or TOPICS[out.topic].cleanup == "compact":
        return
    ce_id = header(out.headers, CE_ID) or ""
    if out.topic == LEDGER:
        done.policies.append(ce_id)
    found = published[out.topic].get(ce_id)
    if found is None:
        done.missing.append(ce_id)
    elif found[0] != sha256(done.fold.codec.canonical(out.value) or b"").digest():
        done.differing.append(found[1])
    else:
        done.compared += 1


def restored(evidence: Evidence, name: str, partition: int, stored: Stored) -> PartitionFold:
    """The state on the changelog as a fold, by our own reading.

    Raises:
        Damaged: it does not meet the head's digest, or cannot be read.
        OtherFormat: it is of another layout.
        Refused: it is not a state of the agent.
    """
    if stored.unreadable:
        raise Damaged(", ".join(stored.unreadable))
    return taken_up(evidence, name, partition, stored.scopes.values(), stored.head, evidence.blobs(name, partition))


def taken_up(evidence: Evidence, name: str, partition: int, scopes: Iterable[ScopeState], head: PartitionHead | None,
             blobs: Blobs | None) -> PartitionFold:
    """A state as a fold.

    Raises:
        Damaged, OtherFormat, Refused: as `restored`.
    """
    fold = PartitionFold(evidence.roster[name], partition, evidence.codec, evidence.identities[name])
    fold.restore(scopes, head, blobs)
    return fold


__all__ = ["Before", "Damaged", "OtherFormat", "Refolded", "Refused", "begins", "compare", "first_offset",
           "fold_on", "incoming", "refold", "restored", "root_of", "taken_up"]
