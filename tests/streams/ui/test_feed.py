"""Rows of the page from records, and what is drawn of a policy's course."""

from __future__ import annotations

import msgspec
import pytest

from schemas import events
from schemas.catalogue import TOPICS
from schemas.codec import Codec
from schemas.pages import example_of
from streams.log import Record
from streams.policies.course import course, thinned
from streams.policies.ledger import Version
from streams.policies.panels import panels
from streams.ui.feed import FOLLOWED, TRADES, UPDATES, policies, row_of
from tests.streams.log_fixtures import HOUR_MS, T0_MS, policy, record

CODEC = Codec()


def put(version: int, offset: int, symbol: str = "BTCUSDT", value: bool = True) -> Record:
    sent = record("policy.current", policy(version, symbol))
    return Record("policy.current", 0, offset, sent.key, sent.value if value else None, sent.headers, T0_MS + offset)


def test_only_a_higher_version_takes_the_place_of_one_and_a_tombstone_frees_the_key() -> None:
    held: dict[str, dict] = {}
    policies(CODEC, [put(1, 0), put(3, 1), put(2, 2), put(1, 3, "ETHUSDT")], held)
    assert {k: (r["version"], r["place"]) for k, r in held.items()} == {
        "q_learning/BTCUSDT": (3, "policy.current-0@1"), "q_learning/ETHUSDT": (1, "policy.current-0@3")}
    policies(CODEC, [put(2, 4)], held)
    assert held["q_learning/BTCUSDT"]["version"] == 3, "a worker that repeats itself takes nothing back"
    policies(CODEC, [put(4, 5), put(4, 6, value=False)], held)
    assert set(held) == {"q_learning/ETHUSDT"}
    policies(CODEC, [put(4, 7, value=False), put(5, 8)], held)
    assert held["q_learning/BTCUSDT"]["version"] == 5


@pytest.mark.parametrize("topic", FOLLOWED)
def test_every_topic_that_is_followed_has_rows_with_their_place(topic: str) -> None:
    known = TOPICS[topic].event
    assert known is not None
    sent = record(topic, msgspec.convert(example_of(topic), getattr(events, known)))
    row = row_of(CODEC, Record(topic, 2, 9, sent.key, sent.value, sent.headers, T0_MS))
    assert row is not None
    assert row["kind"] == ("trade" if topic == TRADES else "update" if topic in UPDATES else "policy")
    assert (row["place"], row["appended_ms"]) == (f"{topic}-2@9", T0_MS)
    assert row["kind"] != "update" or row["text"]
    assert row_of(CODEC, Record(topic, 2, 9, b"k", b"\xc3\x01no", (), T0_MS)) is None


def test_a_thinned_course_keeps_the_ends_and_every_flip() -> None:
    versions = []
    for n in range(1, 51):
        p = msgspec.structs.replace(policy(n), valid_from_ms=T0_MS + n * HOUR_MS, outcomes=n)
        assert p.tabular is not None
        greedy = "neutral" if n % 2 else "breakout"
        cells = tuple(msgspec.structs.replace(c, greedy=greedy, visits=(n, 0, 0, 0)) for c in p.tabular.cells)
        p = msgspec.structs.replace(p, tabular=msgspec.structs.replace(p.tabular, cells=cells))
        sent = record("policy.ledger", p)
        versions.append(Version(Record("policy.ledger", 0, n, sent.key, sent.value, sent.headers, T0_MS), p))
    points = course(versions)
    some = thinned(points, 10)
    assert [p.version for p in some] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]
    assert sum(p.flips for p in some) == sum(p.flips for p in points) == 49 * 12
    assert thinned(points, 50) == points
    drawn = {p.title: p for p in panels(some)}
    assert drawn["outcomes"].series[""] == tuple(float(p.version) for p in some)
    assert drawn["edge, R"].series["mean"] == (None,) * 10
    assert drawn["greedy flips"].bars
    assert {"p in bull", "p in bear"} <= drawn.keys()
