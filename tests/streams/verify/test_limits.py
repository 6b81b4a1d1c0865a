"""The row of the risk controller: what it says of honest runs, and of decisions and trades beside the limits."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from agents.decision.limits import bound, with_limits
from schemas.events import Decision, Event, PolicyCommand, PolicyRecord
from streams.verify.limits import contradiction
from streams.verify.planted.stage import Stage, at, made, stage
from tests.agents import test_decision as actor
from tests.agents.test_risk_limits import HOUR, START, limits


@pytest.fixture(scope="module")
def real() -> Stage:
    """Two symbols with a real label: the limits bind them."""
    return stage(partitions=2, source="made", origin="CLAIMED", symbols=("MADE", "OTHER"))


def test_an_honest_run_passes(real: Stage) -> None:
    report = real.judge()
    row = next(r for r in report.rows if r.agent == "risk_controller")
    assert {kind: (c.state, c.why) for kind, c in row.cells.items() if c.state != "PASS"} == {}
    learns, applied = row.cells["LEARNS"], row.cells["APPLIED"]
    assert learns.why.startswith("0 versions") is False
    assert "made again byte for byte" in learns.why
    assert applied.figures["carried"] == applied.figures["due"] > 100
    assert applied.figures["trades"] > 20
    assert {r.topic for r in applied.records} == {"rl.meta.strategy_selected", "policy.ledger"}


def test_a_version_without_its_input_is_red(real: Stage) -> None:
    def turbo(topic: str, event: Event) -> Event:
        if topic == "policy.ledger" and isinstance(event, PolicyRecord) and event.limits is not None:
            return replace(event, limits=replace(event.limits, now=replace(event.limits.now, max_leverage=50.0)))
        return event

    run = stage(tamper=turbo, bars=450, source="made", origin="CLAIMED")
    assert at(run.judge(), "risk_controller", "LEARNS").state == "FAIL"


def test_an_override_is_no_contradiction() -> None:
    order = PolicyCommand(command_id="o", ts_ms=300 * HOUR, command="OVERRIDE", policy_id="risk_controller/global",
                          mode="CONSERVATIVE", until_ms=600 * HOUR, actor="ann", reason="test")
    run = stage(bars=280, source="made", origin="CLAIMED")
    run.driver.run([("policy.commands", order), *made(bars=700, start=280, source="made", origin="CLAIMED")])
    run.tape.flush(run.driver)
    report = run.judge()
    row = {kind: c for r in report.rows if r.agent == "risk_controller" for kind, c in r.cells.items()}
    assert (row["LEARNS"].state, row["APPLIED"].state) == ("PASS", "PASS"), (row["LEARNS"].why, row["APPLIED"].why)
    assert row["APPLIED"].figures["clipped"] > 20


# ---------------------------------------------------------------------- one decision
def decided(version: PolicyRecord, **changes: Any) -> Decision:
    _, (d,) = actor.run(actor.policy(2), actor.bar(4))
    return replace(bound(d, with_limits((), version, -1), 0.01), **changes)


def test_what_follows_is_not_contradicted() -> None:
    for version in (limits(1, "TURBO"), limits(1, "TURBO", 0, 3), limits(1, "MODERATE", full_books=("q_learning",)),
                    limits(1, "MODERATE", closed_until_ms=START + 9 * HOUR)):
        assert contradiction(decided(version), version, 0.01) is None


@pytest.mark.parametrize(("changes", "why"), [
    ({"limits_version": 2}, "not on the ledger"), ({"origin": "SYNTHETIC"}, "binds no synthetic"),
    ({"size_multiplier": 1.1}, "has a size of 1.1"), ({"forced": True, "forced_reason": "risk_daily_loss"}, "do not"),
    ({"ts_ms": START - HOUR}, "did not hold yet")])
def test_what_does_not_follow_is(changes: dict[str, Any], why: str) -> None:
    version = limits(1, "MODERATE")
    d = decided(version, **changes)
    said = contradiction(d, version if d.limits_version == 1 else None, 0.01)
    assert said is not None
    assert why in said


def test_limits_past_their_end_and_closed_books_are_held_against_the_version() -> None:
    over, full = limits(1, "TURBO", 0, 3), limits(1, "MODERATE", full_books=("q_learning",))
    assert over.limits is not None
    assert "other limits" in (contradiction(decided(over, limits=over.limits.now), over, 0.01) or "")
    open_ = decided(full, forced=False, forced_reason=None)
    assert "risk_max_positions" in (contradiction(open_, full, 0.01) or "")
