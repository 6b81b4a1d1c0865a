"""Inboxes held against their sources: what an agent folded must be what was sent, whole and unchanged.

A relay copies source records into its agent's inbox. Everything downstream follows from the copies, so a relay that
changes one, makes one up or leaves one out would be seen nowhere else. Of a source partition, everything from the first
copy to the commit must have been copied: a relay commits a source offset once its copies are acknowledged. Of an inbox
that is longer than the budget a part of each partition is read; then what was left out cannot be told.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from random import Random

from schemas import catalogue
from schemas.catalogue import GLOBAL, AgentIO, Route
from streams.log import Record
from streams.records import FENCE, OWNER, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, TOPIC_ID, header
from streams.verify.cells import Cell, cell
from streams.verify.evidence import Evidence
from streams.verify.view import Place, Spot

RELAYS = frozenset({FENCE, OWNER, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TOPIC, TOPIC_ID})
NOTHING = 0  # where an offset holds no record
Copies = dict[tuple[int, int], tuple[int, int]]
"""By inbox partition and source offset: print of the copy, and its offset in the inbox."""
Wrong = tuple[str, Record | None, list[Record]]


def print_of(record: Record) -> int:
    """Eight bytes of a digest of key, value and headers, those of relays left out; never `NOTHING`."""
    kept = [(k, v) for k, v in record.headers if k not in RELAYS]
    digest = sha256(repr((record.key, record.value, kept)).encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1


class Sources:
    """Prints of source records, eight bytes each, read once and on from there.

    Args:
        evidence: the log.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._prints: dict[Place, tuple[int, array[int]]] = {}
        self._unrouted: set[Spot] = set()
        self._global: set[Spot] = set()

    def read(self, topic: str, spans: Mapping[int, tuple[int, int]]) -> None:
        """Read these spans of a topic, from the first offset to one past the last of each partition."""
        start = {}
        for p, (first, _) in spans.items():
            if (topic, p) not in self._prints or first < self._prints[topic, p][0]:
                self._prints[topic, p] = max(first, self._evidence.log.bounds(topic, p)[0]), array("Q")
            base, prints = self._prints[topic, p]
            start[p] = base + len(prints)
        for record in self._evidence.records(topic, start, {p: end for p, (_, end) in spans.items()}):
            base, prints = self._prints[topic, record.partition]
            prints.extend([NOTHING] * (record.offset - base - len(prints)))
            prints.append(print_of(record))
            scope = _scope(record)
            if scope in (None, GLOBAL):
                (self._unrouted if scope is None else self._global).add((topic, record.partition, record.offset))

    def at(self, topic: str, partition: int, offset: int) -> int | None:
        """Print of a record; `NOTHING` where there is none, None where it was deleted."""
        base, prints = self._prints[topic, partition]
        if offset < base:
            return None
        return prints[offset - base] if offset - base < len(prints) else NOTHING

    def due(self, route: Route, topic: str, partition: int, offset: int) -> bool:
        """Whether a relay with this route has to copy a record that is there."""
        if route == "global":
            return (topic, partition, offset) in self._global
        return route != "by_scope" or (topic, partition, offset) not in self._unrouted


def _scope(record: Record) -> str | None:
    """The scope that the record's key names."""
    try:
        return catalogue.scope_of(record.topic, record.key.decode()) or None if record.key else None
    except UnicodeDecodeError:
        return None


def received(evidence: Evidence, io: AgentIO, sources: Sources, said: Cell, random: Random, budget: int) -> Cell:
    """The cell RECEIVES, copies held against their sources.

    Args:
        sources: shared by all agents.
        said: the cell as offsets have it; one that is red already stays.
        budget: copies that are read, about; where there are more, as many of each partition from a random one on.
    """
    if io.direct or said.state not in ("PASS", "IDLE", "NOT PROVEN") or io.input_topic not in evidence.topics:
        return said
    bounds = {p: evidence.log.bounds(io.input_topic, p) for p in evidence.topics[io.input_topic]}
    parts = _parts(bounds, random, budget)
    copies = _copies(evidence, io, parts)
    whole = parts == {p: (0, end) for p, (_, end) in bounds.items()}
    spans: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    for (topic, partition), rows in copies.items():
        copied = [offset for _, offset in rows]
        committed = evidence.committed[io.name].get((topic, partition), 0) if whole else 0
        spans[topic][partition] = min(copied), max(committed, max(copied) + 1)
    for topic, of_topic in spans.items():
        sources.read(topic, of_topic)
    wrong = _changed(evidence, io, copies, sources)
    if wrong is None and whole:
        wrong = _left_out(evidence, io, copies, sources)
    if wrong is not None:
        return cell("FAIL", wrong[0], wrong[1], evidence.now_ms, **said.figures).showing(wrong[2])
    n = sum(len(rows) for rows in copies.values())
    return replace(said, why=f"{said.why}; {n} copies are what was sent" if n else said.why)


