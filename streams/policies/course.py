"""A policy over event time, in numbers and text: outcomes, edge, gain, greedy flips, what it does in each regime, what
training told of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from math import isfinite
from typing import Any

from schemas.events import PolicyRecord
from streams.policies.by_regime import by_regime, most_probable
from streams.policies.difference import difference
from streams.policies.ledger import Version

BARS = "▁▂▃▄▅▆▇█"
GAP = " "
Shares = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Point:
    """A version.

    Attributes:
        ts_ms: event time from which it is valid.
        edge_mean_r, edge_lower_r: mean of all outcomes and its anytime lower bound, R; None where not evaluated.
        flips: cells whose greedy action is another one than in the version before; of a network regimes whose most
            probable action is.
        greedy_p: by regime, probability of the greedy action, cells weighed by their outcomes; a regime without
            outcomes is left out.
        place: of its record.
        training: of the update that made it, by name; see `streams.policies.updates`.
        policy: by regime, probability of each action; see `streams.policies.by_regime`.
        gain: on the calibrated table of a control; None elsewhere.
    """

    version: int
    ts_ms: int
    status: str
    reason: str
    outcomes: int
    edge_mean_r: float | None
    edge_lower_r: float | None
    flips: int
    greedy_p: dict[str, float]
    place: str
    training: dict[str, float] = field(default_factory=dict)
    policy: dict[str, dict[str, float]] = field(default_factory=dict)
    gain: float | None = None


def course(versions: Sequence[Version], training: Mapping[int, dict[str, float]] | None = None,
           gain: Mapping[int, float] | None = None) -> list[Point]:
    """A point a version, ascending.

    Args:
        training: figures of updates, by version.
        gain: by version.
    """
    ordered = sorted(versions, key=lambda v: v.policy.version)
    shares = [by_regime(v.policy) for v in ordered]
    flips = [0, *(_flips(a.policy, b.policy, p, q) for (a, b), (p, q) in zip(
        pairwise(ordered), pairwise(shares), strict=True))]
    told, gains = training or {}, gain or {}
    return [_point(v, n, told.get(v.policy.version, {}), p, gains.get(v.policy.version))
            for v, n, p in zip(ordered, flips, shares, strict=True)]


def _flips(a: PolicyRecord, b: PolicyRecord, before: Shares, after: Shares) -> int:
    if a.network is None or b.network is None:
        return len(difference(a, b).flips)
    one, two = most_probable(before), most_probable(after)
    return sum(one[regime] != two[regime] for regime in one.keys() & two.keys())


def _point(v: Version, flips: int, training: dict[str, float], shares: Shares, gain: float | None) -> Point:
    p = v.policy
    greedy_p = _greedy_p(p) if p.network is None else {regime: max(of.values()) for regime, of in shares.items()}
    return Point(p.version, p.valid_from_ms, p.status, p.reason, p.outcomes,
                 None if p.edge is None else p.edge.mean_r, None if p.edge is None else p.edge.lower_r, flips,
                 greedy_p, v.record.place, training, shares, gain)


def _greedy_p(policy: PolicyRecord) -> dict[str, float]:
    sums: dict[str, tuple[float, int]] = {}
    for c in policy.tabular.cells if policy.tabular is not None else ():
        regime, n = c.state_key.partition("|")[0], sum(c.visits)
        total, weight = sums.get(regime, (0.0, 0))
        if c.greedy in policy.actions:
            sums[regime] = total + n * c.probabilities[policy.actions.index(c.greedy)], weight + n
    return {regime: total / n for regime, (total, n) in sums.items() if n}


def regimes(points: Sequence[Point]) -> list[str]:
    """Regimes that have a probability anywhere, in the order in which they came."""
    return list(dict.fromkeys(r for p in points for r in p.greedy_p))


def trained(points: Sequence[Point]) -> list[str]:
    """Figures of training that are known anywhere, in the order in which they came."""
    return list(dict.fromkeys(name for p in points for name in p.training))


def as_rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Plain data."""
    return [asdict(p) for p in points]


def thinned(points: Sequence[Point], columns: int) -> list[Point]:
    """The last point of each of so many equal spans of event time that has one, with the flips of all of the span."""
    if len(points) <= columns:
        return list(points)
    return [replace(column[-1], flips=sum(p.flips for p in column)) for column in _columns(points, columns) if column]


# ---------------------------------------------------------------------- as text
def lines(points: Sequence[Point], width: int) -> list[tuple[str, str, str]]:
    """Name, sparkline over event time and range of each figure.

    Args:
        points: at least one.
        width: characters of a sparkline.
    """
    columns = _columns(points, width)

    def last(value: Callable[[Point], float | None]) -> list[float | None]:
        kept: list[float | None] = []
        for column in columns:
            kept.append(value(column[-1]) if column else kept[-1] if kept else None)
        return kept

    rows = [("outcomes", last(lambda p: float(p.outcomes)), "{:.0f}"),
            ("edge mean, R", last(lambda p: p.edge_mean_r), "{:+.3f}"),
            ("edge bound, R", last(lambda p: p.edge_lower_r), "{:+.3f}")]
    if any(p.gain is not None for p in points):
        rows.append(("gain", last(lambda p: p.gain), "{:+.2f}"))
    rows += [(f"greedy p, {r}", last(lambda p, r=r: p.greedy_p.get(r)), "{:.2f}")  # type: ignore[misc]
             for r in regimes(points)]
    rows += [(name, last(lambda p, n=name: p.training.get(n)), "{:+.4f}")  # type: ignore[misc]
             for name in trained(points)]
    now = {f"greedy p, {regime}": f"; {action}" for regime, action in most_probable(points[-1].policy).items()}
    out = [(name, spark(values), _range(values, form) + now.get(name, "")) for name, values, form in rows]
    flips = [float(sum(p.flips for p in column)) for column in columns]
    out.insert(3, ("greedy flips", spark(flips, low=0.0), f"{sum(p.flips for p in points)} in all"))
    return out


def _columns(points: Sequence[Point], width: int) -> list[list[Point]]:
    """Points by columns of equal event time."""
    begin, end = min(p.ts_ms for p in points), max(p.ts_ms for p in points)
    columns: list[list[Point]] = [[] for _ in range(width)]
    for p in points:
        columns[min(width - 1, (p.ts_ms - begin) * width // max(1, end - begin))].append(p)
    return columns


def spark(values: Sequence[float | None], low: float | None = None) -> str:
    """A sparkline; a gap where there is no value. One value alone is drawn in the middle.

    >>> spark([0.0, None, 1.0])
    '▁ █'
    """
    there = [v for v in values if v is not None and isfinite(v)]
    if not there:
        return GAP * len(values)
    bottom, top = min(there) if low is None else low, max(there)
    span = top - bottom

    def one(v: float | None) -> str:
        if v is None or not isfinite(v):
            return GAP
        return BARS[3 if span == 0 and low is None else 0 if span == 0 else round((v - bottom) / span * 7)]

    return "".join(one(v) for v in values)


def _range(values: Sequence[float | None], form: str) -> str:
    there = [v for v in values if v is not None]
    if not there:
        return "not evaluated"
    return f"{form.format(there[0])} -> {form.format(there[-1])}  (low {form.format(min(there))}, high " \
           f"{form.format(max(there))})"
