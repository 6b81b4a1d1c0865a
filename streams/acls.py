"""What a worker must be allowed to do on a cluster that others use, too: the least that each agent needs.

A worker makes no topic, alters none and reads no other group's offsets. On Kafka's side Read and Write bring Describe
with them, and Write on a topic is enough for an idempotent producer (Kafka 3.0 and later).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Literal

from agents.roster import ROSTER
from schemas import catalogue
from schemas.catalogue import AGENTS, TOPICS, AgentIO, Topic
from streams.blobs import TOPIC as BLOBS
from streams.settings import Settings
from streams.spread import spread, spread_over
from streams.unresolved import TOPIC as ALERTS

Operation = Literal["Read", "Write", "Describe"]
CLOCK = "system.clock"


@dataclass(frozen=True, order=True, kw_only=True)
class Acl:
    """One right.

    Attributes:
        agent: who needs it; `clock` for a worker with `--clock`.
        resource: `Topic` or `Group`.
        name: on the broker.
        pattern: `Literal`; no right reaches further than one name.
    """

    agent: str
    resource: Literal["Topic", "Group"]
    name: str
    operation: Operation
    pattern: Literal["Literal"] = "Literal"


def acls(settings: Settings, agents: Collection[str], *, clock: bool = False) -> list[Acl]:
    """The rights that a worker of these agents needs, agent by agent.

    Raises:
        KeyError: an agent is not in the catalogue.
    """
    found = [Acl(agent=name, resource="Topic", name=settings.topic(topic), operation=operation)
             for name in agents for topic, operation in sorted(set(_topics(AGENTS[name])))]
    for name in agents:
        found.append(Acl(agent=name, resource="Group", name=settings.group(name), operation="Read"))
        # Never joined: readers of the changelog and of alerts, which librdkafka looks a coordinator up for.
        found += [Acl(agent=name, resource="Group", name=settings.group(reader), operation="Describe")
                  for reader in ("reader", "recovery")]
    if clock:
        found.append(Acl(agent="clock", resource="Topic", name=settings.topic(CLOCK), operation="Write"))
    order = {name: i for i, name in enumerate((*agents, "clock"))}
    return sorted(found, key=lambda a: (order[a.agent], a.resource, a.name, a.operation))


def _topics(io: AgentIO) -> Iterator[tuple[str, Operation]]:
    for topic in (*io.reads, io.input_topic, io.changelog, ALERTS):
        yield topic, "Read"
    for topic in (*io.writes, io.changelog, ALERTS):
        yield topic, "Write"
    if not io.direct:
        yield io.input_topic, "Write"
    if "policy.ledger" in io.writes:
        yield "policy.current", "Write"
    for topic in io.reads:
        if (letters := f"{topic}.dlq") in TOPICS:
            yield letters, "Write"
    if ROSTER[io.name].heavy:
        yield BLOBS, "Read"
        yield BLOBS, "Write"


def topics_of(rights: Iterable[Acl], settings: Settings) -> list[Topic]:
    """Topics of the catalogue that the rights are about, in its order: somebody has to make them."""
    names = {a.name for a in rights if a.resource == "Topic"}
    return [spread_over(t, spread(settings, {})) for t in catalogue.built_topics() if settings.topic(t.name) in names]


def internal(topic: Topic) -> bool:
    """Whether only our own workers read and write it: inboxes, changelogs, stored blobs."""
    return topic.name.endswith((".inbox", ".changelog")) or topic.name == BLOBS


def acl_commands(rights: Iterable[Acl], principal: str, broker: str) -> list[str]:
    """Command lines of Apache Kafka's `kafka-acls` that give the rights: one for each set of operations."""
    operations: dict[tuple[str, str], list[str]] = {}
    for right in rights:
        operations.setdefault((right.resource, right.name), []).append(right.operation)
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (resource, name), needed in operations.items():
        alike.setdefault((resource, tuple(sorted(set(needed)))), []).append(name)
    return [" ".join(["kafka-acls", "--bootstrap-server", quote(broker), "--command-config admin.properties", "--add",
                      "--allow-principal", quote(principal), *(f"--operation {o}" for o in needed),
                      *(f"--{resource.lower()} {quote(name)}" for name in names)])
            for (resource, needed), names in alike.items()]


def topic_command(topic: Topic, settings: Settings) -> str:
    """Command line of `kafka-topics` that makes a topic as the catalogue has it."""
    return " ".join(["kafka-topics", "--bootstrap-server", quote(settings.broker), "--command-config admin.properties",
                     "--create", "--if-not-exists", "--topic", quote(settings.topic(topic.name)), "--partitions",
                     str(topic.partitions), *(f"--config {quote(f'{k}={v}')}" for k, v in topic.configs().items())])
