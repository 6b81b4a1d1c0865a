"""Versions asked for, made again: one pass for each partition of input, answers, and where it goes another way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.contract import Agent
from schemas.catalogue import AGENTS
from schemas.codec import Codec
from streams.fold import PartitionFold
from streams.identity import Identity, identity_of
from streams.policies.blame import Desk, Divergence, blame
from streams.policies.ledger import Ledger, Version
from streams.policies.rederive import (
    OUTCOMES,
    Answer,
    Fetched,
    Genesis,
    Group,
    Outcome,
    StartOf,
    Walked,
    answer,
    hindrance,
    judged,
    walk,
)
from streams.policies.refit import Refits
from streams.verify.view import Log


@dataclass
class Report:
    """What became of all that was asked for.

    Attributes:
        answers: one a version, by policy and version.
        fetched: what was read of each partition of input, one entry a pass.
        divergences: where policies go another way, one a policy.
        unpublished: output ids of versions that follow from the input and are not on the ledger.
        unreadable: places on the ledger of records of these policies that cannot be decoded, with the reason.
        notes: what else has to be known.
    """

    answers: list[Answer] = field(default_factory=list)
    fetched: list[Fetched] = field(default_factory=list)
    divergences: list[Divergence] = field(default_factory=list)
    unpublished: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[Outcome, int]:
        """Versions by outcome, those that occur."""
        return {o: n for o in OUTCOMES if (n := sum(a.outcome == o for a in self.answers))}


class Deriver:
    """Makes versions again.

    Args:
        log: ledger, input and all else.
        roster: agents, as the worker ran them (seed and configuration included).
        codec: Avro codec.
        start_of: gives an agent's starts; None: always from genesis.
        identities: what the agents stamp on policies; None: what the roster's would.
        refit: whether jobs are performed again whose results a version rests on; see `streams.policies.refit`.
    """

    def __init__(self, log: Log, roster: Mapping[str, Agent[Any]], codec: Codec, start_of: StartOf | None = None,
                 identities: Mapping[str, Identity] | None = None, refit: bool = True) -> None:
        self._refit = refit
        self._log, self._roster, self._codec = log, roster, codec
        self._genesis: StartOf = lambda agent: Genesis(agent, codec)
        self._start_of = start_of or self._genesis
        self._identities: dict[str, Identity] = dict(identities or {})

    def __call__(self, ledger: Ledger, asked: Sequence[Version], from_genesis: bool = False) -> Report:
        """Make versions again and hold them against the ledger.

        Args:
            ledger: with at least all versions of the policies asked for.
            asked: versions.
            from_genesis: fold from the beginning of the input although state is stored.
        """
        report = Report(unreadable=dict(ledger.unreadable))
        groups: dict[tuple[str, str, int], list[Version]] = defaultdict(list)
        for v in asked:
            agent = self._roster.get(v.policy.agent)
            hindered = hindrance(v, agent, None if agent is None else self._identity(agent)) or self._elsewhere(v)
            if hindered is not None:
                report.answers.append(hindered)
                continue
            p = v.policy.provenance
            assert p is not None
            groups[v.policy.agent, p.input_topic, p.input_partition].append(v)
        for (name, topic, partition), versions in groups.items():
            self._group(report, ledger, self._roster[name], topic, partition, versions, from_genesis)
        report.answers.sort(key=lambda a: (a.policy_id, a.version))
        return report

    def _identity(self, agent: Agent[Any]) -> Identity:
        if agent.name not in self._identities:
            self._identities[agent.name] = identity_of(agent)
        return self._identities[agent.name]

    def _elsewhere(self, v: Version) -> Answer | None:
        """Input that is not there at all, or is not what this code folds."""
        p = v.policy.provenance
        assert p is not None
        ours = AGENTS[v.policy.agent].input_topic
        if p.input_topic != ours:
            return answer(v, "MISMATCH", f"it names input {p.input_topic}, but the code that it names folds {ours}")
        if p.input_partition not in self._log.topics().get(p.input_topic, ()):
            return answer(v, "MISMATCH", f"it names {p.input_topic}-{p.input_partition}, which the log does not have")
        end = self._log.bounds(p.input_topic, p.input_partition)[1]
        if max(v.at, p.to_offset) >= end:
            return answer(v, "MISMATCH", f"it names input up to {p.input_topic}-{p.input_partition}@{p.to_offset}, but "
                                         f"the log ends before {end}: the topic was made anew, or lost records")
        return None

    # ------------------------------------------------------------------ one partition
    def _group(self, report: Report, ledger: Ledger, agent: Agent[Any], topic: str, partition: int,
               versions: list[Version], from_genesis: bool) -> None:
        todo = sorted(versions, key=lambda v: v.at)
        policies = {v.policy.policy_id for v in todo}
        start_of = self._genesis if from_genesis else self._start_of
        low = self._log.bounds(topic, partition)[0]
        while todo and (begin := self._begin(start_of, agent, todo[0])).offset + 1 < low:
            v, first = todo.pop(0), begin.offset + 1
            report.answers.append(answer(v, "EXPIRED", f"{topic}-{partition}@{first} is deleted, and it was made of it "
                                                       f"or of what follows; the log begins at {low}"))
        if not todo:
            return
        watched = tuple(v for policy_id in policies for v in ledger.versions[policy_id]
                        if self._same_epoch(v, agent, topic, partition) and v.at <= todo[-1].at)
        refits = Refits(agent, todo, self._codec) if self._refit else None
        group = Group(agent, self._identity(agent), topic, partition, watched, refits)
        walked, answers = self._pass(group, begin, todo, ledger)
        report.fetched.append(walked.fetched)
        if walked.started >= 0 and any(a.outcome != "MATCH" for a in answers) and low == 0:
            again, other = self._pass(group, self._genesis(agent)(partition, -1), todo, ledger)
            report.fetched.append(again.fetched)
            report.notes += [f"{agent.name}: state stored at {topic}-{partition}@{walked.started} does not lead to "
                             f"{a.policy_id}@{a.version}, its input does: the stored state is not what the input gives"
                             for a, b in zip(other, answers, strict=True) if (a.outcome, b.outcome)
                             == ("MATCH", "MISMATCH")]
            walked, answers = again, other
        report.answers += answers
        self._unpublished(report, walked, ledger, policies, todo)
        for policy_id in sorted(policies):
            self._diverging(report, group, walked, [a for a in answers if a.policy_id == policy_id], ledger)

    def _begin(self, start_of: StartOf, agent: Agent[Any], v: Version) -> PartitionFold:
        p = v.policy.provenance
        assert p is not None
        upto = min(p.from_offset, v.at) - 1
        fold = start_of(agent)(p.input_partition, upto)
        assert fold.offset <= max(upto, -1), "a start must not have taken more than it was asked for"
        return fold

    def _same_epoch(self, v: Version, agent: Agent[Any], topic: str, partition: int) -> bool:
        p = v.policy.provenance
        return p is not None and (p.input_topic, p.input_partition) == (topic, partition) and \
            hindrance(v, agent, self._identity(agent)) is None

    def _pass(self, group: Group, fold: PartitionFold, todo: Sequence[Version],
              ledger: Ledger) -> tuple[Walked, list[Answer]]:
        walked = walk(self._log, group, fold, max(v.at for v in todo))
        answers, refits = [], group.refits
        for v in todo:
            earlier = [u for u in ledger.versions[v.policy.policy_id] if u.policy.version < v.policy.version]
            roots = any(hindrance(u, group.agent, group.identity) is not None for u in earlier)
            rivals = ledger.rivals.get((v.policy.policy_id, v.policy.version), ())
            answers.append(judged(v, walked, group.identity, group.agent, self._codec, roots, rivals,
                                  () if refits is None else refits.of.get(v.record.place, {}).values()))
        return walked, answers

    def _unpublished(self, report: Report, walked: Walked, ledger: Ledger, policies: set[str],
                     todo: Sequence[Version]) -> None:
        """Versions that the input gives within what was asked for, and that the ledger does not hold."""
        for policy_id in policies:
            numbers = [v.policy.version for v in todo if v.policy.policy_id == policy_id]
            ids = {v.ce_id for v in ledger.versions[policy_id]} | {
                dict(r.headers).get("ce_id", b"").decode(errors="replace")
                for (name, _), records in ledger.rivals.items() if name == policy_id for r in records}
            for ce_id, out in walked.made.items():
                event: Any = out.event
                if event.policy_id == policy_id and ce_id not in ids and \
                        min(numbers) <= event.version <= max(numbers):
                    report.unpublished.append(f"{policy_id}@{event.version} ({ce_id})")

    # ------------------------------------------------------------------ where it goes another way
    def _diverging(self, report: Report, group: Group, walked: Walked, answers: Sequence[Answer],
                   ledger: Ledger) -> None:
        bad = [a for a in answers if a.outcome == "MISMATCH" and (a.value is None or not a.value.same)]
        if not bad or bad[0].state is None:
            return
        own = sorted((v for v in group.watched if v.policy.policy_id == bad[0].policy_id), key=lambda v: v.at)
        by_state = [v for v in own if v.at > walked.started and walked.states.get(v.record.place)
                    != (v.policy.provenance.state_hash if v.policy.provenance is not None else None)]
        by_bytes = [v for v in own if v.record.place in {a.place for a in bad}]
        # Where the target's own state is right, only its record is not; else the state went astray at the first.
        first = by_bytes[0] if bad[0].state.same or not by_state else min(by_state[0], by_bytes[0], key=lambda v: v.at)
        i = own.index(first)
        begin = max(own[i - 1].at + 1 if i else 0, walked.started + 1)
        start_of = self._start_of if walked.started >= 0 else self._genesis
        desk = Desk(self._log, self._roster, self._codec, start_of)
        after = min((v for v in ledger.versions[first.policy.policy_id] if v.at > first.at), key=lambda v: v.at,
                    default=None)
        report.divergences.append(blame(desk, group, first, begin, after, walked.states.get(first.record.place)))
