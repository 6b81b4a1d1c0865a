"""A person's command, from the question to the answer: what it would do, the state that it carries, who answered.

The newest version of the policy is on the ledger. For a rollback the learner's own input is folded again up to the old
version, and the state that comes out must have the hash that the ledger names: only then is there a command to write.
Nothing here writes a version; the agent does, and `answer_of` waits for it.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import KafkaException, Producer

from agents.contract import Agent
from schemas.catalogue import AGENTS
from schemas.codec import Codec
from schemas.events import Command, Event, PolicyCommand, PolicyRecord, PolicyStatus, RiskMode, Tick
from schemas.refused import Refused
from streams.blobs import heavy_values
from streams.commanded import MAX_STATE_BYTES
from streams.identity import identity_of
from streams.log import LogReader, NoBroker, Record, Start
from streams.policies.ledger import LEDGER, read_ledger
from streams.records import CE_ID, Incoming, Outgoing, encode_event, header, readable
from streams.settings import Settings
from streams.starting import StoredStarts
from streams.transport.logs import LIBRDKAFKA

COMMANDS, CLOCK, RISK_MODES = "policy.commands", "system.clock", "risk.mode.changed"
ACK_S = 15.0
LOOK_S = 0.3  # between two looks for the answer
NEWEST = 64  # last records of a topic among which the newest event time is looked for

ALLOWED: dict[Command, tuple[PolicyStatus, ...]] = {
    "FREEZE": ("ACTIVE",), "UNFREEZE": ("FROZEN",), "RETIRE": ("ACTIVE", "FROZEN"),
    "ROLLBACK": ("ACTIVE", "FROZEN", "RETIRED"), "OVERRIDE": ("ACTIVE",), "CLEAR": ("ACTIVE",),
}
BECOMES: dict[Command, PolicyStatus] = {"FREEZE": "FROZEN", "UNFREEZE": "ACTIVE", "RETIRE": "RETIRED",
                                        "ROLLBACK": "ACTIVE", "OVERRIDE": "ACTIVE", "CLEAR": "ACTIVE"}


class CannotCommand(Exception):
    """Why a command is not written.

    Attributes:
        code: NO_POLICY, NO_VERSION, NO_CHANGE, NO_PROVENANCE, OTHER_CODE, EXPIRED, HASH_MISMATCH, TOO_LARGE or
            UNFIT.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Version(NamedTuple):
    """A policy version, and where on the ledger it stands."""

    policy: PolicyRecord
    place: str


@dataclass(frozen=True)
class Plan:
    """A command that can be written, and what it will do.

    Attributes:
        newest: newest version on the ledger; None for HALT and RESUME.
        old: version that is taken back; None where none is.
    """

    command: PolicyCommand
    newest: Version | None = None
    old: Version | None = None

    @property
    def becomes(self) -> str | None:
        """Status of the version that answers."""
        if self.newest is None:
            return None
        return "FROZEN" if self.command.freeze else BECOMES[self.command.command]

    @property
    def undone(self) -> tuple[int, int] | None:
        """First and last version that are undone, as the ledger stands; None where none are."""
        if self.newest is None or self.old is None or self.old.policy.version >= self.newest.policy.version:
            return None
        return self.old.policy.version + 1, self.newest.policy.version


# ---------------------------------------------------------------------- planning
def planned(log: LogReader, codec: Codec, agent: Agent[Any], kind: Command, policy_id: str, *, actor: str, reason: str,
            version: int | None = None, freeze: bool = False) -> Plan:
    """A command about a policy.

    Args:
        log: reader of the log.
        agent: the agent of the policy, as the worker runs it.
        policy_id: `<agent>/<scope>`.
        version: to roll back to.
        freeze: whether nothing more is learned from there on.

    Raises:
        CannotCommand: there is no such policy or version, the command would change nothing, or the old state cannot be
            found.
    """
    versions = _versions(log, codec, policy_id)
    if not versions:
        raise CannotCommand("NO_POLICY", f"{LEDGER} holds no version of {policy_id}")
    newest = versions[max(versions)]
    if newest.policy.status not in ALLOWED[kind]:
        raise CannotCommand("NO_CHANGE", f"{policy_id} is {newest.policy.status} since version "
                                         f"{newest.policy.version} ({newest.place})")
    command = _command(log, codec, kind, newest.policy.scope, newest.policy.ts_ms, actor, reason)
    command = _with(command, policy_id=policy_id, seen_version=newest.policy.version)
    if kind != "ROLLBACK":
        return _fit(codec, Plan(command, newest))
    if version not in versions:
        raise CannotCommand("NO_VERSION", f"{LEDGER} holds versions {min(versions)} to {max(versions)} of {policy_id}, "
                                          f"not {version}")
    old = versions[version]
    state, heavy = old_state(log, codec, agent, old)
    provenance = old.policy.provenance
    assert provenance is not None
    return _fit(codec, Plan(_with(command, version=version, freeze=freeze, state=state,
                                  state_hash=provenance.state_hash, state_format=agent.format_version,
                                  heavy=heavy or None), newest, old))


