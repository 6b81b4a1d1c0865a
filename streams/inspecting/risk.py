"""The risk mode as the log has it: the newest change with its reasons, and the newest version of the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from schemas.codec import Codec
from schemas.events import PolicyRecord, RiskModeChanged, RiskPolicy, Tick
from schemas.refused import Refused
from streams.log import LogReader, Record, Start

CHANGES, CURRENT, CLOCK = "risk.mode.changed", "policy.current", "system.clock"
POLICY_ID = "risk_controller/global"
NEWEST = 64  # last records of a topic among which the newest is looked for


@dataclass(frozen=True)
class RiskView:
    """The risk policy as it stands.

    Attributes:
        policy: its newest version.
        place: where it was read.
        change: the newest change of mode; None where it was deleted.
        change_place: where it stands.
        now_ms: event time by the clock of all; None without a tick.
    """

    policy: PolicyRecord
    place: str
    change: RiskModeChanged | None
    change_place: str | None
    now_ms: int | None

    @property
    def limits(self) -> RiskPolicy:
        """Its payload."""
        assert self.policy.limits is not None
        return self.policy.limits

    @property
    def expired(self) -> bool:
        """Whether the fallback's limits hold by now."""
        until_ms = self.policy.valid_until_ms
        return until_ms is not None and self.now_ms is not None and self.now_ms > until_ms

    @property
    def mode(self) -> str:
        """The mode whose limits hold."""
        return (self.limits.otherwise if self.expired else self.limits.now).mode

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it; schema `quantum.risk/1`."""
        p, c = self.policy, self.change
        return {
            "schema": "quantum.risk/1", "mode": self.mode, "expired": self.expired, "now_ms": self.now_ms,
            "version": p.version, "reason": p.reason, "valid_from_ms": p.valid_from_ms,
            "valid_until_ms": p.valid_until_ms, "fallback": p.fallback, "place": self.place,
            "limits": msgspec.to_builtins(self.limits),
            "change": None if c is None else msgspec.to_builtins(c) | {"place": self.change_place},
        }


def risk_view(log: LogReader, codec: Codec) -> RiskView | None:
    """The risk policy as it stands; None where no version was published."""
    found: tuple[PolicyRecord, str] | None = None
    for record in log.read(CURRENT):
        event = _decoded(codec, CURRENT, record) if record.key == POLICY_ID.encode() else None
        if isinstance(event, PolicyRecord) and event.limits is not None and (
                found is None or event.version > found[0].version):
            found = event, record.place
    if found is None:
        return None
    change = newest_change(log, codec)
    ticks = [e.ts_ms for r in log.read(CLOCK, start=Start.last(NEWEST)) for e in [_decoded(codec, CLOCK, r)]
             if isinstance(e, Tick) and e.symbol is None]
    event, place = change or (None, None)
    return RiskView(*found, event, place, max(ticks, default=None))


def newest_change(log: LogReader, codec: Codec) -> tuple[RiskModeChanged, str] | None:
    """The newest change of mode, with its place."""
    found: tuple[RiskModeChanged, str] | None = None
    for record in log.read(CHANGES, start=Start.last(NEWEST)):
        event = _decoded(codec, CHANGES, record)
        if isinstance(event, RiskModeChanged) and (found is None or event.policy_version > found[0].policy_version):
            found = event, record.place
    return found


def told(c: RiskModeChanged) -> str:
    """A change in one line: mode, what forces it and until when, points.

    The reasons stand in the record.
    """
    forced = f", {c.forced}" if c.forced else ""
    return f"{c.current}{forced} ({c.defensive} defensive and {c.aggressive} aggressive points)"


def _decoded(codec: Codec, topic: str, record: Record) -> Any:
    try:
        return codec.decode(topic, record.value)
    except Refused:
        return None
