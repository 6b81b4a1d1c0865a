"""The story of a decision of the PPO trader: its bar, the version that it asked, the run that made the weights.

Nobody learns from such a decision, so there is no verdict and no experience. Its account is on paper: what the decision
came to stands in the decisions behind it, which say how the account was at their closes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from schemas.codec import Codec
from schemas.events import (
    Event,
    Orphan,
    PolicyApplied,
    PolicyRecord,
    TradeClosed,
    TraderDecision,
    TrainingCompleted,
    TrainingStarted,
)
from streams.log import LogReader
from streams.policies.ledger import Asked
from streams.story.descent import DEFAULT, LEDGER, TRADES, Reach, version_want
from streams.story.finding import Finder, Hit, Want
from streams.story.tracing import BY_COMMAND, bar_of, commanded

AGENT = "ppo_trader"
TRADER, STARTED, COMPLETED = "rl_v3.decision", "rl_v3.training.started", "rl_v3.training.completed"
BEHIND = ("policy.applied", "learning.orphan")
MARK = f"/{AGENT}/"  # in the middle of every id of such a decision
UPDATE = "update: "  # begins the reason of a version that a run made
MOST_COMMANDS = 64  # versions in a row that people's commands made


class Trained(NamedTuple):
    """A version that a run made.

    Attributes:
        version: on the ledger.
        run: the result that it was made of; None where the log does not hold it.
        started: the event that this attempt was opened.
    """

    version: Hit
    run: Hit | None
    started: Hit | None


@dataclass
class TraderStory:
    """One decision. Records that are not on the log are None or missing from their list.

    Attributes:
        kind: what the id names; a trade is one that an executor reported of the decision.
        in_force: the version that was asked, or would have been.
        limits: the risk policy whose limits held.
        command: what a person commanded that forced the decision.
        trained: the run that made its weights, and those of its parents, the newest first.
        versions_left: older versions that made weights.
        next: the decision at the next close.
        ended: the first decision behind it at which the position that it opened is no more; None where it opened none.
        trades, applied, orphans: records that name the decision.
        looked: records that were looked at, by topic.
    """

    asked: str
    kind: Literal["trade", "decision"]
    decision: Hit
    features: Hit | None = None
    candle: Hit | None = None
    in_force: Hit | None = None
    limits: Hit | None = None
    command: Hit | None = None
    trained: list[Trained] = field(default_factory=list)
    versions_left: int = 0
    next: Hit | None = None
    ended: Hit | None = None
    trades: list[Hit] = field(default_factory=list)
    applied: list[Hit] = field(default_factory=list)
    orphans: list[Hit] = field(default_factory=list)
    looked: dict[str, int] = field(default_factory=dict)

    @property
    def said(self) -> TraderDecision:
        """The decision."""
        assert isinstance(self.decision.event, TraderDecision)
        return self.decision.event

    @property
    def opened(self) -> bool | None:
        """Whether it opened a position; None where no later close is known."""
        if self.next is None:
            return None
        behind = self.next.event
        assert isinstance(behind, TraderDecision)
        wanted = {"LONG": 1, "SHORT": -1}.get(self.said.action)
        return wanted is not None and self.said.side != wanted and behind.side == wanted


def trace_trader(log: LogReader, codec: Codec, asked: str, reach: Reach = DEFAULT) -> TraderStory | None:
    """The story of a decision of the trader; None where the id names none.

    Args:
        asked: id of the decision, or of a trade that an executor reported of it.
        reach: how many versions are followed to their runs.

    Raises:
        NoBroker: the broker does not answer.
    """
    finder = Finder(log, codec)
    if not finder.has(TRADER):
        return None
    found, kind = _decision(finder, asked) if MARK in asked else None, "decision"
    if found is None:
        trade = next((t.event for t in finder.holding([TRADES], asked.encode()) if isinstance(t.event, TradeClosed)
                      and t.event.trade_id == asked and MARK in (t.event.decision_id or "")), None)
        found, kind = None if trade is None else _decision(finder, trade.decision_id or ""), "trade"
    if found is None:
        return None
    story = TraderStory(asked, "trade" if kind == "trade" else "decision", found)
    story.features, story.candle = bar_of(finder, found)
    _policies(finder, story, reach)
    _behind(finder, story)
    story.looked = dict(finder.looked)
    return story


def _decision(finder: Finder, decision_id: str) -> Hit | None:
    """The first record of a decision; copies are the same record again."""
    return next((h for h in finder.holding([TRADER], decision_id.encode())
                 if isinstance(h.event, TraderDecision) and h.event.decision_id == decision_id), None)


# ---------------------------------------------------------------------- what it rested on
def _policies(finder: Finder, story: TraderStory, reach: Reach) -> None:
    d, at_ms = story.said, story.decision.record.timestamp_ms
    if d.policy_id is not None and d.policy_version is not None:
        story.in_force = _version(finder, d.policy_id, d.policy_version, at_ms)
    if d.limits_policy is not None:
        named = Asked.parse(d.limits_policy)
        story.limits = _version(finder, named.policy_id, named.first or 0, at_ms)
    if d.forced_reason in BY_COMMAND:
        story.command = commanded(finder, story.decision, story.in_force)
    at = story.in_force
    while at is not None and (made := _weights_of(finder, at)) is not None:
        if len(story.trained) == reach.depth:
            story.versions_left = _policy(made).version
            return
        run = _run(finder, made)
        story.trained.append(Trained(made, run, _started(finder, run, made)))
        result = None if run is None else run.event
        parent = result.parent_version if isinstance(result, TrainingCompleted) else None
        at = None if parent is None else _version(finder, _policy(made).policy_id, parent, made.record.timestamp_ms)


def _policy(hit: Hit) -> PolicyRecord:
    assert isinstance(hit.event, PolicyRecord)
    return hit.event


def _version(finder: Finder, policy_id: str, version: int, at_ms: int | None) -> Hit | None:
    return finder.near(LEDGER, {"it": version_want(policy_id, version)}, at_ms).get("it")


def _weights_of(finder: Finder, hit: Hit) -> Hit | None:
    """The version that a run made whose weights this one has: itself, or what people's commands lead back to."""
    for _ in range(MOST_COMMANDS):
        p = _policy(hit)
        if p.reason.startswith(UPDATE):
            return hit
        back = p.restored_version if p.obeyed and p.restored_version is not None else p.version - 1
        older = _version(finder, p.policy_id, back, hit.record.timestamp_ms) if back > 0 else None
        if older is None:
            return None
        hit = older
    return None


