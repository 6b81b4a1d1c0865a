"""`quantum status`: lag, rates, last evidence, counters and dead letters of every agent."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import closing

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schemas.catalogue import built_agents
from streams.cli.agents import configured
from streams.cli.options import data_console, json_option, progress_console, settings_options
from streams.cli.reading import codec_of, reading
from streams.cli.recheck import judging
from streams.cli.verify import COLOURS
from streams.inspecting.judged import glance
from streams.inspecting.shown import iso
from streams.inspecting.standing import STATES, Overview, Standing, Watcher
from streams.log import LogReader, NoBroker
from streams.settings import Settings
from streams.verify.cells import KINDS, State

_COLOURS = {"RUNNING": "green", "IDLE": "green", "BEHIND": "yellow", "STOPPED": "yellow", "STALLED": "red",
            "NO EVIDENCE": "red", "NO TOPICS": "red", "NOT BUILT": "dim"}
_EPILOG = "\b\nStates:\n" + "\n".join(f"  {name}: {text}" for name, text in STATES.items()) + """

\b
With --json, one object (with --watch one a line):
  at_ms, interval_s, broker
  dead_letters: {topic: records}, topics that have some
  alerts: list of {component, status, reason, writer, ts_ms, place}: those on
    system.health.alert after which the component was not HEALTHY
  held: list of {policy_id, version, status, actor, reason, place}: policies
    that people froze or retired
  risk: null, or {mode, forced, ts_ms, until_ms, said, place}: the risk mode
    since its newest change on risk.mode.changed
  halts: list of {symbol, but, actor, reason, ts_ms, place}: halts in force;
    symbol null: of all, but those resumed since
  learners: list of {agent, symbol, version, n, reward, unit: R|%, entropy,
    approx_kl, explained_variance, ts_ms, place, claim}: the newest update
    that each learner told of; of q_learning the mean of its last outcomes
    claim: null, or {policy_id, version, place, edge_claim, n, edge_mean_r,
    edge_lower_r, gain, claiming, policies}: the newest version of that
    symbol's policy; null where not evaluated, gain elsewhere than on a
    control whose key is on the log; claiming of its learner's policies
    claim an edge
  agents: list of
    agent, state, why, group
    members: of its consumer group; a heartbeat, never evidence
    lag, per_s: records waiting, records taken a second, over all inputs
    inputs: list of {topic, role: direct|source|inbox, lag, committed, end, per_s}
    outputs: list of {topic, records, per_s}, whoever wrote them
    evidence: null, or {topic, partition, offset, event, event_ts_ms, appended_ms, age_s}
    heads: null, or {partitions, applied, repeated, refused, emitted} since genesis
  verify: with --verify, {agent: {RUNS, RECEIVES, LEARNS, PERSISTS, APPLIED,
    ORIGIN: state}}, else null"""


@click.command("status", epilog=_EPILOG)
@click.option("-w", "--watch", is_flag=True, help="Go on until interrupted.")
@click.option("-i", "--interval", "interval_s", type=click.FloatRange(min=0.1), default=2.0, show_default=True,
              metavar="SECONDS", help="Time between the two looks at the offsets that rates come from.")
@click.option("-c", "--count", type=click.IntRange(min=1), help="With --watch: stop after so many.")
@click.option("--verify/--no-verify", "judged", default=None,
              help="Show the states of quantum verify, from a small sample. Default: yes, but not with --watch.")
@json_option
@settings_options
def command(settings: Settings, watch: bool, interval_s: float, count: int | None, judged: bool | None,
            as_json: bool) -> None:
    """Show how every agent stands, by what the broker and the log say.

    Nothing here is asked of the agents themselves: lag and rates are committed offsets against end offsets, evidence
    is the newest record that the agent wrote, counters come from the state on its changelog. The states of quantum
    verify stand below, from a small sample; quantum verify says why, and folds everything again.
    """
    if count is not None and not watch:
        raise click.UsageError("--count goes with --watch")
    if judged and watch:
        raise click.UsageError("--verify reads the whole log and does not go with --watch")
    cells = None if judged is False or watch else _cells(settings)
    with reading(settings) as log:
        overviews = _overviews(settings, log, interval_s, (count if watch else 1), watch)
        if as_json:
            for overview in overviews:
                if isinstance(overview, Overview):
                    told = dataclasses.asdict(overview) | {"verify": cells}
                    click.echo(json.dumps(told, indent=None if watch else 2))
                else:
                    click.echo(f"quantum: {overview}", err=True)
        else:
            _draw(data_console(), overviews, watch)
            if cells:
                data_console().print(Text("\nquantum verify"), _verified(cells))


def _cells(settings: Settings) -> dict[str, dict[str, State]]:
    """States of every cell of the agents that are built, from a small sample."""
    with progress_console().status("holding it against the log; --no-verify leaves that out"), judging(settings) as log:
        roster = configured(settings, (), [agent.name for agent in built_agents()])
        report = glance(log, roster, codec_of(settings), only=list(roster))
    return {row.agent: {kind: c.state for kind, c in row.cells.items()} for row in report.rows}


def _verified(cells: dict[str, dict[str, State]]) -> Table:
    table = Table("agent", *KINDS, box=None, pad_edge=False)
    for agent, states in cells.items():
        table.add_row(agent, *(Text(state, style=COLOURS[state]) for state in states.values()))
    return table


def _overviews(settings: Settings, log: LogReader, interval_s: float, count: int | None,
               patient: bool) -> Iterator[Overview | NoBroker]:
    """An overview each interval; where patient, an unreachable broker is reported and asked again."""
    with closing(Watcher(settings, log)) as watcher:
        yield from _sampled(watcher, interval_s, count, patient)


def _sampled(watcher: Watcher, interval_s: float, count: int | None, patient: bool) -> Iterator[Overview | NoBroker]:
    before = None
    n = 0
    while count is None or n < count:
        try:
            if before is None:
                before = watcher.sample()
            time.sleep(interval_s)
            now = watcher.sample()
            overview: Overview | NoBroker = watcher.overview(before, now)
            before = now
        except NoBroker as exc:
            if not patient:
                raise
            overview, before = exc, None
        n += 1
        yield overview


def _draw(console: Console, overviews: Iterator[Overview | NoBroker], watch: bool) -> None:
    if not (watch and console.is_terminal):
        for overview in overviews:
            console.print(_view(overview))
        return
    with Live(console=console, auto_refresh=False, transient=False) as live:
        for overview in overviews:
            live.update(_view(overview), refresh=True)


def _view(overview: Overview | NoBroker) -> RenderableType:
    if isinstance(overview, NoBroker):
        return Text(f"{overview}; asking again", style="red")
    table = Table("agent", "state", box=None, pad_edge=False)
    for name in ("lag", "in/s", "applied", "repeated", "refused", "emitted"):
        table.add_column(name, justify="right")
    for name in ("last evidence", "event time", "age"):
        table.add_column(name)
    for standing in overview.agents:
        table.add_row(*_row(standing))
    parts: list[RenderableType] = [
        Text(f"{iso(overview.at_ms)}  broker {overview.broker}  rates over {overview.interval_s:.1f} s"), table]
    notes = [Text(f"{s.agent}: {s.why}") for s in overview.agents if s.state not in ("RUNNING", "IDLE", "NOT BUILT")]
    if notes:
        parts += [Text(""), *notes]
    parts += [Text(f"{h.sentence}  [{h.place}, {iso(h.ts_ms)}]", style="red") for h in overview.halts]
    parts += [Text(f"{h.policy_id} is {h.status} since version {h.version}, by {h.actor}: {h.reason} ({h.place})",
                   style="yellow") for h in overview.held]
    if overview.risk is not None:
        r = overview.risk
        over = "" if r.until_ms is None else f", override until {iso(r.until_ms)}"
        parts.append(Text(f"risk mode {r.said}{over}  [{r.place}, {iso(r.ts_ms)}]", style="yellow" if r.forced else ""))
    parts += [Text(f"{u.sentence}  [{u.place}, {iso(u.ts_ms)}]") for u in overview.learners]
    letters = ", ".join(f"{topic} {n}" for topic, n in overview.dead_letters.items())
    parts += [Text(""), Text(f"dead letters: {letters or 'none'}"),
              Text(f"health alerts: {'' if overview.alerts else 'none'}")]
    parts += [Text("  ").append(Text(f"{a.component} {a.status}", style="red" if a.status == "CRITICAL" else "yellow"))
              .append(f": {a.reason}  [{a.place}, {iso(a.ts_ms)}]") for a in overview.alerts]
    return Group(*parts)


def _row(s: Standing) -> list[Text]:
    heads = s.heads
    counters = [str(getattr(heads, n)) if heads else "-" for n in ("applied", "repeated", "refused", "emitted")]
    e = s.evidence
    proof = ["-", "-", "-"] if e is None else [
        f"{e.topic}-{e.partition}@{e.offset}", iso(e.event_ts_ms), "-" if e.age_s is None else _age(e.age_s)]
    cells = ["-" if s.lag is None else str(s.lag), "-" if s.per_s is None else f"{s.per_s:.1f}", *counters, *proof]
    return [Text(s.agent), Text(s.state, style=_COLOURS[s.state]), *(Text(c) for c in cells)]


def _age(age_s: float) -> str:
    """Seconds in the largest unit that leaves at least 1.

    >>> _age(0.4), _age(90), _age(7200), _age(200_000)
    ('0 s', '90 s', '2.0 h', '2.3 d')
    """
    if age_s < 600:
        return f"{age_s:.0f} s"
    return f"{age_s / 3600:.1f} h" if age_s < 86_400 else f"{age_s / 86_400:.1f} d"
