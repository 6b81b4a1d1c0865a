"""The course of a policy as a picture: a panel a figure, all over event time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streams.policies.course import Point
from streams.policies.panels import Panel, panels

COLUMNS = 2
Values = list[float]


def picture(policy_id: str, points: Sequence[Point], path: Path) -> None:
    """Draw outcomes, edge with its bound, gain, greedy flips, what updates told, the policy in each regime as a PNG.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import date2num
    from matplotlib.figure import Figure
    from numpy import datetime64

    drawn = panels(points)
    rows = -(-len(drawn) // COLUMNS)
    figure = Figure(figsize=(7 * COLUMNS, 2.3 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{policy_id}, versions {points[0].version} to {points[-1].version}")
    times = [float(date2num(datetime64(p.ts_ms, "ms"))) for p in points]
    axes = figure.subplots(rows, COLUMNS, sharex=True, squeeze=False).ravel(order="F").tolist()
    for axis, panel in zip(axes, drawn, strict=False):
        _draw(axis, times, panel)
        axis.xaxis_date()
        axis.tick_params(axis="x", rotation=20)
    for axis in axes[len(drawn):]:
        axis.set_visible(False)
    for column in range(COLUMNS):
        lowest = axes[min(len(drawn), (column + 1) * rows) - 1]
        lowest.set_xlabel("event time, UTC")
        lowest.tick_params(labelbottom=True)
    figure.savefig(path, format="png", dpi=110)


def _draw(axis: Any, times: Values, panel: Panel) -> None:
    """A panel of steps or bars; where nothing is known, it says so."""
    known = False
    if panel.zero:
        axis.axhline(0, color="grey", linewidth=0.8)
    for name, values in panel.series.items():
        there = [(t, v) for t, v in zip(times, values, strict=True) if v is not None]
        known = known or bool(there)
        if panel.bars:
            axis.vlines([t for t, _ in there], 0, [v for _, v in there])
        else:
            axis.step([t for t, _ in there], [v for _, v in there], where="post", label=name or None,
                      marker="." if len(there) < 40 else None)
    axis.set_ylabel((panel.title if known else f"{panel.title}\n(not evaluated)").replace(", ", ",\n"))
    if panel.whole:
        axis.set_ylim(0, 1)
    if len(panel.series) > 1:
        axis.legend(loc="best", fontsize="small")
