"""Agents that do not do what they say."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
from msgspec.structs import replace

from agents.contract import Output
from agents.decision import DecisionAgent
from agents.paper_execution import PaperExecutionAgent
from agents.q_learning import QLearningAgent
from schemas.events import Decision, Edge, Event, Experience, PolicyApplied, PolicyRecord, Tabular


class Constant(QLearningAgent):
    """Publishes a version for every outcome, always with the table of the first."""

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Output, ...]]:
        after, outputs = super().step(state, event)
        return after, tuple(o._replace(event=replace(o.event, tabular=blank(o.event.tabular)))
                            if isinstance(o.event, PolicyRecord) else o for o in outputs)


class NeverUpdates(QLearningAgent):
    """Publishes a genesis policy and takes every outcome, but learns from none."""

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Output, ...]]:
        after, outputs = super().step(state, event)
        kept = tuple(o for o in outputs if isinstance(o.event, PolicyRecord) and o.event.reason == "genesis")
        return (after, kept) if kept or not outputs else (state, ())


class Hashed(QLearningAgent):
    """Its tables are digests of what it was given: they change with every outcome and mean nothing."""

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Output, ...]]:
        after, outputs = super().step(state, event)
        noise = sha256(msgspec.msgpack.encode(event)).digest()
        return after, tuple(o._replace(event=replace(o.event, tabular=noisy(o.event.tabular, noise)))
                            if isinstance(o.event, PolicyRecord) and o.event.reason != "genesis" else o
                            for o in outputs)


class HashedDraws(QLearningAgent):
    """Learns its estimates honestly and draws by digests."""

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Output, ...]]:
        after, outputs = super().step(state, event)
        noise = sha256(msgspec.msgpack.encode(event)).digest()
        return after, tuple(o._replace(event=replace(o.event, tabular=drawn_by(o.event.tabular, noise)))
                            if isinstance(o.event, PolicyRecord) and o.event.reason != "genesis" else o
                            for o in outputs)


class OutcomesUnseen(QLearningAgent):
    """Learns from a reward of its own making."""

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Output, ...]]:
        if isinstance(event, Experience) and event.learnable:
            event = replace(event, reward_r=len(event.action) / 10)
        return super().step(state, event)


class AlwaysClaims(QLearningAgent):
    """Learns honestly and says that it has an edge, whatever it earned; `how` is what it says of its figures."""

    def __init__(self, how: dict[str, float] | None = None) -> None:
        super().__init__()
        self._how = how or {}

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Output, ...]]:
        after, outputs = super().step(state, event)
        return after, tuple(o._replace(event=replace(o.event, edge_claim=True, edge=replace(o.event.edge, **self._how)))
                            if isinstance(o.event, PolicyRecord) and o.event.edge is not None else o for o in outputs)


class ClaimsEarly(QLearningAgent):
    """Claims from its first outcomes on."""

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Output, ...]]:
        after, outputs = super().step(state, event)
        edge = Edge(n=after.outcomes, mean_r=1.0, sd_r=1.0, lower_r=0.5, smallest_r=0.1)
        return after, tuple(o._replace(event=replace(o.event, edge_claim=True, edge=edge))
                            if isinstance(o.event, PolicyRecord) else o for o in outputs)


class IgnoresPolicies(DecisionAgent):
    """Decides as if there were no policy."""

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Output, ...]]:
        return (state, ()) if isinstance(event, PolicyRecord) else super().step(state, event)


class WeightZero(PaperExecutionAgent):
    """Acknowledges every policy and executes none."""

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Output, ...]]:
        if isinstance(event, Decision):
            event = replace(event, signals=(0, 0, 0, 0))
        return super().step(state, event)


class SaysItExecuted(WeightZero):
    """Executes none and says that it executed all."""

    def step(self, state: Any, event: Event) -> tuple[Any, tuple[Output, ...]]:
        after, outputs = super().step(state, event)
        return after, tuple(o._replace(event=replace(o.event, executed_action=o.event.recommended_action))
                            if isinstance(o.event, PolicyApplied) else o for o in outputs)


def blank(table: Tabular) -> Tabular:
    return replace(table, volatility_edges=(0.001, 0.002), cells=tuple(
        replace(c, q=(0.0,) * 4, se=(1.0,) * 4, visits=(0,) * 4, probabilities=(0.25,) * 4, greedy="neutral")
        for c in table.cells))


def noisy(table: Tabular, noise: bytes) -> Tabular:
    return replace(table, cells=tuple(
        replace(c, q=q, greedy=("trend_following", "mean_reversion", "breakout", "neutral")[q.index(max(q))])
        for i, c in enumerate(table.cells)
        for q in [tuple((noise[(4 * i + j) % 32] - 128 + j / 10) / 100 for j in range(4))]))


def drawn_by(table: Tabular, noise: bytes) -> Tabular:
    cells = []
    for i, c in enumerate(table.cells):
        weights = [1 + noise[(4 * i + j) % 32] for j in range(4)]
        cells.append(replace(c, probabilities=tuple(w / sum(weights) for w in weights)))
    return replace(table, cells=tuple(cells))