def _parts(bounds: Mapping[int, tuple[int, int]], random: Random, budget: int) -> dict[int, tuple[int, int]]:
    """Offsets to read of each partition, first and one past the last: all where they fit, else a share of each."""
    total = sum(end - low for low, end in bounds.values())
    share = total if total <= budget else budget // len(bounds)
    parts = {}
    for p, (low, end) in sorted(bounds.items()):
        first = low if end - low <= share else random.randint(low, end - share)
        parts[p] = first, min(end, first + share)
    return parts


def _copies(evidence: Evidence, io: AgentIO, parts: Mapping[int, tuple[int, int]]) -> dict[Place, Copies]:
    """Copies by source partition; of repeats in an inbox partition the first, as the fold has it."""
    found: dict[Place, Copies] = defaultdict(dict)
    start, until = ({p: part[i] for p, part in parts.items()} for i in range(2))
    for r in evidence.records(io.input_topic, start, until):
        topic, numbers = header(r.headers, SOURCE_TOPIC) or "", [header(r.headers, SOURCE_PARTITION) or "",
                                                                 header(r.headers, SOURCE_OFFSET) or ""]
        if header(r.headers, FENCE) is not None or not all(n.isdecimal() and n.isascii() for n in numbers):
            continue  # a fence, or what no fold takes
        partition, offset = int(numbers[0]), int(numbers[1])
        if partition in evidence.topics.get(topic, ()):
            found[topic, partition].setdefault((r.partition, offset), (print_of(r), r.offset))
    return found


def _changed(evidence: Evidence, io: AgentIO, copies: dict[Place, Copies], sources: Sources) -> Wrong | None:
    for (topic, partition), rows in copies.items():
        for (at, offset), (print_, inbox_offset) in rows.items():
            sent = sources.at(topic, partition, offset)
            if sent in (None, print_) or offset < evidence.log.bounds(topic, partition)[0]:
                continue
            spots = [(io.input_topic, at, inbox_offset), (topic, partition, offset)]
            found = evidence.fetch(spots)
            what = "is not there" if sent == NOTHING else "has other bytes"
            return (f"it was given {io.input_topic}-{at}@{inbox_offset} as a copy of {topic}-{partition}@{offset}, "
                    f"which {what}"), found.get(spots[0]), list(found.values())
    return None


def _left_out(evidence: Evidence, io: AgentIO, copies: dict[Place, Copies], sources: Sources) -> Wrong | None:
    for (topic, partition), rows in copies.items():
        committed = evidence.committed[io.name].get((topic, partition), 0)
        route = io.reads.get(topic)
        everywhere = evidence.topics[io.input_topic] if route in ("broadcast", "global") else None
        for got in _complete(rows, everywhere):
            for offset in range(min(got, default=committed), committed):
                if offset in got or not sources.at(topic, partition, offset) or (
                        route is not None and not sources.due(route, topic, partition, offset)):
                    continue  # copied, deleted, or nothing that this relay copies
                record = evidence.fetch([(topic, partition, offset)]).get((topic, partition, offset))
                if record is not None:
                    return (f"{record.place} was committed and never copied to {io.input_topic}, while others before "
                            f"it were"), record, []
    return None


def _complete(rows: Copies, everywhere: Sequence[int] | None) -> list[set[int]]:
    """Sets of source offsets that must have no gap: of each inbox partition where copies go everywhere, else of all."""
    if everywhere is None:
        return [{offset for _, offset in rows}]
    return [{offset for p, offset in rows if p == at} for at in everywhere]
