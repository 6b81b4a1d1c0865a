"""`quantum policy rederive`: versions made again from their input and held against the ledger."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from schemas.catalogue import built_agents
from streams.cli.agents import configured
from streams.cli.exits import Exit
from streams.cli.options import data_console, json_option, print_json, settings_options
from streams.cli.reading import codec_of, find_topic
from streams.cli.recheck import judging
from streams.policies.blame import Divergence
from streams.policies.deriving import Deriver, Report
from streams.policies.ledger import LEDGER, Asked, Ledger, Version, read_ledger
from streams.policies.rederive import OUTCOMES, Answer
from streams.policies.refit import Refit
from streams.settings import Settings
from streams.starting import StoredStarts

SCHEMA = "quantum.rederive/1"
SHOWN = 20  # versions that do not match, named on a terminal
_COLOURS = {"MATCH": "green", "MISMATCH": "red"}
_EPILOG = "\b\nAnswers:\n" + "\n".join(f"  {name}: {text}" for name, text in OUTCOMES.items()) + """

\b
Exit codes, the first that holds: 1 a MISMATCH, or a version that is missing
or unreadable on the ledger, or no such policy; 3 a NO_PROVENANCE; 6 an
OTHER_CODE, OTHER_CONFIG or OTHER_PLATFORM; 7 an EXPIRED; 0 all match.

\b
With --json, one object:
  schema: quantum.rederive/1
  exit_code, counts (versions by answer), seconds, ledger_records
  answers: list of {policy_id, version, place, outcome, why, input,
    parent, state, value: null or {ledger, made}; differs;
    refits: list of {job_id, place, log, made, why}}
  fetched: list of {topic, partition, first, last, records, bytes}
  divergences: list of {policy_id, version, place, source, what, differs,
    unjudged}
  unpublished, notes: lists of text; unreadable: {place: reason}

