"""Tokens of batches over rebalances that overtake each other: whatever Faust clears, each partition flows again."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from streams.transport.app import BatchApp
from tests.streams.hosting import in_loop

AT = TP("a", 0)


class Group:
    """Stands in for the poll thread: the group gave one partition, and records come as soon as it is assigned."""

    generation, assigned = 2, {AT}

    def __init__(self) -> None:
        self.consumer: Any = None
        self.assigns: list[Mapping[TP, int]] = []

    async def committed(self, tps: set[TP]) -> dict[TP, int]:
        return {AT: 5}

    async def assign(self, starts: Mapping[TP, int], generation: int) -> None:
        self.assigns.append(starts)
        self.consumer.arrived(generation, {AT: ["r5", "r6"]})


class Stage:
    """A consumer of an app that is not started, with the queue of its one agent."""

    def __init__(self, starts: Mapping[TP, int]) -> None:
        async def take_up(tps: set[TP], committed: Mapping[TP, int]) -> Mapping[TP, int]:
            return starts

        self.app = BatchApp("flow", consumer={}, producer={}, owner=SimpleNamespace(take_up=take_up))  # type: ignore[arg-type]
        self.group = Group()
        self.consumer: Any = self.app._new_consumer()
        self.consumer.thread, self.group.consumer = self.group, self.consumer
        self.queue = self.app.FlowControlQueue(maxsize=0, clear_on_resume=True)
        index: Any = self.app.topics
        index._tp_index[AT] = [SimpleNamespace(queue=self.queue)]

    def resume(self) -> None:
        """What Faust does at the end of a recovery."""
        self.app.flow_control.resume()
        self.consumer.resume_flow()

    def taken(self) -> list[Any]:
        """What the agent gets from the tokens in its queue."""
        return [r for _ in range(self.queue.qsize()) for r in self.queue.get_nowait().message.value.take()]


@in_loop
async def test_a_recovery_that_resumes_late_costs_no_token() -> None:
    """It resumed for a generation that was over; Faust cleared the queue again at the end of the next recovery."""
    stage = Stage({AT: 5})
    stage.resume()
    await stage.consumer.perform_seek()
    stage.resume()
    assert stage.taken() == ["r5", "r6"]
    stage.consumer.arrived(2, {AT: ["r7"]})
    assert stage.taken() == ["r7"]


@in_loop
async def test_a_queue_that_is_cleared_while_it_flows_is_filled_again() -> None:
    stage = Stage({AT: 5})
    await stage.consumer.perform_seek()
    stage.resume()
    old = stage.queue.get_nowait().message.value
    stage.resume()
    assert stage.taken() == ["r5", "r6"]
    assert old.take() == [], "taken once"


@in_loop
async def test_who_is_too_late_to_take_up_assigns_nothing() -> None:
    stage = Stage({})
    await stage.consumer.perform_seek()
    assert stage.group.assigns == []
