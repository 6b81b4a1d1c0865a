"""The automatic suite finds what it is there to find: each agent here breaks one rule."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from agents.contract import Batch, Output, Refused, Stepped
from agents.features import Features, FeaturesState
from schemas.events import Candle, Event
from schemas.events import Features as FeaturesEvent
from tests.agents import check
from tests.agents.test_features import random_walk

Result = tuple[FeaturesState, tuple[Output, ...]]
EVENTS: list[Event] = [c for pair in zip(random_walk(60, 1), random_walk(60, 2, symbol="BBB"), strict=True)
                       for c in pair]


def shifted(result: Result, by: float) -> Result:
    """The result with another close in its features."""
    state, outputs = result
    return state, tuple(
        Output(t, msgspec.structs.replace(e, close=e.close + by)) if isinstance(e, FeaturesEvent) else Output(t, e)
        for t, e in outputs
    )


class Counting(Features):
    """Keeps a count beside its state."""

    def step(self, state: FeaturesState, event: Event) -> Result:
        self.count = getattr(self, "count", 0) + 1
        return shifted(super().step(state, event), self.count)


class Unseeded(Features):
    """Draws from a generator of the process."""

    def step(self, state: FeaturesState, event: Event) -> Result:
        return shifted(super().step(state, event), random.random())


class Hashing(Features):
    """Uses the hash of a text, which differs from process to process."""

    def step(self, state: FeaturesState, event: Event) -> Result:
        return shifted(super().step(state, event), abs(hash("AAA")) % 1000 + 1)


class Mutating(Features):
    """Writes into the state that it got."""

    def step(self, state: FeaturesState, event: Event) -> Result:
        result = super().step(state, event)
        msgspec.structs.force_setattr(state, "intervals", result[0].intervals)
        return result


class Peeking(Features):
    """Looks at events that are not there yet."""

    future: list[Any] = []

    def step(self, state: FeaturesState, event: Event) -> Result:
        ahead = [e.close for e in self.future if e.ts_ms > event.ts_ms]  # type: ignore[attr-defined]
        return shifted(super().step(state, event), ahead[0] if ahead else 0.0)


class Crashing(Features):
    """Takes no late bar, with the wrong exception."""

    def step(self, state: FeaturesState, event: Event) -> Result:
        try:
            return super().step(state, event)
        except Refused as refused:
            raise KeyError(refused.reason) from refused


class Eager(Features):
    """Stamps its outputs with a time that has not come."""

    def step(self, state: FeaturesState, event: Event) -> Result:
        state, outputs = super().step(state, event)
        return state, tuple(Output(t, msgspec.structs.replace(e, ts_ms=e.ts_ms + 1))  # type: ignore[attr-defined]
                            for t, e in outputs)


class Hurried(Features):
    """Has a `step_many` that forgets what it is given."""

    in_columns = frozenset({"market.candles"})

    def step_many(self, batch: Batch[FeaturesState]) -> Stepped[FeaturesState]:
        return Stepped(batch.states, [-1] * len(batch.states))


class Trusting(Features):
    """Doubles each bar of a scope that it was not born for: its states hang on who shares the partition."""

    def new(self, scope: str) -> FeaturesState:
        self.born = (*getattr(self, "born", ()), scope)
        return super().new(scope)

    def step(self, state: FeaturesState, event: Event) -> Result:
        assert isinstance(event, Candle)
        return shifted(super().step(state, event), float(self.born.index(event.symbol)) if event.symbol in self.born
                       else 0.0)


class Silent(Features):
    """Publishes nothing."""

    def step(self, state: FeaturesState, event: Event) -> Result:
        return state, ()


@pytest.mark.parametrize(("agent", "run", "message"), [
    (Counting, check.check_purity, "twice from the same state"),
    (Counting, check.check_two_instances, "hidden state"),
    (Unseeded, check.check_purity, "twice from the same state"),
    (Unseeded, check.check_seeding, "same seed"),
    (Hashing, check.check_processes, "PYTHONHASHSEED"),
    (Mutating, check.check_purity, "changed the state"),
    (Crashing, check.check_late_input, "LATE|CONFLICT"),
    (Eager, check.check_outputs, "after its input"),
    (Hurried, check.check_step_many, "step_many differs"),
    (Trusting, check.check_partitions, "number of partitions"),
])
def test_each_broken_rule_is_found(agent: type[Features], run: Any, message: str) -> None:
    with pytest.raises((AssertionError, KeyError), match=message):
        run(agent, EVENTS)


def test_a_look_into_the_future_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = check.run

    def run(agent: Any, events: Any, **more: Any) -> check.Taken:
        agent.future = events = list(events)
        return real(agent, events, **more)

    monkeypatch.setattr(check, "run", run)
    with pytest.raises(AssertionError, match="changed what was published before"):
        check.check_no_look_ahead(Peeking, EVENTS)


def test_an_empty_check_is_no_check() -> None:
    with pytest.raises(AssertionError, match="no events"):
        check.check_agent(Features, [])
    with pytest.raises(AssertionError, match="publish nothing"):
        check.check_outputs(Silent, EVENTS)
