"""`quantum policy`: look at policies as they stand on the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from schemas.codec import Codec
from schemas.events import PolicyRecord
from schemas.refused import Refused
from streams import policy_view
from streams.cli import policy_commands
from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.cli.policy_rederive import rederive
from streams.cli.reading import find_topic, reading
from streams.log import LogReader
from streams.policy_view import Held
from streams.settings import Settings

CURRENT = "policy.current"


@click.group("policy")
def command() -> None:
    """Look at policies, and command them."""


policy_commands.register(command)


@command.command("show")
@click.argument("agent", default="q_learning")
@click.option("-s", "--symbol", metavar="SYMBOL", help="Symbol that the policy is for. Not needed if there is one.")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Also draw the table as a heat map.")
@json_option
@settings_options
def show(settings: Settings, agent: str, symbol: str | None, png: Path | None, as_json: bool) -> None:
    """Show the newest policy of AGENT: estimates with intervals and visits, probabilities, provenance.

    It is read from policy.current, to the end, as any subscriber reads it.
    """
    with reading(settings) as log:
        find_topic(log, settings, CURRENT)
        held = policy_view.newest(_rows(log))
    policy = _chosen(held, agent, symbol)
    if png is not None:
        _draw(policy, png)
    if as_json:
        print_json(policy_view.as_dict(policy))
        return
    console = data_console()
    for line in policy_view.head_lines(policy):
        console.print(line, markup=False, highlight=False)
    if policy.record.tabular is None:
        console.print("This policy has no table.")
    else:
        console.print(policy_view.q_table(policy.record))


def _rows(log: LogReader) -> Iterator[tuple[str, PolicyRecord | None, str]]:
    """Policies on the topic; what cannot be decoded is named on standard error, and passed over."""
    codec = Codec()
    for record in log.read(CURRENT):
        policy_id = (record.key or b"").decode(errors="replace")
        if record.value is None:
            yield policy_id, None, record.place
            continue
        try:
            event = codec.decode(CURRENT, record.value)
        except Refused as exc:
            click.echo(f"quantum: {record.place} is passed over: {exc}", err=True)
            continue
        assert isinstance(event, PolicyRecord)
        yield policy_id, event, record.place


def _chosen(held: dict[str, Held], agent: str, symbol: str | None) -> Held:
    """The policy that was asked for.

    Raises:
        click.ClickException: there is none, with those that there are.
        click.UsageError: there are several, and no symbol was named.
    """
    own = {p.record.scope: p for p in held.values() if p.record.agent == agent}
    if symbol is None and len(own) == 1:
        return next(iter(own.values()))
    if symbol is not None and symbol in own:
        return own[symbol]
    names = ", ".join(sorted(own)) or "none"
    if symbol is None and own:
        raise click.UsageError(f"--symbol is needed; {agent} has policies for {names}")
    which = f"{agent} for {symbol}" if symbol is not None else agent
    known = ", ".join(sorted({p.record.agent for p in held.values()})) or "nobody"
    raise click.ClickException(
        f"no policy of {which} on {CURRENT}; of {agent} there are: {names}; policies were published by: {known}")


def _draw(policy: Held, png: Path) -> None:
    try:
        policy_view.heat_map(policy.record, png)
    except (OSError, ValueError) as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo(f"quantum: drew {png}", err=True)


command.add_command(rederive)