def planned_risk(log: LogReader, codec: Codec, kind: Command, policy_id: str, *, actor: str, reason: str,
                 mode: RiskMode | None = None, until_ms: int | None = None, for_ms: int = 0) -> Plan:
    """OVERRIDE or CLEAR of the risk policy.

    Args:
        until_ms: event time at which an override ends; None: `for_ms` behind the command's own.

    Raises:
        CannotCommand: NO_POLICY, or NO_CHANGE where the override would be over at once.
    """
    versions = _versions(log, codec, policy_id)
    if not versions:
        raise CannotCommand("NO_POLICY", f"{LEDGER} holds no version of {policy_id}")
    newest = versions[max(versions)]
    command = _command(log, codec, kind, newest.policy.scope, newest.policy.ts_ms, actor, reason)
    if kind == "OVERRIDE":
        until_ms = command.ts_ms + for_ms if until_ms is None else until_ms
        if until_ms <= command.ts_ms:
            raise CannotCommand("NO_CHANGE", f"event time is {command.ts_ms} by the log, and the override would end at "
                                             f"{until_ms}")
    return _fit(codec, Plan(_with(command, policy_id=policy_id, seen_version=newest.policy.version, mode=mode,
                                  until_ms=until_ms if kind == "OVERRIDE" else None), newest))


def planned_halt(log: LogReader, codec: Codec, kind: Command, symbol: str | None, *, actor: str, reason: str) -> Plan:
    """HALT or RESUME of a symbol, or of all.

    Raises:
        CannotCommand: UNFIT.
    """
    command = _command(log, codec, kind, symbol, 0, actor, reason)
    return _fit(codec, Plan(_with(command, symbol=symbol)))


def _fit(codec: Codec, plan: Plan) -> Plan:
    """The plan, its command held against the schema: an actor or reason may be empty or too long."""
    try:
        codec.encode(COMMANDS, plan.command)
    except Refused as refused:
        raise CannotCommand("UNFIT", refused.detail) from refused
    return plan


def _with(command: PolicyCommand, **changes: Any) -> PolicyCommand:
    return PolicyCommand(**{f: getattr(command, f) for f in command.__struct_fields__} | changes)


def _command(log: LogReader, codec: Codec, kind: Command, scope: str | None, known_ms: int, actor: str,
             reason: str) -> PolicyCommand:
    """A command of now, behind every command before it."""
    return PolicyCommand(command_id=f"{kind.lower()}-{uuid.uuid4().hex[:16]}", command=kind, actor=actor, reason=reason,
                         ts_ms=event_now(log, codec, COMMANDS, scope, known_ms))


def event_now(log: LogReader, codec: Codec, topic: str, scope: str | None = None, known_ms: int = 0) -> int:
    """Event time for something that a person writes now: by the scope's clock, behind everything on the topic before.

    Args:
        topic: that it will be written to.
        scope: whose clock; None: that of all.
        known_ms: event time that has passed for sure, 0 where none is known.
    """
    ticks = [e for e in _last(log, codec, CLOCK) if isinstance(e, Tick)]
    own = [t.ts_ms for t in ticks if t.symbol == scope] or [t.ts_ms for t in ticks if t.symbol is None]
    before: list[int] = [e.ts_ms for e in _last(log, codec, topic)]  # type: ignore[attr-defined]
    now_ms = max(own, default=0) or known_ms or int(time.time() * 1000)
    return max(now_ms, known_ms, max(before, default=-1) + 1)


def _last(log: LogReader, codec: Codec, topic: str) -> list[Event]:
    return [event for _, event in readable(codec, topic, log.read(topic, start=Start.last(NEWEST)))]


def _versions(log: LogReader, codec: Codec, policy_id: str) -> dict[int, Version]:
    """Versions of a policy on the ledger, of repeats the first."""
    found = read_ledger(log.read(LEDGER), codec, [policy_id]).versions.get(policy_id, ())
    return {v.policy.version: Version(v.policy, v.record.place) for v in found}


