"""Whether `policy rederive` finds a changed event: copies of a real log, one bit of one event flipped in each.

    python -m benchmarks.flipped_events [--broker HOST:PORT] [--flips 30] [--seed 1] [--json FILE]

The log is one that agents wrote, e.g. of `quantum demo --keep`; it is read once and never written to. Without a broker
it is a short run in memory. Of each copy all
versions of all policies are made again, as `quantum policy rederive --all` does, and a plain fold of the changed input
says whether any policy changes. NAMED: one does, and the report names the record that was changed and no other. MATCH:
none does, and every version matches. All else is WRONG, and the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from agents.contract import Agent
from agents.roster import ROSTER
from schemas.catalogue import AGENTS
from schemas.codec import Codec
from schemas.events import Event
from schemas.refused import Refused
from streams.cli.recheck import judging
from streams.fold import PartitionFold
from streams.identity import identity_of
from streams.log import Record
from streams.policies.deriving import Deriver, Report
from streams.policies.ledger import LEDGER, read_ledger
from streams.records import CE_ID, Incoming
from streams.settings import Settings
from streams.starting import StoredStarts
from streams.verify.planted.stage import honest, stage
from streams.verify.view import Log, MemoryLog

INPUT = AGENTS["q_learning"].input_topic


def copied(log: Log) -> MemoryLog:
    """All records that rederiving may look at."""
    other = MemoryLog()
    for topic in log.topics():
        if not topic.startswith("market."):
            other.create(topic, len(log.topics()[topic]))
            for record in log.read(topic):
                other.records[topic][record.partition].append(record)
    return other


def derived(log: MemoryLog, codec: Codec, agents: Mapping[str, Agent[Any]]) -> Report:
    """`quantum policy rederive --all`, by the agents that made the log."""
    ledger = read_ledger(log.read(LEDGER), codec)
    asked = [v for versions in ledger.versions.values() for v in versions]
    return Deriver(log, agents, codec, lambda agent: StoredStarts(log, codec, agent))(ledger, asked)


def decoded(codec: Codec, record: Record) -> Event | None:
    """The event in a record; None where it is refused."""
    try:
        return codec.decode("learning.experience", record.value)
    except Refused:
        return None


def changed(before: Event | None, after: Event | None) -> list[str]:
    """Fields in which two events differ; what refuses to be read differs in all."""
    if before is None or after is None:
        return ["the whole record"]
    return [f for f in before.__struct_fields__ if getattr(before, f) != getattr(after, f)]


def plain(log: MemoryLog, partition: int, codec: Codec) -> dict[bytes, bytes | None]:
    """Policies that the input of a partition gives, by output id: the fold and nothing else."""
    agent = ROSTER["q_learning"]()
    fold = PartitionFold(agent, partition, codec, identity_of(agent))
    return {dict(out.headers)[CE_ID]: out.value for r in log.records[INPUT][partition]
            for out in fold.apply(Incoming(r.offset, r.key, r.value, r.headers)) if out.topic == LEDGER}


def judged(report: Report, place: str, same: bool) -> str:
    """NAMED, MATCH or WRONG; `same`: by the plain fold nothing changes."""
    if report.divergences:
        return "NAMED" if {d.place for d in report.divergences} == {place} and not same else "WRONG"
    good = set(report.counts()) == {"MATCH"} and not report.unpublished and not report.unreadable
    return "MATCH" if good and same else "WRONG"


def flip(log: MemoryLog, codec: Codec, agents: Mapping[str, Agent[Any]], draw: Random) -> dict[str, Any]:
    """Flip one bit of one experience in the learner's inbox, rederive, put it back; what came of it."""
    rows = [r for p in log.records[INPUT].values() for r in p if decoded(codec, r) is not None]
    record = draw.choice(rows)
    value = bytearray(record.value or b"")
    byte, bit = draw.randrange(len(value)), draw.randrange(8)
    value[byte] ^= 1 << bit
    at = log.records[INPUT][record.partition]
    i = at.index(record)
    at[i] = record._replace(value=bytes(value))
    fields = changed(decoded(codec, record), decoded(codec, at[i]))
    began = time.perf_counter()
    report = derived(log, codec, agents)
    seconds = time.perf_counter() - began
    changed_to = plain(log, record.partition, codec)
    at[i] = record
    answer = judged(report, record.place, changed_to == plain(log, record.partition, codec))
    named = sorted({d.place or "none" for d in report.divergences})
    return {"place": record.place, "byte": byte, "bit": bit, "fields": fields, "answer": answer, "named": named,
            "counts": report.counts(), "seconds": round(seconds, 2)}


def main() -> int:
    """Flip, print a line each, then the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker")
    parser.add_argument("--topic-prefix", default="")
    parser.add_argument("--flips", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    codec, draw = Codec(), Random(args.seed)
    if args.broker is None:
        copy, agents = stage(bars=450, symbols=("ALPHA", "BETA")).log, honest()
    else:
        agents = {name: agent() for name, agent in ROSTER.items()}
        with judging(Settings(broker=args.broker, topic_prefix=args.topic_prefix)) as log:
            copy = copied(log)
    began = time.perf_counter()
    whole = derived(copy, codec, agents)
    print(json.dumps({"undisturbed": whole.counts(), "seconds": round(time.perf_counter() - began, 2)}), flush=True)
    if set(whole.counts()) != {"MATCH"}:
        return 1
    found = []
    for _ in range(args.flips):
        found.append(flip(copy, codec, agents, draw))
        print(json.dumps(found[-1]), flush=True)
    counts = Counter(f["answer"] for f in found)
    print(json.dumps({"flips": args.flips, "answers": counts}))
    if args.json is not None:
        args.json.write_text(json.dumps({"versions": len(whole.answers), "flips": found}, indent=2) + "\n")
    return int(counts["WRONG"] > 0)


if __name__ == "__main__":
    sys.exit(main())
