"""The agent: the order in which candles, decisions and commands are taken.

Candles and decisions come over different topics, and candles may run far ahead of the decisions that were made on
them. The fold puts them back in the order of event time:

- a decision of time T waits until a candle that opens at or after T is taken, and is executed at that candle's open;
- a candle that opens at or after the time of the next decision of a book (`next_ts_ms` of its last) waits for it;
- before the first decision, and where no book awaits one, the newest `max_wait_bars` candles wait for one that may
  come;
- when more than `max_wait_bars` candles wait, the books they wait for are awaited no longer. A decision that comes
  after its candle was taken ends NOT_EXECUTED (late), and its book is awaited again;
- while halted nothing waits: no decision can be executed anyway, and a halt is obeyed at once.

So the trades are a function of the candles and decisions alone, as long as no decision is late.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import ClassVar

import msgspec
from msgspec.structs import replace

from agents.algorithms.candles import candle_problem, numbers_digest
from agents.algorithms.commanded import NOTHING, RETIRED, answered, barred, ordered
from agents.algorithms.fills import Costs
from agents.contract import Agent, Config, Output, Refused
from agents.paper_execution.baselines import BOOKS, baseline_order, order_of
from agents.paper_execution.book import NEVER_MS, Bar, Happening, Order, Terms, run_bar
from agents.paper_execution.layout import Book, PaperConfig
from agents.paper_execution.records import mark, outputs_of, refusal
from agents.paper_execution.state import FirstState, PaperState, Retired, SecondState, from_first, from_second
from schemas.events import (
    STRATEGY_SYMBOLS,
    Candle,
    Decision,
    Event,
    Instrument,
    PolicyCommand,
    PolicyRecord,
)

RECENT = 16  # bars whose repeats are told from conflicts; a producer that retries stays within it
MAX_DECISION_ID = 510  # a trade's id is two characters longer, and ids have 512 at most
RULES = "fill=next_open both_in_bar=stop exits=spread+slippage"


class PaperExecutionAgent(Agent[PaperState]):
    """Fills decisions on candles. Config: `PaperConfig`."""

    name: ClassVar[str] = "paper_execution"
    state_type = PaperState
    config_type: ClassVar[type[Config]] = PaperConfig
    format_version: ClassVar[int] = 3  # 2: rollbacks, answers; 3: decisions with their state
    former = {1: (FirstState, from_first), 2: (SecondState, from_second)}  # noqa: RUF012
    config: PaperConfig

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        c = self.config
        costs = Costs(c.default_fee_bps, c.default_half_spread_bps, c.default_slippage_bps)
        self._default_terms = Terms(costs, 0.0, 1, None, _label("default-costs", costs, 0.0, None))

    def new(self, scope: str) -> PaperState:
        """No candle, no book."""
        return PaperState()

    def sticky_key(self, event: Event) -> str | None:
        """Commands that a symbol born later must obey: of each kind the newest, of a policy or symbol."""
        if not isinstance(event, PolicyCommand) or event.command not in ("HALT", "RESUME", "RETIRE", "ROLLBACK"):
            return None
        return f"{event.command}:{event.policy_id or event.symbol or '*'}"

    def step(self, state: PaperState, event: Event) -> tuple[PaperState, tuple[Output, ...]]:
        """Fold one event."""
        if isinstance(event, Candle):
            return self._candle(state, event)
        if isinstance(event, Decision):
            return self._decision(state, event)
        if isinstance(event, PolicyRecord):
            return _policy(state, event), ()
        if isinstance(event, Instrument):
            return _instrument(state, event), ()
        if isinstance(event, PolicyCommand):
            return self._command(state, event)
        raise Refused("UNEXPECTED", f"paper_execution does not take {event.SCHEMA_NAME}")

    # ------------------------------------------------------------------ what comes in
    def _candle(self, state: PaperState, candle: Candle) -> tuple[PaperState, tuple[Output, ...]]:
        c = candle
        problem = candle_problem(
            open_ms=c.open_time_ms, ts_ms=c.ts_ms, interval_ms=c.interval_ms, open_=c.open, high=c.high, low=c.low,
            close=c.close, volume=c.volume, taker=c.taker_buy_volume,
        )
        if problem is not None:
            raise Refused("BAD_CANDLE", problem)
        if state.interval_ms and c.interval_ms != state.interval_ms:
            return state, ()
        digest = numbers_digest(c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trades,
                                c.taker_buy_volume)
        if _repeats(state, c, digest):
            return state, ()
        return self._drain(PaperState(
            interval_ms=c.interval_ms, source=c.source,
            recent_open_ms=(*state.recent_open_ms[1 - RECENT:], c.open_time_ms),
            recent_digests=(*state.recent_digests[1 - RECENT:], digest),
            done_ms=state.done_ms, queue=(*state.queue, candle), pending=state.pending,
            instruments=state.instruments, books=state.books, baselines=state.baselines, halted=state.halted,
            halt_ms=state.halt_ms, retired=state.retired, commanded=state.commanded,
        ), [])

    def _decision(self, state: PaperState, decision: Decision) -> tuple[PaperState, tuple[Output, ...]]:
        _check(state, decision)
        digest = blake2b(msgspec.msgpack.encode(decision), digest_size=8).digest()
        at = next((i for i, b in enumerate(state.books) if b.book_id == decision.book_id), len(state.books))
        known = state.books[at:at + 1]
        if known and decision.ts_ms <= known[0].decided_ms:
            if decision.ts_ms < known[0].decided_ms:
                raise Refused("LATE", f"{decision.decision_id} came after the book's decision of {known[0].decided_ms}")
            if digest != known[0].decided_digest:
                raise Refused("CONFLICT", f"{decision.decision_id} came before with another content")
            return state, ()
        book = known[0] if known else self._book(decision.book_id, decision.ts_ms)
        book = replace(book, awaits_ms=decision.next_ts_ms, decided_ms=decision.ts_ms, decided_digest=digest)
        books = (*state.books[:at], book, *state.books[at + 1:])
        baselines = state.baselines
        if not state.books and self.config.baseline_books:
            baselines = tuple(self._book(name, decision.ts_ms) for name in BOOKS)
        out: list[Output] = []
        pending = state.pending
        if decision.ts_ms <= state.done_ms:
            out = refusal(decision, "halt" if state.halted else "late", state.done_ms + state.interval_ms)
        else:
            pending = tuple(sorted((*pending, decision), key=lambda d: d.ts_ms))
        return self._drain(replace(state, books=books, baselines=baselines, pending=pending), out)

    def _book(self, book_id: str, started_ms: int) -> Book:
        equity = self.config.equity
        return Book(book_id=book_id, started_ms=started_ms, balance=equity, equity=equity, peak_equity=equity,
                    day_start_equity=equity)

    def _command(self, state: PaperState, command: PolicyCommand) -> tuple[PaperState, tuple[Output, ...]]:
        """Obey at once; of halt and resume the newest by event time counts, and a halt wins over a resume."""
        if command.command not in ("HALT", "RESUME"):
            above = {"RETIRE": 0, "ROLLBACK": command.version}.get(command.command)
            if above is None or command.policy_id is None:
                return state, ()
            after = ordered(state.commanded, command.command_id, command.policy_id, above)
            return state if after is state.commanded else replace(state, commanded=after), ()
        halt = command.command == "HALT"
        if (command.ts_ms, halt) <= (state.halt_ms, state.halted):
            return state, ()
        return self._drain(replace(state, halted=halt, halt_ms=command.ts_ms), [])

    # ------------------------------------------------------------------ what is taken
    def _drain(self, state: PaperState, out: list[Output]) -> tuple[PaperState, tuple[Output, ...]]:
        """Take the candles that wait for nothing more."""
        queue, books, baselines, pending, done_ms = (
            state.queue, state.books, state.baselines, state.pending, state.done_ms)
        n, barrier_ms = 0, _barrier(books)
        while n < len(queue):
            candle = queue[n]
            if not state.halted and (barrier_ms == NEVER_MS or candle.open_time_ms >= barrier_ms):
                if len(queue) - n <= self.config.max_wait_bars:
                    break
                if barrier_ms != NEVER_MS:
                    books = tuple([replace(b, awaits_ms=0) if b.awaits_ms <= candle.open_time_ms else b
                                   for b in books])
                    barrier_ms = _barrier(books)
                    continue
            due: tuple[Decision, ...] = ()
            if pending and pending[0].ts_ms <= candle.open_time_ms:
                k = sum(d.ts_ms <= candle.open_time_ms for d in pending)
                due, pending = pending[:k], pending[k:]
            if books:
                books, baselines = self._bar(state, candle, due, books, baselines, out)
            done_ms = candle.open_time_ms
            n += 1
        return PaperState(
            interval_ms=state.interval_ms, source=state.source, recent_open_ms=state.recent_open_ms,
            recent_digests=state.recent_digests, done_ms=done_ms, queue=queue[n:], pending=pending,
            instruments=_in_force(state.instruments, done_ms), books=books, baselines=baselines, halted=state.halted,
            halt_ms=state.halt_ms, retired=state.retired, commanded=state.commanded,
        ), tuple(out)

    def _bar(
        self, state: PaperState, candle: Candle, due: tuple[Decision, ...], books: tuple[Book, ...],
        baselines: tuple[Book, ...], out: list[Output],
    ) -> tuple[tuple[Book, ...], tuple[Book, ...]]:
        """Take one candle with the decisions that are due at its open."""
        bar = Bar(candle, self._terms(state.instruments, candle.open_time_ms), state.halted)
        config, told = self.config, list[Output]()
        after = []
        for book in books:
            orders: list[Order] = []
            for decision in due:
                if decision.book_id != book.book_id:
                    continue
                reason = _barred(state, decision)
                if reason is not None:
                    told += refusal(decision, reason, candle.open_time_ms)
                else:
                    orders.append(order_of(decision))
            log: list[Happening] = []
            after.append(run_bar(config, book, tuple(orders), bar, log))
            if log:
                told += outputs_of(candle.symbol, book.book_id, log)
        if len(books) > 1:  # what happened at the open of one book comes before what happened at the close of another
            told.sort(key=_event_ms)
        out += told
        leading = tuple(d for d in due if d.book_id == books[0].book_id) if due and baselines else ()
        others = []
        for book in baselines:
            log = []
            moves = tuple(baseline_order(book.book_id, d, config.seed) for d in leading) if leading else ()
            others.append(run_bar(config, book, moves, bar, log))
        if (config.mark_every_bar or told) and candle.open_time_ms >= books[0].started_ms:
            out.append(mark(candle, state.halted, (*after, *others)))
        return tuple(after), tuple(others)

    def _terms(self, instruments: tuple[Instrument, ...], open_ms: int) -> Terms:
        """Costs of the newest instrument record that holds at the bar, else the default ones."""
        for record in reversed(instruments):
            if record.ts_ms <= open_ms:
                return _terms(record)
        return self._default_terms


@lru_cache(maxsize=1024)  # a function of its argument alone; a bar asks for it every time
def _terms(record: Instrument) -> Terms:
    """Terms of an instrument record."""
    costs = Costs(record.fee_bps, record.half_spread_bps, record.slippage_bps)
    funding = record.funding_bps or 0.0
    return Terms(costs, funding, record.funding_interval_ms or 1, record.volume_cap,
                 _label("instrument", costs, funding, record.volume_cap))


def _label(kind: str, costs: Costs, funding_bps: float, volume_cap: float | None) -> str:
    """The assumptions of a trade, for its record."""
    return (f"paper:{kind} fee_bps={costs.fee_bps:g} half_spread_bps={costs.half_spread_bps:g} "
            f"slippage_bps={costs.slippage_bps:g} funding_bps={funding_bps:g} "
            f"volume_cap={'none' if volume_cap is None else f'{volume_cap:g}'} {RULES}")


def _event_ms(output: Output) -> int:
    """Event time of an output."""
    ts_ms: int = getattr(output.event, "ts_ms")  # noqa: B009  every event has it, though its base does not say so
    return ts_ms


def _barrier(books: tuple[Book, ...]) -> int:
    """Time of the earliest decision that is awaited."""
    return min([b.awaits_ms for b in books if b.awaits_ms], default=NEVER_MS)


def _repeats(state: PaperState, candle: Candle, digest: bytes) -> bool:
    """Whether a candle was received before; False for one that may be taken.

    Raises:
        Refused: SOURCE_CONFLICT, CONFLICT or LATE.
    """
    if state.source and candle.source != state.source:
        raise Refused("SOURCE_CONFLICT", f"{candle.symbol} comes from {state.source}, this bar from {candle.source}")
    times = state.recent_open_ms
    if not times or candle.open_time_ms > times[-1]:
        return False
    if candle.open_time_ms not in times:
        raise Refused("LATE", f"bar {candle.open_time_ms} came after bar {times[-1]}")
    if state.recent_digests[times.index(candle.open_time_ms)] != digest:
        raise Refused("CONFLICT", f"bar {candle.open_time_ms} was taken before with other numbers")
    return True


def _check(state: PaperState, decision: Decision) -> None:
    """Hold a decision against itself.

    Raises:
        Refused: BAD_DECISION.
    """
    d = decision
    if state.interval_ms and d.interval_ms != state.interval_ms:
        problem = f"interval {d.interval_ms} ms is not the symbol's primary one, {state.interval_ms} ms"
    elif d.next_ts_ms <= d.ts_ms:
        problem = f"the next decision {d.next_ts_ms} is not after this one, {d.ts_ms}"
    elif len(d.signals) != len(STRATEGY_SYMBOLS) or any(s not in (-1, 0, 1) for s in d.signals) or d.signals[-1]:
        problem = f"signals {d.signals} are not a direction for each of {STRATEGY_SYMBOLS}, 0 for neutral"
    elif len(d.decision_id) > MAX_DECISION_ID:
        problem = f"decision_id has {len(d.decision_id)} characters; {MAX_DECISION_ID} are allowed"
    else:
        return
    raise Refused("BAD_DECISION", problem)


def _instrument(state: PaperState, record: Instrument) -> PaperState:
    """Keep what an instrument costs from a time on.

    Raises:
        Refused: BAD_INSTRUMENT, CONFLICT, or LATE where a newer record already holds at the candles to come.
    """
    if record.funding_bps is not None and record.funding_interval_ms is None:
        raise Refused("BAD_INSTRUMENT", "funding_bps without funding_interval_ms")
    for held in state.instruments:
        if held.ts_ms == record.ts_ms:
            if held == record:
                return state
            raise Refused("CONFLICT", f"another record of {record.symbol} holds from {record.ts_ms}")
    if state.instruments and record.ts_ms < state.instruments[0].ts_ms <= state.done_ms:
        raise Refused("LATE", f"a record of {state.instruments[0].ts_ms} is in force, this one is of {record.ts_ms}")
    return replace(state, instruments=tuple(sorted((*state.instruments, record), key=lambda r: r.ts_ms)))


def _in_force(instruments: tuple[Instrument, ...], done_ms: int) -> tuple[Instrument, ...]:
    """Records that still matter: the newest that holds at the last candle, and later ones."""
    while len(instruments) > 1 and instruments[1].ts_ms <= done_ms:
        instruments = instruments[1:]
    return instruments


def _policy(state: PaperState, record: PolicyRecord) -> PaperState:
    """What a version says of the versions before it: that they are retired or undone, that a command is answered."""
    name, version = record.policy_id, record.version
    if record.command_id is not None:
        state = replace(state, commanded=answered(state.commanded, record.command_id, name, version,
                                                  record.restored_version))
    known = next((r.version for r in state.retired if r.policy_id == name), 0)
    if record.status != "RETIRED" or version <= known:
        return state
    others = tuple(r for r in state.retired if r.policy_id != name)
    return replace(state, retired=(*others, Retired(policy_id=name, version=version)))


def _barred(state: PaperState, decision: Decision) -> str | None:
    """Why the policy that chose may not be executed. A forced action is the fallback of a retired policy: it may."""
    if decision.forced or not (state.retired or state.commanded is not NOTHING):
        return None
    version = decision.policy_version or 0
    if any(r.policy_id == decision.policy_id and version <= r.version for r in state.retired):
        return RETIRED
    return barred(state.commanded, decision.policy_id, version)