def _run(finder: Finder, version: Hit) -> Hit | None:
    """The result that a version was made of: what its output id leads to, else by the name of its job."""
    job_id = _policy(version).reason.removeprefix(UPDATE)

    def accept(event: Event | None) -> bool:
        return isinstance(event, TrainingCompleted) and event.job_id == job_id

    found = finder.input_of(version)
    if found is not None and accept(found.event):
        return found
    return finder.near(COMPLETED, {"it": Want((job_id.encode(),), accept)}, version.record.timestamp_ms).get("it")


def _started(finder: Finder, run: Hit | None, version: Hit) -> Hit | None:
    job_id = _policy(version).reason.removeprefix(UPDATE)
    want = Want((job_id.encode(),), lambda e: isinstance(e, TrainingStarted) and e.job_id == job_id)
    return finder.near(STARTED, {"it": want}, (run or version).record.timestamp_ms).get("it")


# ---------------------------------------------------------------------- what it came to
def _behind(finder: Finder, story: TraderStory) -> None:
    """What executors said of it, and how the account was at later closes."""
    d, at_ms = story.said, story.decision.record.timestamp_ms
    lists: dict[type[Event], list[Hit]] = {
        TradeClosed: story.trades, PolicyApplied: story.applied, Orphan: story.orphans}
    for hit in finder.holding([TRADES, *BEHIND], d.decision_id.encode(), at_ms):
        event = hit.event
        if event is not None and type(event) in lists and getattr(event, "decision_id", None) == d.decision_id:
            lists[type(event)].append(hit)

    def later(e: Event) -> bool:
        return isinstance(e, TraderDecision) and e.symbol == d.symbol and e.ts_ms > d.ts_ms

    symbol = d.symbol.encode()
    story.next = finder.first_after(TRADER, Want((symbol,), later), at_ms)
    if story.opened:
        side = 1 if d.action == "LONG" else -1
        story.ended = finder.first_after(
            TRADER, Want((symbol,), lambda e: later(e) and isinstance(e, TraderDecision) and e.side != side), at_ms)
