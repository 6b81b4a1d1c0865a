"""Reading the log: records of a topic from a place to its end, or following it, without leaving a trace on the broker.

    with LogReader(settings) as log:
        for record in log.read("policy.ledger", start=Start.last(10)):
            ...

Topics are named as in the catalogue; the settings' prefix is put before them and taken off again. A bounded read ends
at the end offsets fetched when it began, so it ends although producers go on. No group is joined and nothing is
committed: partitions are assigned by hand.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from streams.heard import Heard
from streams.records import Headers, headers_of

if TYPE_CHECKING:
    from streams.settings import Settings

Place = tuple[str, int]
"""Topic by its catalogue name, partition."""

TIMEOUT_S = 10.0
POLL_S = 0.2
BATCH = 2000
WAIT_MS = 50
PIECEWISE_MS = 5
"""For whoever reads piece by piece: at the end of a piece a request may wait at the broker, and the next question,
which goes by the same connection, waits behind it."""
GONE = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT,
                   KafkaError._AUTHENTICATION, KafkaError._SSL})
_LOGGER = logging.getLogger("streams.log")
_LOGGER.addHandler(logging.NullHandler())  # librdkafka would write to standard error; what matters is raised

PASSING = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE,
                     KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE,
                     KafkaError.NOT_COORDINATOR, KafkaError.UNKNOWN_TOPIC_OR_PART,  # of topics and groups just made
                     KafkaError.FENCED_LEADER_EPOCH, KafkaError._NOENT, KafkaError._UNKNOWN_PARTITION,
                     KafkaError._UNKNOWN_TOPIC,  # of a broker that was killed and is back
                     KafkaError._DESTROY_BROKER})  # of a connection that librdkafka just exchanged for another one


class NoBroker(Exception):
    """The broker does not answer; the message names its address."""


class NoTopic(Exception):
    """The broker has no such topic or partition."""


class Record(NamedTuple):
    """One record. `topic` is the catalogue's name; `timestamp_ms` the broker's append time, None if it has none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None

    @property
    def place(self) -> str:
        """`topic-partition@offset`."""
        return f"{self.topic}-{self.partition}@{self.offset}"


@dataclass(frozen=True)
class Start:
    """Where to begin, on every partition.

    Attributes:
        kind: beginning, end, an absolute offset, the last n offsets, or the first record at or after a time.
        value: the offset, n, or epoch milliseconds of the record's timestamp.
    """

    kind: Literal["beginning", "end", "offset", "last", "time"]
    value: int = 0

    @classmethod
    def last(cls, n: int) -> Start:
        """The last n offsets of each partition."""
        return cls("last", n)

    @classmethod
    def parse(cls, text: str) -> Start:
        """Kcat's notation, and ISO times: beginning, end, N, -N, s@MILLISECONDS, s@2026-01-31T12:00:00Z.

        >>> Start.parse("-5"), Start.parse("s@1000")
        (Start(kind='last', value=5), Start(kind='time', value=1000))

        Raises:
            ValueError: none of these.
        """
        if text in ("beginning", "end"):
            return cls(text)  # type: ignore[arg-type]
        if re.fullmatch(r"\d+", text):
            return cls("offset", int(text))
        if re.fullmatch(r"-\d+", text):
            return cls("last", int(text[1:]))
        if text.startswith("s@"):
            return cls("time", _time_ms(text[2:]))
        raise ValueError(f"{text!r} is none of: beginning, end, N, -N, s@MILLISECONDS, s@2026-01-31T12:00:00Z")


BEGINNING = Start("beginning")
END = Start("end")


def _time_ms(text: str) -> int:
    if re.fullmatch(r"\d+", text):
        return int(text)
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write e.g. {text}Z")
    return int(when.timestamp() * 1000)


