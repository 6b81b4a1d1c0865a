"""`quantum ui`: one local page over the log."""

from __future__ import annotations

import asyncio
import json
import secrets
import webbrowser
from functools import partial
from importlib.metadata import version

import click

from schemas.catalogue import built_agents
from streams.cli.agents import configured
from streams.cli.options import agent_config_option, settings_options
from streams.cli.reading import codec_of, reading
from streams.settings import LOOPBACK, Settings

VERIFY_EVERY_S = 120.0
_EPILOG = """\b
Exit codes: 0 stopped by Ctrl-C or SIGTERM; 1 the address cannot be listened
on; 2 wrong usage; 4 broker unreachable when it begins. A broker that goes away
later is asked again; the page says so meanwhile.

\b
With --json, one object a line on standard output, and it goes on serving:
  url: address to open, with the token where one is needed"""


@click.command("ui", epilog=_EPILOG)
@click.option("--host", default=LOOPBACK, show_default=True, metavar="ADDRESS",
              help="Address to listen on. Beyond loopback every request needs the token.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Default: a free one.")
@click.option("--name", "names", multiple=True, metavar="HOST",
              help="A host name that the page is opened by, as behind a proxy; may be given several times. Addresses "
                   "and localhost need none.")
@click.option("--token", "with_token", is_flag=True, help="Ask for a token on loopback, too.")
@click.option("--verify-every", "every_s", type=click.FloatRange(min=0), default=VERIFY_EVERY_S, show_default=True,
              metavar="SECONDS", help="Time between two runs of verify, while somebody watches; at least three times "
                                      "what the last one took. 0: one at the beginning, then when asked.")
@click.option("--open", "as_browser", is_flag=True, help="Open it in your browser.")
@agent_config_option
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON on standard output.")
@settings_options
def command(settings: Settings, host: str, port: int, names: tuple[str, ...], with_token: bool, every_s: float,
            as_browser: bool, agent_config: tuple[str, ...], as_json: bool) -> None:
    """Serve one page over the log until stopped.

    It shows the cells of quantum verify and the standing of quantum status, policies as they come, one trade followed
    through the log, learning curves, differences of policies, and dead letters with redrive. Everything is read from
    the log by what the commands use; no agent is asked, and while no page is open nothing is read. The one thing that
    it does is redrive, and it asks before.

    No page of another origin can read or do anything here. On loopback any user of this machine can, as they can ask
    the broker; --token keeps them out. There is no TLS: beyond loopback, put a proxy in front.
    """
    from streams.ui.guard import Guard, is_loopback
    from streams.ui.serve import CannotListen, parts, serve

    roster = partial(configured, settings, agent_config, [agent.name for agent in built_agents()])
    if agent_config:
        roster()  # refused here; without one the learners' libraries need not be loaded in this process
    with reading(settings) as log:
        log.topics()
    local = is_loopback(host)
    own = Guard(local, frozenset(name.lower() for name in names),
                secrets.token_urlsafe(24) if with_token or not local else None)

    def ready(url: str) -> None:
        click.echo(json.dumps({"url": url}) if as_json else url)
        click.get_text_stream("stdout").flush()
        click.echo("quantum: serving; Ctrl-C ends it", err=True)
        if not local:
            click.echo("quantum: without TLS, whoever sees the traffic sees the token", err=True)
        if as_browser:
            webbrowser.open(url)

    what = parts(settings, codec_of(settings), roster, every_s, version("quantum-streams"))
    try:
        asyncio.run(serve(what, own, host, port, ready))
    except CannotListen as exc:
        raise click.ClickException(str(exc)) from None
