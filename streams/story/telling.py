"""A story as steps, each with the record that shows it, and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from schemas.events import (
    Candle,
    Cell,
    Decision,
    DecisionOutcome,
    Event,
    Experience,
    Features,
    Orphan,
    PolicyApplied,
    PolicyCommand,
    PolicyRecord,
    QUpdated,
    TradeClosed,
)
from streams.inspecting.shown import iso, plain
from streams.story.arithmetic import agrees
from streams.story.finding import Hit
from streams.story.tracing import BY_COMMAND, Story

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
RECORD = "a record: {place, timestamp_ms, event, value}; a place is topic-partition@offset, without the topic prefix"


class Step(NamedTuple):
    """One step of the story: what it is, the record that shows it, what the record says."""

    what: str
    place: str
    text: str


# ---------------------------------------------------------------------- for people
def steps(story: Story) -> list[Step]:
    """The story in order; what is not on the log and should be is said so."""
    return [*_before(story), *_itself(story), *_after(story)]


def changed(applied: PolicyApplied) -> bool:
    """Whether the policy's action was executed, and is not what would have been done without it."""
    return applied.executed_action == applied.recommended_action != applied.baseline_action


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
    if decision.forced_reason in BY_COMMAND:
        yield _of("command", story.command, f"no command for {decision.forced_reason} was found")
    yield _of("decision", story.decision)
    for hit in named.applied:
        yield _of("applied", hit)


def _itself(story: Story) -> Iterator[Step]:
    named = story.named
    if story.trade is not None:
        yield _of("trade", story.trade)
        yield _sums(story, story.trade)
    for hit in named.unreadable:
        yield Step("unreadable", hit.place, str(hit.refused))
    for hit in named.other_trades:
        yield _of("other trade", hit)
    for hit in named.outcomes:
        yield _of("outcome", hit)
    for hit, letter in named.letters:
        yield Step("dead letter", hit.place, f"{letter.reason} by {letter.by}: {letter.detail}")


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
    assert isinstance(update, QUpdated)
    yield _of("update", named.updates[0])
    if story.before is not None:
        yield _of("policy before", story.before, state_key=update.state_key)
    missing = f"version {update.policy_version} is not on the ledger"
    yield _of("policy learned", story.after, missing, update.state_key)
    yield _of("first decision with it", story.first, f"none under version {update.policy_version} or later yet")


def _of(what: str, hit: Hit | None, missing: str = "", state_key: str | None = None) -> Step:
    if hit is None or hit.event is None:
        return Step(what, "-", missing)
    return Step(what, hit.place, text_of(hit.event, state_key))


def text_of(event: Event, state_key: str | None = None) -> str:
    """An event in one line; of a policy, the cell of that key."""
    e = event
    if isinstance(e, Candle):
        return f"{e.symbol} closes at {e.close:g}, {iso(e.ts_ms)} (source {e.source}, {e.origin})"
    if isinstance(e, Features):
        volatility = "?" if e.volatility_30 is None else f"{e.volatility_30:.5f}"
        return f"regime {e.regime}, volatility_30 {volatility}, ready {e.ready}"
    if isinstance(e, PolicyRecord):
        cell = cell_of(e, state_key)
        by = "" if e.command_id is None else f", {e.status} by {e.actor} ({e.reason})"
        return f"{e.policy_id} version {e.version}{by}" + ("" if cell is None else f", cell {cell.state_key}: "
               + ", ".join(f"{a} {p:.3f}" for a, p in zip(e.actions, cell.probabilities, strict=True)))
    if isinstance(e, Decision):
        forced = f", forced: {e.forced_reason}" if e.forced else ""
        under = "no policy" if e.policy_version is None else f"version {e.policy_version}"
        return (f"{e.decision_id}: {e.action} under {under} (probability {e.propensity:.3f}, best held "
                f"{e.greedy_action}, without a policy {e.baseline_action}{forced})")
    if isinstance(e, PolicyApplied):
        word = "changed" if changed(e) else "did not change"
        return (f"{e.applier} was told {e.recommended_action}, executed {e.executed_action}, without the policy "
                f"{e.baseline_action}: the policy {word} it")
    if isinstance(e, TradeClosed):
        return (f"{e.side} {e.quantity:g} {e.symbol} {e.entry_price:g} -> {e.exit_price:g}, {e.exit_reason}, fees "
                f"{e.fees:.2f}, funding {e.funding:.2f}, net {e.pnl_usd:+.2f} = {e.r_multiple:+.3f} R")
    return _rest(e)


