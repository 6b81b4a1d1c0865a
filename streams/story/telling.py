"""A story as steps, each with the record that shows it, and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.events import Decision, MetaUpdated, PolicyApplied, PolicyRecord, QUpdated, TradeClosed
from streams.story.arithmetic import agrees
from streams.story.descended import descent_dict, descent_steps
from streams.story.finding import Hit
from streams.story.tracing import BY_COMMAND, Story
from streams.story.wording import Step, changed, command_of, policy_of, record_of, text_of

SCHEMA = "quantum.why/1"
FIELDS: dict[str, str] = {
    "schema": SCHEMA,
    "id": "what was asked for",
    "kind": "trade or decision",
    "trade_id, decision_id": "text or null",
    "verdict": "accepted, duplicate, conflict, unattributed, waiting or dead-lettered: the main one",
    "verdicts": "list of {verdict, text, places}, the main one first",
    "candle, features, decision, trade": "a record or null: what it rested on, and itself",
    "policy": "null, or {record, version, cell}: in force at the decision",
    "command": "a record or null: what a person commanded that forced the decision; of a state its size",
    "lineage": "null, or what that version was learned from: {versions: list of {version, record, input, update, "
               "outcomes: list of {experience, source, trade}, other_events, missing}, not_shown: {versions, "
               "outcomes}}; input is topic-partition@from..to; source the place that a relay copied it from",
    "applied": "list of {record, changed}: changed is true where the policy's action was executed and is not the "
               "baseline's",
    "outcomes, experiences, orphans, other_trades, bars": "lists of records; other_trades name the same decision",
    "arithmetic": "null, or {agrees, checks: list of {check, agrees, said, follows, how}}; agrees null: not checkable",
    "dead_letters": "list of {record, reason, detail, by, source}",
    "learning": "{state, text, update, before, after, other_cells_changed, first_decision}; state is learned, "
                "not learnable, refused, waiting or nothing yet; before and after as policy",
    "steps": "list of {what, place, text}, as printed",
    "looked_at": "records that were read, by topic",
}


# ---------------------------------------------------------------------- for people
def steps(story: Story) -> list[Step]:
    """The story in order; what is not on the log and should be is said so."""
    return [*_before(story), *_itself(story), *_after(story)]


def _before(story: Story) -> Iterator[Step]:
    named = story.named
    if story.decision is None:
        if named.decision_id is not None:
            yield Step("decision", "-", f"no record of decision {named.decision_id}")
        return
    decision = story.decision.event
    assert isinstance(decision, Decision)
    yield _of("candle", story.candle, "no candle of its bar was found")
    yield _of("features", story.features, "no features of its bar were found")
    if decision.policy_version is not None:
        missing = f"{decision.policy_id} version {decision.policy_version} is not on the ledger"
        yield _of("policy in force", story.in_force, missing, decision.state_key)
        yield from descent_steps(story.lineage)
    if decision.forced_reason in BY_COMMAND:
        yield _of("command", story.command, f"no command for {decision.forced_reason} was found")
    yield _of("decision", story.decision)
    for hit in named.applied:
        step = _of("applied", hit)
        yield step._replace(text=step.text + _unlike(hit, decision))


def _unlike(hit: Hit, decision: Decision) -> str:
    """What a report says otherwise than its decision."""
    told = hit.event
    if not isinstance(told, PolicyApplied) or (told.recommended_action, told.baseline_action) == (
            decision.action, decision.baseline_action):
        return ""
    return f"; DOES NOT AGREE: the decision is for {decision.action}, without a policy {decision.baseline_action}"


def _itself(story: Story) -> Iterator[Step]:
    named = story.named
    if story.trade is not None:
        yield _of("trade", story.trade)
        yield _sums(story, story.trade)
    for hit in named.unreadable:
        yield Step("unreadable", hit.place, str(hit.refused))
    for hit in named.other_trades:
        step = _of("other trade", hit)
        yield step._replace(text=f"{_trade_id(hit)}: {step.text}")
    for hit in named.outcomes:
        yield _of("outcome", hit)
    for hit, letter in named.letters:
        other = _trade_id(hit)
        of = "" if other in (None, named.trade_id) else f"trade {other}: "
        yield Step("dead letter", hit.place, f"{of}{letter.reason} by {letter.by}: {letter.detail}")


def _trade_id(hit: Hit) -> str | None:
    return hit.event.trade_id if isinstance(hit.event, TradeClosed) else None


def _sums(story: Story, trade: Hit) -> Step:
    """The arithmetic in one line: what does not agree, else what was checked."""
    bad = [c for c in story.checks if c.agrees is False]
    if bad:
        text = "; ".join(f"{c.name} says {_number(c.said)}, but {c.how} is {_number(c.follows)}" for c in bad)
        return Step("arithmetic", trade.place, f"DOES NOT AGREE: {text}")
    done = sum(c.agrees is not None for c in story.checks)
    left = [c.name for c in story.checks if c.agrees is None]
    rest = f"; not checkable: {', '.join(left)}" if left else ""
    return Step("arithmetic", trade.place, f"agrees in {done} checks{rest}")


def _number(value: float | str | None) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _after(story: Story) -> Iterator[Step]:
    named = story.named
    for hit in named.orphans:
        yield _of("orphan", hit)
    for hit in named.experiences[:1]:
        yield _of("experience", hit)
    if not named.updates:
        if named.experiences:
            yield Step("learning", "-", f"{story.learning.state}: {story.learning.text}")
        return
    update = named.updates[0].event
    assert isinstance(update, QUpdated | MetaUpdated)
    state_key = getattr(update, "state_key", None)
    yield _of("update", named.updates[0])
    if story.before is not None:
        yield _of("policy before", story.before, state_key=state_key)
    missing = f"version {update.policy_version} is not on the ledger"
    yield _of("policy learned", story.after, missing, state_key)
    yield _of("first decision with it", story.first, f"none under version {update.policy_version} or later yet")


def _of(what: str, hit: Hit | None, missing: str = "", state_key: str | None = None) -> Step:
    if hit is None or hit.event is None:
        return Step(what, "-", missing)
    return Step(what, hit.place, text_of(hit.event, state_key))


# ---------------------------------------------------------------------- for programs
def as_dict(story: Story) -> dict[str, Any]:
    """The story as plain data, with the keys of `FIELDS`."""
    named = story.named
    decision = None if story.decision is None else story.decision.event
    key = decision.state_key if isinstance(decision, Decision) else None
    return {
        "schema": SCHEMA, "id": named.asked, "kind": named.kind, "trade_id": named.trade_id,
        "decision_id": named.decision_id, "verdict": story.verdicts[0].word,
        "verdicts": [{"verdict": v.word, "text": v.text, "places": list(v.places)} for v in story.verdicts],
        "candle": record_of(story.candle), "features": record_of(story.features), "decision": record_of(story.decision),
        "policy": policy_of(story.in_force, key), "lineage": descent_dict(story.lineage),
        "command": command_of(story.command),
        "applied": [{"record": record_of(h), "changed": isinstance(h.event, PolicyApplied) and changed(h.event)}
                    for h in named.applied],
        "trade": record_of(story.trade),
        "arithmetic": _arithmetic(story) if story.trade is not None else None,
        "bars": [record_of(h) for h in story.bars],
        "other_trades": [record_of(h) for h in named.other_trades],
        "outcomes": [record_of(h) for h in named.outcomes],
        "experiences": [record_of(h) for h in named.experiences],
        "orphans": [record_of(h) for h in named.orphans],
        "dead_letters": [_letter(h, letter._asdict()) for h, letter in named.letters],
        "learning": _learning(story),
        "steps": [step._asdict() for step in steps(story)],
        "looked_at": story.looked,
    }


def _arithmetic(story: Story) -> dict[str, Any]:
    rows = [{"check": c.name, **{k: v for k, v in c._asdict().items() if k != "name"}} for c in story.checks]
    return {"agrees": agrees(story.checks), "checks": rows}


def _letter(hit: Hit, letter: dict[str, Any]) -> dict[str, Any]:
    source = letter["source"]
    return {"record": record_of(hit), "reason": letter["reason"], "detail": letter["detail"], "by": letter["by"],
            "source": None if source is None else "{}-{}@{}".format(*source)}


def _learning(story: Story) -> dict[str, Any]:
    update = story.named.updates[0] if story.named.updates else None
    key = update.event.state_key if update is not None and isinstance(update.event, QUpdated) else None
    return {"state": story.learning.state, "text": story.learning.text, "update": record_of(update),
            "before": policy_of(story.before, key), "after": policy_of(story.after, key),
            "other_cells_changed": _others(story, key), "first_decision": record_of(story.first)}


def _others(story: Story, state_key: str | None) -> int | None:
    """Other cells of the table whose probabilities the update changed."""
    pair = [h.event for h in (story.before, story.after) if h is not None and isinstance(h.event, PolicyRecord)]
    if len(pair) < 2 or pair[1].tabular is None:
        return None
    old = {c.state_key: c.probabilities for c in (pair[0].tabular.cells if pair[0].tabular is not None else ())}
    return sum(old.get(c.state_key) != c.probabilities for c in pair[1].tabular.cells if c.state_key != state_key)
