"""A policy over event time: outcomes, edge, greedy flips, how sure it is in each regime; numbers, text, picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from schemas.events import PolicyRecord
from streams.policies.difference import difference
from streams.policies.ledger import Version

BARS = "▁▂▃▄▅▆▇█"
GAP = " "


@dataclass(frozen=True)
class Point:
    """A version.

    Attributes:
        ts_ms: event time from which it is valid.
        edge_mean_r, edge_lower_r: mean of all outcomes and its anytime lower bound, R; None where not evaluated.
        flips: cells whose greedy action is another one than in the version before.
        greedy_p: by regime, probability of the greedy action, cells weighed by their outcomes; a regime without
            outcomes is left out.
        place: of its record.
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


def course(versions: Sequence[Version]) -> list[Point]:
    """A point a version, ascending."""
    ordered = sorted(versions, key=lambda v: v.policy.version)
    flips = [0, *(len(difference(a.policy, b.policy).flips) for a, b in pairwise(ordered))]
    return [_point(v, n) for v, n in zip(ordered, flips, strict=True)]


def _point(v: Version, flips: int) -> Point:
    p = v.policy
    return Point(p.version, p.valid_from_ms, p.status, p.reason, p.outcomes,
                 None if p.edge is None else p.edge.mean_r, None if p.edge is None else p.edge.lower_r, flips,
                 _greedy_p(p), v.record.place)


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


def as_rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Plain data."""
    return [asdict(p) for p in points]


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
    rows += [(f"greedy p, {r}", last(lambda p, r=r: p.greedy_p.get(r)), "{:.2f}")  # type: ignore[misc]
             for r in regimes(points)]
    out = [(name, spark(values), _range(values, form)) for name, values, form in rows]
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


# ---------------------------------------------------------------------- as a picture
def picture(policy_id: str, points: Sequence[Point], path: Path) -> None:
    """Draw the course as a PNG: outcomes; edge with its bound; greedy flips; probability of the greedy action.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import date2num
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 9), layout="constrained")
    FigureCanvasAgg(figure)
    outcomes, edge, flips, sure = figure.subplots(4, 1, sharex=True)
    times = [date2num(_datetime64(p.ts_ms)) for p in points]
    outcomes.step(times, [p.outcomes for p in points], where="post")
    outcomes.set_ylabel("outcomes")
    outcomes.set_title(f"{policy_id}, versions {points[0].version} to {points[-1].version}")
    known = [(t, p) for t, p in zip(times, points, strict=True) if p.edge_mean_r is not None]
    edge.axhline(0, color="grey", linewidth=0.8)
    edge.step([t for t, _ in known], [p.edge_mean_r or 0.0 for _, p in known], where="post", label="mean")
    edge.step([t for t, _ in known], [p.edge_lower_r or 0.0 for _, p in known], where="post", label="lower bound")
    edge.set_ylabel("edge, R" if known else "edge, R\n(not evaluated)")
    edge.legend(loc="best")
    flips.vlines(times, 0, [p.flips for p in points])
    flips.set_ylabel("greedy flips")
    for regime in regimes(points):
        sure.step(times, [p.greedy_p.get(regime, float("nan")) for p in points], where="post", label=regime)
    sure.set_ylabel("probability of\nthe greedy action")
    sure.set_ylim(0, 1)
    sure.set_xlabel("event time, UTC")
    sure.xaxis_date()
    sure.legend(loc="best")
    figure.savefig(path, format="png", dpi=110)


def _datetime64(ts_ms: int) -> Any:
    from numpy import datetime64

    return datetime64(ts_ms, "ms")
