"""Commands in a fold: whom they reach, the state that a rollback brings, what is kept of them, tombstones; in a run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.contract import Tombstone
from agents.q_learning import QLearningAgent
from schemas.codec import Codec
from schemas.events import Command, Decision, DecisionOutcome, Event, Experience, PolicyCommand, PolicyRecord, Tick
from streams.blobs import lightened
from streams.commanded import MAX_STATE_BYTES, addressee, step, without_state
from streams.driver import Driver
from streams.fold import PartitionFold
from streams.identity import identity_of
from streams.records import (
    CE_ID,
    OWNER,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    SOURCE_TOPIC,
    Incoming,
    Outgoing,
    event_key,
    header,
)
from streams.states import hash_of
from streams.verify.planted import records
from streams.verify.planted.stage import Stage, alone, made, stage
from tests.agents import test_meta_strategy as networks
from tests.agents.test_q_learning import experience, forced

CODEC = Codec()
WARM: list[Event] = [forced(n) for n in range(1, 21)]


class Inbox:
    """`q_learning` on one partition, fed as a relay feeds it."""

    def __init__(self, fold: PartitionFold | None = None) -> None:
        agent = QLearningAgent()
        self.fold = fold or PartitionFold(agent, 0, CODEC, identity_of(agent))
        self.out: list[Outgoing] = []

    def take(self, *events: Event) -> list[Any]:
        """Events that come out."""
        made: list[Outgoing] = []
        for event in events:
            topic = "policy.commands" if isinstance(event, PolicyCommand) else "learning.experience"
            offset = self.fold.offset + 1
            headers = ((SOURCE_TOPIC, topic.encode()), (SOURCE_PARTITION, b"0"), (SOURCE_OFFSET, str(offset).encode()),
                       (OWNER, b"a"))
            made += self.fold.apply(Incoming(offset, event_key(topic, event), CODEC.encode(topic, event), headers))
        self.out += made
        return [o.event if o.event is not None else o for o in made]

    def carried(self) -> dict[str, Any]:
        """What a command needs to bring the present state back."""
        state = self.fold.scopes["S"].state
        return {"version": state.version, "state": self.fold.state_bytes(state),  # type: ignore[attr-defined]
                "state_hash": self.fold.state_hash("S", state), "state_format": 2}


def command(kind: Command, n: int = 90, **changes: Any) -> PolicyCommand:
    values: dict[str, Any] = {"command_id": f"{kind}-{n}", "ts_ms": 1000 * n, "command": kind,
                              "policy_id": "q_learning/S", "actor": "ann", "reason": "because"}
    return PolicyCommand(**(values | changes))


def learnt() -> tuple[Inbox, dict[str, Any]]:
    """A fold with six versions, and what brings the third back."""
    inbox = Inbox()
    inbox.take(*WARM, experience(50), experience(51))
    old = inbox.carried()
    inbox.take(experience(52), experience(53), experience(54))
    return inbox, old


# ---------------------------------------------------------------------- in the fold
def test_a_rollback_brings_its_state_and_its_parent_is_the_newest_version() -> None:
    inbox, old = learnt()
    newest = inbox.fold.scopes["S"]
    policy, current = inbox.take(command("ROLLBACK", **old))
    assert policy == current
    assert (policy.version, policy.restored_version, policy.obeyed, policy.outcomes) == (7, 3, True, 2)
    assert policy.provenance.parent_hash == newest.anchor_hash
    assert policy.provenance.state_hash == inbox.fold.state_hash("S", inbox.fold.scopes["S"].state)
    assert policy.provenance.from_offset == policy.provenance.to_offset == inbox.fold.offset
    assert header(inbox.out[-2].headers, CE_ID) == f"q_learning:0-{inbox.fold.offset}:0"


@pytest.mark.parametrize(("changes", "why"), [
    ({"state_hash": "0" * 64}, "HASH_MISMATCH"), ({"state": None}, "NO_STATE"), ({"state_format": None}, "NO_STATE"),
    ({"state": b"\x01" * (MAX_STATE_BYTES + 1)}, "TOO_LARGE"), ({"version": None}, "NO_VERSION"),
    ({"state_format": 9}, "OTHER_FORMAT"), ({"version": 4}, "is that of version 3"),
])
def test_a_rollback_whose_state_is_not_whole_is_answered_as_refused(changes: dict[str, Any], why: str) -> None:
    inbox, old = learnt()
    before = inbox.fold.scopes["S"].state
    policy, _ = inbox.take(command("ROLLBACK", **(old | changes)))
    assert (policy.version, policy.obeyed, policy.restored_version) == (7, False, None)
    assert why in policy.reason
    assert inbox.fold.scopes["S"].state.cells == before.cells  # type: ignore[attr-defined]


def test_bytes_that_are_no_state_are_answered_too() -> None:
    from hashlib import sha256

    inbox, old = learnt()
    data = b"\xff" * 40
    policy, _ = inbox.take(command("ROLLBACK", **(old | {
        "state": data, "state_hash": sha256(b"S\0" + data).hexdigest()})))
    assert policy.obeyed is False


def test_a_command_reaches_the_scope_of_its_policy_alone_whatever_symbol_it_names() -> None:
    inbox = Inbox()
    inbox.take(*WARM, *(msgspec.structs.replace(e, symbol="T", decision_id=f"T{i}") for i, e in enumerate(WARM)))  # type: ignore[call-arg]
    policy, _ = inbox.take(command("FREEZE", symbol="T"))
    assert policy.policy_id == "q_learning/S"
    assert inbox.take(command("FREEZE", 91, policy_id="q_learning/NOBODY")) == []
    assert addressee(command("RETIRE", policy_id="x/global")) is None
    assert addressee(command("HALT", policy_id=None, symbol="T")) == "T"
    assert addressee(Tick(ts_ms=1, writer="x")) is None


def test_of_a_rollback_nobody_keeps_the_state_for_scopes_born_later() -> None:
    from agents.decision import DecisionAgent

    given = command("ROLLBACK", version=3, state=b"x" * 1000, state_hash="h", state_format=2)
    fold = PartitionFold(DecisionAgent(), 0, CODEC)
    headers = ((SOURCE_TOPIC, b"policy.commands"), (SOURCE_PARTITION, b"0"), (SOURCE_OFFSET, b"0"), (OWNER, b"a"))
    fold.apply(Incoming(0, b"ROLLBACK-90", CODEC.encode("policy.commands", given), headers))
    (kept,) = fold.head().sticky
    assert CODEC.decode("policy.commands", kept.value) == without_state(given)
    assert len(kept.value) < 200


def test_the_tombstone_frees_the_key_on_the_view_and_the_ledger_keeps_all() -> None:
    inbox, _ = learnt()
    inbox.take(command("RETIRE"))
    inbox.take(forced(100, ts_ms=90_000 + 7 * 86_400_000))
    last = inbox.out[-1]
    assert (last.topic, last.key, last.value, type(last.event)) == ("policy.current", b"q_learning/S", None, Tombstone)
    assert [o.topic for o in inbox.out].count("policy.ledger") == 7


def test_a_restored_fold_knows_the_commands_that_it_answered() -> None:
    inbox, old = learnt()
    inbox.take(command("FREEZE"))
    rows = [CODEC.decode("state.scope", v) for k, v in inbox.fold.flush().rows if k == b"scope:S"]
    again = Inbox(PartitionFold(QLearningAgent(), 0, CODEC, inbox.fold.identity))
    again.fold.restore(rows, inbox.fold.head())  # type: ignore[arg-type]
    assert again.take(command("FREEZE")) == inbox.take(command("FREEZE")) == []
    assert again.take(command("ROLLBACK", 99, **old)) == inbox.take(command("ROLLBACK", 99, **old))


# ---------------------------------------------------------------------- a run of the whole roster
def policies(run: Stage) -> list[PolicyRecord]:
    return [e for e in run.driver.events("policy.ledger") if isinstance(e, PolicyRecord) and e.agent == "q_learning"]


def decisions(run: Stage, after: int = 0) -> list[Decision]:
    return [e for e in run.driver.events("rl.meta.strategy_selected") if isinstance(e, Decision)][after:]


def test_frozen_in_the_middle_the_policy_stays_and_decisions_go_on() -> None:
    run = stage(alone("q_learning"), bars=420)
    before, decided = policies(run), len(decisions(run))
    records.go_on(records.command(run, "FREEZE"), 120)
    frozen, = policies(run)[len(before):]
    assert (frozen.status, frozen.tabular) == ("FROZEN", before[-1].tabular)
    later = decisions(run, decided)
    assert len(later) == 30
    assert {(d.forced, d.policy_version) for d in later[1:]} == {(False, frozen.version)}
    learnable = [e for e in run.driver.events("learning.experience") if isinstance(e, Experience) and e.learnable]
    state = run.driver.state("q_learning", "MADE")
    assert state.unlearned == len(learnable) - state.outcomes > 20
    records.go_on(records.command(run, "UNFREEZE"), 40)
    thawed, *more = policies(run)[len(before) + 1:]
    assert (thawed.status, thawed.tabular, thawed.unlearned) == ("ACTIVE", before[-1].tabular, state.unlearned)
    assert more


def test_a_rollback_in_a_run_and_a_policy_that_comes_back() -> None:
    run = records.rolled_back(stage(alone("q_learning"), bars=420))
    back = next(p for p in policies(run) if p.restored_version is not None)
    old = next(p for p in policies(run) if p.version == back.restored_version)
    assert back.tabular == old.tabular
    assert {d.forced for d in decisions(run)[-10:]} == {False}
    records.go_on(records.command(run, "RETIRE"), 60)
    assert {d.forced_reason for d in decisions(run)[-10:]} == {"policy_retired"}
    records.rolled_back(run)
    assert policies(run)[-1].status == "ACTIVE"


def test_without_the_learner_decision_and_paper_obey_until_the_answer() -> None:
    """The learner is stopped: its answer never comes, and no version above is decided by or executed."""
    whole = stage(alone("q_learning"), bars=440)
    ledger = whole.driver.events("policy.ledger")
    agents = {n: a for n, a in whole.roster.items() if n != "q_learning"}
    driver = Driver(agents, codec=CODEC)
    driver.run(merged(made(bars=400), ledger, 400))
    rollback = command("ROLLBACK", ts_ms=driver.now_ms, policy_id="q_learning/MADE", version=1)
    n, ended = len(driver.events("rl.meta.strategy_selected")), len(driver.events("decision.outcome"))
    driver.run([("policy.commands", rollback)])
    driver.run(made(bars=440, start=400))
    later = [e for e in driver.events("rl.meta.strategy_selected")[n:] if isinstance(e, Decision)]
    assert later
    assert {d.forced_reason for d in later} == {"policy_rolled_back"}
    outcomes = [e for e in driver.events("decision.outcome")[ended:] if isinstance(e, DecisionOutcome)]
    assert [o.reason for o in outcomes if o.status == "NOT_EXECUTED"] == ["policy_rolled_back"]


def merged(market: Any, ledger: list[Event], bars: int) -> list[tuple[str, Event]]:
    """The market with a learner's versions, in order of event time, as far as the market goes."""
    rows = [*market, *(("policy.ledger", e) for e in ledger if e.ts_ms <= bars * 3_600_000)]  # type: ignore[attr-defined]
    return sorted(rows, key=lambda row: row[1].ts_ms)