What each answer means, and what it cannot see: docs/policies.md."""


@click.command("rederive", epilog=_EPILOG)
@click.argument("name", metavar="[POLICY[@VERSION|@FIRST..LAST]]", required=False)
@click.option("--all", "every", is_flag=True, help="Every version of POLICY, or of all policies, in one pass each.")
@click.option("--from-genesis", is_flag=True, help="Fold from the beginning of the input although state is stored.")
@click.option("--agent-config", metavar="AGENT=JSON", multiple=True,
              help="Configuration that the worker gave an agent; may be given several times. --seed, too, must be the "
                   "worker's.")
@click.option("--no-refit", is_flag=True, help="Take the results of fits from the log. Otherwise each fit that a "
                                               "version rests on is made again, which takes as long as it took.")
@json_option
@settings_options
@click.pass_context
def rederive(ctx: click.Context, settings: Settings, name: str | None, every: bool, from_genesis: bool, no_refit: bool,
             agent_config: tuple[str, ...], as_json: bool) -> None:
    """Make versions of a policy again from the records that their provenance names.

    State hash and bytes must be those on policy.ledger. Without a version: the newest. On a mismatch, the first event
    at which the input goes another way is named. A version that rests on a fit matches only if that fit, made again,
    has the very result that is on the log. POLICY is e.g. q_learning/BTCUSDT.
    """
    asked = _asked(name, every)
    began, codec = time.monotonic(), codec_of(settings)
    roster = configured(settings, agent_config, [agent.name for agent in built_agents()])
    with judging(settings) as log:
        find_topic(log, settings, LEDGER)
        ledger = read_ledger(log.read(LEDGER), codec, None if asked is None else [asked.policy_id])
        report = Deriver(log, roster, codec, lambda agent: StoredStarts(log, codec, agent), refit=not no_refit)(
            ledger, _versions(ledger, asked, every), from_genesis)
    seconds = time.monotonic() - began
    code = exit_code(report)
    if as_json:
        print_json(as_dict(report, code, seconds, ledger.records))
    else:
        _show(data_console(), report, seconds, ledger.records)
    ctx.exit(code)


def _asked(name: str | None, every: bool) -> Asked | None:
    if name is None:
        if not every:
            raise click.UsageError("name a POLICY, or give --all for every version of every policy")
        return None
    try:
        asked = Asked.parse(name)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    if every and asked.first is not None:
        raise click.UsageError("--all is every version: name the policy alone")
    return asked


def _versions(ledger: Ledger, asked: Asked | None, every: bool) -> list[Version]:
    """The versions asked for.

    Raises:
        click.ClickException: there is none.
    """
    if asked is None:
        if not ledger.versions:
            raise click.ClickException(f"{LEDGER} holds no policy")
        return [v for versions in ledger.versions.values() for v in versions]
    try:
        found = ledger.of(asked)
    except LookupError as exc:
        raise click.ClickException(str(exc)) from None
    return list(ledger.versions[asked.policy_id]) if every else found


def exit_code(report: Report) -> Exit:
    """The exit code of a report; the worst first."""
    seen = set(report.counts())
    if "MISMATCH" in seen or report.unpublished or report.unreadable:
        return Exit.FAILED
    if "NO_PROVENANCE" in seen:
        return Exit.NOT_PROVEN
    if seen & {"OTHER_CODE", "OTHER_CONFIG", "OTHER_PLATFORM"}:
        return Exit.OTHER_CODE
    return Exit.EXPIRED if "EXPIRED" in seen else Exit.GOOD


def as_dict(report: Report, code: Exit, seconds: float, ledger_records: int) -> dict[str, Any]:
    """The report as plain data, schema `quantum.rederive/1`."""
    answers = [asdict(a) | {name: None if pair is None else pair._asdict() for name, pair in
                            (("parent", a.parent), ("state", a.state), ("value", a.value))} for a in report.answers]
    return {"schema": SCHEMA, "exit_code": int(code), "counts": report.counts(), "seconds": round(seconds, 3),
            "ledger_records": ledger_records, "answers": answers, "fetched": [asdict(f) for f in report.fetched],
            "divergences": [asdict(d) for d in report.divergences], "unpublished": report.unpublished,
            "unreadable": report.unreadable, "notes": report.notes}


# ---------------------------------------------------------------------- for people
def _show(console: Console, report: Report, seconds: float, ledger_records: int) -> None:
    if len(report.answers) == 1:
        for line in _one(report.answers[0]):
            console.print(line)
    else:
        for line in _many(report.answers):
            console.print(line)
    for d in report.divergences:
        for line in _diverging(d):
            console.print(line)
    for text in report.unpublished[:SHOWN]:
        console.print(Text(f"missing   {text} follows from the input and is not on the ledger", style="red"))
    if len(report.unpublished) > SHOWN:
        console.print(Text(f"missing   and {len(report.unpublished) - SHOWN} more", style="red"))
    for place, why in report.unreadable.items():
        console.print(Text(f"missing   {place} cannot be decoded: {why}", style="red"))
    for note in report.notes:
        console.print(Text(f"note      {note}"))
    for f in report.fetched:
        console.print(Text(f"fetched   {f.range}: {f.records:,} records, {f.bytes:,} bytes"))
    console.print(Text(f"took      {seconds:.2f} s, {ledger_records:,} records of the ledger read"))


def _head(a: Answer) -> Text:
    return Text(f"{a.policy_id} version {a.version}  ").append(a.outcome, style=_COLOURS.get(a.outcome, "yellow")) \
        .append(f": {a.why}")


def _one(a: Answer) -> list[Text]:
    lines = [_head(a), Text(f"ledger    {a.place}")]
    if a.input:
        lines.append(Text(f"range     {a.input}"))
    for name, pair in (("parent", a.parent), ("state", a.state), ("bytes", a.value)):
        if pair is not None:
            word = "the same" if pair.same else f"made again {_short(pair.made)}"
            lines.append(Text(f"{name:<9} {_short(pair.ledger)}  {word}", style="" if pair.same else "red"))
    lines += [Text(f"fit       {r.job_id}  {r.place}  {_refit(r)}", style="red" if r.why else "") for r in a.refits]
    return lines + [Text(f"differs   {text}") for text in a.differs]


def _refit(r: Refit) -> str:
    return "a failure, not to be made again" if r.failure else r.why or "the same"


def _short(value: str | None) -> str:
    return "none" if value is None else value[:16]


def _many(answers: Sequence[Answer]) -> list[Text]:
    """A line a policy, then what does not match."""
    by_policy: dict[str, list[Answer]] = defaultdict(list)
    for a in answers:
        by_policy[a.policy_id].append(a)
    lines = []
    for policy_id, own in by_policy.items():
        good = sum(a.outcome == "MATCH" for a in own)
        lines.append(Text(f"{policy_id} versions {own[0].version}..{own[-1].version}: ").append(
            f"{good} of {len(own)} match", style="green" if good == len(own) else "red"))
    bad = [a for a in answers if a.outcome != "MATCH"]
    lines += [_head(a) for a in bad[:SHOWN]]
    return lines + ([Text(f"and {len(bad) - SHOWN} more that do not match; --json has them")]
                    if len(bad) > SHOWN else [])


def _diverging(d: Divergence) -> list[Text]:
    copied = "" if d.source is None else f", a copy of {d.source}"
    place = "no single event can be named" if d.place is None else f"{d.place}{copied}"
    lines = [Text(f"diverges  {d.policy_id} from version {d.version} on, at {place}", style="red"),
             Text(f"          {d.what}")]
    lines += [Text(f"          {text}") for text in d.differs]
    if d.unjudged:
        more = "" if len(d.unjudged) <= 5 else f" and {len(d.unjudged) - 5} more"
        lines.append(Text(f"          not to be held against anything left: {', '.join(d.unjudged[:5])}{more}"))
    return lines
