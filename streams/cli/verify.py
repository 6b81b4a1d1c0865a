"""`quantum verify`: every agent held against the log, cell by cell."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from schemas.catalogue import built_agents
from streams.cli.agents import agents_named, configured
from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.cli.reading import codec_of
from streams.cli.recheck import judging, look_again, write, write_evidence
from streams.cli.selftest import run_self_test
from streams.inspecting.shown import iso
from streams.settings import Settings
from streams.verify.cells import KINDS, STATES, Cell, Report, Row
from streams.verify.durable import BUDGET
from streams.verify.evidence import Since
from streams.verify.flow import FRESH_S, PATIENCE_S
from streams.verify.judge import SAMPLE, verify
from streams.verify.junit import junit as as_junit

_FILE = click.Path(path_type=Path, dir_okay=False)
COLOURS = {"PASS": "green", "FAIL": "red", "STALE": "red", "IDLE": "green", "NOT PROVEN": "yellow",
            "EXPIRED": "yellow", "NOT BUILT": "dim", "NOT APPLICABLE": "dim"}
_SILENT = ("NOT BUILT", "NOT APPLICABLE")
_EPILOG = "\b\nStates:\n" + "\n".join(f"  {name}: {text}" for name, text in STATES.items()) + """

\b
Exit codes: 0 all that is built is PASS, IDLE or NOT APPLICABLE; 1 a FAIL or
STALE; 3 a NOT PROVEN or EXPIRED, or a health alert that stands; 4 broker
unreachable.

\b
With --json, one object:
  schema: quantum.verify/1
  at_ms, sample, sample_seed, since, exit_code, left_out
  agents: list of {agent, cells: {RUNS, RECEIVES, LEARNS, PERSISTS, APPLIED,
    ORIGIN: {state, why, place, age_s, figures}}}
  alerts: list of {component, status, reason, writer, place}: health alerts
    after which the component was not HEALTHY
  controls: list of {symbol, kind, learner, state, why, place, age_s, figures,
    others: {learner: {state, why, place, age_s, figures}}}, of the runs whose
    key is on control.reveal
  evidence: {file, sha256}; with --evidence, which writes quantum.evidence/1

\b
--recheck: exit codes 0 all claims hold, 1 one fell, 3 records are deleted.
With --json: schema quantum.recheck/1, items {name, outcome, why}.
--self-test: exit codes 0 all caught, 1 one was not. It needs no broker.
With --json: schema quantum.selftest/1, items {name, what, caught, cell,
state, why, place}.

