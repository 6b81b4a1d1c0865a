"""The agent: what joins, what ends, what expires.

Topics are read side by side, one perhaps far ahead of another, and the executor may be far behind the market. So what
waits for a record times out by the topic on which that record would have come, and by nothing else: a decision by the
outcomes of later decisions of its book, one whose trade is promised by the trades of such decisions, a trade or outcome
without its decision by the symbol's decisions. What is due at a moment fires before the event of that moment is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from msgspec.structs import replace

from agents.contract import Agent, Config, Output, Refused
from agents.experience.memory import (
    Ended,
    ExperienceConfig,
    ExperienceState,
    Open,
    SecondState,
    Seen,
    WaitingOutcome,
    WaitingTrade,
    digest_of,
    find_ended,
    find_seen,
    forget,
    from_second,
    next_deadline,
)
from agents.experience.records import (
    expired_experience,
    inconsistency,
    mismatch,
    orphan_of_outcome,
    orphan_of_trade,
    outcome_experience,
    traded_experience,
)
from schemas.events import Decision, DecisionOutcome, Event, OrphanReason, Tick, TradeClosed

Step = tuple[ExperienceState, tuple[Output, ...]]
Waiting = Open | WaitingTrade | WaitingOutcome
LATE_OUTCOME = "outcome:"
PAPER = "paper:"


class ExperienceAgent(Agent[ExperienceState]):
    """One experience a decision. Config: `ExperienceConfig`."""

    name: ClassVar[str] = "experience"
    state_type: type[ExperienceState] = ExperienceState
    config_type: ClassVar[type[Config]] = ExperienceConfig
    format_version: ClassVar[int] = 3  # 2: own_clock, 3: without; decisions with their state
    former = {2: (SecondState, from_second)}  # noqa: RUF012
    config: ExperienceConfig

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self._grace_bars = self.config.horizon_bars + self.config.grace_bars

    def new(self, scope: str) -> ExperienceState:
        """Nothing waits, nothing ended."""
        return ExperienceState()

    def step(self, state: ExperienceState, event: Event) -> Step:
        """Fold one event."""
        if isinstance(event, Decision):
            state, out = _expire(state, event.ts_ms, lambda item: not isinstance(item, Open))
            return self._settled(state, out, self._decision(state, event), state.now_ms)
        if isinstance(event, DecisionOutcome):
            passed_ms = _decided_ms(state, event.decision_id)
            state, out = _expire(state, passed_ms, lambda item: _awaits_outcome(state, item, event))
            return self._settled(state, out, self._outcome(state, event), event.ts_ms)
        if isinstance(event, TradeClosed):
            passed_ms = _decided_ms(state, event.decision_id)
            state, out = _expire(state, passed_ms, lambda item: _awaits_trade(state, item, event))
            now_ms = event.ts_ms if _tells_trades_only(event) else state.now_ms
            return self._settled(state, out, self._trade(state, event), now_ms)
        if isinstance(event, Tick):  # old inboxes hold them
            return state, ()
        raise Refused("UNEXPECTED", f"experience does not take {event.SCHEMA_NAME}")

    def _settled(self, before: ExperienceState, out: tuple[Output, ...], step: Step, ts_ms: int) -> Step:
        """Bring event time, the earliest deadline and the memory up to date, where anything changed."""
        state, outputs = step
        if state is before:
            return state, (*out, *outputs)
        state = replace(
            state, now_ms=max(state.now_ms, ts_ms),
            deadline_ms=next_deadline(state.open, state.trades, state.outcomes),
        )
        return forget(self.config, state), (*out, *outputs)

    # ------------------------------------------------------------------ what comes in
    def _decision(self, state: ExperienceState, decision: Decision) -> Step:
        name = decision.decision_id
        for held in state.open:
            if held.decision.decision_id == name:
                if held.decision == decision:
                    return state, ()
                raise Refused("CONFLICT", f"decision {name} came before with another content")
        digest = digest_of(decision)
        ended = find_ended(state, name)
        if ended is not None:
            if ended.decision_digest == digest:
                return state, ()
            raise Refused("CONFLICT", f"decision {name} came before with another content")
        if decision.ts_ms <= state.forgotten_ms:
            raise Refused("LATE", f"decision {name} is not after {state.forgotten_ms}, up to which ended decisions may "
                                  f"have been forgotten")
        if len(state.open) >= self.config.open_size:
            raise Refused("TOO_MANY_OPEN", f"{len(state.open)} decisions of {decision.symbol} wait for their end; does "
                                           f"an executor of the book {decision.book_id} run?")
        held = Open(decision=decision, deadline_ms=decision.ts_ms + self._grace_bars * decision.interval_ms)
        state = replace(state, open=(*state.open, held), interval_ms=decision.interval_ms)
        return self._meet(state, held)

    def _meet(self, state: ExperienceState, held: Open) -> Step:
        """Join a new decision with what waited for it."""
        out: list[Output] = []
        name = held.decision.decision_id
        for trade in [w.trade for w in state.trades if w.trade.decision_id == name]:
            state, more = self._join(state, trade)
            out += more
        for outcome in [w.outcome for w in state.outcomes if w.outcome.decision_id == name]:
            state = replace(state, outcomes=tuple(w for w in state.outcomes if w.outcome is not outcome))
            if outcome.book_id != held.decision.book_id:
                out.append(orphan_of_outcome(outcome, "UNKNOWN_DECISION", outcome.ts_ms))
            elif _find_open(state, name) is held:
                state, more = self._apply(state, held, outcome)
                out += more
        return state, tuple(out)

    def _trade(self, state: ExperienceState, trade: TradeClosed) -> Step:
        problem = inconsistency(trade)
        if problem is not None:
            raise Refused("INCONSISTENT", f"trade {trade.trade_id}: {problem}")
        for waiting in state.trades:
            if waiting.trade.trade_id == trade.trade_id:
                if waiting.trade == trade:
                    return state, ()
                raise Refused("CONFLICT", f"trade {trade.trade_id} came before with other numbers")
        seen = find_seen(state, trade.trade_id)
        if seen is not None:
            if seen.digest == digest_of(trade):
                return state, ()
            raise Refused("CONFLICT", f"trade {trade.trade_id} came before with other numbers")
        if trade.decision_id is None:
            return _orphan_trade(state, trade, "NO_DECISION_ID", trade.ts_ms)
        held = _find_open(state, trade.decision_id)
        if held is not None:
            problem = mismatch(held.decision, trade)
            if problem is not None:
                raise Refused("INCONSISTENT", f"trade {trade.trade_id}: {problem}")
        if held is not None or find_ended(state, trade.decision_id) is not None:
            return self._join(state, trade)
        self._hold_back(len(state.trades))
        waiting = WaitingTrade(trade=trade, deadline_ms=self._deadline(state, trade.ts_ms))
        return replace(state, trades=(*state.trades, waiting)), ()

    def _join(self, state: ExperienceState, trade: TradeClosed) -> Step:
        """End a trade's decision by it, or let the trade go: LATE, or UNKNOWN_DECISION where it is of another one."""
        state = replace(state, trades=tuple(w for w in state.trades if w.trade is not trade))
        assert trade.decision_id is not None
        held = _find_open(state, trade.decision_id)
        if held is None:
            return _orphan_trade(state, trade, "LATE", trade.ts_ms)
        if mismatch(held.decision, trade) is not None:
            return _orphan_trade(state, trade, "UNKNOWN_DECISION", trade.ts_ms)
        digest = digest_of(trade)
        state = _end(_see(state, trade.trade_id, trade.ts_ms, digest), held, trade.ts_ms, digest, trade.trade_id)
        return state, (traded_experience(held.decision, trade),)

    def _outcome(self, state: ExperienceState, outcome: DecisionOutcome) -> Step:
        name = outcome.decision_id
        ended = find_ended(state, name)
        if ended is not None:
            return _late_outcome(state, outcome, ended)
        for waiting in state.outcomes:
            if waiting.outcome.decision_id == name:
                if waiting.outcome == outcome:
                    return state, ()
                raise Refused("CONFLICT", f"another outcome of {name} came before")
        held = _find_open(state, name)
        if held is not None and held.decision.book_id != outcome.book_id:
            raise Refused("INCONSISTENT", f"{name} is of book {held.decision.book_id}, its outcome of "
                                          f"{outcome.book_id}")
        if held is not None:
            return self._apply(state, held, outcome)
        self._hold_back(len(state.outcomes))
        waiting = WaitingOutcome(outcome=outcome, deadline_ms=self._deadline(state, outcome.ts_ms))
        return replace(state, outcomes=(*state.outcomes, waiting)), ()

    def _apply(self, state: ExperienceState, held: Open, outcome: DecisionOutcome) -> Step:
        """End an open decision by its outcome; one that promises a trade waits for it."""
        if outcome.status == "TRADED":
            waiting = WaitingOutcome(outcome=outcome, deadline_ms=held.deadline_ms)
            return replace(state, outcomes=(*state.outcomes, waiting)), ()
        state = _end(state, held, outcome.ts_ms, digest_of(outcome), "")
        return state, (outcome_experience(held.decision, outcome),)

    def _hold_back(self, waiting: int) -> None:
        """Refuse what would wait for its decision where too many wait already; a redrive brings it back."""
        if waiting >= self.config.waiting_size:
            raise Refused("TOO_MANY_WAITING", f"{waiting} wait for their decisions already")

    def _deadline(self, state: ExperienceState, ts_ms: int) -> int:
        return ts_ms + self._grace_bars * (state.interval_ms or self.config.default_interval_ms)


