"""`quantum policy`: policies as they stand on the log; this module has the group and `show`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from schemas.codec import Codec
from schemas.events import PolicyRecord
from schemas.refused import Refused
from streams import policy_view
from streams.cli import policy_commands
from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.cli.policy_history import at_option, diff, found, ledger_on, list_, parsed, plot
from streams.cli.policy_rederive import rederive
from streams.cli.reading import codec_of, find_topic, reading
from streams.log import LogReader
from streams.policies.ledger import LEDGER, Asked, Ledger, in_force, newest
from streams.policy_view import Held
from streams.settings import Settings

CURRENT = "policy.current"


@click.group("policy")
def command() -> None:
    """Look at policies, now and in the past, make them again, and command them."""


policy_commands.register(command)


@command.command("show")
@click.argument("name", metavar="[POLICY[@VERSION]|AGENT]", default="q_learning")
@click.option("-s", "--symbol", metavar="SYMBOL", help="Symbol that the policy is for. Not needed if there is one.")
@click.option("--version", type=click.IntRange(min=1), metavar="N", help="This version, from the ledger.")
@at_option
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Also draw the table as a heat map.")
@json_option
@settings_options
def show(settings: Settings, name: str, symbol: str | None, version: int | None, at_ms: int | None, png: Path | None,
         as_json: bool) -> None:
    """Show a policy: estimates with intervals and visits, probabilities, provenance.

    NAME is a policy (q_learning/BTCUSDT) or an agent. The newest version is read from policy.current, to the end, as
    any subscriber reads it; --version and --at read policy.ledger.
    """
    asked = parsed(name)
    version = version if version is not None else asked.first
    if (version is not None and at_ms is not None) or asked.first != asked.last:
        raise click.UsageError("one version is shown: by POLICY@VERSION, by --version or by --at")
    agent, _, scope = asked.policy_id.partition("/")
    symbol = symbol or scope or None
    with reading(settings) as log:
        if version is None and at_ms is None:
            find_topic(log, settings, CURRENT)
            policy, when = _chosen(policy_view.newest(_rows(log, codec_of(settings))), agent, symbol), None
        else:
            policy, when = _past(ledger_on(log, settings), agent, symbol, version, at_ms)
    if png is not None:
        _draw(policy, png)
    if as_json:
        print_json(policy_view.as_dict(policy) | ({} if when is None else {"in_force": when.as_dict()}))
        return
    console = data_console()
    for line in [*policy_view.head_lines(policy), *(() if when is None else [f"in force  {when.sentence()}"])]:
        console.print(line, markup=False, highlight=False)
    if policy.record.network is not None:
        console.print(policy_view.network_table(policy.record))
    elif policy.record.tabular is None:
        console.print("This policy has no table.")
    else:
        console.print(policy_view.q_table(policy.record))


@dataclass(frozen=True)
class When:
    """How a version stood at a time.

    Attributes:
        at_ms: event time asked for; None where a version was asked for.
        from_ms: event time from which decisions may apply the version.
        until_ms: event time from which a newer version takes its place; None where there is none.
        next_version: the one that does.
        applies: whether decisions may apply it at that time; None without a time.
        fallback: what is done where they may not.
    """

    at_ms: int | None
    from_ms: int
    until_ms: int | None
    next_version: int | None
    applies: bool | None
    fallback: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def sentence(self) -> str:
        """In words."""
        end = "no newer version" if self.until_ms is None else \
            f"until {policy_view.utc(self.until_ms)}, when version {self.next_version} takes its place"
        if self.at_ms is None:
            return f"from {policy_view.utc(self.from_ms)}; {end}"
        may = "" if self.applies else f"; not to be applied then (retired or past its end): {self.fallback}"
        return f"at {policy_view.utc(self.at_ms)}; {end}{may}"


def _past(ledger: Ledger, agent: str, symbol: str | None, version: int | None,
          at_ms: int | None) -> tuple[Held, When]:
    """A version from the ledger, and how it stood.

    Raises:
        click.ClickException: there is none.
    """
    held = {i: Held(newest(vs).policy, newest(vs).record.place) for i, vs in ledger.versions.items()}
    policy_id = _chosen(held, agent, symbol, LEDGER).record.policy_id
    versions = ledger.versions[policy_id]
    if version is not None:
        v = found(ledger, Asked(policy_id, version, version))[0]
    else:
        assert at_ms is not None
        then = in_force(versions, at_ms)
        if then is None:
            first = min(v.policy.valid_from_ms for v in versions)
            raise click.ClickException(f"no version of {policy_id} was in force at {policy_view.utc(at_ms)}; the first "
                                       f"is valid from {policy_view.utc(first)}")
        v = then
    p = v.policy
    after = min((u.policy for u in versions if u.policy.version > p.version),
                key=lambda u: (u.valid_from_ms, -u.version), default=None)
    applies = None if at_ms is None else p.status != "RETIRED" and (p.valid_until_ms is None
                                                                   or at_ms <= p.valid_until_ms)
    return Held(p, v.record.place), When(at_ms, p.valid_from_ms, None if after is None else after.valid_from_ms,
                                         None if after is None else after.version, applies, p.fallback)


def _rows(log: LogReader, codec: Codec) -> Iterator[tuple[str, PolicyRecord | None, str]]:
    """Policies on the topic; what cannot be decoded is named on standard error, and passed over."""
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


def _chosen(held: dict[str, Held], agent: str, symbol: str | None, topic: str = CURRENT) -> Held:
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
        f"no policy of {which} on {topic}; of {agent} there are: {names}; policies were published by: {known}")


def _draw(policy: Held, png: Path) -> None:
    try:
        policy_view.heat_map(policy.record, png)
    except (OSError, ValueError) as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo(f"quantum: drew {png}", err=True)


for _command in (list_, diff, plot, rederive):
    command.add_command(_command)
