"""Records of policies, updates and trades as rows of the page, each with its place on the log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas.codec import Codec
from schemas.events import Event, PolicyRecord, RiskModeChanged, TradeClosed, TrainingCompleted
from schemas.refused import Refused
from streams.inspecting.learned import TOPICS, newest
from streams.inspecting.risk import told
from streams.log import Record
from streams.records import header
from streams.story.wording import text_of

CURRENT = "policy.current"
TRADES = "execution.trade.closed"
UPDATES = (*TOPICS.values(), "risk.mode.changed")
FOLLOWED = (CURRENT, *UPDATES, TRADES)
"""Topics that the page follows."""
Row = dict[str, Any]


def policies(codec: Codec, records: Iterable[Record], held: dict[str, Row]) -> None:
    """Take what is newer than the versions held, as any subscriber does; a tombstone frees its key.

    Of the versions of a policy only the highest is decoded: the header `version` tells which that is.

    Args:
        records: of `policy.current`, in order within a key.
        held: rows by policy id; changed in place.
    """
    newer: dict[str, Record | None] = {}
    for record in records:
        policy_id = (record.key or b"").decode(errors="replace")
        best = newer.get(policy_id)
        if record.value is None or best is None or version_of(record) >= version_of(best):
            newer[policy_id] = record
    for policy_id, chosen in newer.items():
        assert chosen is not None
        if chosen.value is None:
            held.pop(policy_id, None)
            continue
        found = row_of(codec, chosen)
        if found is not None and found["version"] > held.get(policy_id, {"version": 0})["version"]:
            held[policy_id] = found


def version_of(record: Record) -> int:
    """A policy's version by its header; 0 where there is none."""
    text = header(record.headers, "version") or ""
    return int(text) if text.isdecimal() else 0


def row_of(codec: Codec, record: Record) -> Row | None:
    """A record as a row; None for a training run that its slot skipped, and for what cannot be decoded."""
    try:
        event = codec.decode(record.topic, record.value)
    except Refused:
        return None
    row: Row = {"topic": record.topic, "place": record.place, "appended_ms": record.timestamp_ms,
                "ts_ms": getattr(event, "ts_ms", None)}
    if isinstance(event, TrainingCompleted) and event.status == "SKIPPED":
        return None
    if isinstance(event, PolicyRecord):
        return row | _policy(event)
    if isinstance(event, TradeClosed):
        return row | _trade(event)
    return row | {"kind": "update", "symbol": getattr(event, "symbol", None), "source": getattr(event, "source", None),
                  "version": getattr(event, "policy_version", None), "text": _text(record, event)}


def _policy(p: PolicyRecord) -> Row:
    return {
        "kind": "policy", "policy_id": p.policy_id, "agent": p.agent, "scope": p.scope, "version": p.version,
        "status": p.status, "reason": p.reason, "outcomes": p.outcomes, "actor": p.actor,
        "edge_mean_r": None if p.edge is None else p.edge.mean_r,
        "edge_lower_r": None if p.edge is None else p.edge.lower_r, "edge_claim": p.edge_claim,
        "source": p.source, "origin": p.origin,
    }


def _trade(t: TradeClosed) -> Row:
    return {
        "kind": "trade", "trade_id": t.trade_id, "decision_id": t.decision_id, "symbol": t.symbol, "side": t.side,
        "book_id": t.book_id, "r_multiple": t.r_multiple, "pnl_usd": t.pnl_usd, "exit_reason": t.exit_reason,
        "strategy": t.strategy, "policy_version": t.policy_version, "source": t.source, "origin": t.origin,
    }


def _text(record: Record, event: Event) -> str:
    if isinstance(event, RiskModeChanged):
        return told(event)
    if isinstance(event, TrainingCompleted):
        learned = newest("ppo_trader", [(record, event)])
        return f"training run {event.status}: {event.error}" if learned is None else \
            learned.sentence.partition(": ")[2]
    return text_of(event)
