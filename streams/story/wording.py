"""Records of a story in words and as plain data."""

from __future__ import annotations

from typing import Any, NamedTuple

from schemas.events import (
    Candle,
    Cell,
    Decision,
    DecisionOutcome,
    Event,
    Experience,
    Features,
    MetaUpdated,
    Orphan,
    PolicyApplied,
    PolicyCommand,
    PolicyRecord,
    QUpdated,
    TradeClosed,
)
from streams.inspecting.shown import iso, plain
from streams.story.finding import Hit

RECORD = "a record: {place, timestamp_ms, event, value}; a place is topic-partition@offset, without the topic prefix"


class Step(NamedTuple):
    """One step of the story: what it is, the record that shows it, what the record says."""

    what: str
    place: str
    text: str


def changed(applied: PolicyApplied) -> bool:
    """Whether the policy's action was executed, and is not what would have been done without it."""
    return applied.executed_action == applied.recommended_action != applied.baseline_action


def text_of(event: Event, state_key: str | None = None) -> str:
    """An event in one line; of a policy, the cell of that key."""
    e = event
    if isinstance(e, Candle):
        return f"{e.symbol} closes at {e.close:g}, {iso(e.ts_ms)} (source {e.source}, {e.origin})"
    if isinstance(e, Features):
        volatility = "?" if e.volatility_30 is None else f"{e.volatility_30:.5f}"
        return f"regime {e.regime}, volatility_30 {volatility}, ready {e.ready}"
    if isinstance(e, PolicyRecord):
        cell = cell_of(e, state_key)
        by = "" if e.command_id is None else f", {e.status} by {e.actor} ({e.reason})"
        return f"{e.policy_id} version {e.version}{by}" + ("" if cell is None else f", cell {cell.state_key}: "
               + ", ".join(f"{a} {p:.3f}" for a, p in zip(e.actions, cell.probabilities, strict=True)))
    if isinstance(e, Decision):
        forced = f", forced: {e.forced_reason}" if e.forced else ""
        under = "no policy" if e.policy_version is None else f"version {e.policy_version}"
        return (f"{e.decision_id}: {e.action} under {under} (probability {e.propensity:.3f}, best held "
                f"{e.greedy_action}, without a policy {e.baseline_action}{forced})")
    if isinstance(e, PolicyApplied):
        word = "changed" if changed(e) else "did not change"
        return (f"{e.applier} was told {e.recommended_action}, executed {e.executed_action}, without the policy "
                f"{e.baseline_action}: the policy {word} it")
    if isinstance(e, TradeClosed):
        return (f"{e.side} {e.quantity:g} {e.symbol} {e.entry_price:g} -> {e.exit_price:g}, {e.exit_reason}, fees "
                f"{e.fees:.2f}, funding {e.funding:.2f}, net {e.pnl_usd:+.2f} = {e.r_multiple:+.3f} R")
    return _rest(e)


def _rest(e: Event) -> str:
    if isinstance(e, PolicyCommand):
        to = "" if e.version is None else f" to version {e.version}"
        return f"{e.command} of {e.policy_id or e.symbol or 'all symbols'}{to} by {e.actor}, {iso(e.ts_ms)}: {e.reason}"
    if isinstance(e, DecisionOutcome):
        return e.status + (f" ({e.reason})" if e.reason else "") + (f", trade {e.trade_id}" if e.trade_id else "")
    if isinstance(e, Experience):
        why = f" ({e.reason})" if e.reason else ""
        return f"{e.status}{why}, reward {e.reward_r:+.3f} R, learnable {e.learnable}"
    if isinstance(e, Orphan):
        return f"{e.reason}, given up at {iso(e.ts_ms)}"
    if isinstance(e, QUpdated):
        return (f"Q({e.state_key}, {e.action}) {e.q_before:+.4f} -> {e.q_after:+.4f} R, visit {e.visits}, "
                f"step {e.step_size:.3g}" + (", drift alarm" if e.drift else ""))
    if isinstance(e, MetaUpdated):
        return (f"network of version {e.policy_version} from {e.n} outcomes of {e.mean_reward_r:+.3f} R in the mean, "
                f"entropy {e.entropy:.2f}, KL {e.approx_kl:.4f}, explained variance {e.explained_variance:+.2f}")
    return e.SCHEMA_NAME


def cell_of(policy: PolicyRecord, state_key: str | None) -> Cell | None:
    """The cell of a key; None where the policy has none."""
    cells = policy.tabular.cells if policy.tabular is not None else ()
    return next((c for c in cells if c.state_key == state_key), None)


def record_of(hit: Hit | None) -> dict[str, Any] | None:
    if hit is None:
        return None
    event = hit.event
    return {"place": hit.place, "timestamp_ms": hit.record.timestamp_ms,
            "event": None if event is None else event.SCHEMA_NAME, "value": None if event is None else plain(event)}


def policy_of(hit: Hit | None, state_key: str | None) -> dict[str, Any] | None:
    """A policy's envelope and the one cell; the whole table would bury it."""
    if hit is None or not isinstance(hit.event, PolicyRecord):
        return None
    policy, cell = hit.event, cell_of(hit.event, state_key)
    record = record_of(hit)
    assert record is not None
    del record["value"]["tabular"], record["value"]["network"]
    return {"record": record, "version": policy.version, "cell": None if cell is None else {
        "state_key": cell.state_key, "greedy": cell.greedy,
        "probabilities": dict(zip(policy.actions, cell.probabilities, strict=True)),
        "q": dict(zip(policy.actions, cell.q, strict=True)),
        "visits": dict(zip(policy.actions, cell.visits, strict=True))}}


def command_of(hit: Hit | None) -> dict[str, Any] | None:
    """A command; of the state that it carries, the size."""
    record = record_of(hit)
    if record is not None and hit is not None and isinstance(hit.event, PolicyCommand):
        del record["value"]["state"], record["value"]["heavy"]
        record["value"]["state_bytes"] = None if hit.event.state is None else len(hit.event.state)
    return record
