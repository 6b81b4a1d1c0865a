"""Bad records among good ones, on every input topic of every agent, through a real broker and a real worker."""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

from schemas.catalogue import GLOBAL, TOPICS, built_agents, scope_of
from streams.records import ERROR, header
from streams.settings import Settings
from tests.patience import PATIENCE_S
from tests.schemas.judge import Rejected, judge
from tests.schemas.mutations import mutate
from tests.streams.hosting import read, send
from tests.streams.rostered import until_done, worker

RECORDS = 10_000
OF_THE_DECODER = frozenset({"NULL_VALUE", "EMPTY", "NOT_AVRO", "UNKNOWN_SCHEMA", "UNDECODABLE", "TRAILING_BYTES",
                            "NOT_FINITE", "OUT_OF_RANGE", "INVALID"})
INPUTS = sorted({topic for agent in built_agents() for topic in agent.reads})
Letter = tuple[str, bytes | None, bytes | None]


def key_of(topic: str, value: bytes | None) -> bytes:
    """The key that a producer would set: the value's own where it has one."""
    try:
        record = judge(topic, value)
    except Rejected:
        return b"q_learning/S" if topic == "policy.ledger" else b"S"
    name = TOPICS[topic].key
    return str(record.get(name, name)).encode()


def accepted(topic: str, value: bytes | None) -> bool:
    try:
        judge(topic, value)
    except Rejected:
        return False
    return True


def readers(topic: str, key: bytes | None) -> int:
    """Agents that get a record: those who read only what is for all are brought nothing of a single symbol."""
    of_all = key is not None and scope_of(topic, key.decode()) == GLOBAL
    return sum(route != "global" or of_all for agent in built_agents() for name, route in agent.reads.items()
               if name == topic)


def test_what_the_judge_refuses_is_dead_lettered_intact_and_the_rest_is_taken(prefix: Settings, tmp_path: Path) -> None:
    rng = random.Random(20260801)
    sent: dict[Letter, int] = Counter()
    records = []
    for i in range(RECORDS):
        topic = INPUTS[i % len(INPUTS)]
        other = rng.choice([t for t in INPUTS if t != topic])
        value = mutate(topic, other, rng, big=TOPICS[topic].external).value
        key = key_of(topic, value)
        records.append((topic, key, value, (("ce_id", f"test:{i}".encode()), ("trace", b"\x00\xff"))))
        sent[topic, key, value] += 1
    send(prefix, records)
    log = tmp_path / "worker.log"
    with worker(prefix, log) as process:
        until_done(prefix, process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, log.read_text()[-3000:]

    by_decoder: dict[Letter, int] = Counter()
    for topic in INPUTS:
        for letter in read(prefix, f"{topic}.dlq"):
            reason = header(letter.headers, ERROR + "reason")
            assert reason != "STEP_FAILED", header(letter.headers, ERROR + "detail")
            assert header(letter.headers, ERROR + "topic") == topic
            ours = (header(letter.headers, "ce_id") or "").startswith("test:")
            assert not ours or dict(letter.headers)["trace"] == b"\x00\xff", "a header of the producer was lost"
            if reason in OF_THE_DECODER:
                by_decoder[topic, letter.key, letter.value] += 1
            else:  # an agent's own rule; the decoder and the ranges had accepted it
                assert accepted(topic, letter.value), f"{reason} on {topic}, but the judge refuses the record"
    expected = {letter: n * readers(*letter[:2]) for letter, n in sent.items() if not accepted(letter[0], letter[2])}
    assert by_decoder == expected
    assert 0.3 * RECORDS < sum(n for letter, n in sent.items() if letter in expected) < 0.95 * RECORDS