def _rest(e: Event) -> str:
    if isinstance(e, PolicyCommand):
        to = "" if e.version is None else f" to version {e.version}"
        return f"{e.command} of {e.policy_id or e.symbol or 'all symbols'}{to} by {e.actor}, {iso(e.ts_ms)}: {e.reason}"
    if isinstance(e, DecisionOutcome):
        return e.status + (f" ({e.reason})" if e.reason else "") + (f", trade {e.trade_id}" if e.trade_id else "")
    if isinstance(e, Experience):
        why = f" ({e.reason})" if e.reason else ""
        return f"{e.status}{why}, reward {e.reward_r:+.3f} R, learnable {e.learnable}"
    if isinstance(e, Orphan):
        return f"{e.reason}, given up at {iso(e.ts_ms)}"
    if isinstance(e, QUpdated):
        return (f"Q({e.state_key}, {e.action}) {e.q_before:+.4f} -> {e.q_after:+.4f} R, visit {e.visits}, "
                f"step {e.step_size:.3g}" + (", drift alarm" if e.drift else ""))
    return e.SCHEMA_NAME


def cell_of(policy: PolicyRecord, state_key: str | None) -> Cell | None:
    """The cell of a key; None where the policy has none."""
    cells = policy.tabular.cells if policy.tabular is not None else ()
    return next((c for c in cells if c.state_key == state_key), None)


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
        "candle": _record(story.candle), "features": _record(story.features), "decision": _record(story.decision),
        "policy": _policy(story.in_force, key), "command": _command(story.command),
        "applied": [{"record": _record(h), "changed": isinstance(h.event, PolicyApplied) and changed(h.event)}
                    for h in named.applied],
        "trade": _record(story.trade),
        "arithmetic": _arithmetic(story) if story.trade is not None else None,
        "bars": [_record(h) for h in story.bars],
        "other_trades": [_record(h) for h in named.other_trades],
        "outcomes": [_record(h) for h in named.outcomes],
        "experiences": [_record(h) for h in named.experiences],
        "orphans": [_record(h) for h in named.orphans],
        "dead_letters": [_letter(h, letter._asdict()) for h, letter in named.letters],
        "learning": _learning(story),
        "steps": [step._asdict() for step in steps(story)],
        "looked_at": story.looked,
    }


def _record(hit: Hit | None) -> dict[str, Any] | None:
    if hit is None:
        return None
    event = hit.event
    return {"place": hit.place, "timestamp_ms": hit.record.timestamp_ms,
            "event": None if event is None else event.SCHEMA_NAME, "value": None if event is None else plain(event)}


def _policy(hit: Hit | None, state_key: str | None) -> dict[str, Any] | None:
    """A policy's envelope and the one cell; the whole table would bury it."""
    if hit is None or not isinstance(hit.event, PolicyRecord):
        return None
    policy, cell = hit.event, cell_of(hit.event, state_key)
    record = _record(hit)
    assert record is not None
    del record["value"]["tabular"]
    return {"record": record, "version": policy.version, "cell": None if cell is None else {
        "state_key": cell.state_key, "greedy": cell.greedy,
        "probabilities": dict(zip(policy.actions, cell.probabilities, strict=True)),
        "q": dict(zip(policy.actions, cell.q, strict=True)),
        "visits": dict(zip(policy.actions, cell.visits, strict=True))}}


def _command(hit: Hit | None) -> dict[str, Any] | None:
    record = _record(hit)
    if record is not None and hit is not None and isinstance(hit.event, PolicyCommand):
        del record["value"]["state"]
        record["value"]["state_bytes"] = None if hit.event.state is None else len(hit.event.state)
    return record


def _arithmetic(story: Story) -> dict[str, Any]:
    rows = [{"check": c.name, **{k: v for k, v in c._asdict().items() if k != "name"}} for c in story.checks]
    return {"agrees": agrees(story.checks), "checks": rows}


def _letter(hit: Hit, letter: dict[str, Any]) -> dict[str, Any]:
    source = letter["source"]
    return {"record": _record(hit), "reason": letter["reason"], "detail": letter["detail"], "by": letter["by"],
            "source": None if source is None else "{}-{}@{}".format(*source)}


def _learning(story: Story) -> dict[str, Any]:
    update = story.named.updates[0] if story.named.updates else None
    key = update.event.state_key if update is not None and isinstance(update.event, QUpdated) else None
    return {"state": story.learning.state, "text": story.learning.text, "update": _record(update),
            "before": _policy(story.before, key), "after": _policy(story.after, key),
            "other_cells_changed": _others(story, key), "first_decision": _record(story.first)}


def _others(story: Story, state_key: str | None) -> int | None:
    """Other cells of the table whose probabilities the update changed."""
    pair = [h.event for h in (story.before, story.after) if h is not None and isinstance(h.event, PolicyRecord)]
    if len(pair) < 2 or pair[1].tabular is None:
        return None
    old = {c.state_key: c.probabilities for c in (pair[0].tabular.cells if pair[0].tabular is not None else ())}
    return sum(old.get(c.state_key) != c.probabilities for c in pair[1].tabular.cells if c.state_key != state_key)
