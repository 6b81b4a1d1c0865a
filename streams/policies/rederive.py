"""Policy versions made again from the records that their provenance names, and held against the ledger.

The fold starts from the state of the parent or before it, takes the input up to the version, and must come to the same
state hash and to the very bytes that stand on `policy.ledger` under the same output id. Everything is read from the
log; nothing of a running agent is asked.

One pass over a partition passes by every version of its policies, and each has the hash of its state on the ledger. So
the first version at which the fold goes another way is met on the way; nothing has to be searched. `blame` then finds
the event in that version's range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal, NamedTuple, Protocol

from agents.contract import Agent
from schemas.codec import Codec
from schemas.events import PolicyRecord, Provenance
from streams.fold import PartitionFold
from streams.identity import Identity
from streams.log import Record
from streams.policies.ledger import LEDGER, Version
from streams.policies.refit import Refit, Refits
from streams.policies.telling_apart import differing
from streams.records import CE_ID, Incoming, Outgoing, header
from streams.verify.view import Log

Outcome = Literal["MATCH", "MISMATCH", "NO_PROVENANCE", "OTHER_CODE", "OTHER_CONFIG", "OTHER_PLATFORM", "EXPIRED"]
OUTCOMES: Mapping[Outcome, str] = {
    "MATCH": "parent, state and every byte of the record on the ledger follow from the input",
    "MISMATCH": "they do not; the first event that goes another way is named",
    "NO_PROVENANCE": "the record does not say what it was made of",
    "OTHER_CODE": "made by other code; rederive with that code",
    "OTHER_CONFIG": "made with another configuration or seed; give it with --seed or --agent-config",
    "OTHER_PLATFORM": "made on another platform, and here it comes out otherwise; rederive there",
    "EXPIRED": "input that it was made of is deleted",
}


class Start(Protocol):
    """Where a fold may start: stored state, or nothing at all."""

    def __call__(self, partition: int, upto: int) -> PartitionFold:
        """A fold of the agent that has taken its input to an offset at or below `upto`, and to no more.

        Args:
            partition: of the agent's input topic.
            upto: offset; -1 asks for the empty fold.
        """


class Genesis:
    """Starts from nothing."""

    def __init__(self, agent: Agent[Any], codec: Codec) -> None:
        self._agent, self._codec = agent, codec

    def __call__(self, partition: int, upto: int) -> PartitionFold:
        """The empty fold."""
        return PartitionFold(self._agent, partition, self._codec)


class Compared(NamedTuple):
    """A hash as the ledger has it and as it was made again; None where there is none."""

    ledger: str | None
    made: str | None

    @property
    def same(self) -> bool:
        """Whether they agree."""
        return self.ledger == self.made


@dataclass(frozen=True)
class Answer:
    """What became of one version.

    Attributes:
        place: of its record on the ledger.
        input: `topic-partition@from..to` as its provenance says; empty without.
        parent: hash of the state before its range; None where it was not made again.
        state: hash of the state behind it.
        value: SHA-256 of the record's value; of Confluent framing as in single-object encoding.
        differs: fields of the record that differ, in words.
        refits: jobs whose results it rests on, performed again.
    """

    policy_id: str
    version: int
    place: str
    outcome: Outcome
    why: str
    input: str = ""
    parent: Compared | None = None
    state: Compared | None = None
    value: Compared | None = None
    differs: tuple[str, ...] = ()
    refits: tuple[Refit, ...] = ()


@dataclass
class Fetched:
    """What was read of a partition of input; `first` and `last` are offsets, -1 where nothing was read."""

    topic: str
    partition: int
    first: int = -1
    last: int = -1
    records: int = 0
    bytes: int = 0

    def take(self, record: Record) -> None:
        """Count a record: key, value and headers."""
        self.first = record.offset if self.first < 0 else self.first
        self.last = record.offset
        self.records += 1
        self.bytes += len(record.key or b"") + len(record.value or b"") + sum(len(k) + len(v)
                                                                              for k, v in record.headers)

    @property
    def range(self) -> str:
        """`topic-partition@first..last`."""
        return f"{self.topic}-{self.partition}@{self.first}..{self.last}" if self.records else "nothing"


@dataclass
class Walked:
    """What one pass made. By place of the version on the ledger where not said otherwise.

    Attributes:
        fetched: what was read.
        started: offset that the fold had taken when it began; -1: from genesis.
        parents: state hash of the scope before the range.
        states: state hash of the scope behind it.
        made: records of the ledger as they follow from the input, by output id.
    """

    fetched: Fetched
    started: int
    parents: dict[str, str | None] = field(default_factory=dict)
    states: dict[str, str | None] = field(default_factory=dict)
    made: dict[str, Outgoing] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """One partition of an agent's input, and the versions that were made of it, ascending by the offset of their input.

    Attributes:
        watched: versions passed by.
        refits: performs the jobs again that versions asked for rest on; None: results are taken from the log.
    """

    agent: Agent[Any]
    identity: Identity
    topic: str
    partition: int
    watched: tuple[Version, ...]
    refits: Refits | None = None


def incoming(record: Record) -> Incoming:
    """A record of the log as the fold takes it."""
    return Incoming(record.offset, record.key, record.value, record.headers)


def walk(log: Log, group: Group, fold: PartitionFold, upto: int) -> Walked:
    """Fold the input from where a fold stands to an offset, inclusive, and note every version passed by."""
    walked = Walked(Fetched(group.topic, group.partition), fold.offset)
    begins = sorted((v for v in group.watched if _from(v) > fold.offset), key=_from)
    ends: dict[int, list[Version]] = {}
    for v in group.watched:
        ends.setdefault(v.at, []).append(v)
    fold.identity = group.identity
    for record in log.read(group.topic, {group.partition: fold.offset + 1}):
        if record.offset > upto:
            break
        walked.fetched.take(record)
        while begins and _from(begins[0]) <= record.offset:
            v = begins.pop(0)
            walked.parents[v.record.place] = _hash(fold, v.policy.scope)
        here = ends.get(record.offset, ())
        if here:  # the platform does not enter the state; a worker elsewhere may have made the version before
            fold.identity = replace(group.identity, platform=_provenance(here[0]).platform)
        jobs = {} if group.refits is None else group.refits.before(fold, record)
        for out in fold.apply(incoming(record)):
            if out.topic == LEDGER:
                walked.made[header(out.headers, CE_ID) or ""] = out
        if group.refits is not None:
            group.refits.behind(jobs, fold, record)
        for v in here:
            walked.states[v.record.place] = _hash(fold, v.policy.scope)
    return walked


def _hash(fold: PartitionFold, scope: str) -> str | None:
    entry = fold.scopes.get(scope)
    return None if entry is None else fold.state_hash(scope, entry.state)


def _provenance(v: Version) -> Provenance:
    assert v.policy.provenance is not None
    return v.policy.provenance


def _from(v: Version) -> int:
    return _provenance(v).from_offset


# ---------------------------------------------------------------------- judging
def hindrance(v: Version, agent: Agent[Any] | None, ours: Identity | None) -> Answer | None:
    """Why a version cannot be made again here; None where nothing that its record says stands in the way."""
    p = v.policy.provenance
    if p is None:
        return answer(v, "NO_PROVENANCE", "the record has no provenance: it was written by something that stamps none")
    if agent is None or ours is None:
        return answer(v, "OTHER_CODE", f"this code has no agent {v.policy.agent}; the record says code "
                                       f"{p.code_hash[:12]}")
    if p.code_hash != ours.code_hash:
        return answer(v, "OTHER_CODE", f"made by code {p.code_hash[:12]}, this is {ours.code_hash[:12]}: rederive with "
                                       f"the release of that code hash")
    if p.config_hash != ours.config_hash:
        seed = "" if p.seed == agent.config.seed else f"; its seed was {p.seed}: --seed {p.seed}"
        return answer(v, "OTHER_CONFIG", f"made with configuration {p.config_hash[:12]}, this is "
                                         f"{ours.config_hash[:12]}{seed or ': give it with --agent-config'}")
    return None


def answer(v: Version, outcome: Outcome, why: str, **more: Any) -> Answer:
    """An answer for a version."""
    p = v.policy.provenance
    told = "" if p is None else f"{p.input_topic}-{p.input_partition}@{p.from_offset}..{p.to_offset}"
    return Answer(v.policy.policy_id, v.policy.version, v.record.place, outcome, why, told, **more)


def judged(v: Version, walked: Walked, ours: Identity, agent: Agent[Any], codec: Codec, roots: bool,
           rivals: Iterable[Record], refits: Iterable[Refit] = ()) -> Answer:
    """Hold a version against what the pass made.

    Args:
        roots: whether an earlier version of the policy was made by other code or another configuration, so that the
            parent cannot be had from genesis.
        rivals: other records of the version on the ledger.
        refits: jobs whose results it rests on, performed again.
    """
    p, out = _provenance(v), walked.made.get(v.ce_id)
    parent = Compared(p.parent_hash, walked.parents.get(v.record.place) if p.from_offset > 0 else None)
    state = Compared(p.state_hash, walked.states.get(v.record.place))
    made = None if out is None else codec.canonical(out.value)
    value = Compared(_sha(codec.canonical(v.record.value)), None if made is None else _sha(made))
    told: dict[str, Any] = {"parent": parent, "state": state, "value": value}
    bad = [name for name, compared in told.items() if not compared.same]
    told["refits"] = refits = tuple(refits)
    other, unlike = [r.place for r in rivals], [r.why for r in refits if r.why is not None]
    if not bad and not other and not unlike:
        where = "" if p.platform == ours.platform else f"; it was made on {p.platform}"
        fits = sum(not r.failure for r in refits)
        again = f", and so is the result of {fits} job{'s' * (fits > 1)}, performed again" if fits else ""
        return answer(v, "MATCH", f"state and bytes are what the input gives{again}{where}", **told)
    if unlike and not bad and p.platform != ours.platform:
        return answer(v, "OTHER_PLATFORM", f"made on {p.platform}, this is {ours.platform}; here {'; '.join(unlike)}: "
                                           f"rederive there", **told)
    if out is None:
        differs: tuple[str, ...] = (f"no version of it follows from {p.input_topic}-{p.input_partition}@{v.at}",)
    else:
        assert isinstance(out.event, PolicyRecord)
        differs = tuple(differing(v.policy, out.event))
    if bad and roots and not parent.same and walked.started < 0:
        return answer(v, "OTHER_CODE", "earlier versions of this policy were made by other code or another "
                      "configuration, so its parent does not follow from the beginning of the input, and no state is "
                      "stored from which the input could be taken up", differs=differs, **told)
    if bad and p.platform != ours.platform:
        return answer(v, "OTHER_PLATFORM", f"made on {p.platform}, this is {ours.platform}; here {_words(bad)} differ: "
                                           f"rederive there", differs=differs, **told)
    why = f"{_words(bad)} of the ledger do not follow from the input" if bad else ""
    if other:
        why += ("; " if why else "") + f"the ledger holds the version more than once, also at {', '.join(other)}"
    why = "; ".join(([why] if why else []) + unlike)
    return answer(v, "MISMATCH", why, differs=differs, **told)


def _words(bad: Sequence[str]) -> str:
    names = {"parent": "the parent's state hash", "state": "the state hash", "value": "the bytes"}
    return " and ".join(names[b] for b in bad)


def _sha(value: bytes | None) -> str:
    return sha256(value or b"").hexdigest()


StartOf = Callable[[Agent[Any]], Start]
"""Gives an agent's starts."""
