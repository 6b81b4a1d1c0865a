"""State of paper execution, and how states of older releases become it."""

from __future__ import annotations

import msgspec

from agents.algorithms.commanded import NOTHING, UNKNOWN, Commanded, ordered
from agents.contract import State
from agents.former import FormerDecision, decision_of
from agents.paper_execution.layout import Book
from schemas.events import Candle, Decision, Instrument


class Retired(State, frozen=True, kw_only=True):
    """A policy that must not be executed up to a version, that which says so."""

    policy_id: str
    version: int


class PaperState(State, frozen=True, kw_only=True):
    """State of a symbol.

    `interval_ms`: primary interval, 0 before the first candle. `recent_*`: last candles received. `done_ms`: opening
    time of the last candle taken. `queue`: candles that wait. `pending`: decisions that wait for their candle.
    `halt_ms`, `halted`: newest halt or resume command. `commanded`: what commands say of the policies.
    """

    interval_ms: int = 0
    source: str = ""
    recent_open_ms: tuple[int, ...] = ()
    recent_digests: tuple[bytes, ...] = ()
    done_ms: int = -1
    queue: tuple[Candle, ...] = ()
    pending: tuple[Decision, ...] = ()
    instruments: tuple[Instrument, ...] = ()
    books: tuple[Book, ...] = ()
    baselines: tuple[Book, ...] = ()
    halted: bool = False
    halt_ms: int = -1
    retired: tuple[Retired, ...] = ()
    commanded: Commanded = NOTHING


class FirstRetired(State, frozen=True, kw_only=True):
    """As it was in format 1; `version` None: retired by command."""

    policy_id: str
    version: int | None


class FirstState(State, frozen=True, kw_only=True):
    """Format 1, before rollbacks were obeyed and answers lifted anything."""

    interval_ms: int
    source: str
    recent_open_ms: tuple[int, ...]
    recent_digests: tuple[bytes, ...]
    done_ms: int
    queue: tuple[Candle, ...]
    pending: tuple[FormerDecision, ...]
    instruments: tuple[Instrument, ...]
    books: tuple[Book, ...]
    baselines: tuple[Book, ...]
    halted: bool
    halt_ms: int
    retired: tuple[FirstRetired, ...]


class SecondState(State, frozen=True, kw_only=True):
    """Format 2, before decisions carried the state that they were taken in."""

    interval_ms: int
    source: str
    recent_open_ms: tuple[int, ...]
    recent_digests: tuple[bytes, ...]
    done_ms: int
    queue: tuple[Candle, ...]
    pending: tuple[FormerDecision, ...]
    instruments: tuple[Instrument, ...]
    books: tuple[Book, ...]
    baselines: tuple[Book, ...]
    halted: bool
    halt_ms: int
    retired: tuple[Retired, ...]
    commanded: Commanded


def from_first(old: FirstState) -> SecondState:
    """Format 2: a policy that was retired by command stays so until the next answer to a command about it."""
    fields = msgspec.structs.asdict(old)
    commanded = NOTHING
    for r in old.retired:
        if r.version is None:
            commanded = ordered(commanded, UNKNOWN, r.policy_id, 0)
    fields["retired"] = tuple(Retired(policy_id=r.policy_id, version=r.version) for r in old.retired
                              if r.version is not None)
    return SecondState(**fields, commanded=commanded)


def from_second(old: SecondState) -> PaperState:
    """Format 3: decisions carry nothing more than they did."""
    fields = msgspec.structs.asdict(old)
    fields["pending"] = tuple([decision_of(d) for d in old.pending])
    return PaperState(**fields)
