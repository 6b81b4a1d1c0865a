"""`quantum refold AGENT` and `quantum reset AGENT`: state made anew while no worker runs the agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from schemas.catalogue import AGENTS, built_agents
from streams.cli.agents import configured
from streams.cli.exits import Exit
from streams.cli.options import (
    actor_option,
    agent_config_option,
    data_console,
    json_option,
    print_json,
    settings_options,
)
from streams.cli.reading import codec_of, find_topic, reading
from streams.fitting import recommit, topic_ids
from streams.rebuilding import CannotRebuild, Rebuilt, rebuilt, running, write
from streams.settings import Settings

SCHEMA = "quantum.rebuild/1"
SHOWN = 5
_CODES = {"EXPIRED": Exit.EXPIRED, "OTHER_INPUT": Exit.OTHER_CODE}
F = TypeVar("F", bound=Callable[..., Any])
_EPILOG = """\b
Exit codes:
  0: written; there was nothing to write; or, with --dry-run, it can be written
  1: a worker runs the agent; nobody knows up to where it had folded; or readers
     would drop what it publishes
  4: the broker cannot be reached
  6: the state was folded from another topic than this version folds
  7: the input is not there from its beginning

\b
With --json, one object of the schema quantum.rebuild/1:
  agent; action: refold or reset; dry_run; written; reason
  partitions: list of {partition, offset, records, scopes, same, changed,
    damage, fitted, fences}: input offset at which workers go on, less one; input records
    folded; scopes; whether the stored state was that already (null for reset);
    scopes that get another state; what was wrong with the stored state; fitted:
    what of it was another log's; fences: records put into the inbox first, so
    that ids of outputs go on rising
  moved: list of text: sources that are copied from their beginning again"""


def _common(function: F) -> F:
    for option in reversed((
        click.argument("agent", type=click.Choice([a.name for a in built_agents()])),
        click.option("--reason", metavar="TEXT", help="Why; it stands with the state. Needed unless --dry-run."),
        actor_option,
        click.option("--dry-run", is_flag=True, help="Say what would come out; write nothing. Workers may run."),
        agent_config_option,
        json_option, settings_options,
    )):
        function = option(function)
    return function


@click.command("refold", epilog=_EPILOG)
@_common
def refold(settings: Settings, **rest: Any) -> None:
    """Fold the whole input of AGENT again, up to where its state was, and store what comes out.

    For state that is damaged beyond its checkpoints, or of a format that this version does not read. Nothing is
    published again. Later policies name the new state as their parent, and version numbers go on.
    """
    _run(settings, "refold", None, **rest)


@click.command("reset", epilog=_EPILOG)
@click.option("-s", "--scope", metavar="SCOPE", help="Begin this one anew, a symbol mostly. Default: all.")
@_common
def reset(settings: Settings, scope: str | None, **rest: Any) -> None:
    """Have AGENT forget all that it learned; it goes on with the input behind what it had taken.

    Policies that were published stay in force until it publishes newer ones; version numbers go on. Where topics were
    made anew or records deleted that it had not taken, it goes on with what is there.
    """
    _run(settings, "reset", scope, **rest)


def _run(settings: Settings, action: str, scope: str | None, *, agent: str, reason: str | None, actor: str,
         dry_run: bool, agent_config: tuple[str, ...], as_json: bool) -> None:
    if reason is None and not dry_run:
        raise click.UsageError("--reason is needed: it stands with the state")
    why = f"quantum {action} by {actor}: {reason}"
    made = configured(settings, agent_config, [agent])[agent]
    with reading(settings) as log:
        find_topic(log, settings, AGENTS[agent].changelog)
        there = 0 if dry_run else running(settings, agent)
        if there:
            raise click.ClickException(f"RUNNING: {there} members of {settings.group(agent)} run {agent}; stop the "
                                       f"workers first (one that was killed leaves the group after its time-out)")
        ids = topic_ids(settings, agent) if action == "reset" and scope is None else None
        try:
            found = list(rebuilt(log, codec_of(settings), made, reset=action == "reset", only=scope, ids=ids))
        except CannotRebuild as exc:
            click.echo(f"quantum: {exc}", err=True)
            raise SystemExit(_CODES.get(exc.code, Exit.FAILED)) from exc
        if scope is not None and not any(scope in r.fold.scopes for r in found):
            raise click.ClickException(f"{agent} has no scope {scope}")
        todo = [r for r in found if not r.same]
        for r in [] if dry_run else todo:
            write(settings, r, why)
        anew: dict[tuple[str, int], int] = {}
        for place, offset in (item for r in found for item in r.anew.items()):
            anew[place] = min(offset, anew.get(place, offset))
        moved = [] if dry_run or ids is None else recommit(settings, log, AGENTS[agent], anew)
    if as_json:
        print_json({"schema": SCHEMA, "agent": agent, "action": action, "dry_run": dry_run, "reason": reason,
                    "written": not dry_run and bool(todo), "partitions": [_as_dict(r) for r in found], "moved": moved})
        return
    for r in found:
        data_console().print(_line(agent, r), markup=False, highlight=False)
    for text in (*(t for r in found for t in r.fitted), *moved):
        data_console().print(f"  {text}", markup=False, highlight=False)
    what = "nothing to write" if not todo else "would be written" if dry_run else "written"
    data_console().print(f"{agent}: {what}" + (f"; workers go on behind it ({why})" if todo and not dry_run else ""),
                         markup=False, highlight=False)


def _as_dict(r: Rebuilt) -> dict[str, Any]:
    return {"partition": r.partition, "offset": r.offset, "records": r.records, "scopes": len(r.fold.scopes),
            "same": r.same, "changed": r.changed, "damage": r.damage,
            "fitted": r.fitted, "fences": r.fences}


def _line(agent: str, r: Rebuilt) -> str:
    place = f"{AGENTS[agent].input_topic}-{r.partition}@{r.offset}"
    some = ", ".join(r.changed[:SHOWN]) + (" ..." if len(r.changed) > SHOWN else "")
    text = f"{place}: {len(r.fold.scopes)} scopes from {r.records} records, {len(r.changed)} get another state"
    return text + (f" ({some})" if some else "") + "".join(f"; damaged: {d}" for d in r.damage)