def _promised(state: ExperienceState, held: Open) -> bool:
    """Whether an outcome has said that a trade will come."""
    return any(w.outcome.decision_id == held.decision.decision_id for w in state.outcomes)


def _decided_ms(state: ExperienceState, decision_id: str | None) -> int:
    """When a known decision was taken; -1 for one that is not known.

    An executor works decisions off in their order, so it is this that tells how far it has come. What happened to them
    may all have the same event time, as when it finds a thousand decisions that come too late.
    """
    if decision_id is None:
        return -1
    held = _find_open(state, decision_id)
    ended = None if held is not None else find_ended(state, decision_id)
    return held.decision.ts_ms if held is not None else -1 if ended is None else ended.decided_ms


def _tells_trades_only(trade: TradeClosed) -> bool:
    """Whether its executor may tell its trades and nothing else; paper execution tells every outcome."""
    return not trade.execution.startswith(PAPER)


def _awaits_outcome(state: ExperienceState, item: Waiting, passing: DecisionOutcome) -> bool:
    """Whether an outcome that passes on its topic shows that another one will not come."""
    return (isinstance(item, Open) and item.decision.book_id == passing.book_id
            and item.decision.decision_id != passing.decision_id and not _promised(state, item))


def _awaits_trade(state: ExperienceState, item: Waiting, passing: TradeClosed) -> bool:
    """Whether a trade that passes on its topic shows that another one will not come."""
    return (isinstance(item, Open) and item.decision.book_id == passing.book_id
            and item.decision.decision_id != passing.decision_id
            and (_tells_trades_only(passing) or _promised(state, item)))


