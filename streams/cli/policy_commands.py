"""`quantum policy rollback|freeze|unfreeze|retire|halt|resume`: people's commands.

The commands here write to `policy.commands` and nothing else; versions are the agent's to write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from schemas.codec import Codec
from schemas.events import Command
from streams import commanding
from streams.cli.agents import configured
from streams.cli.exits import Exit
from streams.cli.options import actor_option, agent_config_option, json_option, print_json, settings_options
from streams.cli.reading import codec_of, find_topic, reading
from streams.commanding import COMMANDS, LEDGER, CannotCommand, Plan, Version
from streams.log import LogReader
from streams.policy_view import utc
from streams.settings import Settings

SCHEMA = "quantum.command/1"
WAIT_S = 30.0
F = TypeVar("F", bound=Callable[..., Any])
EPILOG = """\b
Exit codes:
  0: written, and obeyed where an answer was waited for (--dry-run: it can be)
  1: it cannot be commanded, or the agent refused it; the text says why
  3: written, but no answer came within --wait: is the agent running?
  4: the broker cannot be reached

\b
With --json, one object of the schema quantum.command/1:
  dry_run; outcome: planned, written, obeyed, refused or no answer
  command: {command_id, command, ts_ms, policy_id, symbol, version, freeze,
    seen_version, actor, reason, state_bytes, state_hash, state_format,
    mode, until_ms}
  place: topic-partition@offset of the command, null with --dry-run
  newest: null, or {version, status, place}: the policy as it stands
  becomes: null, or the status that it gets
  undone: null, or {from, to}: versions that a rollback undoes
  answer: null, or {version, status, obeyed, reason, place}"""


wait_option = click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=WAIT_S, show_default=True,
                           metavar="SECONDS", help="Wait for the version that answers; 0: don't.")


def commanding_options(function: F) -> F:
    """Options of whatever a person commands: why, who, whether only to say what it would do; output and settings."""
    for option in reversed((
        click.option("--reason", required=True, metavar="TEXT", help="Why; it stands on the log for ever."),
        actor_option,
        click.option("--dry-run", is_flag=True, help="Say what would be written and what it would do; write nothing."),
        json_option, settings_options,
    )):
        function = option(function)
    return function


def _of_a_policy(function: F) -> F:
    return commanding_options(wait_option(agent_config_option(function)))


@click.command("rollback", epilog=EPILOG)
@click.argument("policy_id", metavar="POLICY")
@click.argument("version", type=click.IntRange(min=1))
@click.option("--freeze", is_flag=True, help="Learn nothing more from there on.")
@_of_a_policy
def rollback(settings: Settings, policy_id: str, version: int, freeze: bool, **rest: Any) -> None:
    """Take the state of POLICY (such as q_learning/BTCUSDT) at VERSION back; learning goes on from it.

    The answer is a new version with the old state; what was learned since is undone. Until it comes, no newer version
    than VERSION decides or is executed. A retired policy comes back to life.
    """
    _policy(settings, "ROLLBACK", policy_id, version=version, freeze=freeze, **rest)


@click.command("freeze", epilog=EPILOG)
@click.argument("policy_id", metavar="POLICY")
@_of_a_policy
def freeze(settings: Settings, policy_id: str, **rest: Any) -> None:
    """Stop POLICY learning; it goes on deciding, without end of validity."""
    _policy(settings, "FREEZE", policy_id, **rest)


@click.command("unfreeze", epilog=EPILOG)
@click.argument("policy_id", metavar="POLICY")
@_of_a_policy
def unfreeze(settings: Settings, policy_id: str, **rest: Any) -> None:
    """Let a frozen POLICY learn again; what came meanwhile is not learned from."""
    _policy(settings, "UNFREEZE", policy_id, **rest)


@click.command("retire", epilog=EPILOG)
@click.argument("policy_id", metavar="POLICY")
@_of_a_policy
def retire(settings: Settings, policy_id: str, **rest: Any) -> None:
    """End POLICY: it learns and decides no more, its fallback is taken. A rollback brings it back."""
    _policy(settings, "RETIRE", policy_id, **rest)


@click.command("halt", epilog=EPILOG)
@click.option("-s", "--symbol", metavar="SYMBOL", help="Only this symbol. Default: all.")
@commanding_options
def halt(settings: Settings, symbol: str | None, **rest: Any) -> None:
    """Close paper positions and open none, until resumed. Nobody answers it; it is obeyed when it is read."""
    _halt(settings, "HALT", symbol, **rest)


@click.command("resume", epilog=EPILOG)
@click.option("-s", "--symbol", metavar="SYMBOL", help="Only this symbol. Default: all.")
@commanding_options
def resume(settings: Settings, symbol: str | None, **rest: Any) -> None:
    """End a halt."""
    _halt(settings, "RESUME", symbol, **rest)


def register(group: click.Group) -> None:
    """Add the commands to `quantum policy`."""
    for command in (rollback, freeze, unfreeze, retire, halt, resume):
        group.add_command(command)


# ---------------------------------------------------------------------- what they do
def _policy(settings: Settings, kind: Command, policy_id: str, *, reason: str, actor: str, dry_run: bool,
            as_json: bool, wait_s: float, agent_config: tuple[str, ...], version: int | None = None,
            freeze: bool = False) -> None:
    name, slash, scope = policy_id.partition("/")
    if name not in commanding.learners() or not slash or not scope:
        raise click.UsageError(f"{policy_id!r} is not AGENT/SYMBOL with one of {', '.join(commanding.learners())}")
    agent = configured(settings, agent_config, [name])[name]
    codec = codec_of(settings, writes=True)
    with reading(settings) as log:
        _topics_of(log, settings, COMMANDS, LEDGER)
        try:
            plan = commanding.planned(log, codec, agent, kind, policy_id, actor=actor,
                                      reason=reason, version=version, freeze=freeze)
        except CannotCommand as exc:
            raise click.ClickException(str(exc)) from exc
        if dry_run:
            tell(plan, as_json, "planned", dry_run=True)
            return
        code = answered(settings, log, codec, plan, as_json, wait_s)
    if code is not Exit.GOOD:
        raise click.exceptions.Exit(code)


def answered(settings: Settings, log: LogReader, codec: Codec, plan: Plan, as_json: bool, wait_s: float) -> Exit:
    """Write a command, wait for its answer, and say what became of it."""
    since = commanding.ledger_ends(log)
    place = commanding.written(settings, codec, plan.command)
    if not wait_s:
        tell(plan, as_json, "written", place=place)
        return Exit.GOOD
    if not as_json:
        click.echo(f"quantum: {place} written; waiting for the answer", err=True)
    answer = commanding.answer_of(log, codec, plan.command, since, wait_s)
    outcome = "no answer" if answer is None else "obeyed" if answer.policy.obeyed else "refused"
    tell(plan, as_json, outcome, place=place, answer=answer)
    return {"obeyed": Exit.GOOD, "refused": Exit.FAILED, "no answer": Exit.NOT_PROVEN}[outcome]


def _halt(settings: Settings, kind: Command, symbol: str | None, *, reason: str, actor: str, dry_run: bool,
          as_json: bool) -> None:
    codec = codec_of(settings, writes=True)
    with reading(settings) as log:
        _topics_of(log, settings, COMMANDS)
        try:
            plan = commanding.planned_halt(log, codec, kind, symbol, actor=actor, reason=reason)
        except CannotCommand as exc:
            raise click.ClickException(str(exc)) from exc
        if dry_run:
            tell(plan, as_json, "planned", dry_run=True)
            return
        tell(plan, as_json, "written", place=commanding.written(settings, codec, plan.command))


def _topics_of(log: LogReader, settings: Settings, *names: str) -> None:
    for name in (*names, commanding.CLOCK):
        find_topic(log, settings, name)


def tell(plan: Plan, as_json: bool, outcome: str, *, place: str | None = None, answer: Version | None = None,
         dry_run: bool = False) -> None:
    """Print what became of a command, as JSON or in lines."""
    if as_json:
        print_json(as_dict(plan, outcome, place, answer, dry_run))
        return
    for line in _lines(plan, place, answer, outcome):
        click.echo(line)


def as_dict(plan: Plan, outcome: str, place: str | None, answer: Version | None, dry_run: bool) -> dict[str, Any]:
    """A command as plain data, schema `quantum.command/1`; of the state its size and hash."""
    c = plan.command
    command = {f: getattr(c, f) for f in c.__struct_fields__ if f != "state"}
    undone = plan.undone
    return {
        "schema": SCHEMA, "dry_run": dry_run, "outcome": outcome,
        "command": command | {"state_bytes": None if c.state is None else len(c.state)}, "place": place,
        "newest": None if plan.newest is None else {
            "version": plan.newest.policy.version, "status": plan.newest.policy.status, "place": plan.newest.place},
        "becomes": plan.becomes, "undone": None if undone is None else {"from": undone[0], "to": undone[1]},
        "answer": None if answer is None else {
            "version": answer.policy.version, "status": answer.policy.status, "obeyed": answer.policy.obeyed,
            "reason": answer.policy.reason, "place": answer.place},
    }


def _lines(plan: Plan, place: str | None, answer: Version | None, outcome: str) -> list[str]:
    c, newest = plan.command, plan.newest
    what = c.command + ("" if c.version is None else f" to {c.version}")
    what += "" if c.mode is None or c.until_ms is None else f" {c.mode} until {utc(c.until_ms)}"
    lines = [f"{what} of {c.policy_id or c.symbol or 'all symbols'} by {c.actor}, event time {utc(c.ts_ms)}: "
             f"{c.reason}"]
    if newest is not None:
        lines.append(f"newest    version {newest.policy.version} {newest.policy.status}  ({newest.place}); becomes "
                     f"{plan.becomes} with the version that answers")
    if c.state is not None:
        lines.append(f"state     folded again: {len(c.state)} bytes, {(c.state_hash or '')[:12]} as the ledger says")
    if plan.undone is not None:
        lines.append(f"undone    versions {plan.undone[0]} to {plan.undone[1]}, and what is learned until the answer")
    lines.append("written   nothing (--dry-run)" if place is None else f"written   {place}")
    if answer is not None:
        p = answer.policy
        lines.append(f"{outcome:<10}version {p.version} {p.status}  ({p.reason})  {answer.place}")
    elif outcome == "no answer":
        lines.append("no answer yet; it is obeyed by decision and paper_execution all the same, and answered once the "
                     "agent runs")
    return lines
