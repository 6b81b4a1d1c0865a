"""The benchmark's agent: tumbling windows of a symbol's trades; and its place in the catalogue, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from agents.contract import Agent, Batch, Output, Refused, State, Stepped
from benchmarks.engines.task import PARTITIONS, WINDOW_MS, Windows
from schemas import catalogue
from schemas.catalogue import AgentIO, Topic
from schemas.events import Event, MarketTrade
from schemas.lockstep import Array

KEPT = 1_000  # windows of a symbol; older ones are forgotten


class Window(State, frozen=True, kw_only=True):
    """One window: its number (start / length), trades in it, their quantity, the last price."""

    number: int
    count: int
    quantity: float
    last: float


class WindowState(State, frozen=True, kw_only=True):
    """Windows of a symbol, oldest first."""

    windows: tuple[Window, ...] = ()


class WindowAgent(Agent[WindowState]):
    """Trades to windows; what comes for a window before the newest is refused."""

    name = "window"
    state_type = WindowState
    in_columns = frozenset({"market.trades"})

    def new(self, scope: str) -> WindowState:
        return WindowState()

    def step(self, state: WindowState, event: Event) -> tuple[WindowState, tuple[Output, ...]]:
        if not isinstance(event, MarketTrade):
            raise Refused("UNEXPECTED", f"window takes trades, not {event.SCHEMA_NAME}")
        number, windows = event.ts_ms // WINDOW_MS, state.windows
        if windows and number < windows[-1].number:
            raise Refused("LATE", f"window {number} is closed")
        if windows and number == windows[-1].number:
            w = windows[-1]
            new = Window(number=number, count=w.count + 1, quantity=w.quantity + event.quantity, last=event.price)
            return WindowState(windows=(*windows[:-1], new)), ()
        new = Window(number=number, count=1, quantity=event.quantity, last=event.price)
        return WindowState(windows=(*windows, new)[-KEPT:]), ()

    def step_many(self, batch: Batch[WindowState]) -> Stepped[WindowState] | None:
        number_N = batch.columns.values["ts_ms"] // WINDOW_MS
        newest = np.array([s.windows[-1].number if s.windows else -1 for s in batch.states])
        order_N = np.argsort(batch.scope_N, kind="stable")
        scope_N, number_N = batch.scope_N[order_N], number_N[order_N]
        same_N = scope_N[1:] == scope_N[:-1]
        if (same_N & (number_N[1:] < number_N[:-1])).any():
            return None  # `step` says which is late
        begins_G = np.flatnonzero(np.append(True, ~same_N | (number_N[1:] != number_N[:-1])))
        if (number_N[begins_G] < newest[scope_N[begins_G]]).any():
            return None
        return Stepped(*self._grown(batch, order_N, scope_N, number_N, begins_G))

    @staticmethod
    def _grown(batch: Batch[WindowState], order_N: Array, scope_N: Array, number_N: Array,
               begins_G: Array) -> tuple[list[WindowState], list[int]]:
        """States and last rows; a group G is the rows of one scope and window, rows in the order of scopes."""
        ends_G = np.append(begins_G[1:], len(order_N))
        last_G = batch.columns.values["price"][order_N[ends_G - 1]]
        windows = [list(state.windows) for state in batch.states]
        groups = list(zip(scope_N[begins_G].tolist(), number_N[begins_G].tolist(), strict=True))
        begun = [windows[s].pop() if windows[s] and windows[s][-1].number == number else None for s, number in groups]
        before_G = np.array([w.quantity if w else 0.0 for w in begun])
        group_N = np.repeat(np.arange(len(groups)), ends_G - begins_G)
        quantity_G = np.bincount(np.concatenate([np.arange(len(groups)), group_N]),  # it adds in order, as steps do
                                 np.concatenate([before_G, batch.columns.values["quantity"][order_N]]))
        for (scope, number), old, more, quantity, last in zip(
                groups, begun, (ends_G - begins_G).tolist(), quantity_G.tolist(), last_G.tolist(), strict=True):
            windows[scope].append(Window(number=number, count=(old.count if old else 0) + more, quantity=quantity,
                                         last=last))
        changed = np.zeros(len(windows), np.int64)
        changed[scope_N] = order_N
        return [WindowState(windows=tuple(held[-KEPT:])) for held in windows], changed.tolist()


@contextmanager
def installed(name: str) -> Iterator[AgentIO]:
    """The agent is in the catalogue under a name: it reads trades directly, since our producer keys them by symbol."""
    agents: Any = catalogue.AGENTS
    known: Any = catalogue.TOPICS
    WindowAgent.name = name
    io = agents[name] = AgentIO(name=name, reads={"market.trades": "by_scope"}, writes=(), direct=True,
                                partitions=PARTITIONS)
    known[io.changelog] = Topic(name=io.changelog, event="ScopeState", key="scope:<scope> or head",
                                doc="State of windows.", cleanup="compact", partitions=PARTITIONS)
    try:
        yield io
    finally:
        del agents[name], known[io.changelog]


def held(states: dict[str, WindowState]) -> Windows:
    """The states' windows."""
    return {(symbol, w.number): [w.count, w.quantity, w.last] for symbol, state in states.items()
            for w in state.windows}
