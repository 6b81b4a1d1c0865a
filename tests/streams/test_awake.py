"""A process that was stopped for as long as its session lasts: it is noted, and the group is joined anew."""

from __future__ import annotations

import time
from typing import Any

import pytest

from streams.settings import Settings
from streams.transport.awake import Awake
from streams.worker import run_agents
from tests.streams.counting import SYMBOLS, CountingLearner, experience
from tests.streams.hosting import LEARNER, count, counts, expected, in_loop, produce, until


def test_a_gap_is_noted_by_whoever_asks_first_until_partitions_are_given_anew() -> None:
    now = [100.0]
    awake = Awake(9.0, clock=lambda: now[0])
    for _ in range(5):
        now[0] += 9.0
        assert awake.beat()
    assert awake.since_gap_s() is None
    now[0] += 9.5
    assert not awake.beat()
    now[0] += 1.0
    assert not awake.beat()
    assert awake.since_gap_s() == 1.0
    awake.renew()
    assert awake.beat()


@pytest.mark.usefixtures("direct_learner")
@pytest.mark.topics(*LEARNER)
@in_loop
async def test_who_slept_and_hears_nothing_joins_anew_and_goes_on(prefix: Settings) -> None:
    events: list[Any] = [experience(SYMBOLS[i % len(SYMBOLS)], 1_600_000_000_000 + i * 1000) for i in range(200)]
    produce(prefix, "learning.experience", events[:100])
    async with run_agents(prefix, {"q_learning": CountingLearner()}) as worker:
        await until(lambda: count(prefix, "learning.drift.detected") >= 100, "outputs")
        thread = worker.hosts[0].app.poll_thread
        assert thread is not None
        generation = thread.generation
        thread.awake._woke = time.monotonic()  # as if it had been stopped; the broker knows nothing of it
        await until(lambda: thread.generation > generation, "the group, joined anew")
        produce(prefix, "learning.experience", events[100:])
        await until(lambda: count(prefix, "learning.drift.detected") >= 200, "outputs")
    assert counts(prefix, CountingLearner()) == expected(events)
