"""What the agent remembers: decisions that wait, trades and outcomes that wait, what ended and what was seen."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from agents.contract import Config, State
from agents.former import FormerDecision, decision_of
from schemas.events import Decision, DecisionOutcome, Event, TradeClosed

DAY_MS = 86_400_000
NEVER_MS = 2**62


class ExperienceConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times of the join.

    Attributes:
        horizon_bars: bars after which a decision has ended by the rules of execution.
        grace_bars: further bars of the executor's own time that its outcome may take to come; candles wait for
            decisions up to 192 bars.
        default_interval_ms: length of a bar for trades and outcomes that come before any decision of the symbol.
        memory_ms: how long ended decisions and trades are remembered, event time.
        memory_size: how many are remembered at most.
        waiting_size: trades, and outcomes, that wait for their decisions at most.
        open_size: decisions that wait for their end at most, of all books of a symbol.
    """

    horizon_bars: int = 4
    grace_bars: int = 200
    default_interval_ms: int = 3_600_000
    memory_ms: int = 7 * DAY_MS
    memory_size: int = 512
    waiting_size: int = 4096
    open_size: int = 8192

    def __post_init__(self) -> None:
        numbers = (self.horizon_bars, self.grace_bars, self.default_interval_ms, self.memory_ms, self.memory_size,
                   self.waiting_size, self.open_size)
        if min(numbers) < 1:
            raise ValueError("every number of the configuration must be at least 1")


class Open(State, frozen=True, kw_only=True):
    """A decision that has not ended."""

    decision: Decision
    deadline_ms: int


class WaitingTrade(State, frozen=True, kw_only=True):
    """A trade whose decision has not come."""

    trade: TradeClosed
    deadline_ms: int


class WaitingOutcome(State, frozen=True, kw_only=True):
    """An outcome whose decision has not come, or that promises a trade."""

    outcome: DecisionOutcome
    deadline_ms: int


class Ended(State, frozen=True, kw_only=True):
    """A decision that has ended: when, by which record (digest), with which trade ("" for none)."""

    decided_ms: int
    ended_ms: int
    decision_digest: bytes
    end_digest: bytes
    trade_id: str


class Seen(State, frozen=True, kw_only=True):
    """A trade, or a late outcome, that was dealt with."""

    ts_ms: int
    digest: bytes


class ExperienceState(State, frozen=True, kw_only=True):
    """State of a symbol.

    `ended_ids` and `ended`, `seen_ids` and `seen` run in step, the newest last; ids stand apart so that looking one
    up is one search through strings. `now_ms`: how far the executor's outcomes have come. `deadline_ms`: the earliest
    one of all that wait. `forgotten_ms`: decisions of that time and earlier may have been forgotten;
    `forgotten_end_ms`: and ends of that time and earlier.
    """

    interval_ms: int = 0
    now_ms: int = -1
    deadline_ms: int = NEVER_MS
    forgotten_ms: int = -1
    forgotten_end_ms: int = -1
    open: tuple[Open, ...] = ()
    trades: tuple[WaitingTrade, ...] = ()
    outcomes: tuple[WaitingOutcome, ...] = ()
    ended_ids: tuple[str, ...] = ()
    ended: tuple[Ended, ...] = ()
    seen_ids: tuple[str, ...] = ()
    seen: tuple[Seen, ...] = ()


class FormerOpen(State, frozen=True, kw_only=True):
    """An open decision of format 2, before decisions carried limits and the state that they were taken in."""

    decision: FormerDecision
    deadline_ms: int


class SecondState(State, frozen=True, kw_only=True):
    """Format 2, which timed out by the clock."""

    interval_ms: int
    now_ms: int
    deadline_ms: int
    forgotten_ms: int
    own_clock: bool
    open: tuple[FormerOpen, ...]
    trades: tuple[WaitingTrade, ...]
    outcomes: tuple[WaitingOutcome, ...]
    ended_ids: tuple[str, ...]
    ended: tuple[Ended, ...]
    seen_ids: tuple[str, ...]
    seen: tuple[Seen, ...]


def from_second(old: SecondState) -> ExperienceState:
    """Format 3: no clock; what was forgotten had ended by `now_ms` less the memory, or was pushed out before it.

    A repeat of a decision that had ended is told by its digest, which is another one now that decisions carry more: it
    is refused as a conflict instead of being passed over.
    """
    return ExperienceState(
        interval_ms=old.interval_ms, now_ms=old.now_ms, deadline_ms=old.deadline_ms, forgotten_ms=old.forgotten_ms,
        forgotten_end_ms=old.ended[0].ended_ms if old.forgotten_ms >= 0 and old.ended else -1,
        open=tuple([Open(decision=decision_of(o.decision), deadline_ms=o.deadline_ms) for o in old.open]),
        trades=old.trades, outcomes=old.outcomes, ended_ids=old.ended_ids, ended=old.ended, seen_ids=old.seen_ids,
        seen=old.seen,
    )


def digest_of(event: Event) -> bytes:
    """8 bytes that tell one event from another."""
    return blake2b(msgspec.msgpack.encode(event), digest_size=8).digest()


def find_ended(state: ExperienceState, decision_id: str) -> Ended | None:
    """How a decision ended; None where it has not, or was forgotten."""
    return state.ended[state.ended_ids.index(decision_id)] if decision_id in state.ended_ids else None


def find_seen(state: ExperienceState, seen_id: str) -> Seen | None:
    """A trade or late outcome that was dealt with; None where it was not, or was forgotten."""
    return state.seen[state.seen_ids.index(seen_id)] if seen_id in state.seen_ids else None


def next_deadline(
    open_: tuple[Open, ...], trades: tuple[WaitingTrade, ...], outcomes: tuple[WaitingOutcome, ...]
) -> int:
    """The earliest deadline of all that wait."""
    return min([w.deadline_ms for waiting in (open_, trades, outcomes) for w in waiting], default=NEVER_MS)


def forget(config: ExperienceConfig, state: ExperienceState) -> ExperienceState:
    """Drop what is older than the memory reaches or more than it holds."""
    horizon_ms = state.now_ms - config.memory_ms
    n = max(0, len(state.ended) - config.memory_size)
    while n < len(state.ended) and state.ended[n].ended_ms < horizon_ms:
        n += 1
    m = max(0, len(state.seen) - config.memory_size)
    while m < len(state.seen) and state.seen[m].ts_ms < horizon_ms:
        m += 1
    if not n and not m:
        return state
    return msgspec.structs.replace(
        state, ended=state.ended[n:], ended_ids=state.ended_ids[n:], seen=state.seen[m:], seen_ids=state.seen_ids[m:],
        forgotten_ms=max([state.forgotten_ms, *(e.decided_ms for e in state.ended[:n])]),
        forgotten_end_ms=max([state.forgotten_end_ms, *(e.ended_ms for e in state.ended[:n])]),
    )
