"""`quantum ingest`: bring candles in, from files or from the synthetic market."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from streams.cli.exits import Exit
from streams.cli.main import Unreachable
from streams.cli.options import json_option, print_json, progress_console, settings_options
from streams.ingest import BadInput, Costs, Loaded, load, publish
from streams.ingest.lead import Stalled
from streams.ingest.publish import DEFAULT_LEAD
from streams.log import NoBroker, NoTopic
from streams.settings import Settings


class _Number(click.ParamType):
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


_PACE = (
    click.option("--speed", type=_Number("max", float), default="max", show_default=True,
                 help="Times real time, or max: as fast as --lead allows."),
    click.option("--lead", type=_Number("none", int), default=DEFAULT_LEAD, show_default=True,
                 help="With --speed max: bars ahead of the slowest agent; none: do not wait for agents."),
    click.option("--limit", type=click.IntRange(min=1), help="At most so many candles."),
)
_COSTS = (
    click.option("--fee-bps", type=float, help="Fee of each fill, basis points. Files: 5."),
    click.option("--half-spread-bps", type=click.FloatRange(min=0), help="Half the spread, basis points. Files: 0.5."),
    click.option("--slippage-bps", type=click.FloatRange(min=0), help="Slippage of each fill. Files: 1."),
    click.option("--days-per-year", type=click.IntRange(1, 366),
                 help="Default: 365 where a bar falls on a Saturday, else 252."),
    click.option("--volume-cap", type=click.FloatRange(0, 1, min_open=True),
                 help="Largest share of a bar's volume for one fill. Default: .1 for markets open every day."),
)


def _add(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@click.group()
def command() -> None:
    """Bring candles in, checked and paced, with the clock and what the instruments cost."""


@command.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--symbol", help="Instrument of all files. Default: from the file's name, as BTCUSDT-1h.csv.")
@click.option("--interval", help="Length of a bar, such as 1h. Default: from the spacing.")
@click.option("--source", help="Label. Default: binance for Binance's layout, else file:<name>.")
@click.option("--only", metavar="PATTERN", help="Only series such as '*-1h' or 'BTCUSDT-*'.")
@click.option("--digest", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="SHA-256 file; a match makes the origin CHECKED. <file>.CHECKSUM beside a file is used anyway.")
@click.option("--strict", is_flag=True, help="Publish nothing where anything at all was found (exit 1).")
@click.option("--check", "dry", is_flag=True, help="Only read and report; needs no broker.")
@_add(_PACE)
@_add(_COSTS)
@json_option
@settings_options
def file(
    paths: tuple[Path, ...], symbol: str | None, interval: str | None, source: str | None, only: str | None,
    digest: Path | None, strict: bool, dry: bool, as_json: bool, settings: Settings, **rest: Any,
) -> int:
    """Publish candles of files: Binance csv or zip, parquet, feather, or any csv with open, high, low, close and time.

    PATHS are files or directories. Several files are merged by event time. Order, repeats, gaps and the sanity of high
    and low are checked and reported; two rows that tell one bar differently are refused.
    """
    try:
        with _bar("reading", "files") as progress:
            loaded = load(paths, symbol=symbol, interval=interval, source=source, only=only, digest=digest,
                          progress=progress)
    except BadInput as exc:
        raise click.ClickException(str(exc)) from None
    report(loaded)
    found = [s.name for s in loaded.series if not s.clean]
    if strict and found:
        raise click.ClickException(f"--strict: findings in {', '.join(found)}; nothing was published")
    costs = Costs(**{k: rest[k] for k in _COST_NAMES if rest[k] is not None})
    return _publish(settings, loaded, None if dry else costs, rest, as_json)


@command.command()
@click.option("--bars", type=click.IntRange(min=60), default=12_000, show_default=True, help="Bars of each symbol.")
@click.option("--symbols", default="SYN1", show_default=True, help="Names, with commas between.")
@click.option("--interval", default="1h", show_default=True, help="Length of a bar.")
@click.option("--start", type=click.DateTime(["%Y-%m-%d"]), default="2024-01-01", show_default=True, help="UTC.")
@click.option("--market", "kind", type=click.Choice(["planted", "reversed", "fair"]), default="planted",
              show_default=True, help="An edge in each regime, its twin with another map, or a fair walk without any.")
@_add(_PACE)
@_add(_COSTS)
@json_option
@settings_options
def synthetic(
    bars: int, symbols: str, interval: str, start: datetime, kind: str, as_json: bool, settings: Settings,
    **rest: Any,
) -> int:
    """Publish synthetic markets of four hidden regimes, each with one strategy that pays or none; origin SYNTHETIC.

    The seed is --seed. Costs default to those that the edge is calibrated for.
    """
    from agents.algorithms.market import MARKETS
    from streams.ingest.synthetic import synthetic_market

    names = [s.strip() for s in symbols.split(",") if s.strip()]
    given = {k: rest[k] for k in _COST_NAMES if rest[k] is not None}
    try:
        loaded, costs = synthetic_market(settings.seed, names, bars, interval=interval, params=MARKETS[kind],
                                         start_ms=int(start.replace(tzinfo=UTC).timestamp() * 1000), **given)
    except BadInput as exc:
        raise click.UsageError(str(exc)) from None
    report(loaded)
    return _publish(settings, loaded, costs, rest, as_json)


_COST_NAMES = ("fee_bps", "half_spread_bps", "slippage_bps", "days_per_year", "volume_cap")


def report(loaded: Loaded) -> None:
    """What was found, as a table on standard error."""
    console = progress_console()
    if not console.is_terminal:
        console.width = 200
    table = Table("series", "candles", "from", "to", "source", "origin", "findings", title="Candles")
    for s in loaded.series:
        table.add_row(
            s.name, str(s.candles), _day(s.first_open_ms), _day(s.last_close_ms), s.source, s.origin,
            s.findings,
        )
    console.print(table)
    for s in loaded.series:
        if s.first_insane:
            console.print(f"{s.name}: the first row with a wrong high or low is {s.first_insane}", markup=False)
    if loaded.left_out:
        console.print(f"not selected: {', '.join(loaded.left_out)}", markup=False)


def _day(ts_ms: int) -> str:
    return f"{datetime.fromtimestamp(ts_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _publish(settings: Settings, loaded: Loaded, costs: Costs | None, pace: dict[str, Any], as_json: bool) -> int:
    """Publish unless costs is None, and say what was done."""
    result: dict[str, Any] = {"series": [s.as_dict() for s in loaded.series], "left_out": list(loaded.left_out)}
    stopped = False
    if costs is not None:
        speed = None if pace["speed"] == "max" else pace["speed"]
        lead = None if pace["lead"] == "none" else pace["lead"]
        try:
            with _bar("publishing", "candles") as progress, _interrupt() as stop:
                done = publish(settings, loaded, speed=speed, lead=lead, limit=pace["limit"], costs=costs,
                               progress=progress, stop=stop)
        except (NoBroker, NoTopic) as exc:
            raise Unreachable(str(exc)) from None
        except Stalled as exc:
            raise click.ClickException(str(exc)) from None
        stopped = done.stopped
        result["published"] = done.as_dict()
        candles = done.counts.get("market.candles", 0)
        progress_console().print(f"published {candles} candles in {done.seconds:.1f} s "
                                 f"({candles / max(done.seconds, 1e-9):.0f}/s), run {done.run_id}")
    if as_json:
        print_json(result)
    return Exit.INTERRUPTED if stopped else Exit.GOOD


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
               TimeElapsedColumn())
    with Progress(*columns, console=progress_console(), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets: what was begun is flushed, then the command ends with 130."""
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
