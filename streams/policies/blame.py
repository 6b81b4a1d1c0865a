"""The event at which a version's input, folded again, goes another way than it did.

The state before the version's range is right and the state behind it is not, so one of the records between is not what
was folded then, or the ledger is not what was written then. Every record of the range is held against all that is left
of it elsewhere: a copy in an inbox against its source, a record of our own agents against a fold of its writer, and
what it made the agent publish against what was published. The first that disagrees is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agents.contract import Agent
from schemas import catalogue
from schemas.catalogue import AGENTS, TOPICS
from schemas.codec import Codec
from schemas.refused import Refused
from streams.fold import PartitionFold
from streams.log import Record
from streams.policies.ledger import Version
from streams.policies.rederive import Group, StartOf, incoming
from streams.policies.telling_apart import bytes_apart, differing
from streams.records import (
    CE_ID,
    ERROR,
    FENCE,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    Outgoing,
    header,
    output_id,
)
from streams.verify.copied import print_of
from streams.verify.view import Log, Spot

DLQ = ".dlq"
Effects = dict[tuple[str, str], bytes | None]
"""Canonical value by (topic, id): an output's id, or for a dead letter the place that it was refused from."""


@dataclass(frozen=True)
class Divergence:
    """Where a policy goes another way.

    Attributes:
        policy_id: the policy.
        version: first version that does not follow.
        place: of the event on the input, or of the ledger's record; None where nothing left on the log can tell.
        source: of the event before a relay copied it; None where it was not copied.
        what: what is different, in words.
        differs: fields that differ, in words.
        unjudged: places of the range that could be held against nothing.
    """

    policy_id: str
    version: int
    place: str | None
    source: str | None
    what: str
    differs: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()


class Finding(NamedTuple):
    """Something about one record of the range that is not as it was."""

    offset: int
    place: str
    source: str | None
    what: str
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Desk:
    """What is needed to look for an event: the log, and the agents that may have written it."""

    log: Log
    roster: Mapping[str, Agent[Any]]
    codec: Codec
    start_of: StartOf

    def decoded(self, topic: str, value: bytes | None) -> Any:
        """The event, or the `Refused` that the decoder answers with."""
        try:
            return self.codec.decode(topic, value)
        except Refused as refused:
            return refused


def blame(desk: Desk, group: Group, first: Version, begin: int, after: Version | None,
          made_hash: str | None) -> Divergence:
    """Find the event.

    Args:
        desk: log and agents.
        group: the partition.
        first: the first version that does not follow.
        begin: first offset of its range: one past the input of the version before it.
        after: the next version of the policy on the ledger.
        made_hash: hash of the state behind it as folded again.
    """
    fold = desk.start_of(group.agent)(group.partition, begin - 1)
    fold.identity = group.identity
    rows, made = _folded(desk.log, group, fold, begin, first.at)
    of_scope = [r for r in rows if _concerns(group.agent.name, r, first.policy.scope)]
    for several in (of_scope, rows):
        findings, unjudged = _findings(desk, group, several, made, first)
        if not findings and (hole := _hole(rows, group, begin, first.at)) is not None:
            findings = [hole]
        if findings:
            f = min(findings, key=lambda f: f.offset)
            left = tuple(place for offset, place in unjudged if offset < f.offset)
            return Divergence(first.policy.policy_id, first.policy.version, f.place, f.source, f.what, f.differs, left)
    return _nothing_found(first, after, made_hash, unjudged)


def _nothing_found(first: Version, after: Version | None, made_hash: str | None,
                   unjudged: Sequence[tuple[int, str]]) -> Divergence:
    """No record of the range disagrees with what is left of it: then it is the ledger's own record, if all were held
    against something."""
    p, left = first.policy.provenance, tuple(place for _, place in unjudged)
    next_parent = None if after is None or after.policy.provenance is None else after.policy.provenance.parent_hash
    whole = made_hash is not None and (next_parent == made_hash or (p is not None and p.state_hash == made_hash))
    if whole or not left:
        proof = "the state made again is the one that the ledger itself names" if whole else \
            "every event of its range is what was folded"
        return Divergence(first.policy.policy_id, first.policy.version, first.record.place, None,
                          f"{proof}: the record on the ledger is not what was written then")
    return Divergence(first.policy.policy_id, first.policy.version, None, None,
                      f"{len(left)} events of its range can be held against nothing that is left on the log, so it is "
                      f"one of them, or the record {first.record.place} itself", (), left)


def _folded(log: Log, group: Group, fold: PartitionFold, begin: int,
            upto: int) -> tuple[list[Record], dict[int, list[Outgoing]]]:
    """Records of a range, and what each makes the agent publish."""
    rows, made = [], {}
    for record in log.read(group.topic, {group.partition: fold.offset + 1}):
        if record.offset > upto:
            break
        out = fold.apply(incoming(record))
        if record.offset >= begin:
            rows.append(record)
            made[record.offset] = out
    return rows, made


