"""A lineage as steps and as plain data; the story of a version as both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.events import Experience, PolicyRecord
from streams.inspecting.shown import place_of, source_of
from streams.story.descent import Generation, Lineage, PolicyStory, Taught, range_of
from streams.story.finding import Hit
from streams.story.wording import Step, policy_of, record_of, text_of

POLICY_SCHEMA = "quantum.why.policy/1"
POLICY_FIELDS: dict[str, str] = {
    "schema": POLICY_SCHEMA,
    "id": "what was asked for",
    "policy": "the version as a record, without its table",
    "lineage": "as above",
    "first_decision": "a record or null: the first under this version",
    "steps, looked_at": "as above",
}


# ---------------------------------------------------------------------- for people
def descent_steps(lineage: Lineage | None) -> Iterator[Step]:
    """What each version was learned from, the newest first; what is left out is counted."""
    if lineage is None:
        return
    for i, g in enumerate(lineage.generations):
        if i:
            yield Step("its parent", g.version.place, f"{text_of(g.policy)}, {g.policy.outcomes} outcomes")
        yield from _generation(g)
    if lineage.versions_left or lineage.outcomes_left:
        yield Step("not shown", "-", f"{lineage.versions_left} earlier versions and {lineage.outcomes_left} outcomes "
                                     f"that it rests on too (--depth, --limit)")


def _generation(g: Generation) -> Iterator[Step]:
    if g.missing is not None:
        yield Step("its input", range_of(g.policy.provenance), f"cannot be told: {g.missing}")
        return
    if g.policy.reason == "genesis":
        said = "the first version: so many events gave it its volatility buckets"
    else:
        said = "since its parent"
    yield Step("its input", range_of(g.policy.provenance),
               f"{g.others + len(g.taught)} events of {g.policy.scope}, {len(g.taught)} of them outcomes; {said}")
    if g.update is not None and g.update.event is not None:
        yield Step("its update", g.update.place, text_of(g.update.event))
    for t in g.taught:
        yield from _taught(t)


def _taught(t: Taught) -> Iterator[Step]:
    e = t.experience.event
    assert isinstance(e, Experience)
    copied = _source(t.experience)
    yield Step("learned from", t.experience.place, f"{text_of(e)}, of {e.decision_id}"
               + ("" if copied is None else f" (copied from {copied})"))
    if e.trade_id is None:
        return
    missing = f"trade {e.trade_id} is not on the log"
    yield Step("its trade", "-", missing) if t.trade is None or t.trade.event is None else \
        Step("its trade", t.trade.place, text_of(t.trade.event))


def _source(hit: Hit) -> str | None:
    """Where a record of an inbox was copied from."""
    if not hit.record.topic.endswith(".inbox"):
        return None
    source = source_of(hit.record)
    return None if source is None else place_of(source)


def policy_steps(story: PolicyStory) -> list[Step]:
    """The story of a version in order."""
    version = story.version.event
    assert isinstance(version, PolicyRecord)
    first = Step("first decision with it", "-", "none under this version yet") if story.first is None or \
        story.first.event is None else Step("first decision with it", story.first.place, text_of(story.first.event))
    head = Step("policy", story.version.place, f"{text_of(version)}, {version.reason}, {version.outcomes} outcomes")
    return [head, *descent_steps(story.lineage), first]


# ---------------------------------------------------------------------- for programs
def descent_dict(lineage: Lineage | None) -> dict[str, Any] | None:
    """A lineage as plain data."""
    if lineage is None:
        return None
    return {"versions": [_generation_dict(g) for g in lineage.generations],
            "not_shown": {"versions": lineage.versions_left, "outcomes": lineage.outcomes_left}}


def _generation_dict(g: Generation) -> dict[str, Any]:
    told = policy_of(g.version, None)
    assert told is not None
    return {
        "version": g.policy.version, "record": told["record"], "input": range_of(g.policy.provenance),
        "update": record_of(g.update),
        "outcomes": [{"experience": record_of(t.experience), "source": _source(t.experience),
                      "trade": record_of(t.trade)} for t in g.taught],
        "other_events": g.others, "missing": g.missing,
    }


def policy_dict(asked: str, story: PolicyStory) -> dict[str, Any]:
    """The story of a version as plain data, with the keys of `POLICY_FIELDS`."""
    told = policy_of(story.version, None)
    assert told is not None
    return {"schema": POLICY_SCHEMA, "id": asked, "policy": told["record"], "lineage": descent_dict(story.lineage),
            "first_decision": record_of(story.first), "steps": [s._asdict() for s in policy_steps(story)],
            "looked_at": story.looked}
