"""`quantum worker`: run agents until told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path

import click

from streams import topics
from streams.cli.agents import configured
from streams.cli.exits import Exit
from streams.cli.main import Unreachable
from streams.cli.options import print_json, settings_options
from streams.settings import Settings


def _names(text: str | None, known: list[str]) -> list[str]:
    names = known if text is None else [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        raise click.UsageError(f"--agents: {', '.join(unknown) or 'none'} is not built; there are {', '.join(known)}")
    return list(dict.fromkeys(names))


def _log_to_stderr(settings: Settings) -> None:
    layout = '{"at":"%(asctime)s","level":"%(levelname)s","logger":"%(name)s","text":%(message)r}' \
        if settings.log_format == "json" else "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=settings.log_level.upper(), format=layout, force=True)


def _stop_at_eof() -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock would be held at the interpreter's end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@click.command()
@settings_options
@click.option("--agents", metavar="NAMES", help="Which agents, with commas between. Default: all that are built.")
@click.option("--agent-config", metavar="AGENT=JSON", multiple=True,
              help="Configuration of an agent as JSON; may be given several times.")
@click.option("--clock", is_flag=True, help="Own system.clock: write a tick a second. At most one worker should.")
@click.option("--stats", type=click.Path(path_type=Path, dir_okay=False),
              help="Append counters to this file, a JSON line a second.")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends: a worker then ends with its parent.")
@click.option("--json", "as_json", is_flag=True, help="Print what ran, as JSON, at the end.")
@click.pass_context
def command(ctx: click.Context, settings: Settings, agents: str | None, agent_config: tuple[str, ...], clock: bool,
            stats: Path | None, until_eof: bool, as_json: bool) -> None:
    """Run agents until SIGTERM or Ctrl-C.

    Every agent is a consumer group of its own, <app-id>.<agent>. A worker more is a consumer more: start as many as
    there are partitions. A worker that is told to stop finishes what it began, within 10 seconds.
    """
    from agents.roster import ROSTER
    from streams.worker import serve

    names = _names(agents, list(ROSTER))
    running = configured(settings, agent_config, names)
    _log_to_stderr(settings)
    try:
        topics.connect(settings)
    except topics.BrokerUnreachable as exc:
        raise Unreachable(str(exc)) from None

    def watch_input() -> None:  # not before signals are obeyed: the input may have ended already
        if until_eof:
            threading.Thread(target=_stop_at_eof, name="until-eof", daemon=True).start()

    good = serve(settings, running, clock=clock, stats=stats, ready=watch_input)
    if as_json:
        print_json({"agents": names, "stopped": "clean" if good else "failed"})
    ctx.exit(Exit.GOOD if good else Exit.FAILED)