def _concerns(name: str, record: Record, scope: str) -> bool:
    """Whether a record of an agent's input belongs to a scope, by its key; what has no scope belongs to all."""
    io = AGENTS[name]
    topic = io.input_topic if io.direct else header(record.headers, SOURCE_TOPIC) or ""
    if io.reads.get(topic) != "by_scope" or record.key is None:
        return True
    of = catalogue.scope_of(topic, record.key.decode(errors="replace"))
    return of in (scope, catalogue.GLOBAL)


def _hole(rows: Iterable[Record], group: Group, begin: int, end: int) -> Finding | None:
    there = {r.offset for r in rows}
    missing = next((o for o in range(begin, end + 1) if o not in there), None)
    if missing is None:
        return None
    return Finding(missing, f"{group.topic}-{group.partition}@{missing}", None, "this offset holds no record")


# ---------------------------------------------------------------------- each record against what is left of it
def _findings(desk: Desk, group: Group, rows: Sequence[Record], made: Mapping[int, list[Outgoing]],
              first: Version) -> tuple[list[Finding], list[tuple[int, str]]]:
    """What disagrees, and the records that could be held against nothing, by offset."""
    findings: list[Finding] = []
    judged: set[int] = set()
    for check in (_against_source, _against_writer):
        found, done = check(desk, group.agent.name, rows)
        findings += found
        judged |= done
    found, done = _against_effects(desk, group, rows, made, first)
    findings += found
    judged |= done
    unjudged = [(r.offset, r.place) for r in rows
                if r.offset not in judged and header(r.headers, FENCE) is None]
    return findings, unjudged


def _source_of(record: Record) -> Spot | None:
    topic = header(record.headers, SOURCE_TOPIC)
    numbers = [header(record.headers, name) or "" for name in (SOURCE_PARTITION, SOURCE_OFFSET)]
    if topic is None or not all(n.isascii() and n.isdigit() for n in numbers):
        return None
    return topic, int(numbers[0]), int(numbers[1])


def _against_source(desk: Desk, name: str, rows: Sequence[Record]) -> tuple[list[Finding], set[int]]:
    """Copies in an inbox against the records that they are copies of."""
    if AGENTS[name].direct:
        return [], set()
    spots = {r.offset: s for r in rows if (s := _source_of(r)) is not None}
    topics = desk.log.topics()
    bounds = {(t, p): desk.log.bounds(t, p) for t, p, _ in spots.values() if p in topics.get(t, ())}
    there = {s for s in spots.values() if (s[0], s[1]) in bounds and bounds[s[0], s[1]][0] <= s[2]
             < bounds[s[0], s[1]][1]}
    sources = desk.log.fetch(sorted(there))
    findings, judged = [], set()
    for r in rows:
        spot = spots.get(r.offset)
        sent = None if spot is None else sources.get(spot)
        if sent is None:
            continue
        judged.add(r.offset)
        if print_of(r) != print_of(sent):
            what, differs = _apart(desk, sent.topic, r, sent.key, sent.value, "its source")
            findings.append(Finding(r.offset, r.place, sent.place, what, differs))
    return findings, judged


def _against_writer(desk: Desk, name: str, rows: Sequence[Record]) -> tuple[list[Finding], set[int]]:
    """Records of our own agents against a fold of their writer's input."""
    written = {r.offset: w for r in rows if (w := output_id(header(r.headers, CE_ID))) is not None}
    again: dict[str, Outgoing] = {}
    for writer, partition in {(w[0], w[1]) for w in written.values()}:
        mine = [w for w in written.values() if (w[0], w[1]) == (writer, partition)]
        again |= _written(desk, writer, partition, {f"{w}:{p}-{o}:{n}" for w, p, o, n in mine},
                          max(w[2] for w in mine))
    findings, judged = [], set()
    for r in rows:
        out = again.get(header(r.headers, CE_ID) or "")
        if r.offset not in written or out is None:
            continue
        judged.add(r.offset)
        if (out.key, desk.codec.canonical(out.value)) != (r.key, desk.codec.canonical(r.value)):
            spot = None if AGENTS[name].direct else _source_of(r)
            source = None if spot is None else "{}-{}@{}".format(*spot)
            writer = written[r.offset][0]
            what, differs = _apart(desk, out.topic, r, out.key, out.value, f"a fold of its writer {writer}")
            findings.append(Finding(r.offset, r.place, source, what, differs))
    return findings, judged


def _written(desk: Desk, writer: str, partition: int, ids: set[str], upto: int) -> dict[str, Outgoing]:
    """Outputs of an agent made again from the beginning of its input; nothing where that is not there."""
    agent, topic = desk.roster.get(writer), AGENTS[writer].input_topic
    if agent is None or partition not in desk.log.topics().get(topic, ()) or \
            desk.log.bounds(topic, partition)[0] > 0:
        return {}
    fold, found = PartitionFold(agent, partition, desk.codec), dict[str, Outgoing]()
    for record in desk.log.read(topic, {partition: 0}):
        if record.offset > upto:
            break
        for out in fold.apply(incoming(record)):
            ce_id = header(out.headers, CE_ID) or ""
            if ce_id in ids and out.event is not None:
                found[ce_id] = out
    return found


