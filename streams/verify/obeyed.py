"""Decisions held against the commands that stood before them in the decider's own inbox.

An inbox has one order, so what the decider knew at a decision is no question of clocks: the commands and versions that
stand before the decision's input. A decision that says that a command forced it must have one there, and one that says
nothing must have none. Nothing of the agents' own bookkeeping is used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from schemas.catalogue import AGENTS
from schemas.events import Decision, PolicyCommand, PolicyRecord
from streams.log import Record
from streams.records import CE_ID, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, header, output_id
from streams.verify.commanded import COMMANDS
from streams.verify.evidence import Evidence

DECIDER = "decision"
LEDGER = "policy.ledger"
BY_COMMAND = frozenset({"halt", "policy_retired", "policy_rolled_back"})
Decided = Mapping[str, tuple[Record, Decision]]


@dataclass
class Known:
    """What stands in an inbox partition so far.

    Attributes:
        halts: of each symbol (None: all) the newest halt or resume, as (event time, whether a halt).
        orders: of each policy and kind the newest command, with its id and the newest version that it leaves.
        answered: commands that were answered.
        undone: of each policy, (above, below) of the versions that rollbacks undid.
    """

    halts: dict[str | None, tuple[int, bool]] = field(default_factory=dict)
    orders: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    undone: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def take(self, event: PolicyCommand | PolicyRecord) -> None:
        """A command or a version more."""
        if isinstance(event, PolicyRecord):
            if event.command_id is not None:
                self.answered.add(event.command_id)
            if event.restored_version is not None:
                self.undone[event.policy_id].append((event.restored_version, event.version))
        elif event.command in ("HALT", "RESUME"):
            new = event.ts_ms, event.command == "HALT"
            self.halts[event.symbol] = max(new, self.halts.get(event.symbol, new))
        elif event.policy_id is not None and event.command == "RETIRE":
            self.orders[event.policy_id, "policy_retired"] = event.command_id, 0
        elif event.policy_id is not None and event.command == "ROLLBACK" and event.version is not None:
            self.orders[event.policy_id, "policy_rolled_back"] = event.command_id, event.version

    def halted(self, symbol: str) -> bool:
        """Whether a symbol is halted: the newest command counts, for the symbol or for all."""
        return max([self.halts[s] for s in (symbol, None) if s in self.halts], default=(0, False))[1]

    def forced(self, policy_id: str, version: int) -> set[str]:
        """Why a version may not decide: any of these."""
        found = {why for (name, why), (command_id, above) in self.orders.items()
                 if name == policy_id and version > above and command_id not in self.answered}
        if any(above < version < below for above, below in self.undone.get(policy_id, ())):
            found.add("policy_rolled_back")
        return found


def disobedient(evidence: Evidence, decisions: Decided, policies: Mapping[tuple[str, int], PolicyRecord],
                ) -> list[tuple[str, Record]]:
    """Decisions that do not go with what was commanded, in words, each with its record.

    Args:
        decisions: of one decider, by id.
        policies: its versions on the ledger.
    """
    claims = any(d.forced_reason in BY_COMMAND for _, d in decisions.values())
    if not claims and not evidence.events(COMMANDS):
        return []
    io = AGENTS[DECIDER]
    if any(evidence.log.bounds(io.input_topic, p)[0] for p in evidence.topics.get(io.input_topic, ())):
        return []  # what the decider knew is not there from its beginning
    at: dict[tuple[int, int], list[tuple[Record, Decision]]] = defaultdict(list)
    for record, d in decisions.values():
        written = output_id(header(record.headers, CE_ID))
        if written is not None and written[0] == DECIDER and evidence.covers(record):
            at[written[1], written[2]].append((record, d))
    return list(_held(evidence, at, policies))


def _held(evidence: Evidence, at: Mapping[tuple[int, int], list[tuple[Record, Decision]]],
          policies: Mapping[tuple[str, int], PolicyRecord]) -> Iterable[tuple[str, Record]]:
    known: dict[int, Known] = defaultdict(Known)
    answers = {(r.partition, r.offset): e for r, e in evidence.events(LEDGER)
               if isinstance(e, PolicyRecord) and e.command_id is not None}
    for taken in evidence.records(AGENTS[DECIDER].input_topic):
        source = header(taken.headers, SOURCE_TOPIC)
        if source == COMMANDS:
            event = evidence.decoded(taken)
            if isinstance(event, PolicyCommand):
                known[taken.partition].take(event)
        elif source == LEDGER:
            answer = answers.get((int(header(taken.headers, SOURCE_PARTITION) or -1),
                                  int(header(taken.headers, SOURCE_OFFSET) or -1)))
            if answer is not None:
                known[taken.partition].take(answer)
        for record, d in at.get((taken.partition, taken.offset), ()):
            why = _wrong(d, known[taken.partition], policies.get((d.policy_id or "", d.policy_version or 0)))
            if why is not None:
                yield f"{d.decision_id} {why}", record


def _wrong(d: Decision, known: Known, policy: PolicyRecord | None) -> str | None:
    halted = known.halted(d.symbol)
    if (d.forced_reason == "halt") != halted:
        return "was taken under a halt as if there were none" if halted else "says halt, and none was commanded"
    expected = known.forced(d.policy_id or "", d.policy_version or 0)
    if policy is not None and policy.status == "RETIRED":
        expected.add("policy_retired")
    if halted or d.forced_reason in expected:
        return None
    if d.forced_reason in BY_COMMAND:
        return f"says {d.forced_reason}, and no command asks for it"
    if expected and not d.forced:
        return f"goes by {d.policy_id} version {d.policy_version}, although a command says {min(expected)}"
    return None
