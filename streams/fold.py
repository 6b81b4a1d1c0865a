"""The pure fold of one input partition: what the host runs on Kafka, the driver in memory and verification again.

For each record, in order: skip it if its source offset or output id was taken before (`_fresh`), decode it, step the
scope it belongs to (all scopes for a broadcast), stamp provenance on policies, encode what comes out. What cannot be
taken becomes a dead letter. The fold does no I/O: its caller publishes what `apply` returns, then writes what `flush`
returns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from agents.contract import Agent, Output, Refused, State
from schemas import catalogue
from schemas.catalogue import GLOBAL, TOPICS, AgentIO
from schemas.codec import SINGLE_OBJECT, Codec
from schemas.events import (
    Event,
    Fence,
    PartitionHead,
    PolicyRecord,
    Provenance,
    RiskModeChanged,
    ScopeState,
    Seen,
    Sticky,
)
from streams import commanded
from streams.blobs import BlobLost, Blobs, lightened
from streams.identity import Identity
from streams.keeping import Flush, Keeper, digest_of
from streams.records import (
    CE_ID,
    FENCE,
    OFFSET_DIGITS,
    OWNER,
    PARTITION_DIGITS,
    REDRIVEN_FOR,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    TOPIC_ID,
    Incoming,
    Outgoing,
    Source,
    dead_letter,
    encode_event,
    event_key,
    output_id,
    text_of,
)
from streams.states import decoded, hash_of

HEAD_FORMAT = 1
MOST_TEXT = 512  # of a header, in the head


class Scope(NamedTuple):
    """State of one scope, with the offset of the last input in it."""

    state: State
    offset: int
    anchor_offset: int = -1
    anchor_hash: str | None = None


@dataclass(slots=True)
class Counters:
    """What happened to the records of a partition since genesis."""

    applied: int = 0
    repeated: int = 0
    refused: int = 0
    emitted: int = 0


class PartitionFold:
    """One agent on one input partition.

    Args:
        agent: the pure agent.
        partition: partition of the agent's input topic.
        codec: Avro codec.
        identity: hashes of code and configuration, stamped on policies; None leaves provenance off.
    """

    def __init__(self, agent: Agent[Any], partition: int, codec: Codec, identity: Identity | None = None) -> None:
        self.agent = agent
        self.io: AgentIO = catalogue.AGENTS[agent.name]
        self.partition = partition
        self.codec = codec
        self.identity = identity
        self.scopes: dict[str, Scope] = {}
        self.offset = -1
        self.event_ms = 0  # newest event time that was folded here, since the state was taken up
        self.counters = Counters()
        self.made: Counter[str] = Counter()  # outputs by topic, since the state was taken up
        self.changed = 0  # decisions that a policy changed, ditto
        self.fences: dict[tuple[str, int], tuple[str, int]] = {}
        self.input_topic_id: str | None = None  # its caller says it; in the head, a topic made anew shows
        self.topic_ids: dict[tuple[str, int], str] = {}  # of source partitions, as the fences say
        self.seen: dict[tuple[str, int, str, int], tuple[int, int]] = {}
        self.sticky: dict[str, tuple[str, bytes, Event]] = {}
        self.root_offset = -1
        self.root_reason: str | None = None
        self.keeper = Keeper(self)
        self.number = 0

    # ------------------------------------------------------------------ folding
    def apply(self, record: Incoming) -> list[Outgoing]:
        """Fold one record; returns what to publish, in order.

        A record at or below the head's offset was taken before and yields nothing.
        """
        if record.offset <= self.offset:
            return []
        held = dict(record.headers) if record.source is None else {}  # the last of a name, as `header` has it
        source = self._source(record, held)
        fresh = source is not None and self._fresh(record, source, held)
        self.offset = record.offset
        if source is None or not fresh:
            return []
        self.number = 0
        try:
            event, scopes = self._read(record, source)
        except Refused as refused:
            letter = self._refuse(source, record, refused)
            # Every partition has a copy of a broadcast record and refuses it alike: one letter is enough.
            return [letter] if self.partition == 0 or self.io.reads[source.topic] != "broadcast" else []
        self.event_ms = max(self.event_ms, getattr(event, "ts_ms", 0))
        out: list[Outgoing] = []
        for scope in scopes:
            try:
                out += self._step(scope, event, record.offset)
            except Refused as refused:
                out.append(self._refuse(source, record, refused))
            except Exception as exc:  # a defect of the agent on this record: keep the record, keep the stream
                detail = f"{type(exc).__name__} in {self.agent.name} for scope {scope}: {exc}"
                out.append(self._refuse(source, record, Refused("STEP_FAILED", detail)))
        return out

    def _source(self, record: Incoming, held: Mapping[str, bytes]) -> Source | None:
        """Where the record came from; a fence is taken here and has no source."""
        if record.source is not None:
            return record.source
        if self.io.direct:
            return Source(self.io.input_topic, self.partition, record.offset)
        topic, partition = text_of(held.get(SOURCE_TOPIC)) or "", _number(held.get(SOURCE_PARTITION), PARTITION_DIGITS)
        offset, fence = _number(held.get(SOURCE_OFFSET), OFFSET_DIGITS), text_of(held.get(FENCE)) is not None
        owner = text_of(held.get(OWNER))
        if topic not in self.io.reads or partition is None or not owner or (offset is None and not fence):
            self.counters.refused += 1  # no relay of ours wrote it: it stays in the inbox, where everybody can see it
            return None
        if fence or offset is None:
            _, last = self.fences.get((topic, partition), ("", -1))
            self.fences[topic, partition] = (owner[:MOST_TEXT], last)
            if topic_id := text_of(held.get(TOPIC_ID)):
                self.topic_ids[topic, partition] = topic_id[:MOST_TEXT]
            return None
        return Source(topic, partition, offset)

    def _fresh(self, record: Incoming, source: Source, held: Mapping[str, bytes]) -> bool:
        """Whether the record is beyond the last one taken of its source partition, and not a repeated output.

        Who copied it does not matter. Every relay copies in order, without a gap, from an offset that was committed
        after its copy was acknowledged: so whatever mixture of relays wrote the inbox, the copies up to any offset
        stand before it, and the first copy of each is in order. Taking only the newest owner's copies would lose
        records for good where an older relay's fence is written late.
        """
        if record.source is not None:
            return True
        if not self.io.direct:
            _, last = self.fences.get((source.topic, source.partition), ("", -1))
            if source.offset <= last:
                self.counters.repeated += 1
                return False
            self.fences[source.topic, source.partition] = ((text_of(held.get(OWNER)) or "")[:MOST_TEXT], source.offset)
        if TOPICS[source.topic].external:
            return True
        if self.agent.name in (text_of(held.get(REDRIVEN_FOR)) or "").split(","):
            return True  # a dead letter of this agent, sent again: its output id was noted when it was refused
        written = output_id(text_of(held.get(CE_ID)))
        if written is None:
            return True
        writer, partition, offset, n = written
        place = (source.topic, source.partition, writer, partition)  # ids ascend within a source partition only
        if (offset, n) <= self.seen.get(place, (-1, -1)):
            self.counters.repeated += 1
            return False
        self.seen[place] = (offset, n)
        return True

    def _read(self, record: Incoming, source: Source) -> tuple[Event, list[str]]:
        event = record.event
        if event is None:
            event = self.codec.decode(source.topic, record.value)
        route = self.io.reads[source.topic]
        if route == "broadcast":
            self._remember(source.topic, event, record.value)
            only = commanded.addressee(event)
            return event, sorted(self.scopes) if only is None else [s for s in (only,) if s in self.scopes]
        expected = event_key(source.topic, event)
        if record.source is None and record.key != expected:
            raise Refused("KEY_MISMATCH", f"key {record.key!r}, but the value belongs to {expected!r}")
        if route == "gather":  # what spans symbols has one scope
            return event, [GLOBAL]
        scope = catalogue.scope_of(source.topic, expected.decode())
        if scope == GLOBAL:
            self._remember(source.topic, event, record.value)
            return event, sorted(self.scopes)
        return event, [scope]

    def _remember(self, topic: str, event: Event, value: bytes | None) -> None:
        key = self.agent.sticky_key(event)
        if key is not None:
            kept = commanded.without_state(event)
            whole = kept is event and value is not None and value[:2] == SINGLE_OBJECT  # readable without a registry
            self.sticky[key] = (topic, value if whole else self.codec.encode(topic, kept), kept)  # type: ignore[assignment]

    def _step(self, scope: str, event: Event, offset: int) -> list[Outgoing]:
        entry = self.scopes.get(scope)
        if entry is None:
            entry = self.born(scope, offset)
        elif offset <= entry.offset:  # the scope's record was durable before the head's: already in it
            self.counters.applied += 1
            return []
        state, outputs = commanded.step(self.agent, self.codec, scope, entry.state, event)
        born = scope not in self.scopes
        changed = born or state is not entry.state
        if changed:
            entry = Scope(state, offset, entry.anchor_offset, entry.anchor_hash)
        out: list[Outgoing] = []
        for output in outputs:
            entry = self._publish(scope, entry, output, offset, out)
        # From here on nothing can fail: a step counts as a whole or, where an output is refused, not at all.
        self.counters.applied += 1
        self.counters.emitted += len(out)
        for topic, made in outputs:
            self.made[topic] += 1
            if topic == "policy.applied":
                self.changed += _changed(made)
        if changed or entry is not self.scopes[scope]:
            self.keeper.touch(scope, changed)
            self.scopes[scope] = entry
        return out

    def born(self, scope: str, offset: int) -> Scope:
        """A scope before its first input, at an offset; it has seen what is remembered for such."""
        state = self.agent.new(scope)
        for _, _, event in self.sticky.values():
            if commanded.addressee(event) in (None, scope):
                state, _ = self.agent.step(state, event)
        return Scope(state, offset - 1)

    def _publish(self, scope: str, entry: Scope, output: Output, offset: int, out: list[Outgoing]) -> Scope:
        topic, event = output
        if isinstance(event, (PolicyRecord, RiskModeChanged)) and self.identity is not None:
            state_hash = self.state_hash(scope, entry.state)
            event = msgspec.structs.replace(event, provenance=self._provenance(entry, offset, state_hash))
            if isinstance(event, PolicyRecord):
                entry = Scope(entry.state, entry.offset, offset, state_hash)
        out.append(self.encoded(topic, event, offset))
        if topic == "policy.ledger":  # the ledger first: it is the truth, the other a view
            out.append(self._viewed(out[-1], offset))
        return entry

    def _next_id(self, offset: int) -> str:
        """Id of the next output of the record at an offset."""
        ce_id = f"{self.agent.name}:{self.partition}-{offset}:{self.number}"
        self.number += 1
        return ce_id

    def _viewed(self, written: Outgoing, offset: int) -> Outgoing:
        """A version on the ledger again, for `policy.current`: of one schema, so the same bytes, with another id."""
        ce_id = self._next_id(offset).encode()
        headers = tuple([(k, ce_id if k == CE_ID else v) for k, v in written.headers])
        return written._replace(topic="policy.current", headers=headers)

    def encoded(self, topic: str, event: Event, offset: int) -> Outgoing:
        """The next output of the record at an offset; `number` counts them."""
        ce_id = self._next_id(offset)
        try:
            return encode_event(self.codec, topic, event, ce_id, getattr(event, "source", self.agent.name))
        except Refused as refused:
            raise Refused("OUTPUT_REFUSED", f"what follows from it does not fit {topic}: {refused}") from refused

    def _provenance(self, entry: Scope, offset: int, state_hash: str) -> Provenance:
        assert self.identity is not None
        return Provenance(
            parent_hash=entry.anchor_hash, state_hash=state_hash, input_topic=self.io.input_topic,
            input_partition=self.partition, from_offset=entry.anchor_offset + 1, to_offset=offset,
            config_hash=self.identity.config_hash, code_hash=self.identity.code_hash,
            feature_schema_hash=self.identity.feature_schema_hash, seed=self.agent.config.seed,
            platform=self.identity.platform,
        )

    def _refuse(self, source: Source, record: Incoming, refused: Refused) -> Outgoing:
        self.counters.refused += 1
        return dead_letter(source, record, refused.reason, refused.detail, self.agent.name)

    # ------------------------------------------------------------------ state in and out
    def state_bytes(self, state: State) -> bytes:
        """A state in Avro, by the schema of its class; heavy fields by their hash."""
        return self.codec.encode_state(lightened(state, self.agent.heavy))

    def state_hash(self, scope: str, state: State) -> str:
        """SHA-256 of scope and state, hex."""
        return hash_of(scope, self.state_bytes(state))

    def digest(self) -> str:
        """Order-independent digest of all scopes, 64 hex digits."""
        return self.keeper.digest()

    def flush(self) -> Flush:
        """What changed since the last flush, the head last; the fold forgets that it changed."""
        return self.keeper.flush(self.head())

    def head(self) -> PartitionHead:
        """What this partition has taken."""
        c, by = self.counters, self.identity
        return PartitionHead(
            agent=self.agent.name, format_version=HEAD_FORMAT, input_topic=self.io.input_topic,
            input_partition=self.partition, input_topic_id=self.input_topic_id, input_offset=self.offset,
            digest=self.digest(),
            fences=tuple(Fence(topic=t, partition=p, owner=o, offset=n, topic_id=self.topic_ids.get((t, p)))
                         for (t, p), (o, n) in sorted(self.fences.items())),
            seen=tuple(Seen(topic=t, source_partition=s, writer=w, partition=p, offset=o, n=n)
                       for (t, s, w, p), (o, n) in sorted(self.seen.items())),
            sticky=tuple(Sticky(key=k, topic=t, value=v) for k, (t, v, _) in sorted(self.sticky.items())),
            applied=c.applied, repeated=c.repeated, refused=c.refused, emitted=c.emitted,
            code_hash=None if by is None else by.code_hash, config_hash=None if by is None else by.config_hash,
            root_offset=self.root_offset, root_reason=self.root_reason,
        )

    def restore(self, scopes: Iterable[ScopeState], head: PartitionHead | None, blobs: Blobs | None = None) -> None:
        """Take up state that was flushed before.

        Scopes newer than the head are kept and skip what they contain. A head without its scopes, or with scopes that
        do not meet its digest, is a damaged changelog. Where other code, or another configuration, wrote the state, an
        epoch begins: its root is what was taken up.

        Raises:
            Damaged: the scopes do not meet the head's digest, or a blob is not there.
            OtherFormat: a format version is none that this agent reads, or another topic was folded.
            Refused: a state is none of this agent's.
        """
        rows = list(scopes)
        if head is not None and (head.input_topic, head.input_partition) != (self.io.input_topic, self.partition):
            raise OtherFormat(f"the state of {self.agent.name} was folded from {head.input_topic}-"
                              f"{head.input_partition}, this version folds {self.io.input_topic}-{self.partition}. Run "
                              f"the version that wrote it; or stop the workers, quantum reset {self.agent.name}")
        for row in rows:
            self.scopes[row.scope] = Scope(self._state(row, blobs), row.input_offset, row.anchor_offset,
                                           row.anchor_hash)
        if head is None:
            self.keeper.restored(rows)
            return
        self.offset = head.input_offset
        self.fences = {(f.topic, f.partition): (f.owner, f.offset) for f in head.fences}
        self.topic_ids = {(f.topic, f.partition): f.topic_id for f in head.fences if f.topic_id is not None}
        self.input_topic_id = head.input_topic_id
        self.seen = {(s.topic, s.source_partition, s.writer, s.partition): (s.offset, s.n) for s in head.seen}
        self.sticky = {s.key: (s.topic, s.value, self.codec.decode(s.topic, s.value)) for s in head.sticky}
        self.counters = Counters(head.applied, head.repeated, head.refused, head.emitted)
        self.root_offset, self.root_reason = head.root_offset, head.root_reason
        self.keeper.restored(rows)
        self._judge(rows, head)
        if self.identity is not None and (head.code_hash, head.config_hash) != (self.identity.code_hash,
                                                                               self.identity.config_hash):
            self.begin_epoch()

    def _judge(self, rows: list[ScopeState], head: PartitionHead) -> None:
        """Hold what was taken up against the head's digest, in the bytes in which it was written."""
        if digest_of(rows, head.input_offset) != head.digest:
            raise Damaged(f"{self.agent.name} partition {self.partition}: scopes do not meet the head's digest "
                          f"at {self.io.input_topic}-{self.partition}@{head.input_offset}")

    def _state(self, row: ScopeState, blobs: Blobs | None) -> State:
        """The state in a row, of an older format too, with its heavy fields."""
        def filled(state: Any) -> Any:
            heavy = {} if blobs is None else {name: blobs.get(row.scope, getattr(state, name).hex())
                                              for name in self.agent.heavy if getattr(state, name, b"")}
            return msgspec.structs.replace(state, **heavy) if heavy else state

        try:
            state = decoded(self.agent, self.codec, row.format_version, row.state, filled)
        except BlobLost as lost:
            raise Damaged(str(lost)) from lost
        except Refused as refused:
            if refused.reason != "OTHER_FORMAT":
                raise
            raise OtherFormat(
                f"{self.agent.name}/{row.scope}: state format {row.format_version}, but this version reads "
                f"{self.agent.format_version}. Run the version that wrote it, or have the state folded anew from "
                f"{self.io.input_topic}: stop the workers, quantum refold {self.agent.name}") from refused
        if row.format_version != self.agent.format_version:
            self.keeper.touch(row.scope, True)
        return state

    def begin_epoch(self, reason: str | None = None) -> None:
        """What follows is folded from the state as it is now, by the code that runs now; see `root_reason`."""
        self.root_offset, self.root_reason = self.offset, reason
        for scope, entry in self.scopes.items():
            self.scopes[scope] = entry._replace(anchor_offset=max(entry.offset, self.offset),
                                                anchor_hash=self.state_hash(scope, entry.state))
        self.keeper.rewrite()
        self.keeper.begin_epoch(self.head())


def _changed(applied: Any) -> bool:
    """Whether a `PolicyApplied` was executed as the policy recommended, and not as the baseline would have been."""
    return bool(applied.executed_action == applied.recommended_action != applied.baseline_action)


def _number(value: bytes | None, digits: int) -> int | None:
    """A header's value of so many ASCII digits at most, which the head can hold; None for anything else."""
    return int(value) if value is not None and value.isdigit() and len(value) <= digits else None


class OtherFormat(Exception):
    """State of another layout: not damage, so nothing is done to it; the worker does not start."""


class Damaged(Exception):
    """State on the changelog that cannot be trusted: the partition has to be folded again."""
