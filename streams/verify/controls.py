"""The controls: markets with a known answer, judged once their key is on `control.reveal`.

A control's candles must be those that its key makes. Of what each learner made of them: the gain of the newest policy
on the calibrated table, and the mean net outcome of the decisions as logged, with an interval that holds at every
number of outcomes at once. Red is only what chance makes of a healthy run less than once in 1,000 times, whenever and
however often one looks; too few outcomes are NOT PROVEN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isclose, isfinite, sqrt
from typing import NamedTuple

from agents.algorithms import market
from agents.algorithms.sequential import mean_interval, mixture_rho
from schemas.events import (
    REGIME_SYMBOLS,
    STRATEGY_SYMBOLS,
    Candle,
    Control,
    ControlReveal,
    Experience,
    PolicyRecord,
)
from streams.calibrated import Table, generator, table
from streams.gains import gain_of_actions
from streams.log import Record
from streams.verify.cells import Cell, State, Verdict, cell
from streams.verify.evidence import Evidence
from streams.verify.said import said

REVEAL = "control.reveal"
NEEDED = 3_000
"""Outcomes after which the gain is judged; 400 of 400 seeds had .8 by then (docs/decisions/0062)."""
LEARNING = 1_000
"""First outcomes of the Q-learner, of which nobody is asked to have earned anything: a learner begins blind."""
GOOD_GAIN = 0.8
FALSE_RED = 0.001  # of a run, all its controls together
V_OPT = 1_500.0  # outcomes at which the limits are tightest


class Learner(NamedTuple):
    """Whose outcomes and policies are judged.

    Attributes:
        name: agent, and book.
        learning: first outcomes, of which nobody is asked to have earned anything.
        expected: outcomes by which a gain of `GOOD_GAIN` is promised.
        network: whether its policies are networks.
    """

    name: str
    learning: int
    expected: int
    network: bool


LEARNERS = (Learner("q_learning", LEARNING, NEEDED, False), Learner("meta_strategy", 10_000, 10_000, True))
"""The first is the verdict on a control; what the others learned there stands beside it (docs/decisions/0140)."""


@dataclass
class Learned:
    """What the log holds of a learner on a control.

    Attributes:
        rewards: net results of learnable outcomes, R, in order of the log.
        outcomes: those that a network saw the states of.
        policy: the newest version, with its record.
    """

    rewards: list[float] = field(default_factory=list)
    outcomes: list[Experience] = field(default_factory=list)
    policy: tuple[Record, PolicyRecord] | None = None


@dataclass
class Seen:
    """What the log holds of a control.

    Attributes:
        candles: open, high, low and close, by opening time.
        by: of each learner.
    """

    candles: dict[int, tuple[float, float, float, float]] = field(default_factory=dict)
    by: dict[str, Learned] = field(default_factory=lambda: {w.name: Learned() for w in LEARNERS})


def judge_controls(evidence: Evidence) -> tuple[Verdict, ...]:
    """Every control whose key is on the log; of a run that was revealed twice the last key."""
    keys: dict[str, tuple[Record, ControlReveal]] = {}
    for record, event in evidence.stream(REVEAL):
        if isinstance(event, ControlReveal):
            keys[event.run_id] = (record, event)
    if not keys:
        return ()
    seen = _look(evidence, {c.symbol for _, key in keys.values() for c in key.controls})
    alpha = FALSE_RED / (sum(len(key.controls) for _, key in keys.values()) * len(LEARNERS))
    return tuple(_verdict(evidence, record, key, control, seen[control.symbol], alpha)
                 for record, key in keys.values() for control in key.controls)


def _verdict(evidence: Evidence, record: Record, key: ControlReveal, control: Control, seen: Seen,
             alpha: float) -> Verdict:
    first, *others = LEARNERS
    spoilt = _spoilt(evidence, record, key, control, seen)
    if spoilt is not None:
        return Verdict(control.symbol, control.kind, spoilt.showing([record]), learner=first.name)
    beside = {w.name: _judge(evidence, record, control, w, seen.by[w.name], alpha).showing([record]) for w in others
              if w.name in evidence.roster or seen.by[w.name].rewards or seen.by[w.name].policy is not None}
    return Verdict(control.symbol, control.kind,
                   _judge(evidence, record, control, first, seen.by[first.name], alpha).showing([record]), beside,
                   first.name)


def _look(evidence: Evidence, symbols: set[str]) -> dict[str, Seen]:
    """Read once what is needed; records are told apart by their keys, before anything is decoded."""
    seen = {symbol: Seen() for symbol in symbols}
    keys = {symbol.encode() for symbol in symbols}
    for event in _of(evidence, "market.candles", keys):
        if isinstance(event, Candle):
            seen[event.symbol].candles[event.open_time_ms] = (event.open, event.high, event.low, event.close)
    networks = {w.name: w.network for w in LEARNERS}
    for _, event in evidence.events("learning.experience"):
        if isinstance(event, Experience) and event.symbol in symbols and event.learnable and event.book_id in networks:
            learned = seen[event.symbol].by[event.book_id]
            learned.rewards.append(event.reward_r)
            if networks[event.book_id]:
                learned.outcomes.append(event)
    for record, event in evidence.events("policy.ledger"):
        if isinstance(event, PolicyRecord) and event.scope in symbols and event.agent in networks \
                and (event.network if networks[event.agent] else event.tabular) is not None:
            learned = seen[event.scope].by[event.agent]
            if learned.policy is None or event.version > learned.policy[1].version:
                learned.policy = (record, event)
    return seen


def _of(evidence: Evidence, topic: str, keys: set[bytes]) -> Iterable[object]:
    for record in evidence.records(topic):
        if record.key in keys:
            yield evidence.decoded(record)


def _spoilt(evidence: Evidence, record: Record, key: ControlReveal, control: Control, seen: Seen) -> Cell | None:
    """The answer where its candles are not known to be those of its key; None where they are."""
    if key.generator != generator():
        return cell("NOT PROVEN", f"its candles were made by another version of the generator "
                                  f"({key.generator[:12]}): verify with that one", record, evidence.now_ms)
    wrong = _other_candles(control, seen.candles)
    return None if wrong is None else cell("FAIL", wrong, record, evidence.now_ms)


def _judge(evidence: Evidence, record: Record, control: Control, who: Learner, learned: Learned, alpha: float) -> Cell:
    n = len(learned.rewards)
    mean = sum(learned.rewards) / n if n else 0.0
    low, _ = limits(learned.rewards, alpha)
    _, high = limits(learned.rewards[who.learning:], alpha)
    figures = {"outcomes": n, "needed": NEEDED, "mean_r": mean} | {
        name: x for name, x in (("low_r", low), ("learned_high_r", high)) if isfinite(x)}
    if learned.policy is None or n < 2:
        return cell("NOT PROVEN", f"{n}/{NEEDED} outcomes, and no policy", record, evidence.now_ms, **figures)
    claims = learned.policy[1].edge_claim is True
    told = f"{n} outcomes of {mean:+.3f} R in the mean; its policy claims {'an edge' if claims else 'no edge'}"
    if control.kind == "FAIR":
        state, why, more = _fair(claims, n, low)
    else:
        state, why, more = _planted(control, who, learned, n, high)
    return cell(state, f"{why}; {told}", learned.policy[0], evidence.now_ms, **figures, claim=float(claims), **more)


def limits(rewards: Sequence[float], alpha: float) -> tuple[float, float]:
    """Limits of the mean that hold at every number of outcomes; each is ever wrong with probability alpha at most."""
    n = len(rewards)
    if n < 2:
        return -inf, inf
    mean = sum(rewards) / n
    sd = sqrt(sum((r - mean) ** 2 for r in rewards) / n)
    return mean_interval(n, mean, sd, mixture_rho(V_OPT, 2 * alpha), 2 * alpha)


Judged = tuple[State, str, dict[str, float]]


def _planted(control: Control, who: Learner, learned: Learned, n: int, high: float) -> Judged:
    """Something is there to be learned: the gain of what was learned, and whether it earned more than blind choice."""
    found = _gain(table(control.kind.lower()), learned)
    if found is None:
        return "NOT PROVEN", f"{n} outcomes, of none of which the policy can say anything", {}
    gain, blind, best = found
    half = (blind + best) / 2
    figures = {"gain": gain, "blind_r": blind, "oracle_r": best, "expected": who.expected}
    if high < half:
        return "FAIL", f"after {who.learning} outcomes it still earns less than half way from blind choice " \
                       f"({blind:+.3f} R) to the best ({best:+.3f} R): {high:+.3f} R at most", figures
    if n >= NEEDED and gain >= GOOD_GAIN:
        return "PASS", f"it learned the {'planted' if control.kind == 'PLANTED' else 'reversed'} map: gain " \
                       f"{gain:.2f}", figures
    if n >= who.expected:
        return "NOT PROVEN", f"gain {gain:.2f}, where {GOOD_GAIN} is expected by now", figures
    if who.expected > NEEDED:
        return "NOT PROVEN", f"{n} of {who.expected} outcomes, gain so far {gain:.2f}", figures
    return "NOT PROVEN", f"gain {gain:.2f} after {n}/{NEEDED} outcomes", figures


def _gain(made: Table, learned: Learned) -> tuple[float, float, float] | None:
    """Gain of the newest policy, value of blind choice and of the oracle, R; None where it says nothing.

    A table is a map from cells to actions. What a network does is seen in the states that it learned from: it says of
    each what it now holds best, and the calibrated mean of the state's cell, not its outcome, is what that is worth.
    """
    if learned.policy is None:
        return None
    policy = learned.policy[1]
    if policy.tabular is not None:
        edges = policy.tabular.volatility_edges
        return made.gain_of_policy(policy), made.uniform(), made.value_of_map(edges, made.oracle(edges))
    answers = [(e, said(policy, e)) for e in learned.outcomes]
    found = gain_of_actions(made, [(REGIME_SYMBOLS.index(e.regime), e.volatility, STRATEGY_SYMBOLS.index(a.greedy[0]))
                                   for e, a in answers if a is not None and a.greedy[0] in STRATEGY_SYMBOLS])
    return None if found is None else (found.gain, found.blind, found.oracle)


def _fair(claims: bool, n: int, low: float) -> Judged:
    """Nothing is there to be learned: whoever earns on it saw the future, or invented the result."""
    if low > 0:
        return "FAIL", f"it earns {low:+.3f} R at least on a fair walk after costs: somebody saw the future, or the " \
                       f"results are invented", {}
    if n < NEEDED:
        return "NOT PROVEN", f"{n}/{NEEDED} outcomes on a fair walk", {}
    if claims:
        return "NOT PROVEN", "it claims an edge where there is none, which chance makes of 1 in 100 runs", {}
    return "PASS", "nothing was found in a fair walk", {}


def _same(a: float, b: float) -> bool:
    """Another machine's exponential function may round a last digit differently."""
    return isclose(a, b, rel_tol=1e-9)


def _other_candles(control: Control, published: Mapping[int, tuple[float, float, float, float]]) -> str | None:
    """What of a control's candles is not what its key makes; None where all is."""
    made = market.generate(control.market_seed, control.bars, market.MARKETS[control.kind.lower()])
    rows = list(zip(made.open.tolist(), made.high.tolist(), made.low.tolist(), made.close.tolist(), strict=True))
    if len(published) < control.published:
        return f"{len(published)} of its candles are on the log, and the key says {control.published}"
    for open_ms, prices in published.items():
        i, off = divmod(open_ms - control.first_open_ms, control.interval_ms)
        if off or not 0 <= i < control.published or not all(map(_same, rows[i], prices)):
            return f"its candle of {open_ms} is not what its key makes"
    return None