def _apart(desk: Desk, topic: str, r: Record, key: bytes | None, value: bytes | None,
           other: str) -> tuple[str, tuple[str, ...]]:
    """How a stored record and what it should be are different."""
    if r.key != key:
        return f"its key is {r.key!r}, by {other} it is {key!r}", ()
    if r.value == value:
        return f"its headers are not those of {other}", ()
    if r.value is None or value is None:
        return f"stored {'nothing' if r.value is None else 'a value'}, by {other} the other way round", ()
    where = bytes_apart(desk.codec.canonical(r.value) or b"", desk.codec.canonical(value) or b"")
    is_, was = desk.decoded(topic, r.value), desk.decoded(topic, value)
    if isinstance(is_, Refused) and not isinstance(was, Refused):
        return (f"it cannot be decoded any more ({is_}): refused now, taken then; {where}, by {other}", ())
    if isinstance(is_, Refused) or isinstance(was, Refused):
        return f"it is not what {other} gives; {where}", ()
    return f"it is not what {other} gives; {where}", tuple(differing(is_, was))


# ---------------------------------------------------------------------- what each record made the agent publish
def _against_effects(desk: Desk, group: Group, rows: Sequence[Record], made: Mapping[int, list[Outgoing]],
                     first: Version) -> tuple[list[Finding], set[int]]:
    """What each record makes the agent publish against what was published; records with any effect are judged."""
    was = _published(desk, group, {r.offset for r in rows})
    own = ("policy.ledger", first.ce_id)  # what is in question cannot speak for itself
    findings, judged = [], set()
    for r in rows:
        now = _effects(desk, made[r.offset])
        then = was.get(r.offset, {})
        ids = dict.fromkeys(i for i in (*now, *then) if i != own)
        for topic, name in ids:
            what = _effect(topic, name, now, then)
            if what is not None:
                spot = None if AGENTS[group.agent.name].direct else _source_of(r)
                source = None if spot is None else "{}-{}@{}".format(*spot)
                findings.append(Finding(r.offset, r.place, source, what))
                break
        if ids and all(now.get(i) == then.get(i) for i in ids):
            judged.add(r.offset)
    return findings, judged


def _effect(topic: str, name: str, now: Effects, then: Effects) -> str | None:
    key = (topic, name)
    letter = topic.endswith(DLQ)
    if key not in then:
        return "it is refused now, and no dead letter says that it was then" if letter else \
            f"it gives {name} on {topic} now, which was never published"
    if key not in now:
        return "a dead letter says that it was refused then, and now it is taken" if letter else \
            f"{name} was published on {topic} then, and does not follow from it now"
    return None if letter or now[key] == then[key] else f"{name} on {topic} has other bytes than follow from it now"


def _effects(desk: Desk, out: Iterable[Outgoing]) -> Effects:
    found: Effects = {}
    for o in out:
        if o.event is None:
            found[o.topic, _refused_from(o.headers)] = None
        elif TOPICS[o.topic].cleanup != "compact":
            found[o.topic, header(o.headers, CE_ID) or ""] = desk.codec.canonical(o.value)
    return found


def _refused_from(headers: Any) -> str:
    place = [header(headers, ERROR + name) or "" for name in ("topic", "partition", "offset")]
    return "refused {}-{}@{}".format(*place)


def _published(desk: Desk, group: Group, offsets: set[int]) -> dict[int, Effects]:
    """What an agent published, by the offset of the input that it follows from; of repeats the first."""
    name, io, topics = group.agent.name, AGENTS[group.agent.name], desk.log.topics()
    found: dict[int, Effects] = {}
    for topic in (t for t in io.writes if t in topics):
        for r in desk.log.read(topic):
            written = output_id(header(r.headers, CE_ID))
            if written is not None and written[:2] == (name, group.partition) and written[2] in offsets:
                found.setdefault(written[2], {}).setdefault((topic, header(r.headers, CE_ID) or ""),
                                                            desk.codec.canonical(r.value))
    by_source = _offsets_by_source(desk.log, group, offsets)
    for topic in (f"{t}{DLQ}" for t in io.reads if f"{t}{DLQ}" in topics):
        for r in desk.log.read(topic):
            place = _refused_from(r.headers)
            if header(r.headers, ERROR + "by") == name and place in by_source:
                found.setdefault(by_source[place], {})[topic, place] = None
    return found


def _offsets_by_source(log: Log, group: Group, offsets: set[int]) -> dict[str, int]:
    """Offset on the input by the place that a dead letter of it names."""
    if AGENTS[group.agent.name].direct:
        return {f"refused {group.topic}-{group.partition}@{o}": o for o in offsets}
    found: dict[str, int] = {}
    fetched: Mapping[Spot, Record] = log.fetch([(group.topic, group.partition, o) for o in sorted(offsets)])
    for (_, _, offset), r in fetched.items():
        spot = _source_of(r)
        if spot is not None:
            found["refused {}-{}@{}".format(*spot)] = offset
    return found
