"""`quantum worker`: run agents until told to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import click

from streams import denied, topics
from streams.acls import acls
from streams.cli.agents import agents_named, configured
from streams.cli.exits import Exit
from streams.cli.main import Unreachable
from streams.cli.options import print_json, settings_options
from streams.cli.reading import reading
from streams.settings import Settings
from streams.subjects import unread


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
@click.option("--metrics-port", type=click.IntRange(0, 65535), metavar="N",
              help="Serve /metrics, /healthz and /readyz on this port of loopback. Default: 0, not at all.")
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends: a worker then ends with its parent.")
@click.option("--json", "as_json", is_flag=True, help="Print what ran, as JSON, at the end.")
@click.pass_context
def command(ctx: click.Context, settings: Settings, agents: str | None, agent_config: tuple[str, ...], clock: bool,
            stats: Path | None, metrics_port: int | None, until_eof: bool, as_json: bool) -> None:
    """Run agents until SIGTERM or Ctrl-C.

    Every agent is a consumer group of its own, <app-id>.<agent>. A worker more is a consumer more: start as many as
    there are partitions. A worker that is told to stop finishes what it began, within 10 seconds.
    """
    from streams import logs
    from streams.metrics import PortTaken
    from streams.worker import serve

    if metrics_port is not None:
        settings = settings.replace(metrics_port=metrics_port)
    names = agents_named(agents)
    running = configured(settings, agent_config, names)
    logs.to_stderr(settings.log_level, settings.log_format, colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ)
    try:
        topics.connect(settings)
        lacking = denied.missing(settings, acls(settings, names, clock=clock))
    except topics.BrokerUnreachable as exc:
        raise Unreachable(str(exc)) from None
    if lacking:
        raise Unreachable(denied.told(settings, lacking))

    if settings.registry is None:
        with reading(settings) as log:
            framed = unread(log, names)
        if framed:
            raise click.ClickException(f"no registry is set, and records of {', '.join(framed)} are in Confluent "
                                       "framing: the agents would refuse them. Set QUANTUM_REGISTRY=URL")

    def watch_input() -> None:  # not before signals are obeyed: the input may have ended already
        if until_eof:
            threading.Thread(target=_stop_at_eof, name="until-eof", daemon=True).start()

    try:
        good = serve(settings, running, clock=clock, stats=stats, ready=watch_input)
    except denied.Denied as exc:
        raise Unreachable(str(exc)) from None
    except PortTaken as exc:
        raise click.ClickException(str(exc)) from None
    if as_json:
        print_json({"agents": names, "stopped": "clean" if good else "failed"})
    ctx.exit(Exit.GOOD if good else Exit.FAILED)
