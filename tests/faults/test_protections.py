"""What each protection is for: a run with it taken away that breaks, and the same run with it that does not.

    what is taken away                                   what breaks then
    the inbox fold skips source offsets at or below      a frozen relay that wakes up has its candles counted
    the last that it took                                twice
    a scope skips input that its record contains         after a torn flush (scopes written, the head not) events
                                                         are counted twice
    a partition starts behind its head, not at the       a partition that is folded again loses all that was
    group's committed offset                             committed
    of a key the record that contains most counts,       a frozen state writer that wakes up takes events out of
    not the last one                                     a scope
    outputs are acknowledged before state is written     a kill between the two loses outputs for good
    output ids are functions of the input                a kill before the state is written doubles outputs under
                                                         other ids
    scopes must meet the head's digest                   a scope that went back in time (compaction kept the record
                                                         that a frozen writer wrote last) is gone on with
    a relay commits a source offset behind the           a kill between the two loses candles for good
    acknowledgement of its copies

Each runs without luck: by a log in memory whose producer holds back what a SIGKILL would have kept from the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agents.bars import Bars
from streams import host
from streams.fold import Damaged, PartitionFold
from streams.held import Held, wiped
from streams.records import HEAD_KEY, encode_event
from streams.relay import RelayLane
from streams.settings import Settings
from streams.transport.awake import Awake
from streams.transport.murmur2 import partition_of
from streams.worker import run_agents
from tests.faults.judge import CODEC, Found, judge, read_all
from tests.faults.memory import SOURCE, MemoryLog, MemoryProducer, folded, relayed
from tests.streams.counting import CountingFeatures, candle
from tests.streams.hosting import FEATURES, committed, count, firsts, in_loop, produce, read, send, until

A, B = "FAUNA0", "FAUNA3"
AT = partition_of(A.encode(), 4)
assert partition_of(B.encode(), 4) == AT, "both scopes must live in one partition"
OUTPUTS = "market.regime.changed"
T0 = 1_600_000_000_000
kept_and_removed = pytest.mark.parametrize("removed", [False, True], ids=["kept", "removed"])


def times(first: int, n: int) -> Sequence[int]:
    return range(T0 + first * 1000, T0 + (first + n) * 1000, 1000)


def verdict(log: MemoryLog, removed: bool, *signs: str) -> None:
    """Judge with everything in place again."""
    judged(judge(log.written, {"features": CountingFeatures()}), removed, *signs)


def judged(found: Found, removed: bool, *signs: str) -> None:
    assert found.figures["folded"] > 0, "nothing was judged"
    if not removed:
        assert found.wrong == []
    for sign in signs if removed else ():
        assert any(sign in sentence for sentence in found.wrong), (sign, found.wrong)


def is_state(row: Any) -> bool:
    return row.topic == "features.changelog"


@kept_and_removed
def test_source_offsets_that_were_taken_are_skipped(removed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        log.candles([A, B], times(0, 3))
        await relayed(log, "features")
        await relayed(log, "features", again=range(2, 6))  # it froze with these copies on the way
        await folded(log, CountingFeatures(), AT)

    log = MemoryLog()
    with monkeypatch.context() as patch:
        if removed:
            patch.setattr(PartitionFold, "_fresh", lambda *_: True)
        asyncio.run(play())
    verdict(log, removed, "is not that of the fold", f"on {OUTPUTS} without following from the input")


@kept_and_removed
def test_a_scope_skips_what_its_record_contains(removed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        log.candles([A, B], times(0, 4))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT, upto=4)
        await folded(log, CountingFeatures(), AT, holds=lambda row: is_state(row) and row.key == HEAD_KEY)
        await folded(log, CountingFeatures(), AT)

    def forgetful(fold: PartitionFold, *args: Any) -> None:
        restore(fold, *args)
        fold.scopes = {name: scope._replace(offset=-1) for name, scope in fold.scopes.items()}

    log, restore = MemoryLog(), PartitionFold.restore
    with monkeypatch.context() as patch:
        if removed:
            patch.setattr(PartitionFold, "restore", forgetful)
        asyncio.run(play())
    verdict(log, removed, "is not that of the fold", "two records with the id")


@kept_and_removed
def test_who_slept_for_a_session_writes_no_state(removed: bool) -> None:
    """It was stopped before its flush; the worker that took over has flushed further by the time when it wakes up."""
    clock = [0.0]
    awake = Awake(9.0, clock=lambda: clock[0])

    async def meanwhile() -> None:
        await folded(log, CountingFeatures(), AT)
        clock[0] += 10.0

    async def play() -> None:
        log.candles([A, B], times(0, 4))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT, upto=4, ours=(lambda: True) if removed else awake.beat,
                     asleep=meanwhile())
        log.compact("features.changelog")

    log = MemoryLog()
    asyncio.run(play())
    verdict(log, removed, "is not that of the fold")


@pytest.mark.topics(*FEATURES)
@kept_and_removed
@in_loop
async def test_a_partition_starts_behind_its_state(prefix: Settings, removed: bool,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """The group has committed everything, and the state is an older one: it goes on from there."""
    produce(prefix, "market.candles", [candle(s, t) for t in times(0, 25) for s in (A, B)])
    async with run_agents(prefix, {"features": CountingFeatures()}):
        await until(lambda: count(prefix, OUTPUTS) >= 50, "outputs")
    older = [r for r in read(prefix, "features.changelog") if r.partition == AT]
    produce(prefix, "market.candles", [candle(s, t) for t in times(25, 25) for s in (A, B)])
    async with run_agents(prefix, {"features": CountingFeatures()}):
        await until(lambda: count(prefix, OUTPUTS) >= 100, "outputs")
    at = committed(prefix, "features", "features.inbox")
    send(prefix, [("features.changelog", key, None, wiped("a test"))
                  for key in (HEAD_KEY, f"scope:{A}".encode(), f"scope:{B}".encode())], AT)
    send(prefix, [("features.changelog", r.key, r.value, r.headers) for r in older], AT)

    def at_the_commit(client: Any, codec: Any, new: Any, inputs: Any, *args: Any) -> Any:
        return {tp: replace(found, start=at[tp.partition])
                for tp, found in restore(client, codec, new, inputs, *args).items()}

    restore = host.restore
    with monkeypatch.context() as patch:
        if removed:
            patch.setattr(host, "restore", at_the_commit)
        async with run_agents(prefix, {"features": CountingFeatures()}):
            produce(prefix, "market.candles", [candle(A, t) for t in times(50, 1)])
            await until(lambda: len(firsts(read(prefix, OUTPUTS))) >= 101, "the last output")
    judged(judge(read_all(prefix), {"features": CountingFeatures()}), removed, "is not that of the fold",
           f"other bytes on {OUTPUTS}", "digest is")


@kept_and_removed
def test_the_record_that_contains_most_counts(removed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that was frozen before its flush of A wakes up; its successor was killed in a flush of B."""
    async def play() -> None:
        log.candles([A, B], times(0, 2))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT)
        stale = [r for r in log.written["features.changelog"][AT] if r.key == f"scope:{A}".encode()]
        log.candles([A, B], times(2, 2))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT)
        log.candles([B], times(4, 1))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT, holds=lambda row: is_state(row) and row.key == HEAD_KEY)
        for record in stale:
            log.append("features.changelog", record.key, record.value, record.headers, AT)
        log.candles([A, B], times(5, 2))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT)

    def last(held: Held[Any], codec: Any, where: Any, key: bytes, value: bytes | None, headers: Any) -> None:
        held.scopes.pop(key, None)
        held.heads.pop(key, None)
        take(held, codec, where, key, value, headers)

    def trusting(fold: PartitionFold, *args: Any) -> None:
        with contextlib.suppress(Damaged):
            restore(fold, *args)

    log, take, restore = MemoryLog(), Held.take, PartitionFold.restore
    with monkeypatch.context() as patch:
        if removed:  # with the digest, which would find it out
            patch.setattr(Held, "take", last)
            patch.setattr(PartitionFold, "restore", trusting)
        asyncio.run(play())
    verdict(log, removed, f"scope {A}: state at", f"other bytes on {OUTPUTS}")


