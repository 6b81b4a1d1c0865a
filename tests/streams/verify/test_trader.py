"""What verify says of the PPO trader: runs performed again, decisions held against weights, and who executes them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from msgspec.structs import replace

from agents.ppo_trader import PpoTraderAgent, PpoTraderConfig
from schemas.events import Event, PolicyApplied, TraderDecision
from streams.verify.cells import Cell
from streams.verify.planted import stage as stages
from streams.verify.planted import trainers
from streams.verify.planted.selftest import NOT_TRAINING
from streams.verify.planted.stage import CODEC, CONFIGS, Stage, at, stage
from streams.verify.traded import NEEDED

BARS = 450


def trained(config: Any = None, **how: Any) -> Stage:
    """Features and the trader, on the made market."""
    agents = {} if config is None else {"ppo_trader": PpoTraderAgent(config)}
    return stage(agents, without=NOT_TRAINING, **{"bars": BARS} | how)


@cache
def honest() -> Stage:
    return trained()


@cache
def bold() -> Stage:
    """Its decisions bind."""
    return trained(replace(CONFIGS["ppo_trader"], mode="PRIMARY"))


def cell_of(run: Stage, kind: Any, **how: Any) -> Cell:
    return at(run.judge({**stages.honest(), **run.roster}, only=("ppo_trader",), **how), "ppo_trader", kind)


def test_runs_are_performed_again_and_counted() -> None:
    cell = cell_of(honest(), "LEARNS", fits=2)
    assert (cell.state, cell.figures["sample"]) == ("PASS", 2)
    runs, skipped = cell.figures["runs"], cell.figures["slots:warm_up"]
    assert f"2 of {runs:.0f} training runs performed again bit for bit" in cell.why
    assert f"slots: SUCCEEDED {runs:.0f}, warm_up {skipped:.0f}" in cell.why
    assert cell.place is not None
    assert cell.place.startswith("policy.ledger-0@")


def test_without_a_run_performed_again_nothing_is_proven() -> None:
    cell = cell_of(honest(), "LEARNS", fits=0)
    assert cell.state == "NOT PROVEN"
    assert "none of" in cell.why


def test_a_made_symbol_that_is_left_out_is_idle_and_says_why() -> None:
    run = trained(PpoTraderConfig(), bars=260)
    learns, applied = cell_of(run, "LEARNS"), cell_of(run, "APPLIED")
    assert (learns.state, applied.state) == ("IDLE", "IDLE")
    assert "synthetic 259" in learns.why
    assert "no decision was taken" in applied.why


def test_before_its_first_run_nothing_is_proven() -> None:
    cell = cell_of(trained(bars=240), "LEARNS")
    assert cell.state == "NOT PROVEN"
    assert "no training run has succeeded yet" in cell.why


def test_on_paper_nothing_is_applied() -> None:
    cell = cell_of(honest(), "APPLIED")
    assert (cell.state, cell.figures["binding"]) == ("IDLE", 0)
    assert "nothing is applied" in cell.why
    assert 0 < cell.figures["held"] == cell.figures["asked"] <= 200


def test_a_trainer_that_never_trains_is_seen_by_honest_code_too() -> None:
    run = stage({"ppo_trader": trainers.NeverTrains()}, without=NOT_TRAINING, bars=BARS)
    cell = at(run.judge(only=("ppo_trader",), fits=1), "ppo_trader", "LEARNS")
    assert cell.state == "FAIL"
    assert "has another result" in cell.why


def test_a_decision_that_binds_on_paper() -> None:
    def binds(topic: str, event: Event) -> Event:
        return replace(event, binding=True) if isinstance(event, TraderDecision) else event

    cell = cell_of(trained(tamper=binds), "APPLIED")
    assert cell.state == "FAIL"
    assert "binds, in mode SHADOW" in cell.why


def reported(run: Stage, n: int, **changes: Any) -> Stage:
    """The first n binding decisions that asked a version, reported as executed."""
    again = trained(run.roster["ppo_trader"].config)
    decisions = [e for e in again.driver.events("rl_v3.decision") if isinstance(e, TraderDecision) and e.probabilities]
    for d in decisions[:n]:
        said = {"decision_id": d.decision_id, "symbol": d.symbol, "ts_ms": d.ts_ms, "policy_id": d.policy_id,
                "policy_version": d.policy_version, "recommended_action": d.action, "executed_action": d.action,
                "baseline_action": "HOLD", "applier": "test", "source": d.source, "origin": d.origin}
        event = PolicyApplied(**said | changes)
        again.log.append("policy.applied", 0, d.symbol.encode(), CODEC.encode("policy.applied", event), (),
                         again.log.now_ms)
    return again


def test_what_binds_must_be_reported() -> None:
    silent = cell_of(bold(), "APPLIED")
    assert silent.figures["binding"] >= NEEDED
    assert silent.state == "FAIL"
    assert "nobody says that one was" in silent.why
    told = cell_of(reported(bold(), 30), "APPLIED")
    assert (told.state, told.figures["executed"]) == ("PASS", 30)


@pytest.mark.parametrize(("changes", "says"), [
    ({"recommended_action": "EMERGENCY_FLATTEN"}, "was reported otherwise than it says"),
    ({"policy_version": 999}, "was reported otherwise than it says"),
    ({"decision_id": "MADE/ppo_trader/1"}, "no binding decision has that name"),
])
def test_a_report_that_does_not_meet_its_decision(changes: dict[str, Any], says: str) -> None:
    cell = cell_of(reported(bold(), 1, **changes), "APPLIED")
    assert cell.state == "FAIL"
    assert says in cell.why


@pytest.mark.parametrize(("change", "says"), [
    ({"value": 5.0}, "says value 5.0"), ({"policy_version": 77}, "names version 77"),
    ({"recommended": "CLOSE"}, "not the most probable"), ({"observation": ()}, "says nothing of what it was given"),
])
def test_a_decision_that_does_not_follow_from_its_version(change: dict[str, Any], says: str) -> None:
    def tamper(topic: str, event: Event) -> Event:
        return replace(event, **change) if isinstance(event, TraderDecision) and event.probabilities else event

    cell = cell_of(trained(tamper=tamper), "APPLIED")
    assert cell.state == "FAIL"
    assert says in cell.why
