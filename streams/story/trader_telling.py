"""The story of a decision of the PPO trader as steps and as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.events import TRADER_ACTION_SYMBOLS, PolicyRecord, TraderDecision, TrainingCompleted, TrainingStarted
from streams.inspecting.shown import iso
from streams.story.finding import Hit
from streams.story.tracing import BY_COMMAND
from streams.story.trader import TraderStory, Trained
from streams.story.wording import Step, command_of, policy_of, record_of, text_of

TRADER_SCHEMA = "quantum.why.trader/1"
TRADER_FIELDS: dict[str, str] = {
    "schema": TRADER_SCHEMA,
    "id, kind": "what was asked for; trade or decision",
    "candle, features, decision": "a record or null: what it rested on, and itself",
    "observation": "what the networks were given: {name: value}; empty where none was asked",
    "probabilities": "of every valid action: {action: probability}; empty where none was asked",
    "policy": "null, or {record, version, cell: null}: the version that was asked, or would have been",
    "trained": "list of {version, policy, run, started}: the run that made the weights of policy, then those of its "
               "parents; run is a record without its weights, in whose place learner_bytes stands",
    "versions_not_shown": "number of earlier versions (--depth)",
    "limits": "null, or as policy: the risk policy whose limits held",
    "command": "a record or null: what a person commanded that forced the decision",
    "applied, trades, orphans": "lists of records that name the decision",
    "next": "a record or null: the decision at the next close, which says how the account was there",
    "ended": "a record or null: the first decision behind it at which a position that it opened is no more",
    "steps, looked_at": "as above",
}
SIDES = {1: "long", -1: "short", 0: "no position"}


# ---------------------------------------------------------------------- for people
def trader_steps(story: TraderStory) -> list[Step]:
    """The story in order; what is not on the log and should be is said so."""
    return [*_before(story), Step("decision", story.decision.place, _decided(story.said)), *_behind(story)]


def _before(story: TraderStory) -> Iterator[Step]:
    d = story.said
    yield _of("candle", story.candle, "no candle of its bar was found")
    yield _of("features", story.features, "no features of its bar were found")
    if d.observation:
        given = ", ".join(f"{name} {value:.4g}" for name, value in _given(story).items())
        yield Step("what it was given", story.decision.place, given)
    if d.policy_version is not None:
        yield _of("policy in force", story.in_force, f"{d.policy_id} version {d.policy_version} is not on the ledger")
        yield from _runs(story)
    if d.limits_policy is not None:
        yield _of("limits", story.limits, f"{d.limits_policy} is not on the ledger")
    if d.forced_reason in BY_COMMAND:
        yield _of("command", story.command, f"no command for {d.forced_reason} was found")


def _runs(story: TraderStory) -> Iterator[Step]:
    if not story.trained and not story.versions_left:
        yield Step("its run", "-", "no run that made its weights was found")
    newest = None if story.in_force is None else story.in_force.place
    for i, t in enumerate(story.trained):
        if i or t.version.place != newest:
            yield Step("its parent" if i else "its weights", t.version.place, text_of(_policy(t)))
        if t.run is None:
            yield Step("its run", "-", f"its result is not on the log: {_policy(t).reason}")
        else:
            assert isinstance(t.run.event, TrainingCompleted)
            yield Step("its run", t.run.place, _ran(t.run.event))
        if t.started is not None:
            assert isinstance(t.started.event, TrainingStarted)
            yield Step("its start", t.started.place, _began(t.started.event))
    if story.versions_left:
        yield Step("not shown", "-", f"{story.versions_left} earlier versions that it goes on from (--depth)")


def _behind(story: TraderStory) -> Iterator[Step]:
    for what, hits in (("applied", story.applied), ("trade", story.trades), ("orphan", story.orphans)):
        for hit in hits:
            yield _of(what, hit)
    if story.next is None:
        yield Step("next close", "-", "no later decision of the symbol yet: how its account went on is not known")
        return
    yield Step("next close", story.next.place, _account(story.next))
    if story.said.action in ("LONG", "SHORT") and not story.opened:
        held = _said(story.next).side == (1 if story.said.action == "LONG" else -1)
        yield Step("its position", "-", "it was held before" if held else
                   "none is held at the next close: it was not filled, or stopped out within the bar")
    elif story.opened and story.ended is None:
        yield Step("its position", "-", "is open at the newest close")
    elif story.ended is not None:
        gained = _said(story.ended).equity - story.said.equity
        yield Step("its position", story.ended.place,
                   f"is no more: {_account(story.ended)}, {gained:+.2f} since the decision")


def _of(what: str, hit: Hit | None, missing: str = "") -> Step:
    return Step(what, "-", missing) if hit is None or hit.event is None else Step(what, hit.place, text_of(hit.event))


def _policy(t: Trained) -> PolicyRecord:
    assert isinstance(t.version.event, PolicyRecord)
    return t.version.event


def _said(hit: Hit) -> TraderDecision:
    assert isinstance(hit.event, TraderDecision)
    return hit.event


def _given(story: TraderStory) -> dict[str, float]:
    """What the networks were given, by the names that the version gives its inputs; by place without it."""
    policy = None if story.in_force is None else story.in_force.event
    network = policy.network if isinstance(policy, PolicyRecord) else None
    values = story.said.observation
    if network is None or len(network.inputs) != len(values):
        return {str(i): value for i, value in enumerate(values)}
    return dict(zip(network.inputs, values, strict=True))


def _probabilities(d: TraderDecision) -> dict[str, float]:
    return {a: p for a, p in zip(TRADER_ACTION_SYMBOLS, d.probabilities, strict=False) if a in d.valid}


def _decided(d: TraderDecision) -> str:
    """A decision in one line: what is done, what the policy held of it, whether that binds."""
    under = "no policy" if d.policy_version is None else f"version {d.policy_version}"
    bound = "binding" if d.binding else "on paper"
    asked = "not asked"
    if d.probabilities:
        p = _probabilities(d)
        figures = "".join(f", {what} {value:+.3f}" for what, value in (("value", d.value),) if value is not None)
        sure = "" if d.confidence is None else f"; confidence {d.confidence:.3f}, at least {d.min_confidence:g} to open"
        asked = f"recommended {d.recommended} ({', '.join(f'{a} {x:.3f}' for a, x in p.items())}{sure}{figures})"
    forced = f", forced: {d.forced_reason}" if d.forced else ""
    return f"{d.decision_id}: {d.action} under {under}, mode {d.mode}, {bound}; {asked}{forced}"


def _account(hit: Hit) -> str:
    d = _said(hit)
    held = SIDES[d.side] + (f" {d.quantity:g}" if d.side else "")
    return f"{iso(d.ts_ms)}: {held}, equity {d.equity:.2f} on paper"


def _ran(e: TrainingCompleted) -> str:
    """A run in one line."""
    since = "new weights" if e.parent_version is None else f"the weights of version {e.parent_version}"
    bars = "" if e.first_open_ms is None or e.last_open_ms is None else \
        f" ({iso(e.first_open_ms)} to {iso(e.last_open_ms)})"
    figures = ", ".join(f"{what} {value:{form}}" for what, value, form in (
        ("reward", e.avg_reward, "+.3f"), ("entropy", e.entropy, ".3f"), ("KL", e.approx_kl, ".4f"),
        ("explained variance", e.explained_variance, "+.3f")) if value is not None)
    return (f"{e.run_id}, attempt {e.attempt}: {e.episodes} episodes on {e.rows} bars{bars} from {since}; {figures}; "
            f"learner {(e.learner_sha256 or '')[:12]}, origin {e.origin}")


def _began(e: TrainingStarted) -> str:
    return (f"slot {iso(e.slot_start_ms)} to {iso(e.slot_end_ms)}, {e.new_rows} new bars of {e.rows}, seed {e.seed}, "
            f"dropped: {', '.join(e.mask) or 'none'}")


# ---------------------------------------------------------------------- for programs
def trader_dict(story: TraderStory) -> dict[str, Any]:
    """The story as plain data, with the keys of `TRADER_FIELDS`."""
    return {
        "schema": TRADER_SCHEMA, "id": story.asked, "kind": story.kind, "candle": record_of(story.candle),
        "features": record_of(story.features), "decision": record_of(story.decision),
        "observation": _given(story), "probabilities": _probabilities(story.said),
        "policy": policy_of(story.in_force, None),
        "trained": [{"version": _policy(t).version, "policy": policy_of(t.version, None), "run": _run_of(t.run),
                     "started": record_of(t.started)} for t in story.trained],
        "versions_not_shown": story.versions_left, "limits": policy_of(story.limits, None),
        "command": command_of(story.command), "applied": [record_of(h) for h in story.applied],
        "trades": [record_of(h) for h in story.trades], "orphans": [record_of(h) for h in story.orphans],
        "next": record_of(story.next), "ended": record_of(story.ended),
        "steps": [s._asdict() for s in trader_steps(story)], "looked_at": story.looked,
    }


def _run_of(hit: Hit | None) -> dict[str, Any] | None:
    """A run; of the weights that it left, the size."""
    record = record_of(hit)
    if record is not None and hit is not None and isinstance(hit.event, TrainingCompleted):
        del record["value"]["learner"]
        record["value"]["learner_bytes"] = None if hit.event.learner is None else len(hit.event.learner)
    return record
