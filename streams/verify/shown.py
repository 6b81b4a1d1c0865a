"""The records that show a cell: few enough for one person, chosen so that the reasoning can be repeated by hand.

    RUNS       the newest record that the agent wrote, the newest that arrived
    RECEIVES   the record behind the commit of each input partition; the commits themselves are figures
    LEARNS     the updates that were drawn, each with the outcome it was learned from (as the learner took it from its
               inbox, and the original) and the version before it
    PERSISTS   partitions of the changelog, each with its head and all its scopes; the policies that name their state
    APPLIED    acknowledgements that changed something, each with its decision, policy version and trade
    ORIGIN     outputs, trades and rewards, each with what it is held against: candles, decision, trade

The draw is made with the run's sample seed, apart from the judge's own draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, TypeVar

from schemas.catalogue import AgentIO
from schemas.events import Decision, PolicyApplied, PolicyRecord, TradeClosed
from streams.log import Record
from streams.records import SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, header
from streams.verify.cells import MAX_RECORDS, Cell
from streams.verify.evidence import Evidence
from streams.verify.view import Spot

if TYPE_CHECKING:
    from streams.verify.commanded import Update

T = TypeVar("T")
LEDGER = "policy.ledger"


def drawn(items: Iterable[T], n: int, random: Random) -> list[T]:
    """At most n items, drawn, in their own order."""
    kept = list(items)
    return kept if len(kept) <= n else [kept[i] for i in sorted(random.sample(range(len(kept)), n))]


def updates(evidence: Evidence, some: Sequence[Update], every: Sequence[Update]) -> Iterator[list[Record | None]]:
    """For each of some updates its record, the input that it names, that input's original, and the version before."""
    versions = {(u.policy.policy_id, u.policy.version): u.record for u in every}
    some = some[:MAX_RECORDS // 4]
    found = evidence.fetch((p.input_topic, p.input_partition, p.to_offset) for u in some
                           for p in [u.policy.provenance] if p is not None)
    sources = {spot: _source_of(record) for spot, record in found.items()}
    originals = evidence.fetch(spot for spot in sources.values() if spot is not None)
    for u in some:
        p = u.policy.provenance
        assert p is not None
        spot = p.input_topic, p.input_partition, p.to_offset
        yield [u.record, found.get(spot), originals.get(sources.get(spot) or spot),
               versions.get((u.policy.policy_id, u.policy.version - 1))]


def _source_of(copy: Record) -> Spot | None:
    """Where an inbox record was copied from."""
    topic, *place = (header(copy.headers, name) for name in (SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET))
    numbers = [int(n) for n in place if n is not None and n.isdecimal()]
    return (topic, *numbers) if topic is not None and len(numbers) == 2 else None  # type: ignore[return-value]


def stored(evidence: Evidence, io: AgentIO, cell: Cell, random: Random) -> Cell:
    """PERSISTS: whole partitions of the changelog as long as they fit, so that a head's digest can be made by hand."""
    partitions = [s for _, s in sorted(evidence.stored[io.name].items()) if s.head_record is not None]
    random.shuffle(partitions)
    newest = {e.scope: r for r, e in evidence.events(LEDGER) if isinstance(e, PolicyRecord) and e.agent == io.name} \
        if LEDGER in io.writes else {}
    for n, s in enumerate(partitions):
        whole = [s.head_record, *s.scope_records.values()]
        whole += [newest[scope] for scope in s.scope_records if scope in newest]
        if not n or len(cell.records) + len(whole) <= MAX_RECORDS:
            cell = cell.showing(whole)
    return cell.showing(s.head_record for s in partitions)


def acknowledged(evidence: Evidence, name: str, cell: Cell, random: Random) -> Cell:
    """APPLIED: the acknowledgement of the cell and drawn ones, those that changed something before others."""
    acks = [(r, e) for r, e in evidence.events("policy.applied")
            if isinstance(e, PolicyApplied) and e.policy_id.partition("/")[0] == name and evidence.covers(r)]
    trades = {e.decision_id: r for r, e in evidence.events("execution.trade.closed") if isinstance(e, TradeClosed)}
    decisions = {e.decision_id: (r, e) for r, e in evidence.events("rl.meta.strategy_selected")
                 if isinstance(e, Decision) and e.decider == name}
    policies = {(e.policy_id, e.version): r for r, e in evidence.events(LEDGER)
                if isinstance(e, PolicyRecord) and e.agent == name}
    first = {r.place for r in cell.records}
    cell = cell.showing_each([r, policies.get((d.policy_id or "", d.policy_version or 0))]
                             for r, d in decisions.values() if r.place in first)
    changed = [a for a in acks if a[1].executed_action == a[1].recommended_action != a[1].baseline_action]
    some = [a for a in acks if a[0].place in first] + drawn(changed or acks, MAX_RECORDS // 4, random)
    if not some:  # nobody acknowledged: the decisions and what was in force
        of = drawn(decisions.values(), MAX_RECORDS // 4, random)
        return cell.showing_each([r, policies.get((d.policy_id or "", d.policy_version or 0))] for r, d in of).showing(
            drawn(policies.values(), MAX_RECORDS // 4, random))
    return cell.showing_each([
        record, decisions[ack.decision_id][0] if ack.decision_id in decisions else None,
        policies.get((ack.policy_id, ack.policy_version)), trades.get(ack.decision_id)] for record, ack in some)


def partner_of(evidence: Evidence, io: AgentIO) -> dict[str | None, Record]:
    """Beside what an agent's outputs are held, by decision id: the decision of a trade, the trade of a reward."""
    if "execution.trade.closed" in io.writes:
        return {e.decision_id: r for r, e in evidence.events("rl.meta.strategy_selected") if isinstance(e, Decision)}
    if "learning.experience" in io.writes:
        return {e.decision_id: r for r, e in evidence.events("execution.trade.closed") if isinstance(e, TradeClosed)}
    return {}


class Drawn:
    """A draw of n from a stream of unknown length (Vitter 1985, algorithm R)."""

    def __init__(self, n: int, random: Random) -> None:
        self.n, self.random, self.seen = n, random, 0
        self.kept: list[Record] = []

    def take(self, record: Record) -> None:
        """One more of the stream."""
        self.seen += 1
        if len(self.kept) < self.n:
            self.kept.append(record)
        elif (at := self.random.randrange(self.seen)) < self.n:
            self.kept[at] = record

    def first(self, record: Record) -> None:
        """One that must be shown, before all others."""
        self.kept.insert(0, record)
