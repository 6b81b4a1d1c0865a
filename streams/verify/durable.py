"""PERSISTS: the changelog restored by our own reading, held against input, policies and what was published next.

Where folding a partition again from its beginning is above the budget, or its beginning is gone, it is folded on from
a checkpoint that the changelog keeps: the newest state must come out of that, byte for byte, and what was published.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from schemas.catalogue import AgentIO
from schemas.events import PartitionHead, PolicyRecord
from streams.fold import PartitionFold
from streams.log import Record
from streams.verify.cells import Cell, cell
from streams.verify.evidence import Evidence, Stored
from streams.verify.refold import Damaged, OtherFormat, Refolded, Refused, begins, fold_on, refold, restored, taken_up

BUDGET = 200_000
"""Input records folded again for each agent, at most; partitions in random order, from as far back as still fits."""
NEXT = 500  # records behind the state that are folded on from it, for each partition


@dataclass
class Found:
    """What the partitions of an agent showed."""

    heads: list[Record] = field(default_factory=list)
    refolded: int = 0
    partitions: int = 0
    since_checkpoints: int = 0
    outputs: int = 0
    next_outputs: int = 0
    policies: int = 0


class Contradiction(Exception):
    """State that cannot be what the agent holds; the message says why."""

    def __init__(self, why: str, record: Record | None) -> None:
        super().__init__(why)
        self.record = record


class OtherEpoch(Contradiction):
    """State that other code or another configuration folded."""


def persists(evidence: Evidence, io: AgentIO, random: Random, again: dict[tuple[str, int], Refolded], *,
             budget: int = BUDGET) -> Cell:
    """The cell PERSISTS.

    Args:
        again: partitions that were folded again already, by agent and partition; more are added.
    """
    stored, found = evidence.stored[io.name], Found()
    if not any(evidence.log.bounds(io.input_topic, p)[1] for p in evidence.topics.get(io.input_topic, ())):
        return cell("IDLE", f"no input on {io.input_topic}, so no state")
    if not stored:
        return cell("FAIL", f"{io.changelog} is not on the broker")
    order = sorted(stored)
    random.shuffle(order)
    try:
        for partition in order:
            budget = _partition(evidence, io, partition, stored[partition], found, budget, again)
    except Contradiction as exc:
        seed, other = evidence.roster[io.name].config.seed, _seed_of_policies(evidence)
        if other is not None and other != seed:
            return cell("NOT PROVEN", f"{exc}; but the policies were made with --seed {other}, and this is {seed}: "
                                      f"verify with the worker's", exc.record, evidence.now_ms)
        return cell("NOT PROVEN" if isinstance(exc, OtherEpoch) else "FAIL", str(exc), exc.record, evidence.now_ms)
    return _verdict(evidence, io, found)


def _seed_of_policies(evidence: Evidence) -> int | None:
    """Seed that the newest policy names: the worker gives one to all its agents."""
    for _, event in reversed(evidence.events("policy.ledger")):
        if isinstance(event, PolicyRecord) and event.provenance is not None:
            return event.provenance.seed
    return None


def _verdict(evidence: Evidence, io: AgentIO, found: Found) -> Cell:
    record = max(found.heads, key=lambda r: r.timestamp_ms or 0, default=None)
    figures = {"partitions": len(found.heads), "refolded": found.refolded, "outputs": found.outputs,
               "since_checkpoints": found.since_checkpoints, "next_outputs": found.next_outputs,
               "policies": found.policies}
    if record is None:
        return cell("NOT PROVEN", f"no state on {io.changelog} yet", None, None, **figures)
    if not found.partitions and not found.since_checkpoints and not found.next_outputs:
        return cell("NOT PROVEN", "state meets its digest, but its input is not there from the beginning or above the "
                                  "budget, no checkpoint is near enough, and nothing was published behind it", record,
                    evidence.now_ms, **figures)
    ways = [f"{n} of {len(found.heads)} {how}" for n, how in (
        (found.partitions, "partitions"), (found.since_checkpoints, "from a checkpoint on")) if n]
    why = (f"restored and met its digest; {found.refolded} input records folded again to the same bytes "
           f"({', '.join(ways) or 'no partition'}), {found.outputs} outputs met")
    if found.next_outputs:
        why += f"; the next {found.next_outputs} outputs follow from it"
    if found.policies:
        why += f"; it is the state that {found.policies} newest policies name"
    return cell("PASS", why, record, evidence.now_ms, **figures)


def _partition(evidence: Evidence, io: AgentIO, partition: int, stored: Stored, found: Found, budget: int,
               again: dict[tuple[str, int], Refolded]) -> int:
    head, at = stored.head, evidence.committed[io.name].get((io.input_topic, partition), 0)
    if head is None:
        if at > evidence.log.bounds(io.input_topic, partition)[0]:
            raise Contradiction(f"its group has committed {io.input_topic}-{partition} up to {at}, but "
                                f"{io.changelog}-{partition} holds no state: a restart would lose it", None)
        return budget
    record, ours = stored.head_record, evidence.identities[io.name]
    assert record is not None
    if head.code_hash is not None and (head.code_hash, head.config_hash) != (ours.code_hash, ours.config_hash):
        what = "code" if head.code_hash != ours.code_hash else "configuration"
        raise OtherEpoch(f"its state was made by another {what} than this one: verify with the {what} that made it",
                         record)
    if at > head.input_offset + 1:
        raise Contradiction(f"committed up to {at}, but the state holds {io.input_topic}-{partition} only up to "
                            f"{head.input_offset}: a restart would lose what lies between", record)
    try:
        fold = restored(evidence, io.name, partition, stored)
    except (Damaged, OtherFormat, Refused) as exc:
        raise Contradiction(f"the changelog cannot be restored: {exc}", record) from exc
    found.heads.append(record)
    states = {scope: fold.state_bytes(entry.state) for scope, entry in fold.scopes.items()}
    _meet_policies(evidence, io, fold, record, found)
    cost = 0 if (io.name, partition) in again else head.input_offset - fold.root_offset
    if cost <= budget and begins(evidence, io.name, partition):
        budget -= cost
        _meet_input(evidence, io, partition, stored, states, found, again)
    else:
        budget -= _meet_since(evidence, io, partition, stored, states, found, budget)
    _meet_next(evidence, io, fold, found)
    return budget


def _meet_policies(evidence: Evidence, io: AgentIO, fold: PartitionFold, record: Record, found: Found) -> None:
    """The state of each scope must be the one that its newest policy names."""
    if "policy.ledger" not in io.writes:
        return
    newest: dict[str, tuple[Record, PolicyRecord]] = {}
    for where, event in evidence.events("policy.ledger"):
        if isinstance(event, PolicyRecord) and event.agent == io.name and event.provenance is not None \
                and event.provenance.input_partition == fold.partition and event.provenance.to_offset <= fold.offset \
                and (event.scope not in newest or event.version >= newest[event.scope][1].version):
            newest[event.scope] = (where, event)
    for scope, (where, policy) in newest.items():
        entry, p = fold.scopes.get(scope), policy.provenance
        assert p is not None
        if entry is None:
            raise Contradiction(f"{policy.policy_id} version {policy.version} is published, but no state of {scope} is "
                                f"stored", where)
        earlier = p.to_offset <= fold.root_offset  # its epoch is over: the state names the root instead
        if not earlier and (entry.anchor_hash != p.state_hash or entry.anchor_offset != p.to_offset):
            raise Contradiction(f"the stored state of {scope} is not the one that {policy.policy_id} version "
                                f"{policy.version} names", where)
        if entry.offset == p.to_offset and fold.state_hash(scope, entry.state) != p.state_hash:
            raise Contradiction(f"the stored state of {scope} has not the hash that {policy.policy_id} version "
                                f"{policy.version} names", where)
        found.policies += 1


def _meet_input(evidence: Evidence, io: AgentIO, partition: int, stored: Stored, states: dict[str, bytes],
                found: Found, again: dict[tuple[str, int], Refolded]) -> None:
    """Input folded again from its beginning must give what is stored and what was published."""
    assert stored.head is not None
    upto = _reach(stored)
    done = again.get((io.name, partition))
    if done is None or done.fold.offset != upto:
        done = again[io.name, partition] = refold(evidence, io.name, partition, upto)
    _hold(evidence, io, stored, states, done, upto, f"{io.input_topic}-{partition} up to {upto} folds to")
    found.partitions += 1
    found.refolded += upto - stored.head.root_offset
    found.outputs += done.compared


def _meet_since(evidence: Evidence, io: AgentIO, partition: int, stored: Stored, states: dict[str, bytes],
                found: Found, budget: int) -> int:
    """Input behind the oldest checkpoint within the budget must give what is stored and what was published of it.

    Returns:
        Input records folded; 0 where no checkpoint is near enough, or whole, or of this epoch.
    """
    assert stored.head is not None
    upto, low = _reach(stored), evidence.log.bounds(io.input_topic, partition)[0]
    kept = [(at.input_offset, snapshot) for snapshot in stored.held.snapshots()
            if (at := snapshot.head) is not None and at != stored.head and _epoch(at) == _epoch(stored.head)
            and at.input_offset + 1 >= low and upto - at.input_offset <= budget]
    blobs = evidence.blobs(io.name, partition) if kept else None
    for offset, snapshot in reversed(kept):
        try:
            fold = taken_up(evidence, io.name, partition, snapshot.scopes, snapshot.head, blobs)
        except (Damaged, OtherFormat, Refused):
            continue  # an old slot may be half written over, and old blobs are deleted; the newest state is whole
        done = fold_on(evidence, fold, offset + 1, upto)
        _hold(evidence, io, stored, states, done, upto,
              f"{snapshot.name} and {io.input_topic}-{partition} up to {upto} fold to")
        found.since_checkpoints += 1
        found.refolded += upto - offset
        found.outputs += done.compared
        return upto - offset
    return 0


def _reach(stored: Stored) -> int:
    """Input offset up to which the state reaches."""
    assert stored.head is not None
    return max([stored.head.input_offset, *(row.input_offset for row in stored.scopes.values())])


def _hold(evidence: Evidence, io: AgentIO, stored: Stored, states: dict[str, bytes], done: Refolded, upto: int,
          what: str) -> None:
    """What was folded must be the stored state and the published outputs, byte for byte.

    Raises:
        Contradiction: it is not; `what` was folded, in words.
    """
    assert stored.head is not None
    if upto == stored.head.input_offset:  # else a flush was cut short: scopes are ahead of the head, each itself whole
        fresh = {scope: done.fold.state_bytes(entry.state) for scope, entry in done.fold.scopes.items()}
        if fresh != states:
            names = sorted(s for s in {*fresh, *states} if fresh.get(s) != states.get(s))
            raise Contradiction(f"the stored state of {', '.join(names[:3])} is not what {what}", stored.head_record)
    if done.differing or (done.missing and _whole(evidence, io)):
        raise Contradiction(f"{done.contradicts}", stored.head_record)


def _epoch(head: PartitionHead) -> tuple[str | None, str | None, int]:
    """What one epoch of a partition has in common."""
    return head.code_hash, head.config_hash, head.root_offset


def _whole(evidence: Evidence, io: AgentIO) -> bool:
    """Whether the topics that it writes are there from their beginning: else what is missing may have been deleted."""
    return all(evidence.log.bounds(t, p)[0] == 0 for t in io.writes for p in evidence.topics.get(t, ()))


def _meet_next(evidence: Evidence, io: AgentIO, fold: PartitionFold, found: Found) -> None:
    """Records behind the state, folded on from it, must give what was published of them, as far as it was."""
    done = fold_on(evidence, fold, fold.offset + 1, fold.offset + NEXT)
    if done.differing:
        raise Contradiction(f"{done.contradicts}: what was published behind the stored state does not follow from it",
                            None)
    found.next_outputs += done.compared
