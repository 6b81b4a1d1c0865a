"""Everything on the log that names a trade or a decision, told apart by what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from schemas.events import (
    Decision,
    DecisionOutcome,
    Event,
    Experience,
    MetaUpdated,
    Orphan,
    PolicyApplied,
    QUpdated,
    TradeClosed,
)
from streams.inspecting.deadletters import Letter, letter_of
from streams.inspecting.shown import DLQ
from streams.story.finding import Finder, Hit, long_bytes

Kind = Literal["trade", "decision"]
TRADES = "execution.trade.closed"
DECISIONS = "rl.meta.strategy_selected"
EXPERIENCES = "learning.experience"
LATER = ("decision.outcome", "policy.applied", EXPERIENCES, "learning.orphan", "rl.q_learning.updated",
         "rl.meta.updated")
"""Topics whose records about a decision or trade come after it."""
TRADE_OF_DECISION = "/t"  # paper execution names a trade by its decision; a hint that saves a second search
_WORD = re.compile(rb"[A-Za-z0-9_./:|@+-]")
E = TypeVar("E", bound=Event)


@dataclass
class Named:
    """Records that name one id, each list in order of arrival.

    Attributes:
        trades: copies of the trade that was asked for, or that ended the decision.
        other_trades: further trades that name the same decision.
        unreadable: records on the topics of trades and decisions that hold the id and cannot be decoded.
        letters: dead letters that hold the id.
    """

    asked: str
    kind: Kind
    trade_id: str | None
    decision_id: str | None
    decisions: list[Hit] = field(default_factory=list)
    trades: list[Hit] = field(default_factory=list)
    other_trades: list[Hit] = field(default_factory=list)
    outcomes: list[Hit] = field(default_factory=list)
    applied: list[Hit] = field(default_factory=list)
    experiences: list[Hit] = field(default_factory=list)
    orphans: list[Hit] = field(default_factory=list)
    updates: list[Hit] = field(default_factory=list)
    unreadable: list[Hit] = field(default_factory=list)
    letters: list[tuple[Hit, Letter]] = field(default_factory=list)

    def letters_of(self, topic: str) -> list[tuple[Hit, Letter]]:
        """Dead letters of one source topic."""
        return [(hit, letter) for hit, letter in self.letters if hit.record.topic == topic + DLQ]


class Unknown(LookupError):
    """No record names the id.

    Attributes:
        near: ids on the log that resemble it.
        looked: records that were looked at, by topic.
    """

    def __init__(self, asked: str, near: list[str], looked: dict[str, int]) -> None:
        self.asked, self.near, self.looked = asked, near, looked
        super().__init__(f"no record names {asked}")


def gather(finder: Finder, asked: str) -> Named | None:
    """Everything that names an id; None where nothing does."""
    hits = _search(finder, asked, None)
    kind, trade_id, decision_id = _kind(hits, asked)
    if kind is None:
        return None
    if decision_id is not None and _needle(asked) not in decision_id:
        hits = _merged(hits, _search(finder, decision_id, hits))
    named = Named(asked, kind, trade_id, decision_id)
    _sort(named, hits)
    return named


def _needle(asked: str) -> str:
    return asked.removesuffix(TRADE_OF_DECISION) or asked


def _search(finder: Finder, asked: str, before: list[Hit] | None) -> list[Hit]:
    """Records that hold an id: all trades, decisions and dead letters, and later ones from where the first came."""
    needle = _needle(asked).encode()
    first = finder.holding([TRADES, DECISIONS, *finder.dead_letter_topics], needle)
    times = [h.record.timestamp_ms for h in (*first, *(before or ())) if not h.record.topic.endswith(DLQ)]
    since_ms = min((t for t in times if t is not None), default=None) if None not in times else None
    return first + finder.holding(LATER, needle, since_ms)


def _merged(*lists: list[Hit]) -> list[Hit]:
    found = {hit.place: hit for hits in lists for hit in hits}
    return sorted(found.values(), key=lambda hit: hit.order)


def _kind(hits: list[Hit], asked: str) -> tuple[Kind | None, str | None, str | None]:
    """What an id is: (kind, trade id, decision id)."""
    decision_id: str | None = None
    as_trade = as_decision = False
    for hit in sorted(hits, key=lambda h: h.record.topic.endswith(DLQ)):  # what was taken before what was refused
        event = hit.event
        if event is None:
            exact = hit.record.value is not None and mentions(hit.record.value, asked)
            as_trade |= exact and hit.record.topic.removesuffix(DLQ) == TRADES
            as_decision |= exact
        elif getattr(event, "trade_id", None) == asked:
            as_trade = True
            decision_id = decision_id or getattr(event, "decision_id", None)
        elif getattr(event, "decision_id", None) == asked:
            as_decision = True
    if as_trade:
        return "trade", asked, decision_id
    if not as_decision:
        return None, None, None
    experience = next((e for _, e in _of(hits, Experience) if e.decision_id == asked), None)
    trades = [t.trade_id for _, t in _of(hits, TradeClosed) if t.decision_id == asked]
    return "decision", experience.trade_id if experience is not None else next(iter(trades), None), asked


def _of(hits: list[Hit], kind: type[E]) -> Iterator[tuple[Hit, E]]:
    """Events of a kind that stand on their own topic, not among the dead letters."""
    for hit in hits:
        if isinstance(hit.event, kind) and not hit.record.topic.endswith(DLQ):
            yield hit, hit.event


def _sort(named: Named, hits: list[Hit]) -> None:
    """Put each record where it belongs; what holds the ids only as parts of others is left out."""
    ids = {i for i in (named.trade_id, named.decision_id) if i is not None}
    lists: dict[type[Event], list[Hit]] = {
        Decision: named.decisions, DecisionOutcome: named.outcomes, PolicyApplied: named.applied,
        Experience: named.experiences, Orphan: named.orphans, QUpdated: named.updates,
        MetaUpdated: named.updates,
    }
    for hit in sorted(hits, key=lambda h: h.order):
        event, letter = hit.event, hit.record.topic.endswith(DLQ)
        if event is None:
            if any(mentions(hit.record.value or b"", i) for i in ids):
                if letter:
                    named.letters.append((hit, letter_of(hit.record)))
                else:
                    named.unreadable.append(hit)
            continue
        of_trade = named.trade_id is not None and getattr(event, "trade_id", None) == named.trade_id
        of_decision = named.decision_id is not None and named.decision_id in (
            getattr(event, "decision_id", None), *getattr(event, "decision_ids", ()))
        if not of_trade and not of_decision:
            continue
        if letter:
            named.letters.append((hit, letter_of(hit.record)))
        elif isinstance(event, TradeClosed):
            (named.trades if of_trade else named.other_trades).append(hit)
        elif type(event) in lists:
            lists[type(event)].append(hit)


def mentions(value: bytes, name: str) -> bool:
    """Whether bytes that nobody can decode hold exactly this id, not one that it is a part of.

    >>> mentions(b'{"trade_id": "S/q/1"}', "S/q/1"), mentions(b'{"trade_id": "S/q/12"}', "S/q/1")
    (True, False)
    """
    raw = name.encode()
    length = long_bytes(len(raw))
    at = value.find(raw)
    while at >= 0:
        end = at + len(raw)
        if value[:at].endswith(length):
            return True  # a string of Avro
        if not _WORD.match(value[end:end + 1]) and not _WORD.match(value[max(0, at - 1):at]):
            return True
        at = value.find(raw, at + 1)
    return False