# ---------------------------------------------------------------------- state that is partly heavy
def test_a_rollback_carries_the_networks_beside_the_state_that_names_them() -> None:
    agent, state, _ = networks.warm()
    old, _ = networks.fold(agent, state, [networks.experience(n) for n in range(100, 108)])
    now, _ = networks.fold(agent, old, [networks.experience(n, policy_version=2) for n in range(110, 118)])
    data = CODEC.encode_state(lightened(old, agent.heavy))
    carried = {"policy_id": "meta_strategy/S", "version": 2, "state": data, "state_hash": hash_of("S", data),
               "state_format": 1}
    assert len(data) < 4096 < len(old.learner)

    def told(**more: Any) -> tuple[Any, PolicyRecord]:
        rollback = command("ROLLBACK", 200, **(carried | more))
        read = CODEC.decode("policy.commands", CODEC.encode("policy.commands", rollback))
        after, ((_, policy),) = step(agent, CODEC, "S", now, read)
        assert isinstance(policy, PolicyRecord)
        return after, policy

    after, policy = told(heavy=(old.learner,))
    assert (policy.obeyed, policy.restored_version, after.learner) == (True, 2, old.learner)
    for heavy in (None, (now.learner,), (old.learner + b"x",)):
        after, policy = told(heavy=heavy)
        assert (policy.obeyed, after.learner) == (False, now.learner)
        assert "does not come with it" in policy.reason
    after, policy = told(heavy=(old.learner, bytes(MAX_STATE_BYTES)))
    assert (policy.obeyed, "TOO_LARGE" in policy.reason) == (False, True)
