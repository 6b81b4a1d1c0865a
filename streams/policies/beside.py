"""What the log says of a policy beside its versions: what its updates told, and its gain where it is on a control."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from schemas.codec import Codec
from schemas.events import Event
from streams.log import Record
from streams.policies import gained, rewards, updates
from streams.policies.ledger import Version
from streams.records import readable


class Readable(Protocol):
    """A log."""

    def topics(self) -> Mapping[str, Sequence[int]]:
        """Partitions of each topic."""

    def read(self, topic: str) -> Iterable[Record]:
        """Records of a topic."""


class Beside(NamedTuple):
    """Figures by version.

    Attributes:
        training: what updates told, by name.
        gain: on the calibrated table; empty where the symbol is no control whose key is on the log.
    """

    training: dict[int, dict[str, float]]
    gain: dict[int, float]


def beside(log: Readable, codec: Codec, versions: Sequence[Version]) -> Beside:
    """The figures of versions of one policy; what cannot be read is passed over."""
    if not versions:
        return Beside({}, {})
    agent, scope = versions[0].policy.agent, versions[0].policy.scope
    there = log.topics()
    topic = updates.TOPICS.get(agent)
    told = updates.figures(versions, log.read(topic), codec) if topic in there and topic is not None else {}
    if agent == "q_learning":
        mean = rewards.trailing(_events(log, codec, rewards.TOPIC, there, scope), scope)
        told = {version: {updates.REWARDS[0]: reward} for version, reward in mean.items()}
    return Beside(told, gain(log, codec, versions))


def gain(log: Readable, codec: Codec, versions: Sequence[Version]) -> dict[int, float]:
    """Gain of versions of one policy on the calibrated table; empty where its symbol is no control with a known key."""
    if not versions:
        return {}
    there, scope = log.topics(), versions[0].policy.scope
    kind = gained.kind_of(_events(log, codec, gained.REVEAL, there), scope)
    return {} if kind is None else gained.gains(
        versions, kind, _events(log, codec, gained.OUTCOMES, there, scope))


def _events(log: Readable, codec: Codec, topic: str, there: Collection[str],
            key: str | None = None) -> Iterator[Event | None]:
    records = log.read(topic) if topic in there else ()
    mine = records if key is None else (r for r in records if r.key == key.encode())
    return (event for _, event in readable(codec, topic, mine))
