"""State of the PPO trader, per symbol."""

from __future__ import annotations

from agents.algorithms.trading import Account, Action
from agents.contract import State
from agents.obeying import Early
from schemas.events import Origin, PolicyStatus, RiskPolicy


class Slot(State, frozen=True, kw_only=True):
    """A slot that ended with new bars and waits for its run. `new_rows`: of them, whose windows are full."""

    start_ms: int
    end_ms: int
    new_rows: int


class Run(State, frozen=True, kw_only=True):
    """A run that was opened. The window, the learner and the configuration it rests on stay as they are until it ends.

    Attributes:
        slot: that it belongs to.
        attempt: its number, from 1.
        opened_ms: event time at which the attempt was opened.
        retry_ms: event time from which the next attempt may be opened; -1 while one is under way.
        parent_version: policy whose weights it goes on from; 0: new weights.
        values: configuration as changed, JSON.
        mask: columns that are dropped.
    """

    slot: Slot
    attempt: int
    opened_ms: int
    retry_ms: int
    parent_version: int
    values: str
    mask: tuple[str, ...]


class Limits(State, frozen=True, kw_only=True):
    """A version of the risk policy: `policy.now` binds until `valid_until_ms`, `policy.otherwise` behind it."""

    version: int
    valid_from_ms: int
    valid_until_ms: int | None
    policy: RiskPolicy


class TraderState(State, frozen=True, kw_only=True):
    """Per symbol.

    Attributes:
        symbol: the scope.
        source, origin: of all bars taken; empty and None before the first.
        interval_ms: of the first bar; others are ignored. 0 before it.
        now_ms: newest event time.
        open_ms: opening time of the newest bar.
        slot_start_ms, slot_end_ms: slot that is being filled; 0 before the first bar.
        slot_bars: bars in it; `slot_rows`: those whose windows are full.
        waiting: slots that wait for a run, oldest first.
        run: the open one.
        window: rows that were there when the newest run was opened (`trading_fit.packed`); heavy.
        window_rows: their number.
        tail: rows since, one each, oldest first.
        learner: newest learner; empty before the first run; heavy.
        version: newest policy version; `trained_version`: the newest that a run made.
        trained_ms: event time of it; -1 before.
        valid_for_ms: how long versions may be applied that rest on it.
        runs: that succeeded.
        residual: root mean squared error of its critic, percent; 1 before the first.
        mask: columns that the newest policy drops.
        status, retired_ms, obeyed, early: see `agents.obeying`.
        values: configuration as changed, JSON; `values_ms`: event time from which it holds.
        next_values, next_ms: a change that does not hold yet; empty and -1 where there is none.
        bar: row of the newest bar, whatever its windows; empty before the first.
        account: on paper; None while the mode is OFF and before the first bar.
        order: action decided at the newest bar, to be executed in the next.
        limits: versions of the risk policy, by the time from which they hold: the one in force, and later ones.
        trades_ms: event times of the newest positions opened.
        halted, halt_ms: newest halt or resume.
    """

    symbol: str = ""
    source: str = ""
    origin: Origin | None = None
    interval_ms: int = 0
    now_ms: int = -1
    open_ms: int = -1
    slot_start_ms: int = 0
    slot_end_ms: int = 0
    slot_bars: int = 0
    slot_rows: int = 0
    waiting: tuple[Slot, ...] = ()
    run: Run | None = None
    window: bytes = b""
    window_rows: int = 0
    tail: tuple[bytes, ...] = ()
    learner: bytes = b""
    version: int = 0
    trained_version: int = 0
    trained_ms: int = -1
    valid_for_ms: int = 0
    runs: int = 0
    residual: float = 1.0
    mask: tuple[str, ...] = ()
    status: PolicyStatus = "ACTIVE"
    retired_ms: int = -1
    obeyed: tuple[str, ...] = ()
    early: tuple[Early, ...] = ()
    values: str = "{}"
    values_ms: int = -1
    next_values: str = ""
    next_ms: int = -1
    bar: bytes = b""
    account: Account | None = None
    limits: tuple[Limits, ...] = ()
    order: int = int(Action.HOLD)
    trades_ms: tuple[int, ...] = ()
    halted: bool = False
    halt_ms: int = -1
