"""The Q-learner under command: one version for each, what frozen and retired mean, what a rollback takes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agents.contract import Agent, Refused, Tombstone
from agents.q_learning import QLearningAgent
from agents.q_learning.state import FirstState, QLearningState
from agents.q_learning.table import KEYS
from schemas.codec import Codec
from schemas.events import STRATEGY_SYMBOLS, Command, Event, PolicyCommand, PolicyRecord, QUpdated, ScopeState
from streams.states import decoded, hash_of
from tests.agents.test_q_learning import experience, fold, forced, warm

RECORDED = Path(__file__).with_name("recorded") / "q_learning-1.avro"
CODEC = Codec()
DAY_MS = 86_400_000
NO_STATE = Refused("NO_STATE", "none")


def command(kind: Command, n: int, **changes: Any) -> PolicyCommand:
    """A command of the n-th second."""
    values: dict[str, Any] = {"command_id": f"{kind}-{n}", "ts_ms": 1000 * n, "command": kind,
                              "policy_id": "q_learning/S", "actor": "ann", "reason": "because"}
    return PolicyCommand(**(values | changes))


def learnt(n: int = 6) -> tuple[QLearningAgent, list[QLearningState]]:
    """A learner, and its state at each version from 1 on."""
    agent, state, _ = warm()
    states = [state]
    for i in range(n):
        states.append(fold(agent, states[-1], [experience(50 + i, reward_r=0.1 * i)])[0])
    return agent, states


def one(out: list[Event]) -> PolicyRecord:
    (policy,) = out
    assert isinstance(policy, PolicyRecord)
    return policy


def rollback(agent: QLearningAgent, state: QLearningState, old: QLearningState | Refused, n: int,
             **changes: Any) -> tuple[QLearningState, PolicyRecord]:
    version = old.version if isinstance(old, QLearningState) else 2
    after, out = agent.rolled_back(state, old, command("ROLLBACK", n, version=version, **changes))
    return after, one([o.event for o in out])


# ---------------------------------------------------------------------- transitions
def test_frozen_learns_nothing_and_serves_without_end_until_unfrozen() -> None:
    agent, states = learnt()
    frozen, out = fold(agent, states[-1], [command("FREEZE", 90)])
    policy = one(out)
    assert (policy.version, policy.status, policy.valid_until_ms, policy.reason) == (8, "FROZEN", None,
                                                                                    "freeze: because")
    assert (policy.command_id, policy.actor, policy.obeyed) == ("FREEZE-90", "ann", True)
    assert (policy.ts_ms, policy.valid_from_ms) == (90_000, 55_900), "it holds at once, from what it was learned by"
    later, out = fold(agent, frozen, [experience(100 + n) for n in range(3)] + [experience(100)])
    assert out == []
    assert (later.cells, later.edges, later.version, later.unlearned) == (frozen.cells, frozen.edges, 8, 3)
    assert later.recent[-3:] == tuple(experience(100 + n).decision_id for n in range(3))
    _, out = fold(agent, later, [command("UNFREEZE", 200), experience(101), experience(300)])
    policy, updated, learned = out
    assert isinstance(policy, PolicyRecord)
    assert isinstance(updated, QUpdated)
    assert (policy.version, policy.status, policy.unlearned) == (9, "ACTIVE", 3)
    assert updated.decision_id == experience(300).decision_id, "what came meanwhile is not learned later"
    assert isinstance(learned, PolicyRecord)
    assert (learned.version, learned.command_id, learned.obeyed) == (10, None, None)


def test_retired_has_no_payload_and_its_key_is_freed_after_seven_days_of_event_time() -> None:
    agent, states = learnt()
    retired, out = fold(agent, states[-1], [command("RETIRE", 90)])
    policy = one(out)
    assert (policy.status, policy.tabular, policy.edge, policy.valid_until_ms) == ("RETIRED", None, None, None)
    assert CODEC.decode("policy.ledger", CODEC.encode("policy.ledger", policy)) == policy
    late = 90_000 + 7 * DAY_MS
    state, out = fold(agent, retired, [experience(100), forced(101, ts_ms=late - 1)])
    assert (out, state.version, state.unlearned) == ([], 8, 1)
    state, out = fold(agent, state, [forced(102, ts_ms=late)])
    assert out == [Tombstone(policy_id="q_learning/S", ts_ms=late)]
    assert fold(agent, state, [forced(103, ts_ms=late + 1)])[1] == [], "once"
    back, policy = rollback(agent, state, states[-1], 200, ts_ms=late + 2)
    assert (policy.status, policy.version, back.cells) == ("ACTIVE", 9, states[-1].cells)


def test_a_command_is_the_next_event_that_lets_the_tombstone_leave() -> None:
    agent, states = learnt()
    retired, _ = fold(agent, states[-1], [command("RETIRE", 90)])
    _, out = fold(agent, retired, [command("FREEZE", 91, ts_ms=90_000 + 7 * DAY_MS)])
    assert [type(e) for e in out] == [Tombstone, PolicyRecord]


def test_a_policy_that_came_back_in_time_keeps_its_key() -> None:
    agent, states = learnt()
    retired, _ = fold(agent, states[-1], [command("RETIRE", 90)])
    back, _ = rollback(agent, retired, states[3], 91)
    assert not [e for e in fold(agent, back, [forced(100, ts_ms=8 * DAY_MS)])[1] if isinstance(e, Tombstone)]


def test_a_rollback_takes_the_old_table_and_keeps_what_guards_against_learning_twice() -> None:
    agent, states = learnt()
    now, old = states[-1], states[2]
    state, policy = rollback(agent, now, old, 90)
    for name in ("cells", "outcomes", "explored", "volatilities", "edges", "quantiles", "rewards", "residuals",
                 "origin"):
        assert getattr(state, name) == getattr(old, name), name
    assert (state.version, state.recent, state.now_ms) == (8, now.recent, now.now_ms)
    assert (policy.version, policy.restored_version, policy.outcomes, policy.status) == (8, 3, 2, "ACTIVE")
    assert policy.reason == "rollback to 3: because"
    assert fold(agent, state, [experience(55)]) == (state, []), "what was undone is not learned again"


def test_a_rollback_may_freeze() -> None:
    agent, states = learnt()
    state, policy = rollback(agent, states[-1], states[2], 90, freeze=True)
    assert (state.status, policy.status, policy.valid_until_ms) == ("FROZEN", "FROZEN", None)


@pytest.mark.parametrize(("kind", "first", "why"), [
    ("UNFREEZE", None, "the policy is ACTIVE"), ("FREEZE", "FREEZE", "the policy is FROZEN"),
    ("FREEZE", "RETIRE", "the policy is RETIRED"), ("RETIRE", "RETIRE", "the policy is RETIRED"),
])
def test_what_cannot_be_obeyed_is_answered_too(kind: Command, first: Command | None, why: str) -> None:
    agent, states = learnt()
    state = states[-1] if first is None else fold(agent, states[-1], [command(first, 80)])[0]
    after, out = fold(agent, state, [command(kind, 90)])
    policy = one(out)
    assert (policy.obeyed, policy.status, policy.version) == (False, state.status, state.version + 1)
    assert policy.reason == f"refused: {kind.lower()}: {why}; because"
    assert replace(after, version=state.version, obeyed=state.obeyed) == state


def test_a_rollback_without_its_state_is_answered() -> None:
    agent, states = learnt()
    state, policy = rollback(agent, states[-1], Refused("HASH_MISMATCH", "other bytes"), 90)
    assert (policy.obeyed, policy.restored_version) == (False, None)
    assert policy.reason == "refused: rollback to 2: HASH_MISMATCH: other bytes; because"
    assert state.cells == states[-1].cells
    _, out = agent.rolled_back(states[-1], states[2], command("ROLLBACK", 91, version=5))
    assert "that of version 3" in one([o.event for o in out]).reason


def test_a_command_twice_and_commands_of_others_change_nothing() -> None:
    agent, states = learnt()
    state, _ = fold(agent, states[-1], [command("FREEZE", 90)])
    for other in (command("FREEZE", 90), command("RETIRE", 91, policy_id="q_learning/T"),
                  command("RETIRE", 92, policy_id="ppo/S"), command("HALT", 93, policy_id=None),
                  command("RETIRE", 94, policy_id=None)):
        assert agent.step(state, other) == (state, ())


def test_commands_before_the_first_version_are_answered_behind_it_one_a_step() -> None:
    agent = QLearningAgent()
    state, out = fold(agent, agent.new("S"), [forced(1), command("FREEZE", 2), command("RETIRE", 3),
                                              command("FREEZE", 2), *(forced(n) for n in range(3, 25))])
    assert [(p.version, p.status, p.command_id) for p in out if isinstance(p, PolicyRecord)] == [
        (1, "ACTIVE", None), (2, "FROZEN", "FREEZE-2"), (3, "RETIRED", "RETIRE-3")]
    assert state.early == ()
    full = agent.new("T")
    for n in range(16):
        full, _ = agent.step(full, command("FREEZE", n, policy_id="q_learning/T"))
    with pytest.raises(Refused, match="TOO_EARLY"):
        agent.step(full, command("FREEZE", 99, policy_id="q_learning/T"))


# ---------------------------------------------------------------------- learning goes on from the old state
rewards = st.lists(st.tuples(st.sampled_from(STRATEGY_SYMBOLS), st.sampled_from(KEYS),
                             st.floats(-3, 3, allow_nan=False)), max_size=12)


@settings(max_examples=40)
@given(before=rewards, undone=rewards, after=rewards)
def test_learning_after_a_rollback_is_learning_from_the_old_state(before: Any, undone: Any, after: Any) -> None:
    def outcomes(rows: Any, first: int) -> list[Event]:
        return [experience(first + i, action=a, state_key=k, reward_r=r) for i, (a, k, r) in enumerate(rows)]

    agent, genesis, _ = warm()
    old, _ = fold(agent, genesis, outcomes(before, 100))
    gone, _ = fold(agent, old, outcomes(undone, 200))
    rolled, _ = rollback(agent, gone, old, 300)
    one_way, out = fold(agent, rolled, outcomes(after, 400))
    other_way, expected = fold(agent, old, outcomes(after, 400))
    same = ("cells", "outcomes", "explored", "volatilities", "edges", "quantiles", "rewards", "residuals", "origin")
    assert [getattr(one_way, f) for f in same] == [getattr(other_way, f) for f in same]
    assert [p.tabular for p in out if isinstance(p, PolicyRecord)] == \
        [p.tabular for p in expected if isinstance(p, PolicyRecord)]


# ---------------------------------------------------------------------- a state of an older release
def test_a_recorded_state_of_format_1_is_taken_up() -> None:
    row = CODEC.decode("state.scope", RECORDED.read_bytes())
    assert isinstance(row, ScopeState)
    expected = json.loads(RECORDED.with_suffix(".json").read_text())
    assert (row.scope, row.format_version) == (expected["scope"], expected["format_version"])
    assert hash_of(row.scope, row.state) == expected["state_hash"], "the bytes are what its policy named"
    kind, upgrade = QLearningAgent.former[1]
    assert kind is FirstState
    state = upgrade(CODEC.decode_state(kind, row.state))
    assert json.loads(msgspec.json.encode(state)) == expected["becomes"]
    assert decoded(QLearningAgent(), CODEC, 1, row.state) == state


def test_an_upgraded_state_answers_once_it_knows_what_it_rests_on() -> None:
    row = CODEC.decode("state.scope", RECORDED.read_bytes())
    assert isinstance(row, ScopeState)
    agent: Agent[Any] = QLearningAgent()
    state = decoded(agent, CODEC, 1, row.state)
    name = f"q_learning/{row.scope}"
    waiting, out = agent.step(state, command("FREEZE", 1, policy_id=name))
    assert out == ()
    first = replace(forced(1), symbol=row.scope, decision_id="x", ts_ms=10**12)
    _, out = agent.step(waiting, first)
    (policy,) = [o.event for o in out]
    assert isinstance(policy, PolicyRecord)
    assert (policy.policy_id, policy.status, policy.version, policy.source) == (name, "FROZEN", state.version + 1,
                                                                               "test")
