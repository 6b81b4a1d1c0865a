"""The controls: markets with a known answer, judged once their key is on `control.reveal`.

A control's candles must be those that its key makes. Of what was learned on them: the gain of the newest policy on the
calibrated table, and the mean net outcome of the decisions as logged, with an interval that holds at every number of
outcomes at once. Red is only what chance makes of a healthy run less than once in 1,000 times, whenever and however
often one looks; too few outcomes are NOT PROVEN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isclose, isfinite, sqrt

from agents.algorithms import market
from agents.algorithms.sequential import mean_interval, mixture_rho
from schemas.events import Candle, Control, ControlReveal, Experience, PolicyRecord
from streams.calibrated import generator, table
from streams.log import Record
from streams.verify.cells import Cell, State, Verdict, cell
from streams.verify.evidence import Evidence

REVEAL = "control.reveal"
LEARNER = "q_learning"
"""Whose outcomes and policies are judged: the calibrated table values maps from cells to actions."""
NEEDED = 3_000
"""Outcomes after which the gain is judged; 400 of 400 seeds had .8 by then (docs/decisions/0062)."""
LEARNING = 1_000
"""First outcomes, of which nobody is asked to have earned anything: a learner begins blind."""
GOOD_GAIN = 0.8
FALSE_RED = 0.001  # of a run, all its controls together
V_OPT = 1_500.0  # outcomes at which the limits are tightest


@dataclass
class Seen:
    """What the log holds of a control.

    Attributes:
        candles: open, high, low and close, by opening time.
        rewards: net results of learnable outcomes, R, in order of the log.
        policy: the newest version, with its record.
    """

    candles: dict[int, tuple[float, float, float, float]] = field(default_factory=dict)
    rewards: list[float] = field(default_factory=list)
    policy: tuple[Record, PolicyRecord] | None = None


def judge_controls(evidence: Evidence) -> tuple[Verdict, ...]:
    """Every control whose key is on the log; of a run that was revealed twice the last key."""
    keys: dict[str, tuple[Record, ControlReveal]] = {}
    for record, event in evidence.stream(REVEAL):
        if isinstance(event, ControlReveal):
            keys[event.run_id] = (record, event)
    if not keys:
        return ()
    seen = _look(evidence, {c.symbol for _, key in keys.values() for c in key.controls})
    alpha = FALSE_RED / sum(len(key.controls) for _, key in keys.values())
    return tuple(
        Verdict(control.symbol, control.kind,
                _judge(evidence, record, key, control, seen[control.symbol], alpha).showing([record]))
        for record, key in keys.values() for control in key.controls
    )


def _look(evidence: Evidence, symbols: set[str]) -> dict[str, Seen]:
    """Read once what is needed; records are told apart by their keys, before anything is decoded."""
    seen = {symbol: Seen() for symbol in symbols}
    keys = {symbol.encode() for symbol in symbols}
    for event in _of(evidence, "market.candles", keys):
        if isinstance(event, Candle):
            seen[event.symbol].candles[event.open_time_ms] = (event.open, event.high, event.low, event.close)
    for _, event in evidence.events("learning.experience"):
        if isinstance(event, Experience) and event.symbol in symbols and event.learnable \
                and event.book_id == LEARNER:
            seen[event.symbol].rewards.append(event.reward_r)
    for record, event in evidence.events("policy.ledger"):
        if isinstance(event, PolicyRecord) and event.scope in symbols and event.agent == LEARNER \
                and event.tabular is not None:
            held = seen[event.scope].policy
            if held is None or event.version > held[1].version:
                seen[event.scope].policy = (record, event)
    return seen


def _of(evidence: Evidence, topic: str, keys: set[bytes]) -> Iterable[object]:
    for record in evidence.records(topic):
        if record.key in keys:
            yield evidence.decoded(record)


def _judge(evidence: Evidence, record: Record, key: ControlReveal, control: Control, seen: Seen, alpha: float) -> Cell:
    if key.generator != generator():
        return cell("NOT PROVEN", f"its candles were made by another version of the generator "
                                  f"({key.generator[:12]}): verify with that one", record, evidence.now_ms)
    wrong = _other_candles(control, seen.candles)
    if wrong is not None:
        return cell("FAIL", wrong, record, evidence.now_ms)
    n = len(seen.rewards)
    mean = sum(seen.rewards) / n if n else 0.0
    low, _ = limits(seen.rewards, alpha)
    _, high = limits(seen.rewards[LEARNING:], alpha)
    figures = {"outcomes": n, "needed": NEEDED, "mean_r": mean} | {
        name: x for name, x in (("low_r", low), ("learned_high_r", high)) if isfinite(x)}
    if seen.policy is None or n < 2:
        return cell("NOT PROVEN", f"{n}/{NEEDED} outcomes, and no policy", record, evidence.now_ms, **figures)
    claims = seen.policy[1].edge_claim is True
    said = f"{n} outcomes of {mean:+.3f} R in the mean; its policy claims {'an edge' if claims else 'no edge'}"
    judged = _fair if control.kind == "FAIR" else _planted
    state, why, more = judged(control, seen.policy[1], n, low, high)
    return cell(state, f"{why}; {said}", seen.policy[0], evidence.now_ms, **figures, claim=float(claims), **more)


def limits(rewards: Sequence[float], alpha: float) -> tuple[float, float]:
    """Limits of the mean that hold at every number of outcomes; each is ever wrong with probability alpha at most."""
    n = len(rewards)
    if n < 2:
        return -inf, inf
    mean = sum(rewards) / n
    sd = sqrt(sum((r - mean) ** 2 for r in rewards) / n)
    return mean_interval(n, mean, sd, mixture_rho(V_OPT, 2 * alpha), 2 * alpha)


Judged = tuple[State, str, dict[str, float]]


def _planted(control: Control, policy: PolicyRecord, n: int, low: float, high: float) -> Judged:
    """Something is there to be learned: the gain of what was learned, and whether it earned more than blind choice."""
    made = table(control.kind.lower())
    gain = made.gain_of_policy(policy)
    blind = made.uniform()
    best = made.value_of_map(policy.tabular.volatility_edges, made.oracle(policy.tabular.volatility_edges)) \
        if policy.tabular is not None else blind
    half = (blind + best) / 2
    figures = {"gain": gain, "blind_r": blind, "oracle_r": best}
    if high < half:
        return "FAIL", f"after {LEARNING} outcomes it still earns less than half way from blind choice " \
                       f"({blind:+.3f} R) to the best ({best:+.3f} R): {high:+.3f} R at most", figures
    if n < NEEDED:
        return "NOT PROVEN", f"gain {gain:.2f} after {n}/{NEEDED} outcomes", figures
    if gain < GOOD_GAIN:
        return "NOT PROVEN", f"gain {gain:.2f}, where {GOOD_GAIN} is expected by now", figures
    return "PASS", f"it learned the {'planted' if control.kind == 'PLANTED' else 'reversed'} map: gain {gain:.2f}", \
        figures


def _fair(control: Control, policy: PolicyRecord, n: int, low: float, high: float) -> Judged:
    """Nothing is there to be learned: whoever earns on it saw the future, or invented the result."""
    if low > 0:
        return "FAIL", f"it earns {low:+.3f} R at least on a fair walk after costs: somebody saw the future, or the " \
                       f"results are invented", {}
    if n < NEEDED:
        return "NOT PROVEN", f"{n}/{NEEDED} outcomes on a fair walk", {}
    if policy.edge_claim is True:
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
