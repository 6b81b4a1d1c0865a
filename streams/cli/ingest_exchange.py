"""`quantum ingest exchange`: bars of an exchange, the past first and then each as it is closed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from streams.cli.exits import Exit
from streams.cli.ingest_options import COST_NAMES, COSTS, Number, add, day, interrupt
from streams.cli.main import Unreachable
from streams.cli.options import json_option, print_json, progress_console, settings_options
from streams.ingest.exchange import PATIENCE, Stopped, Unavailable, connect
from streams.ingest.files import BadInput
from streams.ingest.lead import Stalled
from streams.ingest.live import follow
from streams.ingest.publish import DEFAULT_LEAD, Costs
from streams.log import NoBroker, NoTopic
from streams.settings import Settings


def _time(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Epoch milliseconds of an ISO time; one without a zone is UTC."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time such as 2024-01-01 or 2024-01-01T12:00:00Z") from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command()
@click.option("--exchange", "name", required=True, metavar="ID", help="ccxt's id, such as binance.")
@click.option("--symbol", required=True, metavar="BASE/QUOTE", help="Such as BTC/USDT; a perpetual: BTC/USDT:USDT.")
@click.option("--interval", required=True, help="Length of a bar, such as 1h, as the exchange has it.")
@click.option("--name", "alias", metavar="TEXT", help="Symbol on the log. Default: BTCUSDT for BTC/USDT.")
@click.option("--since", callback=_time, metavar="TIME",
              help="UTC, where the log has no bars yet. Default: 500 bars ago.")
@click.option("--once", is_flag=True, help="End at the newest closed bar. Default: go on until told to stop.")
@click.option("--lead", type=Number("none", int), default=DEFAULT_LEAD, show_default=True,
              help="Bars ahead of the slowest agent; none: do not wait for agents.")
@click.option("--clock/--no-clock", default=True, show_default=True,
              help="A tick of system.clock behind each bar; no: another process or worker --clock owns it.")
@click.option("--base-url", metavar="URL", help="Scheme, host and port of a mirror that speaks the exchange's REST.")
@add(COSTS)
@json_option
@settings_options
def exchange(name: str, symbol: str, interval: str, alias: str | None, since: int | None, once: bool,
             lead: int | str, clock: bool, base_url: str | None, as_json: bool, settings: Settings, **rest: Any) -> int:
    """Publish an exchange's closed bars, through ccxt: those that the log lacks, then each as it is closed.

    Goes on behind the newest bar on the log, so nothing is sent twice. The open bar is never sent; bars that the
    exchange lacks are said and not made up. Where the exchange or the network fails it asks again, after pauses of up
    to a minute; with --once it gives up after five failures in a row (exit 1). The label is ccxt:<exchange>, origin
    CLAIMED: nothing from outside vouches for it. Needs the extra `exchange`; no account and no key.
    """
    console = progress_console()

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    costs = Costs(**{k: rest[k] for k in COST_NAMES if rest[k] is not None})
    try:
        with interrupt() as stop:
            market = connect(name, symbol, interval, base_url=base_url, patience=PATIENCE if once else None, say=say,
                             pause=stop.wait)
            done = follow(settings, market, alias or symbol.replace("/", "").replace(":", "."), since_ms=since,
                          once=once, lead=None if lead == "none" else int(lead), costs=costs, clock=clock, say=say,
                          stop=stop)
    except Stopped:
        return Exit.INTERRUPTED
    except (BadInput, Unavailable, Stalled) as exc:
        raise click.ClickException(str(exc)) from None
    except (NoBroker, NoTopic) as exc:
        raise Unreachable(str(exc)) from None
    newest = "none" if done.newest_ms is None else day(done.newest_ms)
    say(f"published {done.candles} bars of {done.symbol}-{done.interval} from {done.source}, the newest closed at "
        f"{newest}; {done.missing} missing in {done.gaps} gap(s), {done.insane} left out")
    if as_json:
        print_json(done.as_dict())
    return Exit.INTERRUPTED if done.stopped else Exit.GOOD
