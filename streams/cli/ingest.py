"""`quantum ingest`: bring candles and trades in, from files or from the synthetic market."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from streams.cli.exits import Exit
from streams.cli.ingest_exchange import exchange
from streams.cli.ingest_options import COST_NAMES, COSTS, PACE, Number, add, bar, day, interrupt
from streams.cli.main import Unreachable
from streams.cli.options import json_option, print_json, progress_console, settings_options
from streams.ingest import BadInput, Costs, Loaded, load, publish
from streams.ingest.lead import Stalled
from streams.log import NoBroker, NoTopic
from streams.settings import Settings


@click.group()
def command() -> None:
    """Bring market data in, checked and paced, with what the instruments cost and, beside candles, the clock."""


command.add_command(exchange)


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
@add(PACE)
@add(COSTS)
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
        with bar("reading", "files") as progress:
            loaded = load(paths, symbol=symbol, interval=interval, source=source, only=only, digest=digest,
                          progress=progress)
    except BadInput as exc:
        raise click.ClickException(str(exc)) from None
    report(loaded)
    found = [s.name for s in loaded.series if not s.clean]
    if strict and found:
        raise click.ClickException(f"--strict: findings in {', '.join(found)}; nothing was published")
    costs = Costs(**{k: rest[k] for k in COST_NAMES if rest[k] is not None})
    return _publish(settings, loaded, None if dry else costs, rest, as_json)


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--source", help="Label. Default: binance-usdm or binance, as the trades tell.")
@click.option("--digest", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="SHA-256 file; a match makes the origin CHECKED. <file>.CHECKSUM beside the file is used anyway.")
@click.option("--check", "dry", is_flag=True, help="Only read and report; needs no broker.")
@click.option("--speed", type=Number("max", float), default="max", show_default=True,
              help="Times real time, or max: as fast as the broker takes them, however far the agents are.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many trades.")
@add(COSTS)
@json_option
@settings_options
def ticks(path: Path, source: str | None, digest: Path | None, dry: bool, speed: float | str, limit: int | None,
          as_json: bool, settings: Settings, **rest: Any) -> int:
    """Publish the trades of a recorded market to market.trades, of which the agent bars makes candles.

    PATH is what a recorder of Binance's websocket writes: one message a line, behind its time of arrival or alone,
    plain or gzip. Trades are taken in the order of the file; what else is in it is counted and left out.
    """
    from streams.ingest.files import read_digests
    from streams.ingest.ticks import look, publish_ticks

    costs = Costs(**{k: rest[k] for k in COST_NAMES if rest[k] is not None})
    try:
        with bar("reading", "bytes") as progress:
            found = look(path, source=source, digests=read_digests(digest) if digest else None, progress=progress)
        r = found.report
        some = ", ".join(f"{n} trades of {s}" for s, n in sorted(r.trades.items()))
        progress_console().print(f"{some}, {day(r.first_ms or 0)} to {day(r.last_ms or 0)}, {r.source} {r.origin}; "
                                 f"findings: {r.findings}; left out: {sum(r.others.values())} messages", markup=False)
        result: dict[str, Any] = {"file": r.as_dict()}
        stopped = False
        if not dry:
            with bar("publishing", "trades") as progress, interrupt() as stop:
                done = publish_ticks(settings, found, costs=costs, speed=None if speed == "max" else float(speed),
                                     limit=limit, progress=progress, stop=stop)
            stopped, result["published"] = done.stopped, done.as_dict()
            n = done.counts.get("market.trades", 0)
            progress_console().print(f"published {n} trades in {done.seconds:.1f} s "
                                     f"({n / max(done.seconds, 1e-9):.0f}/s), run {done.run_id}")
    except BadInput as exc:
        raise click.ClickException(str(exc)) from None
    except (NoBroker, NoTopic) as exc:
        raise Unreachable(str(exc)) from None
    if as_json:
        print_json(result)
    return Exit.INTERRUPTED if stopped else Exit.GOOD


@command.command()
@click.option("--bars", type=click.IntRange(min=60), default=12_000, show_default=True, help="Bars of each symbol.")
@click.option("--symbols", default="SYN1", show_default=True, help="Names, with commas between.")
@click.option("--interval", default="1h", show_default=True, help="Length of a bar.")
@click.option("--start", type=click.DateTime(["%Y-%m-%d"]), default="2024-01-01", show_default=True, help="UTC.")
@click.option("--market", "kind", type=click.Choice(["planted", "reversed", "fair"]), default="planted",
              show_default=True, help="An edge in each regime, its twin with another map, or a fair walk without any.")
@add(PACE)
@add(COSTS)
@json_option
@settings_options
def synthetic(
    bars: int, symbols: str, interval: str, start: datetime, kind: str, as_json: bool, settings: Settings,
    **rest: Any,
) -> int:
    """Publish synthetic markets of four hidden regimes, each with one strategy that pays or none; origin SYNTHETIC.

    The seed is --seed. Costs default to those that the edge is calibrated for. Another --bars is another market, under
    the same names and times: for a part of one, take --limit.
    """
    from agents.algorithms.market import MARKETS
    from streams.ingest.synthetic import synthetic_market

    names = [s.strip() for s in symbols.split(",") if s.strip()]
    given = {k: rest[k] for k in COST_NAMES if rest[k] is not None}
    try:
        loaded, costs = synthetic_market(settings.seed, names, bars, interval=interval, params=MARKETS[kind],
                                         start_ms=int(start.replace(tzinfo=UTC).timestamp() * 1000), **given)
    except BadInput as exc:
        raise click.UsageError(str(exc)) from None
    report(loaded)
    return _publish(settings, loaded, costs, rest, as_json)


def report(loaded: Loaded) -> None:
    """What was found, as a table on standard error."""
    console = progress_console()
    if not console.is_terminal:
        console.width = 200
    table = Table("series", "candles", "from", "to", "source", "origin", "findings", title="Candles")
    for s in loaded.series:
        table.add_row(
            s.name, str(s.candles), day(s.first_open_ms), day(s.last_close_ms), s.source, s.origin,
            s.findings,
        )
    console.print(table)
    for s in loaded.series:
        if s.first_insane:
            console.print(f"{s.name}: the first row with a wrong high or low is {s.first_insane}", markup=False)
    if loaded.left_out:
        console.print(f"not selected: {', '.join(loaded.left_out)}", markup=False)


def _publish(settings: Settings, loaded: Loaded, costs: Costs | None, pace: dict[str, Any], as_json: bool) -> int:
    """Publish unless costs is None, and say what was done."""
    result: dict[str, Any] = {"series": [s.as_dict() for s in loaded.series], "left_out": list(loaded.left_out)}
    stopped = False
    if costs is not None:
        speed = None if pace["speed"] == "max" else pace["speed"]
        lead = None if pace["lead"] == "none" else pace["lead"]
        try:
            with bar("publishing", "candles") as progress, interrupt() as stop:
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
