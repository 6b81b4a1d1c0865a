"""`quantum broker`: the embedded Apache Kafka."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import click

from streams import broker
from streams.broker.jars import pinned
from streams.broker.node import Layout
from streams.broker.process import RunningBroker
from streams.cli.exits import Exit
from streams.cli.options import json_option, print_json, progress_console, settings_options
from streams.settings import LOOPBACK, Settings, state_path


@click.group()
def command() -> None:
    """The embedded broker: Apache Kafka, one node, on loopback."""


@command.command()
@settings_options
@json_option
def up(settings: Settings, as_json: bool) -> None:
    """Start it, unless it runs. The first time its jars are fetched and checked (43 MB)."""
    began = time.monotonic()
    host, _, port = settings.broker.rpartition(":")
    if {"broker", "broker_port"} & settings.model_fields_set == {"broker"} and host == LOOPBACK and port.isdigit():
        settings = settings.replace(broker_port=int(port))
    try:
        running = broker.up(settings, console=progress_console())
    except broker.BrokerError as exc:
        raise click.ClickException(str(exc)) from exc
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        print_json(_facts(running) | {"seconds": seconds})
    else:
        how = "already ran" if running.already_running else f"started in {seconds} s"
        click.echo(f"Apache Kafka {how} at {running.address}, pid {running.pid}, log {running.log_path}")
    for line in _elsewhere(settings, running.address):
        click.echo(line, err=True)


def _elsewhere(settings: Settings, address: str) -> list[str]:
    """What to say where the broker listens at another address than somebody asked for, or than commands will use."""
    said, port = [], int(address.rpartition(":")[2])
    if port != settings.broker_port:
        why = "which was asked for" if "broker_port" in settings.model_fields_set else "the default"
        said.append(f"note: not at port {settings.broker_port}, {why}: another process has it, or had it when the "
                    f"broker of this data directory first started; a data directory keeps its port")
    if "broker" in settings.model_fields_set and settings.broker != address:
        said.append(f"note: commands will go to {settings.broker}, which QUANTUM_BROKER, --broker or the configuration "
                    f"names. To use this one: export QUANTUM_BROKER={address}, or name none: commands find it by the "
                    f"data directory")
    return said


@command.command()
@settings_options
@json_option
def down(settings: Settings, as_json: bool) -> None:
    """Stop it; its data stay."""
    try:
        ran = broker.down(settings)
    except broker.BrokerError as exc:
        raise click.ClickException(str(exc)) from exc
    if as_json:
        print_json({"ran": ran})
    else:
        click.echo("stopped" if ran else "it did not run")


@command.command()
@settings_options
@json_option
@click.pass_context
def status(ctx: click.Context, settings: Settings, as_json: bool) -> None:
    """Whether it runs. Exit code 4 where it does not answer."""
    found = broker.status(settings)
    if as_json:
        facts = _facts(found.broker) if found.broker else {"log_path": found.log_path}
        print_json({"state": found.state, "kafka": pinned()[0]} | facts)
    elif found.broker is None:
        click.echo(f"stopped; start it with `quantum broker up` (data directory {settings.data_dir})")
    else:
        up_s = time.time() - found.broker.started_s
        click.echo(f"{found.state} at {found.broker.address}, pid {found.broker.pid}, for {up_s:.0f} s, "
                   f"log {found.log_path}")
    if found.state != "running":
        ctx.exit(Exit.UNREACHABLE)


@command.command()
@settings_options
@json_option
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="Lines from the end.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes.")
def logs(settings: Settings, as_json: bool, lines: int, follow: bool) -> None:
    """The broker's own log."""
    path = Layout(state_path(settings.data_dir).parent).log
    if not path.is_file():
        raise click.ClickException(f"there is no log at {path}: the broker never started with this data directory")
    text = path.read_text(errors="replace").splitlines()
    last = text[max(0, len(text) - lines):]
    if as_json:
        print_json({"log_path": path, "lines": last})
        return
    for line in last:
        click.echo(line)
    if follow:
        _follow(path)


def _follow(path: Path) -> None:
    file = path.open(errors="replace")
    file.seek(0, 2)
    while True:
        line = file.readline()
        if line:
            click.echo(line, nl=False)
            continue
        time.sleep(0.2)
        if path.exists() and path.stat().st_ino != os.fstat(file.fileno()).st_ino:  # it was rolled over
            file.close()
            file = path.open(errors="replace")


def _facts(running: RunningBroker) -> dict[str, object]:
    return asdict(running)
