"""Committing: what was marked last is committed at the end, whatever became of the commits before it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import confluent_kafka as ck
from faust.types import TP

from streams.transport.commit import Committer
from streams.transport.poll import PollThread
from tests.patience import PATIENCE_S
from tests.streams.hosting import in_loop

A, B = TP("a", 0), TP("a", 1)


class Broker:
    """Stands in for the poll thread's commit.

    Args:
        slow: commits that nobody waits for never return.
    """

    def __init__(self, slow: bool = False) -> None:
        self.calls: list[tuple[dict[TP, int], bool]] = []
        self.called = asyncio.Event()
        self._slow = slow

    async def commit(self, offsets: Mapping[TP, int], wait: bool) -> None:
        self.calls.append((dict(offsets), wait))
        self.called.set()
        if self._slow and not wait:
            await asyncio.Event().wait()


@in_loop
async def test_a_commit_on_its_way_is_made_again_at_the_end() -> None:
    broker = Broker(slow=True)
    committer = Committer(broker.commit, interval_s=0)
    committer.mark(A, 3)
    committer.mark(B, 7)
    await broker.called.wait()
    await committer.finish()
    assert broker.calls == [({A: 3, B: 7}, False), ({A: 3, B: 7}, True)]


@in_loop
async def test_the_newest_offset_is_committed_at_the_end_and_nothing_where_nothing_was_marked() -> None:
    broker = Broker()
    committer = Committer(broker.commit, interval_s=3600)
    await committer.finish()
    committer.mark(A, 3)
    committer.mark(A, 5)
    await committer.finish()
    assert broker.calls == [({A: 5}, True)]


@in_loop
async def test_a_commit_that_failed_is_made_again_though_nothing_more_is_marked() -> None:
    """Kafka answers through librdkafka's callback: the group's lag would stay as it is until the next record."""
    broker = Broker()
    committer = Committer(broker.commit, interval_s=0, retry_s=0)
    owner: Any = SimpleNamespace(taken=0, fail=lambda exc: None, log=logging.getLogger(__name__),
                                 commit_failed=committer.again, app=SimpleNamespace(conf=SimpleNamespace(id="g")))
    thread = PollThread(owner, {"bootstrap.servers": "127.0.0.1:9", "group.id": "g", "log_level": 0})
    committer.mark(A, 3)
    await broker.called.wait()
    broker.called.clear()
    thread._on_commit(ck.KafkaError(ck.KafkaError._WAIT_COORD), [])
    await asyncio.wait_for(broker.called.wait(), PATIENCE_S)
    thread._on_commit(ck.KafkaError(ck.KafkaError.ILLEGAL_GENERATION), [])  # another member's by now
    await asyncio.sleep(0.05)
    await thread.close(10)
    assert broker.calls == [({A: 3}, False)] * 2


@in_loop
async def test_what_is_forgotten_is_not_committed() -> None:
    broker = Broker()
    committer = Committer(broker.commit, interval_s=3600)
    committer.mark(A, 3)
    committer.forget()
    await committer.finish()
    assert broker.calls == []


@in_loop
async def test_what_the_consumer_was_asked_before_its_end_is_still_done() -> None:
    owner: Any = SimpleNamespace(taken=0, fail=lambda exc: None, log=logging.getLogger(__name__))
    thread = PollThread(owner, {"bootstrap.servers": "127.0.0.1:9", "group.id": "g", "log_level": 0})
    await thread.call(lambda: None)
    await asyncio.sleep(0.03)  # it is in its next poll of 100 ms by now
    asked = thread.call(lambda: "done")
    await thread.close(10)
    assert await asyncio.wait_for(asked, PATIENCE_S) == "done"
