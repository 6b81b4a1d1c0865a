"""Is the log still the one that the work began on?

An offset alone does not tell: a topic that was deleted and made anew under its name may have grown past it again. Kafka
gives every topic an id of its own and every cluster another; heads keep the ids of what they were folded from (of
sources: by the fences in the inbox), so that another topic shows, however long it is and whatever became of the
group's commits, which Kafka deletes with their topic. docs/decisions/0075-a-topic-is-known-by-its-id.md.

Everything here says what is wrong, where, and what a person can do; nothing is skipped and nothing started from
elsewhere without a word.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import TimeoutError as NoAnswerInTime
from dataclasses import dataclass
from typing import Any

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient
from faust.types import TP

from streams.fold import PartitionFold
from streams.heard import Heard, result_of
from streams.restore import InputLost
from streams.transport.logs import passing
from streams.transport.timeouts import MISSING_S, WATCH_S

RETRY_S = 0.3
_silent = logging.Logger("quantum.samelog")  # whoever asks says what came of it, once
_silent.addHandler(logging.NullHandler())


class LogChanged(InputLost):
    """What a worker needs to go on is not on the log, or the log is another one.

    Attributes:
        component: which part of the agent it is about, as on `system.health.alert`; None: the agent.
    """

    def __init__(self, text: str, component: str | None = None) -> None:
        super().__init__(text)
        self.component = component


class NoAnswer(Exception):
    """The broker does not answer now; the text says why."""


@dataclass(frozen=True)
class Seen:
    """Topics at one moment.

    Attributes:
        cluster_id: Kafka's id of the cluster.
        ids: Kafka's id of each topic that is there, by its name on the broker.
        partitions: how many each has.
        missing: topics that are not there.
    """

    cluster_id: str
    ids: Mapping[str, str]
    partitions: Mapping[str, int]
    missing: frozenset[str] = frozenset()


class Cluster:
    """Asks a broker which topics it has; its methods block.

    Args:
        config: librdkafka client configuration.
    """

    def __init__(self, config: Mapping[str, str | int]) -> None:
        self._heard = Heard()
        self._config: dict[str, Any] = {**config, "error_cb": self._heard}
        self._admin: AdminClient | None = None

    def once(self, names: Collection[str]) -> Seen:
        """What the broker says of these topics now.

        Raises:
            NoAnswer: it does not answer within `WATCH_S`.
            confluent_kafka.KafkaException: it refuses.
        """
        if self._admin is None:
            self._admin = AdminClient(self._config, logger=_silent)
        try:
            answers = self._admin.describe_topics(ck.TopicCollection(sorted(names)), request_timeout=WATCH_S)
            found = {name: _unless_missing(answer) for name, answer in answers.items()}
            there = {name: topic for name, topic in found.items() if topic is not None}
            # `describe_cluster` ends the process by an assertion, up to librdkafka 2.16, where a broker lists no
            # broker: after a freeze it counts as gone itself for a moment.
            cluster = self._admin.list_topics(next(iter(there), None), timeout=WATCH_S)
        except NoAnswerInTime:
            raise NoAnswer(self._why("no answer")) from None
        except ck.KafkaException as exc:
            if not passing(exc.args[0]):
                raise
            raise NoAnswer(self._why(exc.args[0].str())) from None
        self._heard.clear()
        return Seen(cluster.cluster_id or "", {name: str(topic.topic_id) for name, topic in there.items()},
                    {name: len(topic.partitions) for name, topic in there.items()},
                    frozenset(found) - frozenset(there))

    def _why(self, otherwise: str) -> str:
        assert self._admin is not None, "asked before"
        self._admin.poll(0)  # serves the callback that notes the error
        return self._heard.why(otherwise)

    def look(self, names: Collection[str], stop: Callable[[], bool]) -> Seen | None:
        """What the broker says, however long it is away; None once `stop` answers true.

        Raises:
            LogChanged: a topic is not there, and was not for a while.
        """
        missed_since: float | None = None
        while not stop():
            try:
                seen = self.once(names)
            except NoAnswer:
                missed_since = None
            else:
                if not seen.missing:
                    return seen
                missed_since = missed_since or time.monotonic()
                if time.monotonic() - missed_since > MISSING_S:
                    raise missing(seen.missing)
            time.sleep(RETRY_S)
        return None


def _unless_missing(answer: Any) -> Any:
    try:
        return result_of(answer, WATCH_S)
    except ck.KafkaException as exc:
        if exc.args[0].code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise


def missing(names: Iterable[str]) -> LogChanged:
    """Topics that are not on the broker, in words."""
    some = sorted(names)
    are = "is" if len(some) == 1 else "are"
    return LogChanged(f"{', '.join(some)} {are} not on the broker: `quantum topics apply` makes what is missing. If it "
                      f"was there before, what it held is gone, and the next start says what follows from that")


def remedy(agent: str) -> str:
    """What a person can do where an agent's log is gone."""
    return (f"Bring the old data back, or have {agent} begin anew on this log: stop its workers, "
            f"`quantum topics check`, `quantum reset {agent}`")