def _find_open(state: ExperienceState, decision_id: str) -> Open | None:
    return next((o for o in state.open if o.decision.decision_id == decision_id), None)


def _end(state: ExperienceState, held: Open, ended_ms: int, digest: bytes, trade_id: str) -> ExperienceState:
    """A state in which a decision has ended, with nothing left of it that waits, except further trades."""
    name = held.decision.decision_id
    ended = Ended(decided_ms=held.decision.ts_ms, ended_ms=ended_ms, decision_digest=digest_of(held.decision),
                  end_digest=digest, trade_id=trade_id)
    return replace(
        state, open=tuple(o for o in state.open if o is not held),
        outcomes=tuple(w for w in state.outcomes if w.outcome.decision_id != name),
        ended_ids=(*state.ended_ids, name), ended=(*state.ended, ended),
    )


def _see(state: ExperienceState, seen_id: str, ts_ms: int, digest: bytes) -> ExperienceState:
    return replace(state, seen_ids=(*state.seen_ids, seen_id), seen=(*state.seen, Seen(ts_ms=ts_ms, digest=digest)))


def _orphan_trade(state: ExperienceState, trade: TradeClosed, reason: OrphanReason, ts_ms: int) -> Step:
    state = _see(state, trade.trade_id, trade.ts_ms, digest_of(trade))
    return state, (orphan_of_trade(trade, reason, ts_ms),)


def _late_outcome(state: ExperienceState, outcome: DecisionOutcome, ended: Ended) -> Step:
    """An outcome after the end: the repeat of what ended it, what its trade already told, or an orphan."""
    digest = digest_of(outcome)
    told = outcome.status == "TRADED" and ended.trade_id != "" and outcome.trade_id in (None, ended.trade_id)
    if told or digest == ended.end_digest:
        return state, ()
    seen_id = LATE_OUTCOME + outcome.decision_id
    seen = find_seen(state, seen_id)
    if seen is not None and seen.digest == digest:
        return state, ()
    return _see(state, seen_id, outcome.ts_ms, digest), (orphan_of_outcome(outcome, "LATE", outcome.ts_ms),)


def _expire(state: ExperienceState, now_ms: int, awaits: Callable[[Waiting], bool]) -> Step:
    """End and let go what has waited past its deadline for the topic that came to `now_ms`, the earliest first.

    The event time of what is written is the deadline.
    """
    if now_ms <= state.deadline_ms:
        return state, ()
    named = {o.decision.decision_id for o in state.open}
    due: list[tuple[int, int, str, Waiting]] = [
        *((o.deadline_ms, 0, o.decision.decision_id, o) for o in state.open),
        *((t.deadline_ms, 1, t.trade.trade_id, t) for t in state.trades),
        *((w.deadline_ms, 2, w.outcome.decision_id, w) for w in state.outcomes if w.outcome.decision_id not in named),
    ]
    due = [d for d in due if d[0] < now_ms and awaits(d[3])]
    if not due:
        return state, ()
    out: list[Output] = []
    for deadline_ms, _, _, item in sorted(due, key=lambda d: d[:3]):
        if isinstance(item, Open):
            reason = "trade_missing" if _promised(state, item) else "no_outcome"
            state = _end(state, item, deadline_ms, b"", "")
            out.append(expired_experience(item.decision, reason, deadline_ms))
        elif isinstance(item, WaitingTrade):
            state = replace(state, trades=tuple(w for w in state.trades if w is not item))
            state, more = _orphan_trade(state, item.trade, "UNKNOWN_DECISION", deadline_ms)
            out += more
        else:
            state = replace(state, outcomes=tuple(w for w in state.outcomes if w is not item))
            if item.outcome.status != "TRADED" or item.outcome.ts_ms > state.forgotten_end_ms:
                out.append(orphan_of_outcome(item.outcome, "UNKNOWN_DECISION", deadline_ms))
            # else its trade ended the decision so long ago that both are forgotten
    return replace(state, deadline_ms=next_deadline(state.open, state.trades, state.outcomes)), tuple(out)
