"""Which figures of a policy are drawn together, over event time: for the picture, and for the page of `quantum ui`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streams.policies.course import Point, trained

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class Panel:
    """A set of axes.

    Attributes:
        title: what is drawn, with its unit.
        series: a value for each point, by name; None where it is not known. One alone may be named "".
        bars: whether values stand for themselves; otherwise they hold until the next one.
        zero: whether a line marks 0.
        whole: whether the axis goes from 0 to 1.
    """

    title: str
    series: dict[str, Values]
    bars: bool = False
    zero: bool = False
    whole: bool = False


def panels(points: Sequence[Point]) -> list[Panel]:
    """Outcomes, edge with its bound, gain, greedy flips, what updates told, the policy in each regime."""
    found = [Panel("outcomes", {"": tuple(float(p.outcomes) for p in points)}),
             Panel("edge, R", {"mean": tuple(p.edge_mean_r for p in points),
                               "lower bound": tuple(p.edge_lower_r for p in points)}, zero=True)]
    if any(p.gain is not None for p in points):
        found.append(Panel("gain", {"": tuple(p.gain for p in points)}, zero=True))
    found.append(Panel("greedy flips", {"": tuple(float(p.flips) for p in points)}, bars=True))
    found += [Panel(name, {"": tuple(p.training.get(name) for p in points)}) for name in trained(points)]
    for regime in dict.fromkeys(r for p in points for r in p.policy):
        actions = dict.fromkeys(a for p in points for a in p.policy.get(regime, {}))
        found.append(Panel(f"p in {regime}", {a: tuple(p.policy.get(regime, {}).get(a) for p in points)
                                              for a in actions}, whole=True))
    return found
