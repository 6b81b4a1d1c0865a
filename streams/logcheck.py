"""The log of one agent, held against what its state says of it: at every take-up, when reading fails, and meanwhile.

`streams.samelog` judges; here the broker is asked, and what is found becomes an alert. All but `changed` block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import confluent_kafka as ck
from faust.types import TP

from schemas import catalogue
from schemas.catalogue import AgentIO
from streams.alerts import Alerts
from streams.restore import InputLost, Restored
from streams.samelog import (
    Cluster,
    LogChanged,
    Seen,
    begin_of,
    changed,
    check_input,
    remedy,
    state_lost,
)
from streams.settings import Settings
from streams.transport.poll import FetchFailed
from streams.transport.recover import read_to_end, watermarks

log = logging.getLogger(__name__)

UNFENCED_LOSS = frozenset({"system.clock"})  # a tick lost to retention is made good by any later tick


class LogCheck:
    """What an agent's host knows of its log.

    Args:
        io: what the agent reads and writes.
        settings: broker and names.
        alerts: takes what is found.

    Attributes:
        seen: the topics as they were when the partitions were taken up last; None before.
        troubled: components for which a take-up has said something; they are not well yet.
    """

    def __init__(self, io: AgentIO, settings: Settings, alerts: Alerts) -> None:
        self.io, self.agent = io, io.name
        self.seen: Seen | None = None
        self.troubled: dict[str, str] = {}
        self._settings = settings
        self._alerts = alerts
        self._cluster = Cluster(settings.client())
        self._input, self._changelog = settings.topic(io.input_topic), settings.topic(io.changelog)
        letters = [f"{topic}.dlq" for topic in io.reads if f"{topic}.dlq" in catalogue.TOPICS]
        self.topics = frozenset(settings.topic(name) for name in (
            *io.reads, *io.writes, *letters, io.input_topic, io.changelog))
        """Every topic that the agent needs, as the broker names it."""
        self._same = [settings.topic(name) for name in dict.fromkeys((*io.reads, io.input_topic, io.changelog))]

    def look(self, stop: Callable[[], bool]) -> Seen | None:
        """The topics as they are, however long the broker is away; None once `stop` answers true.

        Raises:
            LogChanged: one is missing, or the changelog, which is written by number, has not as many partitions as
                the input.
        """
        seen = self._cluster.look(self.topics, stop)
        if seen is None:
            return None
        count, state = seen.partitions[self._input], seen.partitions[self._changelog]
        if count != state:
            raise LogChanged(f"{self._input} has {count} partitions, its changelog {self._changelog} has {state}; "
                             "they must agree: `quantum topics check`")
        return seen

    def check_inputs(self, restored: Mapping[TP, Restored], committed: Mapping[TP, int | None], seen: Seen) -> None:
        """Hold the restored folds against the topics that are there, and let them know which these are.

        Raises:
            LogChanged: a fold cannot go on.
        """
        self.troubled = {}
        for tp, found in restored.items():
            check_input(self.agent, tp, found.fold, seen.ids[tp.topic])
            found.fold.input_topic_id = seen.ids[tp.topic]
            if found.damage is not None:
                self.troubled[f"{self.agent}-{tp.partition}"] = found.damage  # it was logged where it was found
                self._alerts.degraded(f"{self.agent}-{tp.partition}", found.damage)
            nothing = found.fold.offset < 0 and not found.fold.scopes and not found.wipe
            if nothing and (at := committed.get(tp) or 0) > 0:
                self._trouble(f"{self.agent}-{tp.partition}",
                              state_lost(self.agent, tp, self._changelog, at, found.start))

    def source_starts(self, sources: Mapping[TP, str], committed: Mapping[TP, int | None],
                      restored: Mapping[TP, Restored], seen: Seen, stop: Callable[[], bool],
                      ) -> dict[TP, tuple[int, int]]:
        """Offset at which the relay goes on with each source partition, and its end; fewer where `stop` answers true.

        Raises:
            LogChanged: one cannot be copied on.
        """
        folds = [found.fold for found in restored.values()]
        starts = {}
        for tp, bounds in watermarks(self._settings.client(), sources, stop).items():
            may_lose = sources[tp] in UNFENCED_LOSS
            begin = begin_of(self.agent, tp, sources[tp], bounds, committed.get(tp), folds, seen.ids[tp.topic],
                             may_lose=may_lose)
            if begin.remark is not None and may_lose:
                log.warning("%s", begin.remark)
            elif begin.remark is not None:
                self._trouble(f"{self.agent}:{tp.topic}-{tp.partition}", begin.remark)
            starts[tp] = begin.offset, bounds[1]
        return starts

    def settings_first(self, sources: Mapping[TP, str], starts: Mapping[TP, tuple[int, int]],
                       stop: Callable[[], bool]) -> dict[TP, list[ck.Message]]:
        """What every partition of the inbox is told, configurations and commands, and is not copied yet.

        Copied before anything else it comes first, whichever topic the consumer would have read first: bars that
        overtake a configuration which stands on the log before them would be folded by another.
        """
        found: dict[TP, list[ck.Message]] = {
            tp: [] for tp, topic in sources.items()
            if self.io.reads[topic] == "broadcast" and tp in starts and starts[tp][0] < starts[tp][1]}
        read_to_end(self._settings.client(), found, lambda tp, message: found[tp].append(message), stop,
                    {tp: starts[tp][0] for tp in found})
        return found

    def _trouble(self, component: str, reason: str) -> None:
        log.error("%s", reason)
        self.troubled[component] = reason
        self._alerts.degraded(component, reason)

    def well(self, tps: Mapping[TP, int]) -> None:
        """The agent has taken these partitions up: take back the alerts, of whichever process, of what is well now."""
        names = {self.agent}
        for tp in tps:
            source = "" if tp.topic == self._input else f":{tp.topic}"
            names.add(f"{self.agent}{source}-{tp.partition}")
        names -= set(self.troubled)
        self._alerts.recovered(names.__contains__, f"{self.agent} has taken its partitions up and goes on")

    def changed(self, now: Seen) -> LogChanged | None:
        """What is another one than when the partitions were taken up; None before, and if nothing is."""
        return None if self.seen is None else changed(self.seen, now, self._same, self.agent, self._changelog)

    def explain(self, failed: FetchFailed, stop: Callable[[], bool]) -> BaseException | None:
        """Why a partition, or a topic, cannot be read on, in a person's words; None where it can again."""
        try:
            now = self._cluster.look(self.topics, stop)
        except LogChanged as lost:
            return lost
        except ck.KafkaException:  # it refuses to say
            return failed
        if now is None:
            return failed
        if (lost_meanwhile := self.changed(now)) is not None:
            return lost_meanwhile
        if failed.code == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None  # it is there: another broker's answer was old
        if failed.code != ck.KafkaError._AUTO_OFFSET_RESET:
            return failed
        tp = TP(failed.topic, int(failed.partition or 0))
        low, high = watermarks(self._settings.client(), [tp], stop).get(tp, (-1, -1))
        return LogChanged(
            f"{tp.topic}-{tp.partition} holds {low} to {high} now, and {self.agent} was to take @{failed.offset} next: "
            f"records were deleted (retention) before it had taken them, or the end was lost. {remedy(self.agent)}")

    def of_restoring(self, lost: InputLost) -> LogChanged:
        """What restoring has found, with what a person can do."""
        return LogChanged(f"{lost}. {remedy(self.agent)}")
