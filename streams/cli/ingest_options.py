"""Options, progress bars and the handling of Ctrl-C that the commands of `quantum ingest` share."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from streams.cli.options import progress_console
from streams.ingest.publish import DEFAULT_LEAD

COST_NAMES = ("fee_bps", "half_spread_bps", "slippage_bps", "days_per_year", "volume_cap")


class Number(click.ParamType):
    """A positive number, or one word that means None."""

    def __init__(self, word: str, kind: type[int] | type[float]) -> None:
        self.word, self.kind = word, kind
        self.name = f"{kind.__name__}|{word}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str | None:
        if value is None or value == self.word:
            return self.word
        try:
            number = self.kind(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {self.word!r}", param, ctx)
        if not number > 0:
            self.fail(f"{value!r} must be above 0", param, ctx)
        return number


PACE = (
    click.option("--speed", type=Number("max", float), default="max", show_default=True,
                 help="Times real time, or max: as fast as --lead allows."),
    click.option("--lead", type=Number("none", int), default=DEFAULT_LEAD, show_default=True,
                 help="With --speed max: bars ahead of the slowest agent; none: do not wait for agents."),
    click.option("--limit", type=click.IntRange(min=1), help="At most so many candles."),
)
COSTS = (
    click.option("--fee-bps", type=float, help="Fee of each fill, basis points. Files: 5."),
    click.option("--half-spread-bps", type=click.FloatRange(min=0), help="Half the spread, basis points. Files: 0.5."),
    click.option("--slippage-bps", type=click.FloatRange(min=0), help="Slippage of each fill. Files: 1."),
    click.option("--days-per-year", type=click.IntRange(1, 366),
                 help="Default: 365 where a bar falls on a Saturday, else 252."),
    click.option("--volume-cap", type=click.FloatRange(0, 1, min_open=True),
                 help="Largest share of a bar's volume for one fill. Default: .1 for markets open every day."),
)


def add(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def day(ts_ms: int) -> str:
    return f"{datetime.fromtimestamp(ts_ms / 1000, UTC):%Y-%m-%d %H:%M}"


@contextmanager
def bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
               TimeElapsedColumn())
    with Progress(*columns, console=progress_console(), transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


@contextmanager
def interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets: what was begun is flushed, then the command ends with 130."""
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