class LogReader:
    """A reader of the log; a context manager. One reader reads one thing at a time.

    Args:
        settings: broker, security and topic prefix.
        timeout_s: how long the broker may take to answer.
        wait_ms: how long the broker holds a request for records that are not there yet.
        logger: takes what librdkafka says; `NoBroker` has the reason in any case.

    Raises:
        NoBroker: from every method, where the broker does not answer.
    """

    def __init__(self, settings: Settings, timeout_s: float = TIMEOUT_S, *, wait_ms: int = WAIT_MS,
                 logger: logging.Logger | None = None) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._prefix = settings.topic("")
        self._heard = Heard()
        self._closed = False
        self._consumer = Consumer({
            **settings.client(),
            "group.id": f"{settings.app_id}.reader",  # librdkafka wants a name; it is never joined nor committed to
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",  # retention may delete the start while we seek to it
            "fetch.wait.max.ms": wait_ms,
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": 16384,
            "error_cb": self._heard,
        }, logger=logger or _LOGGER)

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the broker."""
        self._closed = True
        self._consumer.close()

    def topics(self) -> dict[str, list[int]]:
        """Every topic under the prefix, by catalogue name, with its partitions."""
        found = self._ask(lambda: self._consumer.list_topics(timeout=self._timeout_s)).topics
        return {name[len(self._prefix):]: sorted(meta.partitions) for name, meta in sorted(found.items())
                if name.startswith(self._prefix) and not name.startswith("__")}

    def cluster_id(self) -> str:
        """Kafka's own id of the cluster; empty where the broker tells none."""
        return self._ask(lambda: self._consumer.list_topics(timeout=self._timeout_s)).cluster_id or ""

    def partitions(self, topic: str) -> list[int]:
        """Partitions of a topic.

        Raises:
            NoTopic: the broker does not have it.
        """
        found = self.topics()
        if topic not in found:
            raise NoTopic(f"the broker has no topic {self._settings.topic(topic)}")
        return found[topic]

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset kept and end offset (one past the last record that a reader may see)."""
        place = TopicPartition(self._settings.topic(topic), partition)
        low, end = self._ask(lambda: self._consumer.get_watermark_offsets(place, timeout=self._timeout_s))
        return int(low), int(end)

    def read(self, topic: str, *, partitions: Collection[int] | None = None,
             start: Start | Mapping[int, int] = BEGINNING, until: Mapping[int, int] | None = None,
             follow: bool = False) -> Iterator[Record]:
        """Records of a topic, in order within a partition.

        Args:
            topic: catalogue name.
            partitions: which ones; None is all.
            start: where to begin, or an offset for each partition (partitions without one are left out).
            until: one past the last offset to read of a partition; what lies behind it is not even fetched.
            follow: go on at the end and wait for more; ends only when the caller stops.

        Raises:
            NoTopic: the topic or a partition is not there.
        """
        there = self.partitions(topic)
        wanted = set(there if partitions is None else partitions)
        if isinstance(start, Mapping):
            wanted &= set(start)
        if not wanted <= set(there):
            missing = ", ".join(str(p) for p in sorted(wanted - set(there)))
            raise NoTopic(f"{self._settings.topic(topic)} has no partition {missing}; it has 0 to {there[-1]}")
        bounds = {p: self.bounds(topic, p) for p in sorted(wanted)}
        begin = self._begin(topic, bounds, start)
        last = {p: min(end, (until or {}).get(p, end)) for p, (_, end) in bounds.items()}
        ends = {p: end for p, end in last.items() if follow or begin[p] < end}
        yield from self._assigned({(topic, p): (begin[p], end) for p, end in ends.items()}, follow, None)

    def scan(self, ranges: Mapping[Place, tuple[int, int]],
             keep: Callable[[str, bytes | None], bool] | None = None) -> Iterator[Record]:
        """Records of several topics at once, in order within a partition.

        Args:
            ranges: first offset and end offset (one past the last) of each partition, within its `bounds`.
            keep: called with topic and value; a record is made of what it accepts, and all others are passed over at
                a tenth of the price.
        """
        return self._assigned({place: r for place, r in ranges.items() if r[0] < r[1]}, False, keep)

    def offsets_at(self, places: Collection[Place], time_ms: int) -> dict[Place, int | None]:
        """First offset of each partition that was appended at or after a time; None where there is none."""
        prefix = len(self._prefix)
        asked = [TopicPartition(self._settings.topic(topic), p, time_ms) for topic, p in places]
        found = self._ask(lambda: self._consumer.offsets_for_times(asked, timeout=self._timeout_s)) if asked else []
        return {(f.topic[prefix:], f.partition): f.offset if f.offset >= 0 else None for f in found}

    def _assigned(self, ranges: Mapping[Place, tuple[int, int]], follow: bool,
                  keep: Callable[[str, bytes | None], bool] | None) -> Iterator[Record]:
        name = self._settings.topic
        self._consumer.assign([TopicPartition(name(topic), p, begin) for (topic, p), (begin, _) in ranges.items()])
        try:
            yield from self._run({(name(topic), p): end for (topic, p), (_, end) in ranges.items()}, follow, keep)
        finally:
            if not self._closed:  # a caller may drop the iterator after the reader
                self._consumer.unassign()

    def _run(self, ends: dict[Place, int], follow: bool,
             keep: Callable[[str, bytes | None], bool] | None) -> Iterator[Record]:
        left, prefix = set(ends), len(self._prefix)
        heard = time.monotonic()
        place: Place = ("", -1)
        topic, end = "", 0
        while left:
            messages = self._take()
            if messages:
                heard = time.monotonic()
            elif not follow and time.monotonic() - heard > self._timeout_s:
                names = ", ".join(sorted({topic for topic, _ in left}))
                raise NoBroker(f"the broker {self._settings.broker} went silent before the end of {names}{self._why()}")
            for message in messages:
                error = message.error()
                if error is not None:
                    self._handle(error, message, left, follow)
                    continue
                name, partition, offset = str(message.topic()), message.partition() or 0, message.offset() or 0
                if partition != place[1] or name != place[0]:
                    place = name, partition
                    topic, end = name[prefix:], ends[place]
                wanted = follow or (offset < end and place in left)
                if wanted and (keep is None or keep(topic, _bytes(message.value()))):
                    yield _record(topic, partition, offset, message)
                if not follow and offset >= end - 1:
                    self._finish(place, left)

    def _take(self) -> list[Message]:
        """What waits, at least one if it comes in time: `consume` alone would wait for a full batch."""
        first = self._consumer.poll(POLL_S)
        return [] if first is None else [first, *self._consumer.consume(BATCH, timeout=0)]

    def _finish(self, place: Place, left: set[Place]) -> None:
        if place in left:
            left.discard(place)
            self._consumer.incremental_unassign([TopicPartition(*place)])

    def _handle(self, error: KafkaError, message: Message, left: set[Place], follow: bool) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # the only sign of the end where the last offsets hold no record
            if not follow:
                self._finish((str(message.topic()), int(message.partition() or 0)), left)
        elif code not in GONE:  # of these, a follower waits for the broker; `_run` has a limit for the others
            raise KafkaException(error)

    def _begin(
        self, topic: str, bounds: dict[int, tuple[int, int]], start: Start | Mapping[int, int]
    ) -> dict[int, int]:
        """First offset to read of each partition; at the end where there is nothing to read."""
        if isinstance(start, Mapping):
            return {p: min(max(low, start[p]), end) for p, (low, end) in bounds.items()}
        if start.kind == "time":
            found = self.offsets_at([(topic, p) for p in bounds], start.value)
            return {p: end if (at := found[topic, p]) is None else at for p, (_, end) in bounds.items()}
        begin = {}
        for p, (low, end) in bounds.items():
            at = {"beginning": low, "end": end, "offset": start.value, "last": end - start.value}[start.kind]
            begin[p] = min(max(low, at), end)
        return begin

    def _why(self) -> str:
        self._consumer.poll(0)  # serves the callback that notes the error
        why = self._heard.why()
        return f": {why}" if why else ""

    def _ask(self, question: Callable[[], Any]) -> Any:
        return ask(question, f"{self._settings.broker}", self._timeout_s, self._why)


def ask(question: Callable[[], Any], broker: str, timeout_s: float = TIMEOUT_S,
        why: Callable[[], str] = lambda: "") -> Any:
    """What the broker answers; asked again while it says that a topic or group is not ready yet.

    Raises:
        NoBroker: no answer, or none but such ones within the time.
        KafkaException: a refusal.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return question()
        except TimeoutError as exc:
            raise NoBroker(f"no answer from the broker {broker}{why()}") from exc
        except KafkaException as exc:
            error: KafkaError = exc.args[0]
            if error.code() in GONE:
                raise NoBroker(f"no answer from the broker {broker}{why()}") from exc
            if error.code() not in PASSING:
                raise
            if time.monotonic() > deadline:
                raise NoBroker(f"the broker {broker} is not ready: {error.str()}") from exc
        time.sleep(0.1)


def _record(topic: str, partition: int, offset: int, message: Message) -> Record:
    kind, timestamp = message.timestamp()
    headers: Any = message.headers()
    return Record(topic, partition, offset, _bytes(message.key()), _bytes(message.value()),
                  headers_of(headers) if headers else (), None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp)


def _bytes(value: Any) -> bytes | None:
    return value if value is None or isinstance(value, bytes) else str(value).encode()


def read(settings: Settings, topic: str, *, partitions: Collection[int] | None = None,
         start: Start | Mapping[int, int] = BEGINNING, follow: bool = False) -> Iterator[Record]:
    """`LogReader.read` with a reader of its own."""
    with LogReader(settings) as log:
        yield from log.read(topic, partitions=partitions, start=start, follow=follow)