def old_state(log: LogReader, codec: Codec, agent: Agent[Any], old: Version) -> tuple[bytes, tuple[bytes, ...]]:
    """The learner's state at a version, encoded, and its heavy fields, which it names by their hash.

    Its input is folded again, from stored state where there is some.

    Raises:
        CannotCommand: NO_PROVENANCE, OTHER_CODE, EXPIRED, HASH_MISMATCH or TOO_LARGE.
    """
    policy, p = old.policy, old.policy.provenance
    name = f"{policy.policy_id} version {policy.version} ({old.place})"
    if p is None:
        raise CannotCommand("NO_PROVENANCE", f"{name} does not say which input made it")
    ours = identity_of(agent)
    for what, theirs, mine in (("code", p.code_hash, ours.code_hash),
                               ("configuration", p.config_hash, ours.config_hash)):
        if theirs != mine:
            raise CannotCommand("OTHER_CODE", f"{name} was made by another {what} ({theirs[:12]}) than this one "
                                              f"({mine[:12]}): command it with the {what} that made it")
    low, end = log.bounds(p.input_topic, p.input_partition)
    fold = StoredStarts(log, codec, agent, ours)(p.input_partition, p.to_offset)
    first = fold.offset + 1
    if low > first or end <= p.to_offset:
        raise CannotCommand("EXPIRED", f"{name} rests on {p.input_topic}-{p.input_partition}@{first}..{p.to_offset}, "
                                       f"and the log holds {low} to {end}")
    for r in log.read(p.input_topic, start={p.input_partition: first}):
        if r.offset > p.to_offset:
            break
        fold.apply(Incoming(r.offset, r.key, r.value, r.headers))
    entry = fold.scopes.get(policy.scope)
    found = None if entry is None else fold.state_hash(policy.scope, entry.state)
    if entry is None or found != p.state_hash:
        raise CannotCommand("HASH_MISMATCH", f"{name} names the state {p.state_hash[:12]}, and "
                                             f"{p.input_topic}-{p.input_partition}@{first}..{p.to_offset} folds to "
                                             f"{(found or 'none')[:12]}")
    state = fold.state_bytes(entry.state)
    heavy = tuple(heavy_values(entry.state, agent.heavy).values())
    size = len(state) + sum(map(len, heavy))
    if size > MAX_STATE_BYTES:
        raise CannotCommand("TOO_LARGE", f"the state of {name} has {size} bytes; a command carries at most "
                                         f"{MAX_STATE_BYTES}")
    return state, heavy


# ---------------------------------------------------------------------- writing, and the answer
def ledger_ends(log: LogReader) -> dict[int, int]:
    """Where the ledger ends: the answer to a command that is written later stands behind it."""
    return {p: log.bounds(LEDGER, p)[1] for p in log.partitions(LEDGER)}


def written(settings: Settings, codec: Codec, command: PolicyCommand) -> str:
    """Write a command; its place on the log.

    Raises:
        NoBroker: it was not acknowledged in time.
    """
    return said(settings, encode_event(codec, COMMANDS, command, command.command_id, command.actor))


def said(settings: Settings, record: Outgoing) -> str:
    """Write what a person says; its place on the log.

    Raises:
        NoBroker: it was not acknowledged in time.
    """
    name = header(record.headers, CE_ID)
    producer, place, problem = Producer(settings.producer(), logger=LIBRDKAFKA), "", ""

    def delivered(error: Any, message: Any) -> None:
        nonlocal place, problem
        problem = "" if error is None else error.str()
        place = place if error is not None else f"{record.topic}-{message.partition()}@{message.offset()}"

    try:
        producer.produce(settings.topic(record.topic), record.value, record.key, headers=list(record.headers),
                         on_delivery=delivered)
        producer.flush(ACK_S)
    except KafkaException as exc:
        problem = exc.args[0].str()
    if not place:
        raise NoBroker(f"the broker {settings.broker} did not acknowledge {name}"
                       f"{f': {problem}' if problem else ''}; look for it on {record.topic} before you send another")
    return place


def answer_of(log: LogReader, codec: Codec, command: PolicyCommand, since: dict[int, int],
              wait_s: float) -> Version | None:
    """The version that answers a command; None where it does not come in time.

    Args:
        since: ends of the ledger before the command was written.
    """
    give_up, since = time.monotonic() + wait_s, dict(since)
    while True:
        for record in log.read(LEDGER, start=since):
            since[record.partition] = record.offset + 1
            found = _answers(codec, record, command)
            if found is not None:
                return found
        if time.monotonic() >= give_up:
            return None
        time.sleep(LOOK_S)


def _answers(codec: Codec, record: Record, command: PolicyCommand) -> Version | None:
    if record.key != (command.policy_id or "").encode():
        return None
    try:
        event = codec.decode(LEDGER, record.value)
    except Refused:
        return None
    answers = isinstance(event, PolicyRecord) and event.command_id == command.command_id
    return Version(event, record.place) if answers else None  # type: ignore[arg-type]


def learners() -> list[str]:
    """Agents whose policies learn and can be commanded; limits are rules, and `quantum risk` has commands for them."""
    return [a.name for a in AGENTS.values() if a.built and LEDGER in a.writes and COMMANDS in a.reads
            and RISK_MODES not in a.writes]
