"""What became of a trade or decision, from the records that name it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from agents.experience.memory import ExperienceConfig
from schemas.events import Decision, DecisionOutcome, Experience, Orphan, TradeClosed
from streams.inspecting.deadletters import Letter
from streams.inspecting.shown import iso
from streams.story.finding import Hit
from streams.story.gathering import DECISIONS, TRADES, Named, mentions

Word = Literal["accepted", "duplicate", "conflict", "unattributed", "waiting", "dead-lettered"]
MEANING: dict[Word, str] = {
    "accepted": "there is an experience of it",
    "duplicate": "identical copies came too; they change nothing",
    "conflict": "copies with other content came too; they are refused",
    "unattributed": "nobody can learn from it: learning.orphan says why",
    "waiting": "there is no experience of it yet; the text says what it waits for",
    "dead-lettered": "an agent or the decoder refused it; the dead letter says why",
}
JOINER = "experience"  # the agent that takes trades and decisions, once
_DEFAULT = ExperienceConfig()


class Verdict(NamedTuple):
    """One thing that is so, and the places of the records that show it."""

    word: Word
    text: str
    places: tuple[str, ...]


def judge(named: Named) -> list[Verdict]:
    """What became of what was asked for, the main thing first."""
    topic = TRADES if named.kind == "trade" else DECISIONS
    letters = named.letters_of(topic)
    if named.kind == "trade":
        letters = [(hit, letter) for hit, letter in letters if _of_trade(hit, named.asked)]
    else:
        letters += named.letters_of("decision.outcome")
    taken = _taken(named, named.trades if named.kind == "trade" else named.decisions)
    first = _accepted_copy(named, taken)
    ended, orphaned = _ended(named), _orphaned(named)
    out = [*ended, *orphaned, *_dead(letters)]
    settled = ended or (orphaned and (named.kind == "trade" or not taken))  # a stray trade does not end a decision
    if not settled and (taken or not letters):
        out.insert(0, _waiting(named, taken))
    if first is not None:
        same = [c for c in taken if c is not first and c.event == first.event]
        other = [c for c in taken if c.event != first.event]
        if same:
            out.append(Verdict("duplicate", f"{len(same)} identical cop{'y' if len(same) == 1 else 'ies'} of "
                                            f"{first.place}: counted once", _places(same)))
        if other:
            out.append(Verdict("conflict", f"other content than {first.place}; not refused yet", _places(other)))
    return out


def _of_trade(letter: Hit, trade_id: str) -> bool:
    """Whether a dead letter is of this trade, not of another one of its decision."""
    if letter.event is None:
        return mentions(letter.record.value or b"", trade_id)
    return getattr(letter.event, "trade_id", None) == trade_id


def trade_that_counts(named: Named) -> Hit | None:
    """The copy that the experience was made of; else the first that was not refused; else the first."""
    return _accepted_copy(named, _taken(named, named.trades) or named.trades)


def _taken(named: Named, copies: list[Hit]) -> list[Hit]:
    """Copies that the joiner did not refuse: who mends a trade sends it anew under its id."""
    refused = {letter.source for _, letter in named.letters if letter.by == JOINER}
    return [c for c in copies if (c.record.topic, c.record.partition, c.record.offset) not in refused]


def _accepted_copy(named: Named, copies: list[Hit]) -> Hit | None:
    made = next((h.event for h in named.experiences), None)
    if isinstance(made, Experience):
        for hit in copies:
            t = hit.event
            if isinstance(t, TradeClosed) and (t.r_multiple, t.pnl_usd, t.ts_ms) == (
                    made.reward_r, made.pnl_usd, made.ts_ms):
                return hit
    return copies[0] if copies else None


def _places(hits: list[Hit]) -> tuple[str, ...]:
    return tuple(h.place for h in hits)


def _ended(named: Named) -> list[Verdict]:
    for hit in named.experiences:
        e = hit.event
        assert isinstance(e, Experience)
        if named.kind == "decision" or e.trade_id == named.trade_id:
            why = f" ({e.reason})" if e.reason else ""
            text = f"its decision ended {e.status}{why}, reward {e.reward_r:+.4f} R"
            return [Verdict("accepted", text, (hit.place,))]
    return []


def _orphaned(named: Named) -> list[Verdict]:
    out = []
    for hit in named.orphans:
        o = hit.event
        assert isinstance(o, Orphan)
        if named.kind == "trade" and o.orphan_id != named.trade_id:
            continue
        text = {
            "NO_DECISION_ID": "the trade names no decision",
            "UNKNOWN_DECISION": f"decision {o.decision_id} did not come within the grace time, or is not this one",
            "LATE": f"decision {o.decision_id} had ended before",
        }[o.reason]
        what = "" if named.kind == "trade" else f"trade {o.trade_id}: " if o.trade_id else "an outcome: "
        out.append(Verdict("unattributed", f"{o.reason}: {what}{text}; given up at {iso(o.ts_ms)}", (hit.place,)))
    return out


def _dead(letters: list[tuple[Hit, Letter]]) -> list[Verdict]:
    out = []
    for hit, letter in letters:
        source = "" if letter.source is None else "{}-{}@{}".format(*letter.source)
        word: Word = "conflict" if letter.reason == "CONFLICT" else "dead-lettered"
        places = (hit.place, source) if source else (hit.place,)
        out.append(Verdict(word, f"{letter.reason} by {letter.by}: {letter.detail}", places))
    return sorted(out, key=lambda v: v.word != "dead-lettered")


# ---------------------------------------------------------------------- what it waits for
def _waiting(named: Named, taken: list[Hit]) -> Verdict:
    if not taken and named.unreadable:
        why = named.unreadable[0].refused
        return Verdict("waiting", f"it cannot be decoded ({why}), and no agent has come to it yet",
                       _places(named.unreadable))
    text, hits = _for_trade(named, taken) if named.kind == "trade" else _for_decision(named, taken)
    return Verdict("waiting", text, _places(hits))


def _for_trade(named: Named, taken: list[Hit]) -> tuple[str, list[Hit]]:
    if not taken:
        named_by = [*named.outcomes, *named.experiences]
        return "for the trade itself: it is named, but not on the log", named_by
    trade = taken[0].event
    assert isinstance(trade, TradeClosed)
    if trade.decision_id is None:
        return "for the agent experience to take it; it names no decision, so nobody will learn from it", taken[:1]
    if named.experiences:
        return ("for the agent experience to take it; its decision has ended without it, so it will be LATE",
                [taken[0], named.experiences[0]])
    if not named.decisions:
        until = _until("a decision of the symbol", trade.ts_ms, _DEFAULT.default_interval_ms)
        return f"for its decision {trade.decision_id}, {until}; then it is unattributed", taken[:1]
    return _for_joiner([taken[0], named.decisions[0]])


def _for_decision(named: Named, taken: list[Hit]) -> tuple[str, list[Hit]]:
    trades = [*named.trades, *named.other_trades]
    if not taken:
        return "for the decision itself: it is named, but not on the log", [*trades, *named.outcomes]
    decision = taken[0].event
    assert isinstance(decision, Decision)
    refused = named.letters_of(TRADES)
    if refused:
        return f"for its trade: one was refused ({refused[0][1].reason})", [taken[0], refused[0][0]]
    for hit in named.outcomes:
        o = hit.event
        assert isinstance(o, DecisionOutcome)
        if o.status == "TRADED" and not trades:
            until = _until("the trade of a decision of its book", decision.ts_ms, decision.interval_ms)
            return f"for its trade {o.trade_id}, which its outcome promises, {until}", [taken[0], hit]
    if trades or named.outcomes:
        return _for_joiner([taken[0], *trades[:1], *named.outcomes[:1]])
    until = _until("the outcome of a decision of its book", decision.ts_ms, decision.interval_ms)
    return f"for its trade or outcome, {until}; then it ends NOT_EXECUTED (no_outcome)", taken[:1]


def _for_joiner(hits: list[Hit]) -> tuple[str, list[Hit]]:
    return "for the agent experience: all that it needs is on the log; see 'quantum status'", hits


def _until(what: str, ts_ms: int, interval_ms: int) -> str:
    """Deadline by the agent's default configuration."""
    bars = _DEFAULT.horizon_bars + _DEFAULT.grace_bars
    return f"until {what} is there that was taken after {iso(ts_ms + bars * interval_ms)} ({bars} bars)"
