"""Subjects of the schema registry against the catalogue, and writer schemas for the codec.

A subject is `<topic>-value` (TopicNameStrategy), the topic with its prefix. Only `quantum topics apply` registers;
producers and workers read, once, when they start. Where no registry is set, nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from schemas.catalogue import AGENTS, Topic, built_topics
from schemas.codec import CONFLUENT, Codec, mark_of
from schemas.released import schema_text
from streams.log import LogReader, Start
from streams.records import CE_TYPE, header
from streams.registry import AVRO, CONFLICT, NOT_FOUND, Registered, Registry
from streams.registry_errors import RegistryRefused
from streams.settings import Settings
from streams.topics import Change, Difference

LEVEL = "BACKWARD_TRANSITIVE"
SCHEMA, COMPATIBILITY = "schema", "compatibility"


def event_topics() -> list[Topic]:
    """Topics that have a subject: those that carry events, changelogs left out."""
    return [t for t in built_topics() if t.event is not None and not t.name.endswith(".changelog")]


def subject_of(settings: Settings, topic: str) -> str:
    """The subject of a catalogue topic."""
    return f"{settings.topic(topic)}-value"


def check(settings: Settings) -> list[Difference]:
    """What differs between the catalogue and the registry, in catalogue order.

    The newest schema must be registered, not be the newest there: writers of other releases may have added theirs.

    Raises:
        RegistryUnreachable, RegistryRefused: no answer; a refusal.
    """
    if settings.registry is None:
        return []
    registry = Registry(settings)
    there = set(registry.subjects())
    found: list[Difference] = []
    for topic in event_topics():
        subject = subject_of(settings, topic.name)
        known = subject in there
        if not known or registry.find(subject, schema_text(topic.name)) is None:
            found.append(Difference(topic=topic.name, setting=SCHEMA, expected=f"registered as {subject}",
                                    found="only others" if known else None))
        level = registry.compatibility(subject) if known else None
        if level != LEVEL:
            found.append(Difference(topic=topic.name, setting=COMPATIBILITY, expected=LEVEL, found=level))
    return found


def apply(settings: Settings) -> list[Change]:
    """Register what is missing, set the level; delete nothing. A schema that the registry refuses is left.

    Raises:
        RegistryUnreachable, RegistryRefused: as `check`.
    """
    if settings.registry is None:
        return []
    registry = Registry(settings)
    return [_mended(registry, settings, difference) for difference in check(settings)]


def _mended(registry: Registry, settings: Settings, difference: Difference) -> Change:
    topic, setting, before = difference.topic, difference.setting, difference.found
    subject = subject_of(settings, topic)
    if setting == COMPATIBILITY:
        try:
            registry.set_compatibility(subject, LEVEL)
        except RegistryRefused as exc:
            return Change(topic=topic, action="left", setting=setting, before=before, after=LEVEL, reason=str(exc))
        return Change(topic=topic, action="altered", setting=setting, before=before, after=LEVEL)
    try:
        schema_id = registry.register(subject, schema_text(topic))
    except RegistryRefused as exc:
        if exc.status != CONFLICT:
            raise
        return Change(topic=topic, action="left", setting=setting, before=before, after=difference.expected,
                      reason=f"it does not read what {subject} holds: {exc}")
    return Change(topic=topic, action="created", setting=setting, before=before, after=f"{subject}, id {schema_id}")


def unread(log: LogReader, agents: Iterable[str]) -> list[str]:
    """Topics that agents read of which the newest record is one of ours in Confluent framing: without a registry it
    would be refused, and so would all that follow.
    """
    there = log.topics()
    topics = {topic for name in agents for topic in AGENTS[name].reads if topic in there}
    return sorted({r.topic for topic in topics for r in log.read(topic, start=Start.last(1))
                   if (r.value or b"")[:1] == CONFLUENT and header(r.headers, CE_TYPE) is not None})


def codec_for(settings: Settings, *, writes: bool = False) -> Codec:
    """The codec of a worker or tool: with every writer schema that the subjects have now, where a registry is set.

    Args:
        writes: whether records are written with it: then in the framing that the settings name.

    Raises:
        RegistryUnreachable, RegistryRefused: as `check`; also where a schema to write with is not registered.
    """
    if settings.registry is None:
        return Codec()
    registry = Registry(settings)
    versions = _versions(registry, settings)
    ids = _newest_ids(registry, settings, versions) if writes and settings.framing == "confluent" else {}
    return Codec(_writer_schemas(registry, settings, versions), ids)


def _versions(registry: Registry, settings: Settings) -> dict[str, list[Registered]]:
    """All versions of the subjects that are there, by topic; what is no Avro is left out."""
    there = set(registry.subjects())
    subjects = {topic.name: subject_of(settings, topic.name) for topic in event_topics()}
    return {topic: [one for one in registry.versions(subject) if one.kind == AVRO]
            for topic, subject in subjects.items() if subject in there}


def _newest_ids(registry: Registry, settings: Settings, versions: Mapping[str, list[Registered]]) -> dict[str, int]:
    """Ids of our newest schemas, by topic: of versions that write the same bytes the last."""
    found: dict[str, int] = {}
    for topic in event_topics():
        ours = mark_of(schema_text(topic.name))
        same = [one.schema_id for one in versions.get(topic.name, ()) if mark_of(one.text) == ours]
        if not same:
            raise RegistryRefused(f"framing is confluent, and {registry.url} has no {subject_of(settings, topic.name)} "
                                  "with our newest schema: quantum topics apply", NOT_FOUND)
        found[topic.name] = same[-1]
    return found


def _writer_schemas(registry: Registry, settings: Settings, versions: Mapping[str, list[Registered]]) -> dict[int, str]:
    """All versions of our subjects, and the schemas that `registry_ids` names, by id.

    Raises:
        RegistryUnreachable, RegistryRefused: as `check`; also where an id that is named is not there.
    """
    found = {one.schema_id: one.text for several in versions.values() for one in several}
    for schema_id in settings.further_ids():
        text = registry.schema(schema_id)
        if text is None:
            raise RegistryRefused(f"registry_ids names {schema_id}, and {registry.url} has no Avro schema of that id",
                                  NOT_FOUND)
        found[schema_id] = text
    return found