class Hasty(MemoryProducer):
    """Says of everything that it is acknowledged, at once."""

    async def send_rows(self, rows: Sequence[Any]) -> asyncio.Future[Any]:
        await super().send_rows(rows)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@kept_and_removed
def test_outputs_are_acknowledged_before_state_is_written(removed: bool) -> None:
    def holds(row: Any) -> bool:
        return row.topic == OUTPUTS

    async def play() -> None:
        log.candles([A, B], times(0, 3))
        await relayed(log, "features")
        killed = Hasty(log, holds) if removed else MemoryProducer(log, holds)
        await folded(log, CountingFeatures(), AT, producer=killed)
        await folded(log, CountingFeatures(), AT)

    log = MemoryLog()
    asyncio.run(play())
    verdict(log, removed, f"missing on {OUTPUTS}")


@kept_and_removed
def test_output_ids_are_functions_of_the_input(removed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        log.candles([A, B], times(0, 3))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT, holds=is_state)  # killed between outputs and state
        await folded(log, CountingFeatures(), AT)

    def at_random(fold: PartitionFold, topic: str, event: Any, offset: int) -> Any:
        return encode_event(fold.codec, topic, event, uuid.uuid4().hex, "synthetic:1")

    log = MemoryLog()
    with monkeypatch.context() as patch:
        if removed:
            patch.setattr(PartitionFold, "encoded", at_random)
        asyncio.run(play())
    assert len(log.written[OUTPUTS][AT]) == 12, "the kill had everything published twice"
    verdict(log, removed, f"on {OUTPUTS} without following from the input", f"missing on {OUTPUTS}")


