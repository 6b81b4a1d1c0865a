"""`quantum policy list`, `diff`, `plot`: policies over time, from the ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table
from rich.text import Text

from schemas.codec import Codec
from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.cli.reading import codec_of, find_topic, reading
from streams.inspecting.shown import one_line
from streams.log import LogReader
from streams.policies import course as courses
from streams.policies.beside import beside
from streams.policies.difference import Difference, difference
from streams.policies.drawn import picture
from streams.policies.ledger import LEDGER, Asked, Ledger, Version, event_time, read_ledger
from streams.policies.told import compared, followed, listed
from streams.policy_view import utc
from streams.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
SPARK = 64  # characters of a sparkline, unless the terminal is narrower


def _at(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return event_time(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def at_option(function: F) -> F:
    """`--at TIME`: an event time in milliseconds, or None."""
    return click.option("--at", "at_ms", callback=_at, metavar="TIME",
                        help="The version in force for decisions at this event time: 2026-01-31T12:00:00Z, or "
                             "s@MILLISECONDS.")(function)


def ledger_on(log: LogReader, settings: Settings, policy_ids: list[str] | None = None,
              codec: Codec | None = None) -> Ledger:
    """The ledger; what cannot be decoded is named on standard error, and passed over."""
    find_topic(log, settings, LEDGER)
    ledger = read_ledger(log.read(LEDGER), codec or codec_of(settings), policy_ids)
    for place, why in ledger.unreadable.items():
        click.echo(f"quantum: {place} is passed over: {one_line(why)}", err=True)
    for (policy_id, version), records in ledger.rivals.items():
        places = ", ".join(r.place for r in records)
        click.echo(f"quantum: {policy_id} version {version} stands more than once on the ledger, also at {places}; "
                   f"shown is the first: quantum policy rederive {policy_id}@{version}", err=True)
    return ledger


def parsed(text: str) -> Asked:
    """A name of a policy or of versions.

    Raises:
        click.UsageError: it is none.
    """
    try:
        return Asked.parse(text)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None


def found(ledger: Ledger, asked: Asked) -> list[Version]:
    """Versions asked for.

    Raises:
        click.ClickException: there is none.
    """
    try:
        return ledger.of(asked)
    except LookupError as exc:
        raise click.ClickException(str(exc)) from None


# ---------------------------------------------------------------------- list
@click.command("list", epilog="With --json: {schema: quantum.policies/1, at_ms, policies: list of {policy_id, agent, "
                              "scope, version, versions, status, reason, outcomes, origin, source, edge_claim, "
                              "valid_from_ms, valid_until_ms, place}}.")
@at_option
@json_option
@settings_options
def list_(settings: Settings, at_ms: int | None, as_json: bool) -> None:
    """List every policy on the ledger with its newest version, or the one in force --at a time."""
    with reading(settings) as log:
        ledger = ledger_on(log, settings)
    told = listed(ledger, at_ms)
    if as_json:
        print_json(told)
        return
    rows = told["policies"]
    if not rows:
        when = "" if at_ms is None else f" in force at {utc(at_ms)}"
        click.echo(f"no policy{when} on {LEDGER}")
        return
    table = Table("policy", "version", "status", "outcomes", "origin", "claim", "valid until", "place", box=None,
                  pad_edge=False)
    claims = {None: "not evaluated", True: "claimed", False: "not claimed"}
    for r in rows:
        until = "no end" if r["valid_until_ms"] is None else utc(r["valid_until_ms"])
        past = at_ms is not None and r["valid_until_ms"] is not None and at_ms > r["valid_until_ms"]
        cells = (r["policy_id"], r["version"], r["status"], r["outcomes"], r["origin"],
                 claims[r["edge_claim"]], until + (" (past)" if past else ""), r["place"])
        table.add_row(*(Text(one_line(str(c)), no_wrap=True) for c in cells))
    data_console().print(table)


# ---------------------------------------------------------------------- diff
@click.command("diff", epilog="With --json: {schema: quantum.policy.diff/1, before, after: {policy_id, version, "
                              "place}, fields: {name: {before, after}}, greedy_flips: list of {state_key, before, "
                              "after}, "
                              "moves: list of {state_key, action, q_before, q_after, p_before, p_after, "
                              "visits_before, visits_after}, cells}; moves with the largest first.")
@click.argument("before", metavar="POLICY@A")
@click.argument("after", metavar="[POLICY@B]", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N",
              help="Rows shown at most; how many more there are is said.")
@json_option
@settings_options
def diff(settings: Settings, before: str, after: str | None, limit: int, as_json: bool) -> None:
    """Say what changed between two versions: POLICY@A POLICY@B, or POLICY@A..B.

    Rows are sorted by the change of the probability of being drawn, then by that of the estimate.
    """
    a, b = _pair(before, after)
    with reading(settings) as log:
        ledger = ledger_on(log, settings, [a.policy_id, b.policy_id])
    old, new = found(ledger, a)[0], found(ledger, b)[0]
    if as_json:
        print_json(compared(old, new))
        return
    _show_diff(old, new, difference(old.policy, new.policy), limit)


def _pair(before: str, after: str | None) -> tuple[Asked, Asked]:
    a = parsed(before)
    if after is None:
        if a.first is None or a.first == a.last:
            raise click.UsageError("two versions are needed: POLICY@A POLICY@B, or POLICY@A..B")
        return Asked(a.policy_id, a.first, a.first), Asked(a.policy_id, a.last, a.last)
    b = parsed(after)
    if any(x.first != x.last for x in (a, b)):
        raise click.UsageError("with two names each is one version: POLICY@A POLICY@B")
    return a, b


def _show_diff(old: Version, new: Version, told: Difference, limit: int) -> None:
    console = data_console()
    for sign, v in (("-", old), ("+", new)):
        console.print(Text(f"{sign} {v.name}  {v.policy.status}, {v.policy.outcomes} outcomes  [{v.record.place}]"))
    for f in told.fields:
        console.print(Text(one_line(f"{f.name}: {f.before} -> {f.after}")))
    for flip in told.flips:
        console.print(Text(f"greedy of {flip.state_key}: {flip.before} -> {flip.after}", style="bold"))
    if not told.moves:
        console.print(Text(f"no estimate, probability or count differs in {told.cells} cells"))
        return
    table = Table("state", "action", "probability", "estimate, R", "visits", box=None, pad_edge=False)
    for m in told.moves[:limit]:
        table.add_row(*(Text(one_line(t)) for t in (
            m.state_key, m.action, _change(m.p_before, m.p_after, ".3f"), _change(m.q_before, m.q_after, "+.4f"),
            _change(m.visits_before, m.visits_after, "d"))))
    console.print(table)
    if len(told.moves) > limit:
        console.print(Text(f"and {len(told.moves) - limit} more rows that changed less (--limit)"))


def _change(a: float | None, b: float | None, form: str) -> str:
    one, two = ("none" if x is None else format(x, form) for x in (a, b))
    return one if a == b else f"{one} -> {two}"


# ---------------------------------------------------------------------- plot
@click.command("plot", epilog="With --json: {schema: quantum.policy.course/1, policy_id, points: list of {version, "
                              "ts_ms, status, reason, outcomes, edge_mean_r, edge_lower_r, flips, greedy_p: {regime: "
                              "probability}, training: {name: number}, policy: {regime: {action: probability}}, gain, "
                              "place}}.")
@click.argument("name", metavar="POLICY[@FIRST..LAST]")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also draw a picture.")
@json_option
@settings_options
def plot(settings: Settings, name: str, png: Path | None, as_json: bool) -> None:
    """Plot a policy over event time: outcomes, edge and its bound, greedy flips, what it does in each regime.

    "greedy p" is the probability of the greedy action, a regime's cells weighed by their outcomes; of a network that of
    the most probable action, all inputs but the regime at their means. Beside it what each update told of itself:
    reward (q_learning: mean of the last 64 outcomes), and of networks entropy, KL, clip fraction, explained variance.
    On a control whose key is on the log also the gain: share of the way from blind choice to the best map.
    """
    asked = parsed(name)
    with reading(settings) as log:
        codec = codec_of(settings)
        ledger = ledger_on(log, settings, [asked.policy_id], codec)
        chosen = found(ledger, asked)
        versions = ledger.versions[asked.policy_id] if asked.first is None else chosen
        more = beside(log, codec, versions)
    points = courses.course(versions, more.training, more.gain)
    if png is not None:
        try:
            picture(asked.policy_id, points, png)
        except (OSError, ValueError) as exc:
            raise click.ClickException(str(exc)) from exc
        click.echo(f"quantum: drew {png}", err=True)
    if as_json:
        print_json(followed(asked.policy_id, points))
        return
    console = data_console()
    begin, end = min(p.ts_ms for p in points), max(p.ts_ms for p in points)
    console.print(Text(f"{asked.policy_id}  versions {points[0].version}..{points[-1].version}  {utc(begin)} to "
                       f"{utc(end)}"))
    for title, line, said in courses.lines(points, max(16, min(SPARK, console.width - 60))):
        console.print(Text(f"{title:<20} {line}  {said}", no_wrap=True, overflow="ignore"))
