"""Dead letters: which records were refused and why, and sending them again.

A redriven record has the dead letter's key, value and original headers, byte for byte, and stands on the partition
that it was refused from. Two headers are added: `redriven_from`, the dead letter's `topic-partition@offset`, and
`redriven_for`, the agents that refused it. Several agents that refuse one source record leave several dead letters;
the record is sent again once, for all of them. What is refused again leaves letters that carry these headers: they are
sent on demand only, or a command that is repeated would send a record that nobody takes for ever.

Sending twice is prevented by the log itself: the source topic is searched, from the time of the oldest dead letter in
question, for `redriven_from`. Nothing else is remembered, so a redriven record that retention has deleted counts as
never sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confluent_kafka import KafkaException, Producer

from streams.inspecting.shown import DLQ, dead_letter_of, source_of
from streams.log import LogReader, Record, Start
from streams.records import ERROR, REDRIVEN_FOR, REDRIVEN_FROM, Headers, header
from streams.settings import Settings
from streams.transport.logs import LIBRDKAFKA

FLUSH_S = 30.0


class Letter(NamedTuple):
    """A dead letter; `source` is topic, partition, offset of the refused record, None where its headers are damaged."""

    record: Record
    reason: str
    detail: str
    by: str
    source: tuple[str, int, int] | None


def letter_of(record: Record) -> Letter:
    """A record of a dead-letter topic with its reason; a dash stands for a header that is not there."""
    why = dead_letter_of(record) or {}
    source = source_of(record)
    place = None
    if source is not None and source["partition"] is not None and source["offset"] is not None:
        place = (source["topic"], source["partition"], source["offset"])
    return Letter(record, why.get("reason") or "-", why.get("detail") or "-", why.get("by") or "-", place)


def letters(log: LogReader, topic: str) -> list[Letter]:
    """All dead letters of a dead-letter topic, in order of their offsets."""
    return sorted((letter_of(r) for r in log.read(topic)), key=lambda letter: letter.record[1:3])


@dataclass
class Tally:
    """Dead letters of one topic that share reason and refusing agent."""

    reason: str
    by: str
    records: int = 0
    newest: Record | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the place of the newest."""
        newest = self.newest
        assert newest is not None
        return {"reason": self.reason, "by": self.by, "records": self.records,
                "newest": {"partition": newest.partition, "offset": newest.offset,
                           "timestamp_ms": newest.timestamp_ms}}


def tally(found: Iterable[Letter]) -> list[Tally]:
    """Counts by reason and agent, the largest first."""
    rows: dict[tuple[str, str], Tally] = {}
    for letter in found:
        row = rows.setdefault((letter.reason, letter.by), Tally(letter.reason, letter.by))
        row.records += 1
        row.newest = letter.record
    return sorted(rows.values(), key=lambda row: (-row.records, row.reason, row.by))


def original_headers(headers: Headers) -> Headers:
    """The refused record's own headers."""
    return tuple(h for h in headers if not h[0].startswith(ERROR) and h[0] not in (REDRIVEN_FROM, REDRIVEN_FOR))


@dataclass
class Plan:
    """What a redrive does.

    Attributes:
        send: a letter for each source record, with the agents that refused it.
        skip: letters that are not sent, with the reason.
    """

    send: list[tuple[Letter, tuple[str, ...]]] = field(default_factory=list)
    skip: list[tuple[Letter, str]] = field(default_factory=list)

    def as_dict(self, places: Mapping[str, str | None]) -> dict[str, Any]:
        """Plain data.

        Args:
            places: where each letter that was sent stands now, by the letter's own place; None: not sent.
        """
        return {"redriven": [{"from": letter.record.place, "to": places[letter.record.place], "reason": letter.reason,
                              "for": list(refusers)} for letter, refusers in self.send],
                "skipped": [{"from": letter.record.place, "reason": letter.reason, "why": why}
                            for letter, why in self.skip]}


