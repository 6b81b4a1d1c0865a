"""The records of an evidence file, looked up again: by their offsets, and only they.

That a claim HOLDS means: it is as it was written, and every record that it names still stands where it says, with the
same bytes. Whether the claim follows from its records is for verify, or for a reader, to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streams.log import Record
from streams.verify.evidence_file import Claim, Filed, Seen, record_digest
from streams.verify.view import Log, Spot

SCHEMA = "quantum.recheck/1"
Outcome = Literal["HOLDS", "FELL", "EXPIRED", "NO RECORDS"]
OUTCOMES: Mapping[Outcome, str] = {
    "HOLDS": "as it was written, and every record that it names has the same bytes",
    "FELL": "the file or the log is not what it was",
    "EXPIRED": "records that it names are deleted or compacted away",
    "NO RECORDS": "as it was written; it names no record",
}


@dataclass(frozen=True)
class Item:
    """What became of a claim, or of `header`, `file` or `log`."""

    name: str
    outcome: Outcome
    why: str


@dataclass(frozen=True)
class Rechecked:
    """All that a file claims.

    Attributes:
        digest: the header's, which stands for the whole file: compare it with what verify printed.
        records: distinct records looked up.
    """

    digest: str
    records: int
    items: tuple[Item, ...]

    @property
    def exit_code(self) -> int:
        """0: nothing fell; 1: something fell; 3: something expired."""
        seen = {i.outcome for i in self.items}
        return 1 if "FELL" in seen else 3 if "EXPIRED" in seen else 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it; schema `quantum.recheck/1`."""
        return {"schema": SCHEMA, "exit_code": self.exit_code, "sha256": self.digest, "records": self.records,
                "items": [{"name": i.name, "outcome": i.outcome, "why": i.why} for i in self.items]}


def recheck(log: Log, filed: Filed, topic_prefix: str) -> Rechecked:
    """Look the records of a file up again.

    Args:
        log: the log as it is now.
        filed: what the file says.
        topic_prefix: under which the log is read.

    Raises:
        NoBroker: the log cannot be reached.
    """
    items = [Item(name, "FELL", why) for name, why in filed.fallen.items()]
    strange = _elsewhere(log, filed, topic_prefix)
    if strange is not None:
        items.insert(0, Item("log", "FELL", strange))
    seen = {spot_of(s): s for claim in filed.claims.values() for s in claim.records}
    now = looked_up(log, seen)
    for name, claim in filed.claims.items():
        items.append(_judged(name, claim, now))
    return Rechecked(filed.digest, len(seen), tuple(items))


def spot_of(seen: Seen) -> Spot:
    """Topic, partition, offset."""
    return seen.topic, seen.partition, seen.offset


def _elsewhere(log: Log, filed: Filed, topic_prefix: str) -> str | None:
    header = filed.header
    if header is None or (header.cluster_id, header.topic_prefix) == (log.cluster_id, topic_prefix):
        return None
    return (f"this is cluster {log.cluster_id}, topics with prefix {topic_prefix!r}; the evidence is of cluster "
            f"{header.cluster_id}, prefix {header.topic_prefix!r}")


def looked_up(log: Log, seen: Mapping[Spot, Seen]) -> dict[Spot, tuple[Outcome, str]]:
    """What became of each record."""
    topics = log.topics()
    result: dict[Spot, tuple[Outcome, str]] = {}
    ends: dict[tuple[str, int], tuple[int, int]] = {}
    asked = []
    for spot, s in seen.items():
        topic, partition, offset = spot
        if partition not in topics.get(topic, ()):
            result[spot] = "FELL", f"{s.place}: there is no such topic or partition"
            continue
        if (topic, partition) not in ends:
            ends[topic, partition] = log.bounds(topic, partition)
        low, end = ends[topic, partition]
        if offset >= end:
            result[spot] = "FELL", f"{s.place}: the log ends at {end}"
        elif offset < low:
            result[spot] = "EXPIRED", f"{s.place} is deleted; the log begins at {low}"
        else:
            asked.append(spot)
    found = log.fetch(asked)
    return result | {spot: _compared(seen[spot], found.get(spot)) for spot in asked}


def _compared(seen: Seen, record: Record | None) -> tuple[Outcome, str]:
    if record is None:
        return "EXPIRED", f"{seen.place} is gone: compacted away, or the topic was made anew"
    if record_digest(record) == seen.sha256:
        return "HOLDS", ""
    if record_digest(record, seen.timestamp_ms) == seen.sha256:
        return "FELL", (f"record at {seen.place} has the same bytes, but was appended at {record.timestamp_ms}, not at "
                        f"{seen.timestamp_ms}")
    return "FELL", f"record at {seen.place} has other bytes"


def _judged(name: str, claim: Claim, now: Mapping[Spot, tuple[Outcome, str]]) -> Item:
    if not claim.records:
        return Item(name, "NO RECORDS", OUTCOMES["NO RECORDS"])
    found = [now[spot_of(s)] for s in claim.records]
    worst: tuple[Outcome, ...] = ("FELL", "EXPIRED")
    for outcome in worst:
        bad = [why for o, why in found if o == outcome]
        if bad:
            more = f" (and {len(bad) - 1} more of {len(found)})" if len(bad) > 1 else f" (1 of {len(found)} records)"
            return Item(name, outcome, bad[0] + more)
    return Item(name, "HOLDS", f"{len(found)} records have the same bytes")
