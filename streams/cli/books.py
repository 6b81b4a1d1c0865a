"""`quantum books`: each learner's paper book against the baseline books beside it."""

from __future__ import annotations

from collections.abc import Iterator

import click
from rich.table import Table
from rich.text import Text

from schemas.codec import Codec
from schemas.events import EquityMarked
from schemas.refused import Refused
from streams.books import ALPHA, BASELINE, MIN_BARS, Paired, paired
from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.cli.reading import codec_of, find_topic, reading
from streams.log import LogReader
from streams.policy_view import utc
from streams.settings import Settings

MARKS = "execution.equity.marked"
SCHEMA = "quantum.books/1"
_COLOURS = {"better": "green", "worse": "red", "open": "none"}
_EPILOG = f"""\b
With --json, one object: schema {SCHEMA}, alpha, pairs: list of {{symbol,
  book_id, baseline, n, differing, mean_bps, sd_bps, low_bps, high_bps,
  total_pct, baseline_total_pct, outcomes, baseline_outcomes, mean_r,
  baseline_mean_r, first_ms, last_ms, verdict}}."""


@click.command("books", epilog=_EPILOG)
@click.option("-s", "--symbol", metavar="SYMBOL", help="Only this one.")
@json_option
@settings_options
def command(settings: Settings, symbol: str | None, as_json: bool) -> None:
    """Hold each learner's paper book against the baseline books on the same candles.

    Differences are paired bar by bar: the learner's return minus the baseline's, all costs paid. The interval of their
    mean holds at every number of bars at once.
    """
    with reading(settings) as log:
        find_topic(log, settings, MARKS)
        pairs = paired(e for e in _marks(log, codec_of(settings)) if symbol in (None, e.symbol))
    if not pairs:
        raise click.ClickException(f"no learner's book beside a baseline on {MARKS}"
                                   + ("" if symbol is None else f" for {symbol}"))
    if as_json:
        print_json({"schema": SCHEMA, "alpha": ALPHA, "pairs": [p.as_dict() for p in pairs]})
    else:
        data_console().print(table(pairs))


def table(pairs: list[Paired]) -> Table:
    """A row a pair: difference and interval first, then what each book made."""
    shown = Table(
        box=None, pad_edge=False,
        title=f"Learner minus baseline, basis points of equity a bar [{1 - ALPHA:.0%} interval at every n]",
        caption=f"{utc(min(p.first_ms for p in pairs))} to {utc(max(p.last_ms for p in pairs))}. Each interval holds "
                f"for its pair alone; none below {MIN_BARS} bars.")
    for name in ("symbol", "book", "baseline"):
        shown.add_column(name)
    for name in ("bars (differing)", "mean difference", "", "total return", "mean R of n outcomes"):
        shown.add_column(name, justify="right")
    for p in pairs:
        interval = "" if p.low_bps is None else f" [{p.low_bps:+.2f} {p.high_bps:+.2f}]"
        shown.add_row(
            p.symbol, p.book_id, p.baseline.removeprefix(BASELINE), f"{p.n} ({p.differing})",
            Text(f"{p.mean_bps:+.2f}{interval}"),
            Text(p.verdict, style=_COLOURS[p.verdict]), f"{p.total_pct:+.1f}% / {p.baseline_total_pct:+.1f}%",
            f"{_outcomes(p.mean_r, p.outcomes)} / {_outcomes(p.baseline_mean_r, p.baseline_outcomes)}",
        )
    return shown


def _outcomes(mean_r: float | None, n: int) -> str:
    return "none" if mean_r is None else f"{mean_r:+.3f} of {n}"


def _marks(log: LogReader, codec: Codec) -> Iterator[EquityMarked]:
    """Marks on the topic; what cannot be decoded is named on standard error, and passed over."""
    for record in log.read(MARKS):
        try:
            event = codec.decode(MARKS, record.value)
        except Refused as exc:
            click.echo(f"quantum: {record.place} is passed over: {exc}", err=True)
            continue
        assert isinstance(event, EquityMarked)
        yield event
