"""An agent that begins anew on the log that is there: what its state and its group say of another log is taken out."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.catalogue import AGENTS, AgentIO
from streams.commits import Commits
from streams.fold import PartitionFold
from streams.log import LogReader, NoBroker
from streams.samelog import Cluster, NoAnswer
from streams.settings import Settings

Place = tuple[str, int]


def topic_ids(settings: Settings, agent: str) -> dict[str, str]:
    """Kafka's ids of the topics that an agent reads, by their catalogue names; without those that are missing.

    Raises:
        NoBroker: no answer.
    """
    io = AGENTS[agent]
    names = {settings.topic(n): n for n in (*io.reads, io.input_topic)}
    try:
        seen = Cluster(settings.client()).once(list(names))
    except NoAnswer as exc:
        raise NoBroker(f"no answer from the broker {settings.broker}: {exc}") from exc
    return {names[wire]: topic_id for wire, topic_id in seen.ids.items()}


def fit(log: LogReader, fold: PartitionFold, ids: Mapping[str, str]) -> list[str]:
    """Let a fold go on with the log that is there; what was another log's, in words.

    Args:
        log: the log.
        fold: restored, with nothing that it has learned.
        ids: see `topic_ids`.
    """
    said, topic, p, there = [], fold.io.input_topic, fold.partition, log.topics()
    low, end = log.bounds(topic, p)
    known = fold.input_topic_id
    if (known is not None and known != ids.get(topic)) or not low <= fold.offset + 1 <= end:
        said.append(f"{topic}-{p} was folded up to {fold.offset} and holds {low} to {end} now: goes on at @{low}")
        fold.offset = low - 1
    fold.input_topic_id = ids.get(topic)
    for source in [s for s in fold.fences if _gone(log, there, fold, s, ids)]:
        said.append(f"{source[0]}-{source[1]} is another one than was copied up to {fold.fences[source][1]}")
        del fold.fences[source]
        fold.topic_ids.pop(source, None)
        for seen in [s for s in fold.seen if s[:2] == source]:
            del fold.seen[seen]
    return said


def _gone(log: LogReader, there: Mapping[str, list[int]], fold: PartitionFold, source: Place,
          ids: Mapping[str, str]) -> bool:
    topic, partition = source
    if topic not in ids or partition not in there.get(topic, ()):
        return True
    return fold.topic_ids.get(source, ids[topic]) != ids[topic] or \
        fold.fences[source][1] >= log.bounds(topic, partition)[1]


def recommit(settings: Settings, log: LogReader, io: AgentIO, anew: Mapping[Place, int]) -> list[str]:
    """Set the committed offsets of sources that are copied anew, or that are not in the log, to where these begin.

    Args:
        anew: offset from which on a source partition has to be copied again, at the latest.

    Raises:
        NoBroker: the broker refuses, or does not answer.
    """
    if io.direct:
        return []
    there = log.topics()
    bounds = {(t, p): log.bounds(t, p) for t in io.reads for p in there.get(t, ())}
    wire = {(settings.topic(t), p): (t, p) for t, p in bounds}
    commits = Commits(settings)
    try:
        committed = {wire[place]: at for place, at in commits.of(settings.group(io.name), list(wire)).items()}
    finally:
        commits.close()
    wrong = {place: max(low, anew.get(place, low)) for place, at in committed.items() for low, end in (bounds[place],)
             if at > anew.get(place, at) or not low <= at <= end}
    if not wrong:
        return []
    client = Consumer({**settings.client(), "group.id": settings.group(io.name), "enable.auto.commit": False})
    try:
        client.commit(offsets=[TopicPartition(settings.topic(t), p, at) for (t, p), at in wrong.items()],
                      asynchronous=False)
    except KafkaException as exc:
        raise NoBroker(f"the broker {settings.broker} does not commit for {settings.group(io.name)}: "
                       f"{exc.args[0].str()}") from exc
    finally:
        client.close()
    return [f"{t}-{p} is copied from @{at} on" for (t, p), at in sorted(wrong.items())]