@kept_and_removed
def test_scopes_must_meet_the_heads_digest(removed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction kept an old record of a scope: a frozen writer had written it last."""
    async def play() -> None:
        log.candles([A, B], times(0, 2))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT)
        log.candles([A, B], times(2, 2))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT)
        rows = log.written["features.changelog"][AT]
        newest = max(i for i, r in enumerate(rows) if r.key == f"scope:{A}".encode())
        del rows[newest]
        log.candles([A, B], times(4, 2))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT)

    def trusting(fold: PartitionFold, *args: Any) -> None:
        with contextlib.suppress(Damaged):
            restore(fold, *args)

    log, restore = MemoryLog(), PartitionFold.restore
    with monkeypatch.context() as patch:
        if removed:
            patch.setattr(PartitionFold, "restore", trusting)
        asyncio.run(play())
    verdict(log, removed, f"scope {A}: state at", f"other bytes on {OUTPUTS}", "digest is")


@kept_and_removed
def test_a_source_is_committed_behind_its_copies(removed: bool) -> None:
    async def play() -> None:
        log.candles([A, B], times(0, 3))
        killed = (Hasty if removed else MemoryProducer)(log, lambda row: (row.key or b"") == B.encode())
        await relayed(log, "features", producer=killed)
        log.candles([A, B], times(3, 2))
        await relayed(log, "features")
        await folded(log, CountingFeatures(), AT)

    log = MemoryLog()
    asyncio.run(play())
    verdict(log, removed, f"lost on the way into features.inbox-{AT}")


def test_candles_of_a_feed_are_input_and_an_agents_are_held_against_its_fold() -> None:
    log = MemoryLog()
    log.candles([A, B], times(0, 3))
    roster = {"bars": Bars()}
    assert judge(log.written, roster).wrong == []
    made_up = encode_event(CODEC, SOURCE, candle(A, T0 + 60_000), "bars:0-7:0", "synthetic:1")
    log.append(SOURCE, made_up.key, made_up.value, made_up.headers, 0)
    sign = f"on {SOURCE} without following from the input: bars:0-7:0"
    assert any(sign in sentence for sentence in judge(log.written, roster).wrong)


def test_the_seams_are_there() -> None:
    """What is taken away above is a name of the product: one that is gone would make its test say nothing."""
    assert all(map(callable, (PartitionFold._fresh, PartitionFold.encoded, PartitionFold.restore, Held.take,
                              host.restore, RelayLane.take)))
