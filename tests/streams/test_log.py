"""The log reader against a real broker: where it begins, where it ends, and that it leaves no trace."""

from __future__ import annotations

import itertools
import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from streams.log import BEGINNING, END, LogReader, NoBroker, NoTopic, Start, read
from streams.records import Outgoing
from tests.streams.log_fixtures import candles, own_names, produce


@pytest.fixture(scope="module")
def settings(broker):
    settings = own_names(broker, "market.candles", "market.features", "policy.current")
    produce(settings, candles(30), partition=1)
    produce(settings, candles(5, "ETHUSDT"), partition=2)
    return settings


def offsets(records):
    return [(r.partition, r.offset) for r in sorted(records, key=lambda r: (r.partition, r.offset))]


@pytest.mark.parametrize(("start", "expected"), [
    (BEGINNING, [(1, i) for i in range(30)] + [(2, i) for i in range(5)]),
    (END, []),
    (Start("offset", 28), [(1, 28), (1, 29)]),
    (Start("offset", 4), [(1, i) for i in range(4, 30)] + [(2, 4)]),
    (Start.last(2), [(1, 28), (1, 29), (2, 3), (2, 4)]),
    (Start.last(0), []),
    ({1: 29}, [(1, 29)]),
    ({1: 400, 2: 0}, [(2, i) for i in range(5)]),
])
def test_begins_where_it_is_told_and_ends_by_itself(settings, start, expected):
    assert offsets(read(settings, "market.candles", start=start)) == expected


def test_gives_the_record_as_it_was_written(settings):
    sent = candles(5, "ETHUSDT")[3]
    got = next(r for r in read(settings, "market.candles", partitions=[2], start=Start("offset", 3)))
    assert (got.topic, got.key, got.value, got.headers) == (sent.topic, sent.key, sent.value, sent.headers)
    assert got.place == "market.candles-2@3"
    assert abs(got.timestamp_ms - time.time() * 1000) < 600_000  # append time, not event time


def test_begins_at_a_time(settings):
    own = own_names(settings, "market.candles")
    produce(own, candles(3), partition=0)
    time.sleep(0.05)
    between_ms = int(time.time() * 1000)
    time.sleep(0.05)
    produce(own, candles(2, first=3), partition=0)
    assert offsets(read(own, "market.candles", start=Start("time", between_ms))) == [(0, 3), (0, 4)]
    assert offsets(read(own, "market.candles", start=Start("time", between_ms + 3_600_000))) == []


def test_an_empty_topic_ends_at_once(settings):
    assert list(read(settings, "market.features")) == []


def test_ends_at_the_end_it_saw_first(settings):
    own = own_names(settings, "market.candles")
    produce(own, candles(3), partition=0)
    with LogReader(own) as log:
        reading = log.read("market.candles")
        first = next(reading)
        produce(own, candles(50, first=3), partition=0)
        assert offsets([first, *reading]) == [(0, 0), (0, 1), (0, 2)]


def test_ends_where_the_last_offsets_hold_no_record(settings):
    """A transaction ends with a marker, so the end offset lies behind the last record; an aborted one leaves none."""
    own = own_names(settings, "market.candles")
    producer = Producer({**own.client(), "transactional.id": own.app_id})
    producer.init_transactions(20)
    for commit in (True, False):
        producer.begin_transaction()
        for r in candles(2):
            producer.produce(own.topic(r.topic), key=r.key, value=r.value, partition=0)
        producer.flush(20)
        if commit:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)
    assert offsets(read(own, "market.candles")) == [(0, 0), (0, 1)]


def test_follows(settings):
    own = own_names(settings, "market.candles")
    produce(own, candles(2), partition=0)
    following = read(own, "market.candles", follow=True)
    assert offsets(itertools.islice(following, 2)) == [(0, 0), (0, 1)]
    produce(own, candles(1, first=2), partition=3)
    assert next(following).place == "market.candles-3@0"
    following.close()


def test_tombstones_and_missing_keys_come_through(settings):
    own = own_names(settings, "market.candles")
    strange = [Outgoing("market.candles", b"k", None, ()), Outgoing("market.candles", None, b"", (("h", b"\xff"),))]
    produce(own, strange, partition=0)
    assert [(r.key, r.value, r.headers) for r in read(own, "market.candles")] == [r[1:4] for r in strange]


def test_joins_no_group_and_commits_nothing(settings):
    assert list(read(settings, "market.candles"))
    groups = AdminClient(settings.client()).list_consumer_groups().result(20).valid
    assert not [g.group_id for g in groups if g.group_id.startswith(settings.app_id)]


def test_knows_the_topics_under_the_prefix_by_catalogue_name(settings):
    with LogReader(settings) as log:
        assert log.topics() == {"market.candles": [0, 1, 2, 3], "market.features": [0, 1, 2, 3],
                                "policy.current": [0, 1, 2, 3]}


def test_says_what_is_not_there(settings):
    with pytest.raises(NoTopic, match=r"no topic t\w+\.market\.trades"):
        list(read(settings, "market.trades"))
    with pytest.raises(NoTopic, match="no partition 7; it has 0 to 3"):
        list(read(settings, "market.candles", partitions=[1, 7]))


def test_says_which_broker_does_not_answer(settings):
    nobody = settings.replace(broker="127.0.0.1:1")
    with LogReader(nobody, timeout_s=0.5) as log, pytest.raises(NoBroker, match=r"127\.0\.0\.1:1"):
        log.topics()


@pytest.mark.parametrize(("text", "start"), [
    ("beginning", BEGINNING), ("end", END), ("0", Start("offset", 0)), ("17", Start("offset", 17)),
    ("-3", Start.last(3)), ("s@1640995200000", Start("time", 1_640_995_200_000)),
    ("s@2022-01-01T00:00:00Z", Start("time", 1_640_995_200_000)),
    ("s@2022-01-01T01:00:00+01:00", Start("time", 1_640_995_200_000)),
])
def test_reads_kcats_notation(text, start):
    assert Start.parse(text) == start


@pytest.mark.parametrize("text", ["", "begin", "1.5", "s@", "s@yesterday", "s@2022-01-01T00:00:00", "--1"])
def test_refuses_other_notation(text):
    with pytest.raises(ValueError):
        Start.parse(text)


def test_one_reader_reads_the_same_partitions_again_and_again(settings):
    with LogReader(settings) as log:
        for n in (1, 2, 30, 5, 30, 1):
            assert len(offsets(log.read("market.candles", start=Start.last(n)))) == n + min(n, 5)
            abandoned = log.read("market.candles")
            next(abandoned)
            abandoned.close()