def changed(before: Seen, now: Seen, names: Iterable[str], agent: str, changelog: str) -> LogChanged | None:
    """What is wrong between two looks while a worker runs: another cluster, a topic made anew; None if nothing.

    Topics that are missing are not judged here: they may come back.
    """
    other = [name for name in names if name in now.ids and now.ids[name] != before.ids.get(name, now.ids[name])]
    if before.cluster_id != now.cluster_id:
        return LogChanged(f"the broker's cluster is {now.cluster_id}, it was {before.cluster_id} when {agent} took its "
                         f"partitions up: its data were deleted, or its address leads elsewhere now. Bring the old "
                         f"data back; or, if this was meant, `quantum topics apply` and start the worker again")
    if not other:
        return None
    if other == [changelog]:
        return LogChanged(f"{changelog} was deleted and made anew (topic id {now.ids[changelog]}, it was "
                         f"{before.ids[changelog]}): the state of {agent} is no longer on the log. Start the worker "
                         f"again: it folds the state again from its input, or says why it cannot")
    what = "; ".join(f"{name} (topic id {now.ids[name]}, it was {before.ids[name]})" for name in other)
    return LogChanged(f"deleted and made anew while {agent} ran: {what}. {remedy(agent)}")


def check_input(agent: str, tp: TP, fold: PartitionFold, topic_id: str) -> None:
    """Hold the input that a restored fold names against the one that is there.

    Raises:
        LogChanged: it was folded from another topic of that name.
    """
    if fold.input_topic_id not in (None, topic_id):
        raise LogChanged(
            f"the state of {agent} was folded from another {tp.topic} (topic id {fold.input_topic_id}, there is "
            f"{topic_id} now), up to {tp.topic}-{tp.partition}@{fold.offset}: the topic was deleted and made anew. "
            f"{remedy(agent)}", f"{agent}-{tp.partition}")


def state_lost(agent: str, tp: TP, changelog: str, committed: int, low: int) -> str:
    """The state of a partition is not on its changelog, though its group has committed: what follows, in words.

    Raises:
        LogChanged: it cannot be folded again, because the input's first records are deleted.
    """
    what = (f"{changelog}-{tp.partition} holds no state, though {agent} has committed {tp.topic}-{tp.partition}@"
            f"{committed}: the changelog was emptied or made anew")
    if low > 0:
        raise LogChanged(f"{what}. {tp.topic}-{tp.partition} begins at {low}: its first records are deleted, so the "
                        f"state cannot be folded again. {remedy(agent)}", f"{agent}-{tp.partition}")
    return (f"{what}. It is folded again from {tp.topic}-{tp.partition}@0; outputs are repeats with the ids that they "
            f"had, which readers drop")


@dataclass(frozen=True)
class Begin:
    """Where a source partition is copied from, and what has to be said about it; None where all is as it should be."""

    offset: int
    remark: str | None = None


def begin_of(agent: str, tp: TP, topic: str, bounds: tuple[int, int], committed: int | None,
             folds: Collection[PartitionFold], topic_id: str, *, may_lose: bool) -> Begin:
    """Where the relay goes on with a source partition.

    Args:
        agent: whose relay.
        tp: the source partition, as the broker names it.
        topic: its name in the catalogue.
        bounds: first offset held and next offset to be written.
        committed: the group's committed offset, None where there is none.
        folds: restored partitions of the inbox in this worker: their fences say what was copied, from which topic.
        topic_id: Kafka's id of the topic that is there.
        may_lose: whether records that retention took are no loss.

    Raises:
        LogChanged: records that were never copied are deleted, or the topic is another one.
    """
    low, high = bounds
    component = f"{agent}:{tp.topic}-{tp.partition}"
    place = (topic, tp.partition)
    ids = {fold.topic_ids[place] for fold in folds if place in fold.topic_ids}
    copied = max((fold.fences[place][1] for fold in folds if place in fold.fences), default=-1)
    at = committed if committed is not None else low
    if ids - {topic_id}:
        raise LogChanged(f"{tp.topic} is another topic than the one that {agent} has copied (topic id {topic_id}, it "
                        f"was {', '.join(sorted(ids - {topic_id}))}), up to {tp.topic}-{tp.partition}@{copied} at "
                        f"least: it was deleted and made anew. {remedy(agent)}", component)
    if at > high or copied >= high:
        raise LogChanged(f"{tp.topic}-{tp.partition} holds {low} to {high}, but {agent} has copied it up to "
                        f"{max(at, copied + 1)}: it was made anew, or has lost its end. {remedy(agent)}", component)
    if at < low:
        lost = f"{tp.topic}-{tp.partition}@{at} to @{low - 1} were deleted (retention) before {agent} had copied them"
        if not may_lose:
            raise LogChanged(f"{lost}: {agent} cannot go on without them. {remedy(agent)}", component)
        return Begin(low, f"{lost}; any later tick makes good for them, so it goes on at @{low}")
    if committed is None and copied >= 0 and low > 0 and not may_lose:
        return Begin(low, f"the group of {agent} has no commit for {tp.topic}-{tp.partition} any more, and its first "
                          f"{low} records are deleted: copying begins at @{low} again; what was copied is passed over, "
                          f"whether everything before @{low} was cannot be told")
    return Begin(at)
