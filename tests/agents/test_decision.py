"""The actor: which policy is in force, what it draws, and when it must not choose."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agents.contract import Refused
from agents.decision import DecisionAgent, DecisionConfig
from agents.decision.state import DecisionState, SecondCell, SecondDecider, SecondPolicy
from schemas.codec import Codec
from schemas.events import (
    REGIME_SYMBOLS,
    STRATEGY_SYMBOLS,
    Cell,
    Decision,
    Features,
    PolicyCommand,
    PolicyConfig,
    PolicyRecord,
    Tabular,
)

HOUR = 3_600_000
START = 400_000 * HOUR  # a multiple of four hours
P = (0.1, 0.6, 0.2, 0.1)


def bar(n: int, **changes: Any) -> Features:
    """Features at the close of the n-th hour."""
    values: dict[str, Any] = {
        "symbol": "S", "interval_ms": HOUR, "open_time_ms": START + (n - 1) * HOUR, "ts_ms": START + n * HOUR,
        "bar_count": 500 + n, "ready": True, "regime": "bull", "close": 100.0, "volatility_30": 0.01,
        "atr_14_pct": 0.02, "ema_dist_14": 0.01, "ema_dist_50": 0.02, "bollinger_position": 0.9,
        "range_position": 1.1, "source": "test", "origin": "CLAIMED",
    }
    return Features(**(values | changes))


def policy(version: int, from_hour: int = 0, **changes: Any) -> PolicyRecord:
    """A policy whose cells draw with P; greedy is mean_reversion."""
    cells = tuple(
        Cell(state_key=f"{r}|vol:{b}", probabilities=P, q=(0.0,) * 4, se=(1.0,) * 4, visits=(0,) * 4,
             greedy="mean_reversion")
        for r in REGIME_SYMBOLS for b in range(3)
    )
    values: dict[str, Any] = {
        "policy_id": "q_learning/S", "version": version, "agent": "q_learning", "scope": "S",
        "ts_ms": START + from_hour * HOUR, "valid_from_ms": START + from_hour * HOUR, "valid_until_ms": None,
        "fallback": "neutral", "status": "ACTIVE", "reason": "update", "outcomes": 0, "mask": (),
        "actions": STRATEGY_SYMBOLS, "tabular": Tabular(volatility_edges=(0.005, 0.015), cells=cells),
        "source": "test", "origin": "CLAIMED",
    }
    return PolicyRecord(**(values | changes))


def run(*events: Any, **config: Any) -> tuple[DecisionState, list[Decision]]:
    agent = DecisionAgent(DecisionConfig(**({"deciders": ("q_learning",)} | config)))
    state, out = agent.new("S"), []
    for event in events:
        state, outputs = agent.step(state, event)
        out += [o.event for o in outputs]
    return state, out


def test_decides_on_every_fourth_bar_of_the_utc_grid() -> None:
    _, out = run(*(bar(n) for n in range(1, 13)))
    assert [(d.ts_ms - START) // HOUR for d in out] == [4, 8, 12]
    assert [(d.next_ts_ms - START) // HOUR for d in out] == [8, 12, 16]
    assert out[0].decision_id == f"S/q_learning/{START + 4 * HOUR}"


def test_without_a_policy_the_decision_is_forced() -> None:
    _, (d,) = run(bar(4))
    assert (d.action, d.forced, d.forced_reason, d.propensity) == ("neutral", True, "no_policy", 1.0)
    assert d.policy_id is None
    assert d.state_key is None
    assert d.signals == (1, -1, 1, 0)


BUCKETS = [(0.0, 0), (0.00499, 0), (0.005, 1), (0.0149, 1), (0.015, 2), (9, 2)]


@pytest.mark.parametrize(("volatility", "bucket"), BUCKETS)
def test_the_bucket_is_the_number_of_edges_at_or_below(volatility: float, bucket: int) -> None:
    _, (d,) = run(policy(1), bar(4, volatility_30=volatility, regime="volatile"))
    assert d.state_key == f"volatile|vol:{bucket}"


def test_actions_come_with_the_published_probabilities_and_log_them() -> None:
    _, out = run(policy(1), *(bar(4 * n) for n in range(1, 4001)))
    counts = Counter(d.action for d in out)
    for action, p in zip(STRATEGY_SYMBOLS, P, strict=True):
        assert abs(counts[action] / 4000 - p) < 4 * (p * (1 - p) / 4000) ** 0.5
    assert all(d.propensity == P[STRATEGY_SYMBOLS.index(d.action)] for d in out)
    assert {(d.forced, d.greedy_action, d.policy_version) for d in out} == {(False, "mean_reversion", 1)}


def test_the_draw_hangs_on_seed_and_decision_alone() -> None:
    a = [d.action for d in run(policy(1), *(bar(4 * n) for n in range(1, 60)))[1]]
    b = [d.action for d in run(policy(1), *(bar(4 * n) for n in range(30, 60)))[1]]
    c = [d.action for d in run(policy(1), *(bar(4 * n) for n in range(1, 60)), seed=7)[1]]
    assert a[29:] == b
    assert a != c


@settings(max_examples=200)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.lists(st.booleans(), min_size=12, max_size=12))
def test_in_force_is_the_newest_version_whose_time_has_come(starts: list[int], bars_between: list[bool]) -> None:
    """Against the definition: of all versions that arrived, the newest with valid_from at or before the bar."""
    agent, arrived = DecisionAgent(DecisionConfig(deciders=("q_learning",))), []
    state, hour = agent.new("S"), 0
    for version, start in enumerate(starts, 1):
        record = policy(version, start)
        arrived.append(record)
        state, _ = agent.step(state, record)
        if bars_between[version - 1]:
            hour += 4
            state, ((_, d),) = agent.step(state, bar(hour))
            due = [r.version for r in arrived if r.valid_from_ms <= d.ts_ms]
            assert d.policy_version == (max(due) if due else None)


def test_what_can_no_longer_decide_is_dropped() -> None:
    state, _ = run(*(e for n in range(1, 100) for e in (policy(n, 4 * n), bar(4 * n))))
    assert len(state.deciders[0].policies) == 1
    state, _ = run(*(policy(n, 4 * n) for n in range(1, 100)), pending_limit=10)
    assert [p.version for p in state.deciders[0].policies] == list(range(90, 100))


def test_old_versions_and_other_agents_change_nothing() -> None:
    agent = DecisionAgent(DecisionConfig(deciders=("q_learning",)))
    state, _ = agent.step(agent.new("S"), policy(5))
    for record in (policy(5), policy(4), policy(9, agent="risk_controller", policy_id="risk_controller/S")):
        assert agent.step(state, record)[0] is state


def test_a_retired_policy_falls_back_and_a_later_version_returns() -> None:
    retired = policy(2, 8, status="RETIRED", tabular=None, fallback="trend_following")
    _, out = run(policy(1), bar(4), retired, bar(8), policy(3, 12), bar(12))
    assert [(d.forced, d.forced_reason, d.policy_version) for d in out] == [
        (False, None, 1), (True, "policy_retired", 2), (False, None, 3)]
    assert (out[1].action, out[1].greedy_action, out[1].propensity) == ("trend_following", "trend_following", 1.0)


def test_past_its_end_a_policy_falls_back() -> None:
    _, out = run(policy(1, valid_until_ms=START + 8 * HOUR, fallback="breakout"), bar(8), bar(12))
    assert [d.forced_reason for d in out] == [None, "policy_expired"]
    assert (out[1].action, out[1].propensity, out[1].state_key) == ("breakout", 1.0, "bull|vol:1")


@pytest.mark.parametrize("name", ["ema_dist_14", "ema_dist_50", "bollinger_position", "range_position"])
def test_a_missing_input_forces(name: str) -> None:
    _, (d,) = run(policy(1), bar(4, **{name: None}))
    assert (d.forced_reason, d.action, d.propensity, d.signals) == ("missing_feature", "neutral", 1.0, (0, 0, 0, 0))


def test_not_ready_repeated_late_and_second_interval_give_no_decision() -> None:
    late, other = bar(4), bar(16, interval_ms=4 * HOUR)
    _, out = run(bar(1), bar(4, ready=False), bar(8), bar(8), late, other)
    assert [(d.ts_ms - START) // HOUR for d in out] == [8]


@pytest.mark.parametrize("name", ["regime", "volatility_30", "atr_14_pct"])
def test_ready_features_without_the_basics_are_refused(name: str) -> None:
    with pytest.raises(Refused, match="CONTRADICTORY"):
        run(bar(4, **{name: None}))


def _without(record: PolicyRecord, **table: Any) -> PolicyRecord:
    assert record.tabular is not None
    return msgspec.structs.replace(record, tabular=msgspec.structs.replace(record.tabular, **table))


FEW = policy(1).tabular.cells[:11]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "record",
    [
        policy(1, tabular=None),
        policy(1, mask=("volatility",)),
        policy(1, fallback="hold"),
        policy(1, actions=("a", "b", "c", "d")),
        _without(policy(1), cells=FEW),
        _without(policy(1), volatility_edges=(0.2, 0.1)),
        _without(policy(1), cells=(*FEW, msgspec.structs.replace(FEW[0], state_key="volatile|vol:2",
                                                                 probabilities=(0.5, 0.5, 0.5, 0.5)))),
    ],
)
def test_a_policy_that_cannot_be_applied_is_refused(record: PolicyRecord) -> None:
    with pytest.raises(Refused, match="UNUSABLE_POLICY"):
        run(record)


def test_every_decider_has_its_own_book() -> None:
    _, out = run(policy(1, agent="b", policy_id="b/S"), bar(4), deciders=("a", "b"))
    assert [(d.decision_id.split("/")[1], d.book_id, d.forced) for d in out] == [("a", "a", True), ("b", "b", False)]


def test_state_and_decisions_survive_the_codec() -> None:
    codec = Codec()
    state, out = run(policy(1), policy(2, 30), bar(4), bar(8))
    assert codec.decode_state(DecisionState, codec.encode_state(state)) == state
    for d in out:
        topic = "rl.meta.strategy_selected"
        assert codec.decode(topic, codec.encode(topic, d)) == d


@pytest.mark.parametrize("config", [{"deciders": ()}, {"decide_every_bars": 0}, {"size_multiplier": 0.0}])
def test_configuration_is_validated(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"needed|must be"):
        DecisionConfig(**config)


# ---------------------------------------------------------------------- people's commands
def command(kind: str, n: int = 0, **changes: Any) -> PolicyCommand:
    values: dict[str, Any] = {"command_id": f"{kind}-{n}", "ts_ms": START + n * HOUR, "command": kind,
                              "policy_id": "q_learning/S", "actor": "ann", "reason": "test"}
    return PolicyCommand(**(values | changes))


def answer(version: int, of: str, **changes: Any) -> PolicyRecord:
    return policy(version, command_id=of, actor="ann", obeyed=True, **changes)


def test_a_retirement_is_obeyed_before_and_after_its_answer_until_a_later_answer_reactivates() -> None:
    retired = answer(3, "RETIRE-1", status="RETIRED", tabular=None)
    _, out = run(policy(2), bar(4), command("RETIRE", 1), bar(8), retired, bar(12),
                 command("ROLLBACK", 2, version=2), bar(16), answer(4, "ROLLBACK-2", restored_version=2), bar(20))
    assert [(d.forced_reason, d.policy_version) for d in out] == [
        (None, 2), ("policy_retired", 2), ("policy_retired", 3), ("policy_rolled_back", 3), (None, 4)]
    assert {(d.action, d.propensity) for d in out if d.forced} == {("neutral", 1.0)}


def test_a_rollback_bars_newer_versions_until_its_answer_even_those_that_come_meanwhile() -> None:
    _, out = run(policy(5), bar(4), command("ROLLBACK", 1, version=3), bar(8), policy(6, 5), bar(12),
                 answer(7, "ROLLBACK-1", from_hour=5, restored_version=3), bar(16), policy(8, 13), bar(20))
    assert [(d.forced_reason, d.policy_version) for d in out] == [
        (None, 5), ("policy_rolled_back", 5), ("policy_rolled_back", 6), (None, 7), (None, 8)]


def test_versions_up_to_the_one_rolled_back_to_go_on_deciding() -> None:
    _, out = run(policy(3), command("ROLLBACK", 1, version=3), bar(4), policy(4, 5), bar(8))
    assert [d.forced_reason for d in out] == [None, "policy_rolled_back"]


def test_a_refused_command_does_not_bar_for_ever() -> None:
    _, out = run(policy(5), command("ROLLBACK", 1, version=3), bar(4),
                 policy(6, command_id="ROLLBACK-1", actor="ann", obeyed=False), bar(8))
    assert [(d.forced_reason, d.policy_version) for d in out] == [("policy_rolled_back", 5), (None, 6)]


def test_a_command_behind_its_own_answer_changes_nothing() -> None:
    _, out = run(policy(5), answer(6, "ROLLBACK-1", restored_version=3), command("ROLLBACK", 1, version=3), bar(4))
    assert [(d.forced_reason, d.policy_version) for d in out] == [(None, 6)]


def test_what_a_rollback_undid_does_not_decide_late_either() -> None:
    late = answer(6, "ROLLBACK-1", from_hour=8, restored_version=3)
    _, out = run(policy(5), late, bar(4), bar(8))
    assert [(d.forced_reason, d.policy_version) for d in out] == [("policy_rolled_back", 5), (None, 6)]


def test_freezing_changes_nothing_here() -> None:
    agent = DecisionAgent(DecisionConfig(deciders=("q_learning",)))
    state = agent.new("S")
    for kind in ("FREEZE", "UNFREEZE"):
        assert agent.step(state, command(kind)) == (state, ())
        assert agent.sticky_key(command(kind)) is None
    assert agent.step(state, command("RETIRE", policy_id="others/S")) == (state, ())
    _, out = run(policy(3, status="FROZEN"), bar(4))
    assert (out[0].forced, out[0].policy_version) == (False, 3)


def test_a_halt_forces_the_baseline_until_resumed_and_the_newest_counts() -> None:
    def halt(kind: str, n: int) -> PolicyCommand:
        return command(kind, n, policy_id=None)

    _, out = run(policy(2), bar(4), halt("HALT", 5), bar(8), halt("RESUME", 4), bar(12), halt("RESUME", 13), bar(16))
    assert [(d.forced_reason, d.policy_version, d.propensity == 1.0) for d in out] == [
        (None, 2, False), ("halt", 2, True), ("halt", 2, True), (None, 2, False)]
    assert {d.action for d in out if d.forced} == {"neutral"}


def config(hour: int, values: str, agent: str = "decision") -> PolicyConfig:
    return PolicyConfig(config_id=f"c{hour}", agent=agent, ts_ms=START + hour * HOUR, values=values, actor="a",
                        reason="r")


BOTH = ("q_learning", "meta_strategy")


def test_the_first_decider_drives_the_default_book_until_a_configuration_names_another() -> None:
    _, out = run(bar(4), config(9, '{"default_decider": "meta_strategy"}'), bar(8), bar(12), config(13, "{}"), bar(16),
                 deciders=BOTH)
    drives = [d.decider for d in out if d.default_book]
    assert drives == ["q_learning", "q_learning", "meta_strategy", "q_learning"]  # from its event time on, not before
    assert len(out) == 8  # one each for every decider and bar


def test_of_configurations_the_newest_by_event_time_counts_and_of_one_time_the_later_record() -> None:
    meta, q = '{"default_decider": "meta_strategy"}', '{"default_decider": "q_learning"}'
    for written, expected in (((config(3, meta), config(2, q)), "meta_strategy"),
                              ((config(2, q), config(3, meta)), "meta_strategy"),
                              ((config(3, meta), config(3, q)), "q_learning")):
        _, out = run(*written, bar(4), deciders=BOTH)
        assert [d.decider for d in out if d.default_book] == [expected]


@pytest.mark.parametrize("values", ['{"default_decider": "nobody"}', '{"deciders": ["q_learning"]}', "[]", "{"])
def test_a_configuration_that_cannot_be_taken_is_refused_and_concerns_no_symbol_born_later(values: str) -> None:
    with pytest.raises(Refused, match="BAD_CONFIG"):
        run(config(1, values), deciders=BOTH)
    assert DecisionAgent().sticky_key(config(1, values)) is None
    assert DecisionAgent().sticky_key(config(1, "{}")) == "config"
    assert DecisionAgent().sticky_key(config(1, "{}", agent="ppo_trader")) is None


def test_the_configuration_of_another_agent_changes_nothing() -> None:
    before, _ = run(bar(4))
    agent = DecisionAgent(DecisionConfig(deciders=("q_learning",)))
    assert agent.step(before, config(5, "{}", "ppo_trader")) == (before, ())


def test_a_state_of_format_1_is_taken_up() -> None:
    (kind, first), (_, second), (_, third) = (DecisionAgent.former[n] for n in (1, 2, 3))
    held, _ = run(policy(3), bar(4))
    (decider,) = held.deciders
    cells = tuple(SecondCell(state_key=c.state_key, probabilities=c.probabilities, greedy=c.greedy)
                  for c in decider.policies[0].cells)
    policies = tuple(SecondPolicy(**({f: getattr(p, f) for f in SecondPolicy.__struct_fields__} | {"cells": cells}))
                     for p in decider.policies)
    old = SecondDecider(name=decider.name, version=decider.version, policies=policies)
    found = third(second(first(kind(deciders=(old,), interval_ms=held.interval_ms, decided_ms=held.decided_ms))))
    blank = tuple(replace(c, means=(), errors=(), outcomes=()) for c in decider.policies[0].cells)
    kept = replace(decider, policies=(replace(decider.policies[0], cells=blank),))
    assert found == replace(held, deciders=(kept,))
    sized = DecisionAgent(DecisionConfig(deciders=("q_learning",))).step(found, bar(8))[1][0].event
    assert isinstance(sized, Decision)
    assert (sized.forced, sized.size_multiplier) == (False, 0.5)  # nothing is known of its cells
