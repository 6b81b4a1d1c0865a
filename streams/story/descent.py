"""What a policy version was learned from: its update, the outcomes in its range, their trades; and its parents' too.

The range is the one that the version's provenance names, so it is fetched by offsets and nothing is searched; only the
trades and updates, which the provenance does not name, are looked for by their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.codec import Codec
from schemas.events import Decision, Experience, MetaUpdated, PolicyRecord, Provenance, QUpdated, TradeClosed
from streams.log import LogReader
from streams.policies.ledger import Asked
from streams.story.finding import Finder, Hit, Want, long_bytes

LEDGER = "policy.ledger"
UPDATES = {"q_learning": "rl.q_learning.updated", "meta_strategy": "rl.meta.updated"}
"""Where a learner says what it updated."""
TRADES = "execution.trade.closed"
DECISIONS = "rl.meta.strategy_selected"


class Reach(NamedTuple):
    """How far a lineage is told.

    Attributes:
        depth: versions, the one in question and its parents; 0: none.
        limit: outcomes in all.
    """

    depth: int = 1
    limit: int = 20


DEFAULT = Reach()


class Taught(NamedTuple):
    """An outcome that a version learned from; `experience.record` stands on the learner's input."""

    experience: Hit
    trade: Hit | None


@dataclass
class Generation:
    """One version and what made it.

    Attributes:
        version: the policy record.
        taught: outcomes in its range that it learned from, as far as they are shown.
        others: events of its range that taught it no outcome.
        update: what the learner says of the update; None where it says nothing.
        missing: why the range cannot be told; None where it can.
    """

    version: Hit
    taught: list[Taught] = field(default_factory=list)
    others: int = 0
    update: Hit | None = None
    missing: str | None = None

    @property
    def policy(self) -> PolicyRecord:
        """The version."""
        assert isinstance(self.version.event, PolicyRecord)
        return self.version.event


@dataclass
class Lineage:
    """Versions, the newest first, and how much is left out.

    Attributes:
        versions_left: older versions.
        outcomes_left: outcomes that these learned from, and those beyond the limit.
    """

    generations: list[Generation]
    versions_left: int = 0
    outcomes_left: int = 0


@dataclass
class PolicyStory:
    """A version's story: what it was learned from and the first decision under it."""

    version: Hit
    lineage: Lineage | None
    first: Hit | None
    looked: dict[str, int]


def version_want(policy_id: str, version: int) -> Want:
    """A version of a policy, to look for on the ledger."""
    return Want((policy_id.encode(), long_bytes(version)), lambda e: isinstance(e, PolicyRecord)
                and e.policy_id == policy_id and e.version == version)


def trace_version(log: LogReader, codec: Codec, policy_id: str, version: int,
                  reach: Reach = DEFAULT) -> PolicyStory | None:
    """The story of a version; None where the ledger does not hold it.

    Raises:
        NoBroker: the broker does not answer.
    """
    finder = Finder(log, codec)
    found = finder.near(LEDGER, {"it": version_want(policy_id, version)}, None).get("it")
    if found is None:
        return None
    lineage = descend(finder, found, reach)
    first = finder.first_after(DECISIONS, Want((policy_id.encode(), long_bytes(version)), lambda e: isinstance(
        e, Decision) and e.policy_id == policy_id and e.policy_version == version), found.record.timestamp_ms)
    return PolicyStory(found, lineage, first, dict(finder.looked))


def trace_named_version(log: LogReader, codec: Codec, name: str, reach: Reach = DEFAULT) -> PolicyStory | None:
    """The story of POLICY@VERSION; None where the name is none of a version on the ledger.

    Raises:
        NoBroker: the broker does not answer.
    """
    try:
        asked = Asked.parse(name)
    except ValueError:
        return None
    if asked.first is None or asked.first != asked.last:
        return None
    return trace_version(log, codec, asked.policy_id, asked.first, reach)