def plan(log: LogReader, topic: str, found: list[Letter], chosen: Callable[[Letter], bool], again: bool,
         named: bool = False) -> Plan:
    """Which of the chosen letters to send.

    Args:
        topic: source topic.
        found: all letters of its dead-letter topic.
        chosen: the selection.
        again: send also what was sent before, and what was refused again after it was sent.
        named: each letter was chosen by its place, which is demand enough for one that was refused again.
    """
    wanted = [letter for letter in found if chosen(letter)]
    partitions = log.partitions(topic)
    sent = {} if again else _sent(log, topic, found, wanted)
    out = Plan()
    first: dict[tuple[str, int, int], Letter] = {}
    for letter in wanted:
        source = letter.source
        if source is None or source[0] != topic:
            out.skip.append((letter, f"its headers do not say where on {topic} it was"))
        elif source[1] not in partitions:
            out.skip.append((letter, f"{topic} has no partition {source[1]} any more"))
        elif source in sent:
            out.skip.append((letter, f"sent before: {sent[source]}"))
        elif not (again or named) and (before := header(letter.record.headers, REDRIVEN_FROM)) is not None:
            out.skip.append((letter, f"refused again after {before} was sent; --offset or --again sends it once more"))
        elif source in first:
            out.skip.append((letter, f"same source record as {first[source].record.place}"))
        else:
            first[source] = letter
    for source, letter in first.items():
        refusers = sorted({other.by for other in found if other.source == source})
        out.send.append((letter, tuple(refusers)))
    return out


def _sent(log: LogReader, topic: str, found: list[Letter], wanted: list[Letter]) -> dict[tuple[str, int, int], str]:
    """Source records that stand on the source topic again, and where."""
    sources = {letter.source for letter in wanted}
    relevant = {letter.record.place: letter for letter in found if letter.source in sources}
    if not relevant:
        return {}
    since_ms = min(letter.record.timestamp_ms or 0 for letter in relevant.values())
    out = {}
    for record in log.read(topic, start=Start("time", since_ms)):
        letter = relevant.get(header(record.headers, REDRIVEN_FROM) or "")
        if letter is not None and letter.source is not None:
            out[letter.source] = record.place
    return out


def redrive(settings: Settings, topic: str, todo: Plan) -> list[tuple[Letter, str]]:
    """Send the planned letters; returns each with its new place.

    Raises:
        KafkaException: the broker did not take one of them; those it took will be skipped by the next run.
    """
    producer = Producer(settings.producer(), logger=LIBRDKAFKA)
    places: dict[int, str] = {}
    failed: list[Any] = []

    def report(i: int) -> Callable[[Any, Any], None]:
        def done(error: Any, message: Any) -> None:
            if error is not None:
                failed.append(error)
            else:
                places[i] = f"{topic}-{message.partition()}@{message.offset()}"

        return done

    for i, (letter, refusers) in enumerate(todo.send):
        assert letter.source is not None
        headers = (*original_headers(letter.record.headers), (REDRIVEN_FROM, letter.record.place.encode()),
                   (REDRIVEN_FOR, ",".join(refusers).encode()))
        while True:
            try:
                producer.produce(settings.topic(topic), key=letter.record.key, value=letter.record.value,
                                 headers=list(headers), partition=letter.source[1], on_delivery=report(i))
                break
            except BufferError:
                producer.poll(1.0)
    left = producer.flush(FLUSH_S)
    if failed:
        raise KafkaException(failed[0])
    if left:
        raise TimeoutError(f"{left} of {len(todo.send)} records were not acknowledged in {FLUSH_S:.0f} s")
    return [(letter, places[i]) for i, (letter, _) in enumerate(todo.send)]


def dead_letter_topics(log: LogReader) -> list[str]:
    """Dead-letter topics that the broker has."""
    return [t for t in log.topics() if t.endswith(DLQ)]
