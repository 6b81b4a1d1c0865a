"""Holds what a disturbed run has written against the undisturbed fold of its own input log.

    found = judge(read_all(settings), roster)
    assert not found.wrong, found.wrong

Undisturbed means: each partition of an agent's input, as it was written in that run, folded from nothing in one go.
Held against it, for every agent and partition:

    relay    each source record stands in the inbox's effective order once, in order, with its own bytes
    outputs  what follows from the input is on the output topics: the same bytes for each id, nothing missing, nothing
             more, and first copies in order
    state    of every scope the record that contains most input, and the head: the same bytes, hashes and counters
    counts   each candle became one bar of features; each trade one experience; each outcome one update; versions
             1 to n of each policy, each once

The reading of the changelog is the judge's own (highest contained offset), so that a restore that reads otherwise is
seen. Nothing here needs a broker: tests of the protections hand it a log made in memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.contract import Agent
from schemas.catalogue import AGENTS, TOPICS, AgentIO
from schemas.codec import Codec
from schemas.events import PartitionHead, PolicyRecord, ScopeState
from schemas.refused import Refused
from streams.fold import PartitionFold
from streams.identity import Identity
from streams.log import LogReader, Record
from streams.records import (
    CE_ID,
    ERROR,
    FENCE,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    Incoming,
    Outgoing,
    header,
    output_id,
)
from streams.relay import targets
from streams.settings import Settings
from streams.trainers.jobs import JOB_ID, OpenJobs

CODEC = Codec()
SHOWN = 4
EXACT = ("digest", "fences", "seen", "sticky", "repeated", "refused")
AT_MOST = ("applied", "emitted")  # a scope that skips what its record contains does not count these steps again
FED = frozenset({"market.candles"})  # what a run's feed publishes, and an agent publishes too; told apart by their ids
Written = Mapping[str, Mapping[int, list[Record]]]
"""Records by topic and partition, in order."""


@dataclass(slots=True)
class Found:
    """What the judge found: sentences that say what is wrong, and how much was compared."""

    wrong: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    def say(self, what: str, items: Iterable[Any]) -> None:
        """Note what is wrong, with a few examples."""
        some = [str(item) for item in items]
        if some:
            more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
            self.wrong.append(f"{what}: {', '.join(some[:SHOWN])}{more}")


def read_all(settings: Settings) -> Written:
    """Everything that a run has written."""
    written: dict[str, dict[int, list[Record]]] = {}
    with LogReader(settings) as log:
        for topic, partitions in log.topics().items():
            written[topic] = {p: [] for p in partitions}
            for record in log.read(topic):
                written[topic][record.partition].append(record)
    return written


def judge(written: Written, roster: Mapping[str, Agent[Any]],
          identities: Mapping[str, Identity] | None = None, codec: Codec = CODEC) -> Found:
    """Hold a run against its undisturbed fold.

    Args:
        written: all records of the run.
        roster: the agents that ran, configured as they ran.
        identities: what they stamped on policies; none where they stamped nothing.
        codec: one that knows the registry's schemas, where the run wrote Confluent framing.
    """
    found = Found()
    due: dict[str, dict[str, Outgoing]] = defaultdict(dict)
    asked: set[str] = set()
    letters: set[tuple[str, ...]] = set()
    for name, agent in roster.items():
        io = AGENTS[name]
        _relayed(found, written, io)
        for partition in sorted(written[io.input_topic]):
            fold = PartitionFold(agent, partition, codec, (identities or {}).get(name))
            _stated(found, written, io, partition, fold, _folded(found, written, io, fold, due, letters, asked))
    _published(found, written, due, asked, {topic for name in roster for topic in (*AGENTS[name].writes,)}, codec)
    there = {_letter(r) for topic in written if topic.endswith(".dlq") for r in _all(written, topic)}
    found.say("dead letters missing", sorted(letters - there))
    found.say("dead letters that do not follow", sorted(there - letters))
    return found


def _all(written: Written, topic: str) -> Iterator[Record]:
    for records in written.get(topic, {}).values():
        yield from records


def _letter(record: Record | Outgoing) -> tuple[str, ...]:
    told = ("by", "topic", "partition", "offset", "reason")
    return tuple(header(record.headers, ERROR + what) or "" for what in told)


# ---------------------------------------------------------------------- relay
def _relayed(found: Found, written: Written, io: AgentIO) -> None:
    """Each source record once, in order, with its own bytes, in each partition that its route names."""
    if io.direct:
        return
    due: dict[tuple[int, str, int], list[Record]] = defaultdict(list)
    partitions = len(written[io.input_topic])
    for topic, route in io.reads.items():
        for record in _all(written, topic):
            to = targets(route, topic, record.key, partitions)
            for inbox in () if isinstance(to, str) else to:
                due[inbox, topic, record.partition].append(record)
    taken: dict[tuple[int, str, int], list[Record]] = defaultdict(list)
    offsets: dict[tuple[int, str, int], int] = {}
    for record in _all(written, io.input_topic):
        topic, partition, offset = (header(record.headers, h) for h in (SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET))
        if topic is None or partition is None or offset is None:
            continue
        place = (record.partition, topic, int(partition))
        if int(offset) > offsets.get(place, -1):
            offsets[place] = int(offset)
            taken[place].append(record)
        else:
            found.figures["repeated copies"] += 1
    for place in sorted({*due, *taken}):
        have = {int(header(r.headers, SOURCE_OFFSET) or -1): r for r in taken[place]}
        want = {r.offset: r for r in due[place]}
        name = f"{io.input_topic}-{place[0]} of {place[1]}-{place[2]}"
        found.say(f"lost on the way into {name}, source offsets", sorted(set(want) - set(have)))
        found.say(f"made up in {name}, source offsets", sorted(set(have) - set(want)))
        found.say(f"changed on the way into {name}", [r.place for o, r in have.items() if o in want and (
            (r.key, r.value) != (want[o].key, want[o].value) or r.headers[:len(want[o].headers)] != want[o].headers)])
        found.figures["copies"] += len(have)


# ---------------------------------------------------------------------- fold, outputs, state
def _folded(found: Found, written: Written, io: AgentIO, fold: PartitionFold, due: dict[str, dict[str, Outgoing]],
            letters: set[tuple[str, ...]], asked: set[str]) -> dict[int, PartitionHead]:
    """Fold a partition to its end; the heads that it passes at the offsets which the changelog names."""
    jobs = OpenJobs(fold)
    stops = {h.input_offset for h in _rows(written, io, fold.partition)[1]}
    heads = {-1: fold.head()}
    for record in written[io.input_topic][fold.partition]:
        for out in fold.apply(Incoming(record.offset, record.key, record.value, record.headers)):
            if out.event is None:
                letters.add(_letter(out))
            else:
                due[out.topic][header(out.headers, CE_ID) or ""] = out
        asked |= {f"{io.name}:{job_id}" for job_id in jobs.look()}
        if record.offset in stops:
            heads[record.offset] = fold.head()
        found.figures["folded"] += 1
    found.say(f"jobs of {io.input_topic}-{fold.partition} that nobody has answered", sorted(jobs.look()))
    return heads


def _rows(written: Written, io: AgentIO, partition: int) -> tuple[dict[str, ScopeState], list[PartitionHead]]:
    """Of each scope the record that contains most input, and every head; a tombstone frees its key."""
    held: dict[bytes | None, ScopeState] = {}
    heads: list[PartitionHead] = []
    for record in written[io.changelog][partition]:
        if record.value is None:
            held.pop(record.key, None)
            continue
        try:
            row = CODEC.decode(CODEC.name_of(record.value), record.value)
        except Refused:  # damage that a test has planted; what it stood for is missed below
            continue
        if isinstance(row, PartitionHead):
            heads.append(row)
        elif isinstance(row, ScopeState) and row.input_offset >= held.get(record.key, row).input_offset:
            held[record.key] = row
    best: dict[str, ScopeState] = {}
    for row in held.values():
        if row.input_offset >= best.get(row.scope, row).input_offset:
            best[row.scope] = row
    return best, heads


def _stated(found: Found, written: Written, io: AgentIO, partition: int, fold: PartitionFold,
            heads: Mapping[int, PartitionHead]) -> None:
    """Durable state against the fold, by offset and bytes; the head by everything that it counts."""
    held, written_heads = _rows(written, io, partition)
    where = f"{io.changelog}-{partition}"
    found.say(f"scopes missing on {where}", sorted(set(fold.scopes) - set(held)))
    found.say(f"scopes made up on {where}", sorted(set(held) - set(fold.scopes)))
    for scope, entry in fold.scopes.items():
        row = held.get(scope)
        if row is None:
            continue
        found.figures["scopes"] += 1
        if row.input_offset != entry.offset or row.state != fold.state_bytes(entry.state):
            found.wrong.append(f"{where} scope {scope}: state at {row.input_offset} is not that of the fold at "
                               f"{entry.offset}")
    newest = max(written_heads, key=lambda h: h.input_offset, default=None)
    reached = -1 if newest is None else newest.input_offset
    found.say(f"not folded at {where}", [r.place for r in written[io.input_topic][partition]
                                         if r.offset > reached and header(r.headers, FENCE) is None])
    if newest is None:
        return
    want = heads.get(newest.input_offset)
    if want is None:
        found.wrong.append(f"head of {where} is at {newest.input_offset}, where {io.input_topic} holds no record")
        return
    for name in (*EXACT, *AT_MOST):
        have, due = getattr(newest, name), getattr(want, name)
        if (have != due and name in EXACT) or (name in AT_MOST and have > due):
            found.wrong.append(f"head of {where}@{newest.input_offset}: {name} is {have!r:.200}, "
                               f"the fold's is {due!r:.200}")
    found.figures["heads"] += 1


def _published(found: Found, written: Written, due: Mapping[str, dict[str, Outgoing]], asked: set[str],
               writes: set[str], codec: Codec) -> None:
    """Output topics after dropping repeated ids. What trainers and hosts wrote of a job answers one that was asked."""
    for topic in sorted(writes | set(due)):
        first: dict[str, Record] = {}
        newest: dict[tuple[int, str, int], tuple[int, int]] = {}
        for record in _all(written, topic):
            ce_id = header(record.headers, CE_ID) or ""
            written_by = output_id(ce_id)
            if topic in FED and written_by is None:
                continue
            old = first.setdefault(ce_id, record)
            if old is not record:
                found.figures["repeated outputs"] += 1
                same = (old.key, codec.canonical(old.value)) == (record.key, codec.canonical(record.value))
                if not same or (old.headers != record.headers and _answers(record) is None):  # by another worker
                    found.wrong.append(f"two records with the id {ce_id}: {old.place} and {record.place}")
                continue
            if written_by is not None:
                place, at = (record.partition, *written_by[:2]), written_by[2:]
                if at < newest.get(place, at):
                    found.wrong.append(f"out of order: {record.place}, id {ce_id}")
                newest[place] = at
        want = due.get(topic, {})
        jobs = {i: job for i, r in first.items() if (job := _answers(r)) is not None}
        found.say(f"answers on {topic} that nobody asked for", sorted(i for i, j in jobs.items() if j not in asked))
        found.figures["answers"] += len(jobs)
        if TOPICS[topic].cleanup != "compact":
            found.say(f"missing on {topic}", sorted(set(want) - set(first)))
        found.say(f"on {topic} without following from the input", sorted(set(first) - set(want) - set(jobs)))
        found.say(f"other bytes on {topic}", [r.place for i, r in first.items() if i in want and (
            r.key, codec.canonical(r.value), r.headers) != (
            want[i].key, codec.canonical(want[i].value), want[i].headers)])
        found.figures["outputs"] += len(first)


def _answers(record: Record) -> str | None:
    """`agent:job id` of what was written of a job; None for what a fold published."""
    writer, _, kind = (header(record.headers, CE_ID) or "").partition(":")
    job_id = header(record.headers, JOB_ID)
    return f"{writer}:{job_id}" if job_id is not None and kind.startswith(("job:", "failed:")) else None


# ---------------------------------------------------------------------- counts
def counts(written: Written, learner: str = "q_learning") -> Found:
    """From end to end, on the events themselves: nothing lost, nothing counted twice, versions 1 to n.

    To be asked when everything has come to rest: what an agent still waits for (the last decisions) is no loss.
    """
    found = Found()
    candles = Counter((e.symbol, e.ts_ms) for e in _events(written, "market.candles"))
    bars = Counter((e.symbol, e.ts_ms) for e in _events(written, "market.features"))
    _once(found, "candle", candles, bars)
    trades = list(_events(written, "execution.trade.closed"))
    experiences = list(_events(written, "learning.experience"))
    _once(found, "trade", Counter(t.decision_id for t in trades),
          Counter(e.decision_id for e in experiences if e.status == "TRADED"))
    _once(found, "outcome", Counter(e.decision_id for e in experiences if e.learnable and e.book_id == learner),
          Counter(u.decision_id for u in _events(written, "rl.q_learning.updated")))
    rounds = Counter(d for u in _events(written, "rl.meta.updated") for d in u.decision_ids)
    found.say("experiences in two rounds", [d for d, n in rounds.items() if n > 1])
    own = {e.decision_id for e in experiences if e.learnable and e.book_id == "meta_strategy"}
    found.say("rounds with outcomes of nobody", sorted(set(rounds) - own))
    found.say("experiences taken twice", [d for d, n in Counter(e.decision_id for e in experiences).items() if n > 1])
    found.say("orphans", [o.orphan_id for o in _events(written, "learning.orphan")])
    versions: dict[str, list[int]] = defaultdict(list)
    for policy in _events(written, "policy.ledger"):
        assert isinstance(policy, PolicyRecord)
        versions[policy.policy_id].append(policy.version)
    for policy_id, seen in versions.items():
        if seen != list(range(1, len(seen) + 1)):
            found.wrong.append(f"versions of {policy_id} are not 1 to {len(seen)}, once each: {seen[:20]}")
        newest = max((e.version for e in _events(written, "policy.current") if e.policy_id == policy_id), default=0)
        found.say(f"policy.current of {policy_id} ends at another version", [newest] if newest != max(seen) else [])
    found.figures.update(candles=len(candles), trades=len(trades), outcomes=len(experiences),
                         versions=sum(map(len, versions.values())))
    return found


def _once(found: Found, what: str, sent: Counter[Any], taken: Counter[Any]) -> None:
    found.say(f"{what}s lost", sorted(set(sent) - set(taken)))
    found.say(f"{what}s counted twice", sorted(k for k, n in taken.items() if n > 1))
    found.say(f"{what}s that nobody sent", sorted(set(taken) - set(sent)))


def _events(written: Written, topic: str) -> Iterator[Any]:
    """Events of a topic, repeats of an id dropped as every reader does."""
    seen: set[str] = set()
    for record in _all(written, topic):
        ce_id = header(record.headers, CE_ID) or ""
        if ce_id not in seen:
            seen.add(ce_id)
            yield CODEC.decode(topic, record.value)