def descend(finder: Finder, newest: Hit, reach: Reach) -> Lineage | None:
    """What a version and its parents were learned from; None where nothing of it is asked for."""
    if reach.depth == 0:
        return None
    policy = newest.event
    assert isinstance(policy, PolicyRecord)
    numbers = range(policy.version - 1, max(0, policy.version - reach.depth), -1)
    older = finder.near(LEDGER, {str(n): version_want(policy.policy_id, n) for n in numbers},
                        newest.record.timestamp_ms) if numbers else {}
    generations = [Generation(newest)]
    for n in numbers:
        if str(n) not in older:
            break  # a gap on the ledger: what is behind it has no place in this chain
        generations.append(Generation(older[str(n)]))
    for g in generations:
        _fill(finder, g)
    _cut(generations, reach.limit)
    _trades(finder, generations, newest)
    _updates(finder, generations, newest)
    shown = sum(len(g.taught) for g in generations)
    return Lineage(generations, generations[-1].policy.version - 1, max(0, policy.outcomes - shown))


def _fill(finder: Finder, g: Generation) -> None:
    """The outcomes in the range of a version."""
    p = g.policy.provenance
    if p is None:
        g.missing = "the record has no provenance"
        return
    kept = finder.first_kept(p.input_topic, p.input_partition)
    if kept is None or kept > p.from_offset:
        g.missing = f"{p.input_topic}-{p.input_partition}@{p.from_offset} is deleted"
        return
    of_scope = [h for h in finder.between(p.input_topic, p.input_partition, p.from_offset, p.to_offset)
                if getattr(h.event, "symbol", g.policy.scope) == g.policy.scope]
    g.taught = [Taught(h, None) for h in of_scope if isinstance(h.event, Experience) and h.event.learnable
                and h.event.book_id == g.policy.agent]
    g.others = len(of_scope) - len(g.taught)


def _cut(generations: Sequence[Generation], limit: int) -> None:
    """Leave out what is beyond the limit, the oldest first."""
    for g in generations:
        g.taught = g.taught[max(0, len(g.taught) - limit):]
        limit -= len(g.taught)


def _trades(finder: Finder, generations: Sequence[Generation], newest: Hit) -> None:
    """The trades of the outcomes, in one search backwards from the newest version."""
    wanted = {t.experience.event.trade_id: _trade(t.experience.event.trade_id)
              for g in generations for t in g.taught
              if isinstance(t.experience.event, Experience) and t.experience.event.trade_id is not None}
    found = finder.near(TRADES, wanted, newest.record.timestamp_ms) if wanted else {}
    for g in generations:
        g.taught = [t._replace(trade=found.get(getattr(t.experience.event, "trade_id", None) or ""))
                    for t in g.taught]


def _trade(trade_id: str) -> Want:
    return Want((trade_id.encode(),), lambda e: isinstance(e, TradeClosed) and e.trade_id == trade_id)


def _updates(finder: Finder, generations: Sequence[Generation], newest: Hit) -> None:
    """What the learner says of each update."""
    wanted = {str(g.policy.version): _update(g.policy) for g in generations if g.policy.reason != "genesis"}
    topic = UPDATES.get(generations[0].policy.agent, "")
    found = finder.near(topic, wanted, newest.record.timestamp_ms) if wanted and topic and finder.has(topic) else {}
    for g in generations:
        g.update = found.get(str(g.policy.version))


def _update(policy: PolicyRecord) -> Want:
    return Want((policy.scope.encode(), long_bytes(policy.version)), lambda e: isinstance(e, QUpdated | MetaUpdated)
                and e.symbol == policy.scope and e.policy_version == policy.version)


def range_of(p: Provenance | None) -> str:
    """`topic-partition@from..to`; `-` without a provenance."""
    return "-" if p is None else f"{p.input_topic}-{p.input_partition}@{p.from_offset}..{p.to_offset}"
