"""The whole story of a trade or decision: what it rested on, what became of it, what was learned from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, NamedTuple

from schemas.codec import Codec
from schemas.events import (
    Candle,
    Decision,
    Event,
    Experience,
    Features,
    MetaUpdated,
    PolicyCommand,
    PolicyRecord,
    QUpdated,
    TradeClosed,
    TraderDecision,
)
from streams.log import LogReader, NoTopic
from streams.story.arithmetic import Check, check_trade
from streams.story.descent import DEFAULT, LEDGER, Lineage, Reach, descend, version_want
from streams.story.finding import Finder, Hit, Want, long_bytes
from streams.story.gathering import DECISIONS, EXPERIENCES, TRADES, Named, Unknown, gather
from streams.story.verdict import Verdict, judge, trade_that_counts

CANDLES = "market.candles"
FEATURES = "market.features"
COMMANDS = "policy.commands"
BY_COMMAND = {"halt": ("HALT",), "policy_retired": ("RETIRE",), "policy_rolled_back": ("ROLLBACK",)}
LEARNERS: dict[type[Event], str] = {QUpdated: "q_learning", MetaUpdated: "meta_strategy"}
"""Who says that it learned, by the event that says so."""
NAMED_BY = (TRADES, DECISIONS, "rl_v3.decision")
"""Topics whose ids somebody may ask for."""
NEAREST = 500  # last records of each partition whose ids are compared with an unknown one
Learned = Literal["learned", "not learnable", "refused", "waiting", "nothing yet"]


class Learning(NamedTuple):
    """Whether a learner learned from it."""

    state: Learned
    text: str


@dataclass
class Story:
    """One trade or decision. Records that are not on the log are None or missing from their list.

    Attributes:
        named: all records that name it.
        verdicts: what became of it, the main thing first.
        trade: the copy that counts: none that was refused, where another came.
        bars: candles around entry and exit.
        in_force: the policy version at the decision.
        command: what a person commanded that forced the decision.
        lineage: what that version was learned from.
        before, after: the policy versions around the update that learned from it.
        first: the first decision under `after` or a later version.
        checks: the arithmetic of the trade, done again.
        looked: records that were looked at, by topic.
    """

    named: Named
    verdicts: list[Verdict]
    learning: Learning
    decision: Hit | None = None
    trade: Hit | None = None
    candle: Hit | None = None
    features: Hit | None = None
    in_force: Hit | None = None
    command: Hit | None = None
    lineage: Lineage | None = None
    bars: list[Hit] = field(default_factory=list)
    before: Hit | None = None
    after: Hit | None = None
    first: Hit | None = None
    checks: list[Check] = field(default_factory=list)
    looked: dict[str, int] = field(default_factory=dict)


def trace(log: LogReader, codec: Codec, asked: str, reach: Reach = DEFAULT) -> Story:
    """Tell the story of a trade or decision.

    Args:
        asked: a trade id or a decision id.
        reach: how far the lineage of the policy is told.

    Raises:
        Unknown: no record names it.
        NoBroker: the broker does not answer.
        NoTopic: it has no topic where a trade or decision could be.
    """
    finder = Finder(log, codec)
    if not finder.has(TRADES) and not finder.has(DECISIONS):
        raise NoTopic(f"the broker has neither {TRADES} nor {DECISIONS} under the topic prefix; run: quantum topics "
                      f"apply")
    named = gather(finder, asked)
    if named is None:
        raise Unknown(asked, _nearest(finder, asked), dict(finder.looked))
    story = Story(named, judge(named), _learning(named))
    story.decision = named.decisions[0] if named.decisions else None
    story.trade = trade_that_counts(named)
    if story.decision is not None:
        _basis(finder, story, story.decision)
    if story.in_force is not None:
        story.lineage = descend(finder, story.in_force, reach)
    if story.trade is not None:
        _arithmetic(finder, story, story.trade)
    if named.updates:
        _lesson(finder, story, named.updates[0])
    story.looked = dict(finder.looked)
    return story


# ---------------------------------------------------------------------- what it rested on
def _basis(finder: Finder, story: Story, hit: Hit) -> None:
    """Bar and policy of a decision."""
    decision, at_ms = hit.event, hit.record.timestamp_ms
    assert isinstance(decision, Decision)
    story.features, story.candle = bar_of(finder, hit)
    if decision.policy_id is not None and decision.policy_version is not None:
        wanted = {"it": version_want(decision.policy_id, decision.policy_version)}
        story.in_force = finder.near(LEDGER, wanted, at_ms).get("it")
    if decision.forced_reason in BY_COMMAND:
        story.command = commanded(finder, hit, story.in_force)


def bar_of(finder: Finder, hit: Hit) -> tuple[Hit | None, Hit | None]:
    """Features and candle that a decision rests on: by output ids where they lead there, else by search."""
    decision, at_ms = hit.event, hit.record.timestamp_ms
    assert isinstance(decision, Decision | TraderDecision)

    def same_bar(event: Event | None) -> bool:
        return (isinstance(event, Candle | Features) and event.symbol == decision.symbol
                and event.ts_ms == decision.ts_ms and event.interval_ms == decision.interval_ms)

    bar = Want((decision.symbol.encode(), long_bytes(decision.ts_ms)), same_bar)
    found = finder.input_of(hit)
    if found is None or not isinstance(found.event, Features) or not same_bar(found.event):
        found = finder.near(FEATURES, {"it": bar}, at_ms).get("it")
    made_of = None if found is None else finder.input_of(found)
    if made_of is None or not isinstance(made_of.event, Candle) or not same_bar(made_of.event):
        made_of = finder.near(CANDLES, {"it": bar}, at_ms).get("it")
    return found, made_of


def commanded(finder: Finder, hit: Hit, in_force: Hit | None) -> Hit | None:
    """The command that a forced decision obeyed: the one that its version answers, else the newest one before it."""
    decision = hit.event
    assert isinstance(decision, Decision | TraderDecision)
    version = None if in_force is None else in_force.event
    answers = version.command_id if isinstance(version, PolicyRecord) else None
    found = None
    for given in finder.holding([COMMANDS], b""):
        c = given.event
        if not isinstance(c, PolicyCommand) or c.command not in BY_COMMAND[decision.forced_reason or ""]:
            continue
        concerned = c.symbol in (None, decision.symbol) if c.command == "HALT" else c.policy_id == decision.policy_id
        if concerned and c.command_id == answers:
            return given
        if concerned and (given.record.timestamp_ms or 0) <= (hit.record.timestamp_ms or 0):
            found = given
    return found


# ---------------------------------------------------------------------- its arithmetic
def _arithmetic(finder: Finder, story: Story, hit: Hit) -> None:
    trade = hit.event
    assert isinstance(trade, TradeClosed)
    decision = None if story.decision is None else story.decision.event
    experience = next((h.event for h in story.named.experiences), None)
    assert decision is None or isinstance(decision, Decision)
    assert experience is None or isinstance(experience, Experience)
    if trade.execution.startswith("paper:"):
        interval_ms = None if decision is None else decision.interval_ms
        found = finder.near(CANDLES, _bars(trade, interval_ms), hit.record.timestamp_ms)
        story.bars = list({h.place: h for h in found.values()}.values())
    bars = [h.event for h in story.bars if isinstance(h.event, Candle)]
    story.checks = check_trade(trade, decision, experience, bars)


def _bars(trade: TradeClosed, interval_ms: int | None) -> dict[str, Want]:
    """The bar of the entry, and that of the exit: the one that ends there, or that opens there."""
    symbol = trade.symbol.encode()

    def want(at_ms: int, opens: bool) -> Want:
        return Want((symbol, long_bytes(at_ms)), lambda e: isinstance(e, Candle) and e.symbol == trade.symbol
                    and (e.open_time_ms if opens else e.ts_ms) == at_ms
                    and interval_ms in (None, e.interval_ms))

    at_open = {"SIGNAL": (True,), "HALT": (True,), "STOP": (False, True), "TARGET": (False, True)}
    exits = {f"exit {opens}": want(trade.ts_ms, opens) for opens in at_open.get(trade.exit_reason, (False,))}
    return {"entry": want(trade.opened_ms, True), **exits}


# ---------------------------------------------------------------------- what was learned from it
def _learning(named: Named) -> Learning:
    if named.updates:
        update = named.updates[0].event
        assert isinstance(update, QUpdated | MetaUpdated)
        return Learning("learned", f"{LEARNERS[type(update)]} made version {update.policy_version} from it")
    if not named.experiences:
        return Learning("nothing yet", "there is no experience of it")
    experience = named.experiences[0].event
    assert isinstance(experience, Experience)
    refused = named.letters_of(EXPERIENCES)
    if refused:
        hit, letter = refused[0]
        return Learning("refused", f"{letter.reason} by {letter.by}: {letter.detail} ({hit.place})")
    if not experience.learnable:
        why = "the decision was forced" if experience.forced else f"{experience.status} ({experience.reason})"
        return Learning("not learnable", f"{why}: nothing is learned from it")
    return Learning("waiting", f"no update of it yet; each learner learns from its own book, this is "
                               f"of {experience.book_id}")


def _lesson(finder: Finder, story: Story, hit: Hit) -> None:
    """The versions around an update, and the first decision under the new one."""
    update = hit.event
    assert isinstance(update, QUpdated | MetaUpdated)
    policy_id, version = f"{LEARNERS[type(update)]}/{update.symbol}", update.policy_version
    wanted = {"after": version_want(policy_id, version)}
    if version > 1:
        wanted["before"] = version_want(policy_id, version - 1)
    found = finder.near(LEDGER, wanted, hit.record.timestamp_ms)
    story.before, story.after = found.get("before"), found.get("after")
    at_ms = (story.after or hit).record.timestamp_ms
    story.first = finder.first_after(DECISIONS, Want((policy_id.encode(),), lambda e: isinstance(e, Decision)
                                     and e.policy_id == policy_id and (e.policy_version or 0) >= version), at_ms)


# ---------------------------------------------------------------------- ids that nobody knows
def _nearest(finder: Finder, asked: str) -> list[str]:
    """Ids on the log that hold this one, or resemble it."""
    longer = finder.holding(NAMED_BY, asked.encode()) if asked else []
    names = _ids(longer)
    if len(names) < 3:
        known = _ids(finder.newest(NAMED_BY, NEAREST))
        names += get_close_matches(asked, [n for n in known if n not in names], n=3, cutoff=0.6)
    return names[:3]


def _ids(hits: Iterable[Hit]) -> list[str]:
    found: dict[str, None] = {}
    for hit in hits:
        for name in ("trade_id", "decision_id"):
            value = getattr(hit.event, name, None)
            if value is not None:
                found.setdefault(value, None)
    return list(found)