What each cell takes as evidence, and what it cannot see: docs/proof.md."""


@click.command("verify", epilog=_EPILOG)
@click.option("--since", metavar="TIME|OFFSETS", help="Where evidence may begin: an ISO time with zone, or "
              "TOPIC-PARTITION@OFFSET with commas between. State is folded from its beginning anyway.")
@click.option("--sample", type=click.IntRange(min=1), default=SAMPLE, show_default=True, metavar="N",
              help="Policy updates to make again with other rewards.")
@click.option("--sample-seed", type=click.IntRange(min=0), metavar="N",
              help="Draws the sample. Default: at random, and printed, so that nobody can prepare for it.")
@click.option("--agents", metavar="NAMES",
              help="Judge these alone, with commas between: those that are meant to run. Default: all that are built.")
@click.option("--agent-config", metavar="AGENT=JSON", multiple=True,
              help="Configuration that the worker gave an agent; may be given several times. --seed, too, must be the "
                   "worker's.")
@click.option("--budget", type=click.IntRange(min=1), default=BUDGET, show_default=True, metavar="N",
              help="Input records folded again for each agent's PERSISTS, at most.")
@click.option("--patience", "patience_s", type=click.FloatRange(min=0), default=PATIENCE_S, show_default=True,
              metavar="SECONDS", help="How long input may wait, with nothing written meanwhile.")
@click.option("--fresh", "fresh_s", type=click.FloatRange(min=0), default=FRESH_S, show_default=True,
              metavar="SECONDS", help="Input older than this is no input.")
@click.option("--evidence", type=_FILE, metavar="FILE", 
              help="Write each cell as a claim with the records that show it.")
@click.option("--junit", type=_FILE, metavar="FILE", help="Write the cells as JUnit XML.")
@click.option("--recheck", "recheck_file", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
              help="Look the records of an evidence file up again, and nothing else.")
@click.option("--self-test", "as_self_test", is_flag=True, help="Judge planted cheats, in memory, and nothing else.")
@click.option("--jobs", type=click.IntRange(1, 2), default=min(os.cpu_count() or 1, 2), metavar="N",
              help="Processes of --self-test: 1 or 2. Default: 2 where there are as many cores.")
@json_option
@settings_options
@click.pass_context
def command(ctx: click.Context, settings: Settings, since: str | None, sample: int, sample_seed: int | None,
            agents: str | None, agent_config: tuple[str, ...], budget: int, patience_s: float, fresh_s: float,
            evidence: Path | None, junit: Path | None, recheck_file: Path | None, as_self_test: bool, jobs: int,
            as_json: bool) -> None:
    """Hold every agent against the log.

    Nothing is asked of the agents. State is folded again from the input, policies are made again from their parents,
    trades are computed again from their candles; each answer names the record that shows it.
    """
    if recheck_file is not None or as_self_test:
        if (recheck_file is not None and as_self_test) or evidence or junit or since is not None:
            raise click.UsageError("--recheck and --self-test do nothing else: no --evidence, --junit or --since")
        done = look_again(settings, recheck_file, as_json) if recheck_file is not None \
            else run_self_test(as_json, jobs)
        ctx.exit(done)
    try:
        begin = None if since is None else Since.parse(since)
    except ValueError as exc:
        raise click.UsageError(f"--since: {exc}") from None
    roster = configured(settings, agent_config, [agent.name for agent in built_agents()])
    only = None if agents is None else agents_named(agents)
    drawn = secrets.randbits(32) if sample_seed is None else sample_seed
    with judging(settings) as log:
        report = verify(log, roster, sample=sample, sample_seed=drawn, since=begin, patience_s=patience_s,
                        fresh_s=fresh_s, budget=budget, codec=codec_of(settings), only=only)
        told = {} if evidence is None else {"evidence": write_evidence(report, log, settings, evidence)}
    if junit is not None:
        write(junit, as_junit(report))
    if as_json:
        print_json(report.as_dict() | told)
    else:
        show(data_console(), report)
        for said in told.values():
            click.echo(f"\n{said['file']}: evidence, sha256 {said['sha256']}")
    ctx.exit(report.exit_code)


def show(console: Console, report: Report) -> None:
    """The table, then a sentence for each cell that says something."""
    table = Table("agent", *KINDS, box=None, pad_edge=False)
    for row in report.rows:
        table.add_row(row.agent, *(state_text(row.cells[kind]) for kind in KINDS))
    head = Text(f"{iso(report.at_ms)}  {report.sample} updates drawn with --sample-seed {report.sample_seed}"
                + ("" if report.since is None else f"  since {report.since}"))
    if report.left_out:
        head.append(f"\nnot judged, by --agents: {', '.join(report.left_out)}")
    console.print(Group(head, table, Text("")))
    for row in report.rows:
        for line in _sentences(row):
            console.print(line)
    for found in report.alerts:
        console.print(Text("health alert ").append(found.text, style="red" if found.alert.status == "CRITICAL"
                                                   else "yellow"))
    for v in report.controls:
        console.print(_sentence(f"control {v.symbol}, {v.kind}", v.cell))
        for name, other in v.others.items():
            console.print(_sentence(f"  {name}", other))


def state_text(cell: Cell, short: bool = False) -> Text:
    """The state in its colour; short: for narrow tables."""
    return Text("n/a" if short and cell.state == "NOT APPLICABLE" else cell.state, style=COLOURS[cell.state])


def _sentences(row: Row) -> list[Text]:
    lines = []
    for kind, cell in row.cells.items():
        if cell.state not in _SILENT:
            lines.append(_sentence(f"{row.agent} {kind}", cell))
    return lines


def _sentence(what: str, cell: Cell) -> Text:
    age = "" if cell.age_s is None else f", {cell.age_s:.0f} s ago"
    place = "" if cell.place is None else f"  [{cell.place}{age}]"
    return Text(f"{what} ").append(state_text(cell)).append(f": {cell.why}{place}")
