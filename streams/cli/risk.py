"""`quantum risk show|override|clear`: the risk mode, and a person's word on it.

The commands here write to `policy.commands` and nothing else; versions of the limits are the risk controller's.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import click

from schemas.events import RISK_MODE_SYMBOLS, Command, RiskMode, RiskReason
from streams import commanding
from streams.cli.exits import Exit
from streams.cli.options import json_option, print_json, settings_options
from streams.cli.policy_commands import EPILOG, answered, commanding_options, tell, wait_option
from streams.cli.reading import codec_of, find_topic, reading
from streams.commanding import COMMANDS, LEDGER, CannotCommand
from streams.inspecting import risk
from streams.policy_view import utc
from streams.settings import Settings

_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SHOW_EPILOG = """\b
Exit codes:
  0: shown
  1: no version of risk_controller/global is on the log
  4: the broker cannot be reached

\b
With --json, one object of the schema quantum.risk/1:
  mode: the mode whose limits hold by the newest tick; expired: it is the fallback's
  version, reason, valid_from_ms, valid_until_ms, fallback, place, now_ms
  limits: {now, otherwise, synthetic, full_books, closed_until_ms}
  change: null, or the newest record of risk.mode.changed, with its place"""


class Until(click.ParamType):
    """An event time: ISO with a zone, or +N with m, h or d from the command's own event time on."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | None, int]:
        """(absolute milliseconds or None, milliseconds from the command on)."""
        if isinstance(value, tuple):
            return value
        relative = re.fullmatch(r"\+(\d+)([mhd])", str(value))
        if relative:
            return None, int(relative[1]) * _UNIT_MS[relative[2]]
        try:
            when = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither an ISO time nor +N with m, h or d", param, ctx)
        if when.tzinfo is None:
            self.fail(f"{value!r} has no time zone; write e.g. {value}Z", param, ctx)
        return int(when.timestamp() * 1000), 0


@click.group("risk")
def command() -> None:
    """The risk mode and its limits: show, override, clear."""


@command.command("show", epilog=_SHOW_EPILOG)
@json_option
@settings_options
def show(settings: Settings, as_json: bool) -> None:
    """Show the mode, the reasons for its last change, the limits, and when they end."""
    with reading(settings) as log:
        for name in (risk.CURRENT, risk.CHANGES, risk.CLOCK):
            find_topic(log, settings, name)
        view = risk.risk_view(log, codec_of(settings))
    if view is None:
        raise click.ClickException(f"no version of {risk.POLICY_ID} is on {risk.CURRENT}: does the risk controller "
                                   f"run, and is there a mark of a book?")
    if as_json:
        print_json(view.as_dict())
        return
    for line in _lines(view):
        click.echo(line)


@command.command("override", epilog=EPILOG)
@click.argument("mode", type=click.Choice(RISK_MODE_SYMBOLS, case_sensitive=False))
@click.option("--until", type=Until(), required=True, metavar="TIME",
              help="Event time at which it ends: ISO with a zone, or +30m, +4h, +2d from now on.")
@commanding_options
@wait_option
def override(settings: Settings, mode: RiskMode, until: tuple[int | None, int], **rest: Any) -> None:
    """Put MODE into force until a time, whatever the scores say.

    It lifts no CRITICAL: while a component is sick the limits stay CONSERVATIVE. The scores may step down underneath.
    """
    _send(settings, "OVERRIDE", mode=mode, until=until, **rest)


@command.command("clear", epilog=EPILOG)
@commanding_options
@wait_option
def clear(settings: Settings, **rest: Any) -> None:
    """End an override before its time. The mode then is never above that of the override: stepping up waits."""
    _send(settings, "CLEAR", **rest)


def _send(settings: Settings, kind: Command, *, reason: str, actor: str, dry_run: bool, as_json: bool, wait_s: float,
          mode: RiskMode | None = None, until: tuple[int | None, int] = (None, 0)) -> None:
    codec = codec_of(settings, writes=True)
    with reading(settings) as log:
        for name in (COMMANDS, LEDGER, commanding.CLOCK):
            find_topic(log, settings, name)
        try:
            plan = commanding.planned_risk(log, codec, kind, risk.POLICY_ID, actor=actor, reason=reason, mode=mode,
                                           until_ms=until[0], for_ms=until[1])
        except CannotCommand as exc:
            raise click.ClickException(str(exc)) from exc
        if dry_run:
            tell(plan, as_json, "planned", dry_run=True)
            return
        outcome = answered(settings, log, codec, plan, as_json, wait_s)
    if outcome is not Exit.GOOD:
        raise click.exceptions.Exit(outcome)


# ---------------------------------------------------------------------- in words
def _lines(view: risk.RiskView) -> list[str]:
    p, payload, c = view.policy, view.limits, view.change
    limits = payload.otherwise if view.expired else payload.now
    until = "no end" if p.valid_until_ms is None else utc(p.valid_until_ms)
    lines = [f"mode      {view.mode}" + (f": past its end, the fallback's limits hold (it was {payload.now.mode})"
                                         if view.expired else f"  ({p.reason})"),
             f"limits    risk a trade {limits.risk_per_trade:.1%}, confidence {limits.min_confidence:g}, positions "
             f"{limits.max_positions}, leverage {limits.max_leverage:g}, stop {limits.stop_atr:g} ATR, daily loss "
             f"{limits.daily_loss_limit:.0%}",
             f"valid     {utc(p.valid_from_ms)} to {until}; past it: {p.fallback}",
             f"binds     {'every symbol' if payload.synthetic else 'every symbol that is not SYNTHETIC'}"]
    if payload.full_books:
        lines.append(f"full      {', '.join(payload.full_books)}: no more positions")
    if payload.closed_until_ms is not None and (view.now_ms or 0) < payload.closed_until_ms:
        lines.append(f"closed    until {utc(payload.closed_until_ms)}: the daily loss has reached its limit")
    lines.append(f"read at   {p.policy_id} version {p.version}  {view.place}")
    if c is None:
        return lines
    lines += ["", f"changed   {c.previous or 'nothing'} to {risk.told(c)}, event time {utc(c.ts_ms)}  "
                  f"{view.change_place}", f"judged    {c.basis}"]
    if c.until_ms is not None:
        lines.append(f"override  until {utc(c.until_ms)}" + (f" by {c.actor}" if c.actor else ""))
    if c.provenance is not None:
        v = c.provenance
        lines.append(f"inputs    {v.input_topic}-{v.input_partition}@{v.from_offset}..{v.to_offset}")
    return [*lines, *(_reason(r) for r in c.reasons)]


def _reason(r: RiskReason) -> str:
    value = "" if r.value is None else f" {r.value:.4g}"
    past = "" if r.threshold is None else f" (from {r.threshold:g} on)"
    n = "" if r.n is None else f", n={r.n}"
    return f"  {r.points:+d}  {r.name}{value}{past}{n}: {', '.join(r.evidence) or 'no record'}"
