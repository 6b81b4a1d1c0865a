"""How every agent stands, by what the broker and the log say: lag, rates, last evidence, counters, dead letters.

Two samples of offsets, an interval apart, tell what moved between them. Evidence is a record that the agent wrote: an
output whose `ce_id` names it, or its state on the changelog. Being a member of a consumer group is a heartbeat and
proves nothing; its absence only explains why nothing moves. Clock ticks count as input taken, never as evidence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas import catalogue
from schemas.catalogue import AgentIO
from schemas.events import PartitionHead, PolicyRecord
from schemas.refused import Refused
from streams.commits import Commits, members
from streams.ends import offsets
from streams.inspecting.claimed import CURRENT, Claims
from streams.inspecting.halts import COMMANDS, Halt, halts
from streams.inspecting.learned import TOPICS, Learned, newest_updates
from streams.inspecting.risk import CHANGES, newest_change, told
from streams.inspecting.shown import DLQ, decoded
from streams.log import LogReader, Record, Start, ask
from streams.policies.gained import REVEAL
from streams.records import CE_ID, HEAD_KEY, header, output_id
from streams.settings import Settings
from streams.subjects import codec_for
from streams.transport.logs import LIBRDKAFKA
from streams.unresolved import TOPIC as ALERTS
from streams.unresolved import unresolved

BEHIND_S = 10.0  # what waits may take this long at the present rate before an agent counts as behind
LOOK_BACK = (16, 256, 4096)  # last offsets of each partition searched for evidence, one after the other
TIMEOUT_S = 10.0
Place = tuple[str, int]

STATES: dict[str, str] = {
    "RUNNING": "its committed offsets rose during the interval, and the log holds what it wrote",
    "BEHIND": f"as RUNNING, but at its present rate what waits takes more than {BEHIND_S:.0f} s",
    "IDLE": "nothing waits and nothing came during the interval; the log holds what it wrote before",
    "STALLED": "records wait, its group has members, but no committed offset rose during the interval",
    "STOPPED": "its consumer group has no member; the log holds what it wrote before",
    "NO EVIDENCE": "the log holds no record and no state that it wrote, whatever its group says",
    "NO TOPICS": "topics that it reads or writes are not on the broker",
    "NOT BUILT": "it stands in the catalogue, but has no code yet",
}


@dataclass(frozen=True)
class Sample:
    """Offsets at one moment, by catalogue names.

    Attributes:
        at_s: monotonic seconds.
        bounds: first and end offset of every partition.
        committed: by agent, next offset to read of each partition that its group has committed.
        members: by agent, members of its group.
    """

    at_s: float
    bounds: dict[Place, tuple[int, int]]
    committed: dict[str, dict[Place, int]]
    members: dict[str, int]


@dataclass(frozen=True)
class InputLag:
    """One input topic of an agent; `role` is source (read by the relay), inbox or direct. Rates in records a second."""

    topic: str
    role: str
    lag: int
    committed: int | None
    end: int
    per_s: float


@dataclass(frozen=True)
class Written:
    """Growth of a topic that an agent writes, whoever wrote the records."""

    topic: str
    records: int
    per_s: float


@dataclass(frozen=True)
class Evidence:
    """The newest record that an agent wrote, found among the last offsets of its topics."""

    topic: str
    partition: int
    offset: int
    event: str | None
    event_ts_ms: int | None
    appended_ms: int | None
    age_s: float | None


@dataclass(frozen=True)
class Heads:
    """Sums over the partition heads on the changelog: records since genesis."""

    partitions: int
    applied: int
    repeated: int
    refused: int
    emitted: int


@dataclass(frozen=True)
class Standing:
    """One agent. `lag` and `per_s` are sums over its inputs."""

    agent: str
    state: str
    why: str
    group: str
    members: int | None = None
    lag: int | None = None
    per_s: float | None = None
    inputs: list[InputLag] = field(default_factory=list)
    outputs: list[Written] = field(default_factory=list)
    evidence: Evidence | None = None
    heads: Heads | None = None


@dataclass(frozen=True)
class Alert:
    """A health alert after which its component was not HEALTHY; `place` is `topic-partition@offset`."""

    component: str
    status: str
    reason: str
    writer: str
    ts_ms: int
    place: str


@dataclass(frozen=True)
class Held:
    """A policy that is not ACTIVE: who held it, by which version, and why."""

    policy_id: str
    version: int
    status: str
    actor: str | None
    reason: str
    place: str


@dataclass(frozen=True)
class RiskMode:
    """The risk mode since its newest change; `place` is that of the record, which has the reasons."""

    mode: str
    forced: str | None
    ts_ms: int
    until_ms: int | None
    said: str
    place: str


@dataclass(frozen=True)
class Overview:
    """All agents, the dead letters of each topic that has some, the alerts that stand, the policies that people froze
    or retired, the risk mode, the newest update of each learner, the halts in force."""

    at_ms: int
    interval_s: float
    broker: str
    agents: list[Standing]
    dead_letters: dict[str, int]
    alerts: list[Alert] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    risk: RiskMode | None = None
    learners: list[Learned] = field(default_factory=list)
    halts: list[Halt] = field(default_factory=list)


def judge(*, missing: Iterable[str], proof: bool, moved: int, lag: int, members: int,
          interval_s: float) -> tuple[str, str]:
    """State of a built agent and why, by the rules of `STATES`.

    >>> judge(missing=(), proof=True, moved=10, lag=0, members=1, interval_s=2.0)
    ('RUNNING', '10 records taken in 2.0 s')
    """
    absent = sorted(missing)
    if absent:
        return "NO TOPICS", f"not on the broker: {', '.join(absent)}; run: quantum topics apply"
    took = f"{moved} records taken in {interval_s:.1f} s"
    who = f"{members} member{'s' if members != 1 else ''} in its group"
    if not proof:
        return "NO EVIDENCE", f"it wrote neither a record nor state; {took}, {lag} waiting, {who}"
    if moved > 0:
        wait_s = lag * interval_s / moved
        if wait_s > BEHIND_S:
            return "BEHIND", f"{took}; the {lag} waiting take {wait_s:.0f} s more at this rate"
        return "RUNNING", took
    if members == 0:
        return "STOPPED", f"no member in its group, {lag} waiting"
    if lag > 0:
        return "STALLED", f"{lag} waiting, nothing taken in {interval_s:.1f} s; {who}"
    return "IDLE", f"nothing waiting, nothing came in {interval_s:.1f} s; {who}"


class Watcher:
    """Takes samples and turns two of them into an overview.

    Args:
        settings: broker and names.
        log: a reader on the same broker.

    Raises:
        NoBroker: from every method, where the broker does not answer.
    """

    def __init__(self, settings: Settings, log: LogReader) -> None:
        self._settings = settings
        self._log = log
        self._admin = AdminClient(dict(settings.client()), logger=LIBRDKAFKA)
        self._commits = Commits(settings, TIMEOUT_S)
        self._codec = codec_for(settings)
        self._alerted: tuple[dict[Place, int], list[Alert]] = ({}, [])
        self._last_held: tuple[dict[Place, int], list[Held]] | None = None
        self._last_risk: tuple[dict[Place, int], RiskMode | None] | None = None
        self._last_halts: tuple[dict[Place, int], list[Halt]] = ({}, [])
        self._claims = Claims(log, self._codec)
        self._last_learned: tuple[dict[Place, int], list[Learned]] | None = None
        self._found: dict[tuple[str, str], tuple[dict[Place, int], dict[int, Record]]] = {}

    def sample(self) -> Sample:
        """Offsets now."""
        places = [(topic, p) for topic, some in self._log.topics().items() if topic in catalogue.TOPICS for p in some]
        low, end = (self._offsets(places, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))
        agents = catalogue.built_agents()
        return Sample(time.monotonic(), {p: (low[p], end[p]) for p in places},
                      {a.name: self._committed(a, places) for a in agents}, self._members([a.name for a in agents]))

    def overview(self, before: Sample, now: Sample) -> Overview:
        """How the agents stand at the second sample."""
        ends: dict[str, dict[Place, int]] = {}
        for place, (_, end) in now.bounds.items():
            ends.setdefault(place[0], {})[place] = end
        agents = [self._standing(a, before, now, ends) if a.built else
                  Standing(a.name, "NOT BUILT", STATES["NOT BUILT"], self._settings.group(a.name))
                  for a in catalogue.AGENTS.values()]
        letters = {topic: sum(end - now.bounds[p][0] for p, end in some.items())
                   for topic, some in ends.items() if topic.endswith(DLQ)}
        return Overview(int(time.time() * 1000), now.at_s - before.at_s, self._settings.broker, agents,
                        {topic: n for topic, n in letters.items() if n}, self._alerts(ends.get(ALERTS, {})),
                        self._held(ends), self._risk(ends.get(CHANGES, {})), self._learned(ends),
                        self._halts(ends.get(COMMANDS, {})))

    def _risk(self, ends: dict[Place, int]) -> RiskMode | None:
        """The risk mode; read again when its topic has grown."""
        if self._last_risk is None or self._last_risk[0] != ends:
            found = newest_change(self._log, self._codec) if any(ends.values()) else None
            self._last_risk = ends, None if found is None else RiskMode(
                found[0].current, found[0].forced, found[0].ts_ms, found[0].until_ms, told(found[0]), found[1])
        return self._last_risk[1]

    def _learned(self, ends: dict[str, dict[Place, int]]) -> list[Learned]:
        """The newest updates and what their policies claim; read again when one of their topics has grown."""
        topics = (*TOPICS.values(), CURRENT, REVEAL)
        known = {place: end for topic in topics for place, end in ends.get(topic, {}).items()}
        if self._last_learned is None or self._last_learned[0] != known:
            filled = {place[0] for place, end in known.items() if end}
            self._last_learned = known, newest_updates(self._log, self._codec, filled, self._claims)
        return self._last_learned[1]

    def _halts(self, ends: dict[Place, int]) -> list[Halt]:
        """The halts in force; read again when people commanded anything."""
        if self._last_halts[0] != ends:
            self._last_halts = ends, halts(self._log, self._codec) if any(ends.values()) else []
        return self._last_halts[1]

    def _alerts(self, ends: dict[Place, int]) -> list[Alert]:
        """The alerts that stand; read again when the topic has grown."""
        if self._alerted[0] != ends:
            found = unresolved(self._codec, self._log.read(ALERTS))
            self._alerted = (ends, [Alert(a.component, a.status, a.reason, a.writer, a.ts_ms, record.place)
                                    for a, record in found])
        return self._alerted[1]

    # ------------------------------------------------------------------ one agent
    def _standing(self, io: AgentIO, before: Sample, now: Sample, ends: dict[str, dict[Place, int]]) -> Standing:
        interval_s = now.at_s - before.at_s
        roles = {io.input_topic: "direct"} if io.direct else dict.fromkeys(io.reads, "source") | {
            io.input_topic: "inbox"}
        missing = [t for t in (*roles, *io.writes, io.changelog) if t not in ends]
        moves = {topic: _moved(topic, before.committed[io.name], now.committed[io.name]) for topic in roles}
        inputs = [_lag(topic, role, now, io.name, moves[topic] / interval_s)
                  for topic, role in roles.items() if topic in ends]
        outputs = [Written(t, sum(ends[t].values()), _growth(t, before, now) / interval_s)
                   for t in io.writes if t in ends]
        evidence = self._evidence(io, ends)
        heads = self._heads(io, ends)
        lag, moved = sum(i.lag for i in inputs), sum(moves.values())
        state, why = judge(missing=missing, proof=evidence is not None or (heads is not None and heads.applied > 0),
                           moved=moved, lag=lag, members=now.members[io.name], interval_s=interval_s)
        return Standing(io.name, state, why, self._settings.group(io.name), now.members[io.name], lag,
                        moved / interval_s, inputs, outputs, evidence, heads)

    def _evidence(self, io: AgentIO, ends: dict[str, dict[Place, int]]) -> Evidence | None:
        def own(record: Record) -> bool:
            written = output_id(header(record.headers, CE_ID))
            return written is not None and written[0] == io.name

        newest = [r for topic in io.writes if topic in ends
                  for r in self._newest(io.name, topic, ends[topic], own, enough=1).values()]
        if not newest:
            return None
        record = max(newest, key=lambda r: (r.timestamp_ms or 0, r.offset))
        try:
            event: Any = decoded(self._codec, record)
        except Refused:
            event = None
        age_s = None if record.timestamp_ms is None else max(0.0, time.time() - record.timestamp_ms / 1000)
        return Evidence(record.topic, record.partition, record.offset, event and event.SCHEMA_NAME,
                        getattr(event, "ts_ms", None), record.timestamp_ms, age_s)

    def _heads(self, io: AgentIO, ends: dict[str, dict[Place, int]]) -> Heads | None:
        if io.changelog not in ends:
            return None
        found = self._newest(io.name, io.changelog, ends[io.changelog], lambda r: r.key == HEAD_KEY, enough=None)
        heads = []
        for record in found.values():
            try:
                heads.append(decoded(self._codec, record))
            except Refused:
                continue
        known = [h for h in heads if isinstance(h, PartitionHead)]
        if not known:
            return None
        return Heads(len(known), *(sum(getattr(h, name) for h in known)
                                   for name in ("applied", "repeated", "refused", "emitted")))

    def _newest(self, agent: str, topic: str, ends: dict[Place, int], accept: Callable[[Record], bool],
                enough: int | None) -> dict[int, Record]:
        """Newest accepted record of each partition, looked for ever further back; remembered until the topic grows.

        Args:
            enough: partitions with a find after which to stop; None: all that hold records.
        """
        remembered = self._found.get((agent, topic))
        if remembered is not None and remembered[0] == ends:
            return remembered[1]
        filled = sum(end > 0 for end in ends.values())
        found: dict[int, Record] = {}
        for n in LOOK_BACK if filled else ():
            for record in self._log.read(topic, start=Start.last(n)):
                if accept(record) and (record.partition not in found
                                       or record.offset > found[record.partition].offset):
                    found[record.partition] = record
            if len(found) >= (filled if enough is None else enough):
                break
        self._found[agent, topic] = (ends, found)
        return found

    def _held(self, ends: dict[str, dict[Place, int]]) -> list[Held]:
        """Policies that are frozen or retired. Only a command makes them so: without one nothing is read."""
        if not any(ends.get(COMMANDS, {}).values()) or CURRENT not in ends:
            return []
        known = ends[COMMANDS] | ends[CURRENT]
        if self._last_held is None or self._last_held[0] != known:
            newest = {r.key: r for r in self._log.read(CURRENT)}
            self._last_held = known, [h for r in newest.values() for h in self._unless_active(r)]
        return self._last_held[1]

    def _unless_active(self, record: Record) -> Iterator[Held]:
        try:
            p = decoded(self._codec, record)
        except Refused:
            return
        if isinstance(p, PolicyRecord) and p.status != "ACTIVE":
            yield Held(p.policy_id, p.version, p.status, p.actor, p.reason, record.place)

    # ------------------------------------------------------------------ asking the broker
    def _offsets(self, places: list[Place], spec: Any) -> dict[Place, int]:
        name = self._settings.topic
        asked = [(name(t), p) for t, p in places]
        found = ask(lambda: offsets(self._admin, asked, spec, TIMEOUT_S), self._settings.broker)
        return {(t, p): found[name(t), p] for t, p in places}

    def _committed(self, agent: AgentIO, there: list[Place]) -> dict[Place, int]:
        name, prefix = self._settings.topic, self._settings.topic("")
        topics = {agent.input_topic, *agent.reads}
        places = [(name(t), p) for t, p in there if t in topics]
        found = ask(lambda: self._commits.of(self._settings.group(agent.name), places), self._settings.broker)
        return {(topic.removeprefix(prefix), p): offset for (topic, p), offset in found.items()}

    def close(self) -> None:
        """Leave the broker."""
        self._commits.close()

    def _members(self, agents: list[str]) -> dict[str, int]:
        groups = {self._settings.group(a): a for a in agents}
        found = ask(lambda: members(self._admin, list(groups), TIMEOUT_S), self._settings.broker)
        return {groups[group]: n for group, n in found.items()}


def _moved(topic: str, before: dict[Place, int], now: dict[Place, int]) -> int:
    """Records by which commits rose; a partition committed for the first time counts from its first commit on."""
    return sum(max(0, offset - before.get(place, offset)) for place, offset in now.items() if place[0] == topic)


def _growth(topic: str, before: Sample, now: Sample) -> int:
    return sum(end - before.bounds.get(place, (0, end))[1] for place, (_, end) in now.bounds.items()
               if place[0] == topic)


def _lag(topic: str, role: str, now: Sample, agent: str, per_s: float) -> InputLag:
    committed = now.committed[agent]
    lag = end_sum = 0
    for place, (low, end) in now.bounds.items():
        if place[0] == topic:
            lag += end - min(max(committed.get(place, low), low), end)
            end_sum += end
    known = [offset for place, offset in committed.items() if place[0] == topic]
    return InputLag(topic, role, lag, sum(known) if known else None, end_sum, per_s)
