"""`quantum status` on a real broker: consumer groups, outputs and heads made by hand, so that every figure is known."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas import pages
from schemas.catalogue import AGENTS, built_topics
from schemas.events import Edge, MetaUpdated, QUpdated, TrainingCompleted
from streams.calibrated import table
from streams.cli.exits import Exit
from streams.cli.main import main
from streams.inspecting.claimed import Claims
from streams.inspecting.learned import newest
from streams.inspecting.standing import STATES, judge
from streams.log import LogReader, Record
from streams.records import Outgoing
from tests.patience import PATIENCE_S
from tests.streams.log_fixtures import (
    CODEC,
    T0_MS,
    candles,
    features,
    flags,
    head,
    own_names,
    policy,
    produce,
    record,
    refused,
)
from tests.streams.policies.test_beside import key


@pytest.fixture
def settings(broker):
    return own_names(broker, *(t.name for t in built_topics()))


def commit(settings, agent, **at):
    """Commit offsets of a group without joining it; `at` maps `topic_partition` to the next offset."""
    consumer = Consumer({**settings.client(), "group.id": settings.group(agent), "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(settings.topic(t), p, o) for (t, p), o in at["at"].items()],
                    asynchronous=False)
    consumer.close()


def status(settings, capsys, *args):
    assert main(["status", "--json", "--interval", "0.3", "--no-verify", *args, *flags(settings)]) == Exit.GOOD
    return json.loads(capsys.readouterr().out)


def test_shows_the_cells_of_verify(settings, capsys):
    overview = status(settings, capsys, "--verify")
    assert set(overview["verify"]) == {name for name, io in AGENTS.items() if io.built}
    assert overview["verify"]["q_learning"]["RUNS"] == "IDLE"
    assert status(settings, capsys)["verify"] is None
    assert main(["status", "--interval", "0.3", *flags(settings)]) == Exit.GOOD
    shown = capsys.readouterr().out
    assert "quantum verify" in shown
    assert "PERSISTS" in shown


def test_verify_does_not_go_with_watch():
    assert main(["status", "--watch", "--verify", "--broker", "127.0.0.1:1"]) == Exit.USAGE


def one(overview, agent="features"):
    return next(a for a in overview["agents"] if a["agent"] == agent)


def test_a_fresh_broker_proves_nothing(settings, capsys):
    overview = status(settings, capsys)
    states = {a["agent"]: a["state"] for a in overview["agents"]}
    assert states == {name: "NO EVIDENCE" if io.built else "NOT BUILT" for name, io in AGENTS.items()}
    assert overview["dead_letters"] == {}


def test_says_which_topics_are_missing(broker, capsys):
    features_row = one(status(own_names(broker, "market.candles"), capsys))
    assert features_row["state"] == "NO TOPICS"
    assert "features.inbox" in features_row["why"]
    assert "quantum topics apply" in features_row["why"]


def test_every_figure_of_an_agent(settings, capsys):
    produce(settings, candles(10), partition=1)
    produce(settings, candles(4, "ETHUSDT"), partition=2)
    produce(settings, [record("market.features", features(bar=i), f"features:1-{i}:0") for i in range(3)], partition=1)
    produce(settings, [record("market.features", features(bar=50), "someone:else")], partition=0)
    produce(settings, [head("features", 1, applied=2), head("features", 1, applied=9, refused=1)], partition=1)
    produce(settings, [head("features", 2, applied=4)], partition=2)
    produce(settings, [refused(candles(1)[0], 3), refused(candles(1)[0], 4)])
    commit(settings, "features", at={("market.candles", 1): 7, ("features.inbox", 0): 0})
    overview = status(settings, capsys)
    row = one(overview)
    assert row["lag"] == 3 + 4
    assert [(i["topic"], i["role"], i["lag"], i["committed"], i["end"]) for i in row["inputs"]] == [
        ("market.candles", "source", 7, 7, 14), ("features.inbox", "inbox", 0, 0, 0)]
    assert row["heads"] == {"partitions": 2, "applied": 13, "repeated": 2, "refused": 1, "emitted": 13}
    evidence = row["evidence"]
    assert (evidence["topic"], evidence["partition"], evidence["offset"]) == ("market.features", 1, 2)
    assert (evidence["event"], evidence["event_ts_ms"]) == ("Features", T0_MS + 3 * 3_600_000)
    assert 0 <= evidence["age_s"] < 120
    assert abs(evidence["appended_ms"] / 1000 - time.time()) < 120
    assert (row["state"], row["members"], row["group"]) == ("STOPPED", 0, settings.group("features"))
    assert overview["dead_letters"] == {"market.candles.dlq": 2}
    assert one(overview, "q_learning")["state"] == "NO EVIDENCE"


def test_a_line_for_each_learner_has_its_newest_update(settings, capsys):
    meta = msgspec.convert(pages.example_of("rl.meta.updated"), MetaUpdated)
    q = QUpdated(symbol="A", ts_ms=T0_MS, decision_id="A/1", policy_version=1, state_key="bull|vol:1",
                 action="breakout", reward_r=1.0, q_before=0.0, q_after=0.5, visits=1, step_size=0.5, residual=1.0,
                 drift=False, source="x", origin="SYNTHETIC")
    assert status(settings, capsys)["learners"] == []
    older = replace(meta, symbol="OTHER", policy_version=2, entropy=1.0)
    updates = [replace(q, symbol="B", decision_id="B/1", reward_r=9.0), q,
               replace(q, decision_id="A/2", policy_version=2, reward_r=-0.5)]
    for topic, events in (("rl.meta.updated", [older, meta]), ("rl.q_learning.updated", [*updates, updates[-1]])):
        for n, e in enumerate(events):
            produce(settings, [record(topic, e, f"x:0-{n}:0")], partition=0)
    one_, two = status(settings, capsys)["learners"]
    assert (one_["agent"], one_["symbol"], one_["version"], one_["n"]) == ("q_learning", "A", 2, 2)
    assert (one_["reward"], one_["entropy"], one_["place"]) == (0.25, None, "rl.q_learning.updated-0@3")
    assert (two["agent"], two["symbol"], two["version"]) == ("meta_strategy", meta.symbol, meta.policy_version)
    assert (two["reward"], two["entropy"], two["approx_kl"], two["explained_variance"]) == (
        meta.mean_reward_r, meta.entropy, meta.approx_kl, meta.explained_variance)
    assert main(["status", "--interval", "0.3", "--no-verify", *flags(settings)]) == Exit.GOOD
    shown = capsys.readouterr().out
    assert "q_learning A version 2: reward +0.250 R (2 outcomes)" in shown
    assert f"KL {meta.approx_kl:.4f}" in " ".join(shown.split())


def test_beside_a_learners_update_stands_what_its_policy_claims_and_gains(settings, capsys):
    q = QUpdated(symbol="A", ts_ms=T0_MS, decision_id="A/1", policy_version=2, state_key="bull|vol:1",
                 action="breakout", reward_r=1.0, q_before=0.0, q_after=0.5, visits=1, step_size=0.5, residual=1.0,
                 drift=False, source="x", origin="SYNTHETIC")
    edge = Edge(n=400, mean_r=0.2, sd_r=0.7, lower_r=0.05, smallest_r=0.1)
    two = replace(policy(2, "A"), edge=edge, edge_claim=True)
    produce(settings, [record("rl.q_learning.updated", q, "x:0-1:0")], partition=0)
    assert status(settings, capsys)["learners"][0]["claim"] is None
    for n, p in enumerate((policy(1, "A"), two, policy(7, "B"))):
        produce(settings, [record("policy.current", p, f"x:0-{n}:0")], partition=0)
    (told,) = status(settings, capsys)["learners"]
    assert told["claim"] == {
        "policy_id": "q_learning/A", "version": 2, "place": "policy.current-0@1", "edge_claim": True, "n": 400,
        "edge_mean_r": 0.2, "edge_lower_r": 0.05, "gain": None, "claiming": 1, "policies": 2}
    produce(settings, [record("control.reveal", key("A"), "reveal:r/0")])
    (told,) = status(settings, capsys)["learners"]
    assert told["claim"]["gain"] == table("planted").gain_of_policy(two)
    assert main(["status", "--interval", "0.3", "--no-verify", *flags(settings)]) == Exit.GOOD
    shown = " ".join(capsys.readouterr().out.split())
    assert (f"(1 outcome); edge +0.200 R, bound +0.050 R (n 400): claimed, gain {told['claim']['gain']:+.2f}, "
            "1 of 2 policies claim an edge") in shown


def test_claims_follow_the_newest_versions(settings):
    with LogReader(settings) as log:
        claims = Claims(log, CODEC)
        assert claims.of([("q_learning", "A")]) == {}
        for n, version in enumerate((2, 3, 1)):  # the last is an old one that came again
            produce(settings, [record("policy.current", policy(version, "A"), f"x:0-{n}:0")], partition=0)
            found = claims.of([("q_learning", "A")])["q_learning", "A"]
            assert (found.version, found.sentence) == (max(2, version) if n < 2 else 3, "edge not evaluated")
        produce(settings, [Outgoing("policy.current", b"q_learning/A", None, ())], partition=0)
        assert claims.of([("q_learning", "A")]) == {}


def test_of_the_trader_the_newest_run_that_succeeded_speaks():
    def run(offset, **changes):
        values = {"symbol": "A", "run_id": "r", "ts_ms": 1, "slot_start_ms": 0, "slot_end_ms": 1, "slots": 1,
                  "attempt": 1, "status": "SUCCEEDED", "success": True, "episodes": 2, "mask": (), "source": "x",
                  "origin": "SYNTHETIC", "avg_reward": 1.5, "entropy": 1.2}
        event = TrainingCompleted(**{k: v for k, v in (values | changes).items()
                                     if k in TrainingCompleted.__struct_fields__})
        return Record("rl_v3.training.completed", 0, offset, b"A", b"", (), offset), event

    assert newest("ppo_trader", [run(0, status="SKIPPED", success=False)]) is None
    told = newest("ppo_trader", [run(0), run(1, status="SKIPPED", success=False)])
    assert told.sentence == "ppo_trader A: reward +1.500 % (2 episodes), entropy 1.200"


def test_looks_further_back_for_evidence_among_other_writers(settings, capsys):
    mine = record("market.features", features(), "features:0-0:0")
    others = [record("market.features", features(bar=i), "outsider:1") for i in range(300)]
    produce(settings, [mine, *others], partition=0)
    assert one(status(settings, capsys))["evidence"]["offset"] == 0


def test_members_alone_are_no_evidence(settings, capsys):
    """A consumer that sits in the group and beats its heart, without writing anything, proves nothing."""
    stop = threading.Event()
    consumer = Consumer({**settings.client(), "group.id": settings.group("features"), "enable.auto.commit": False})
    assigned = threading.Event()
    consumer.subscribe([settings.topic("features.inbox")], on_assign=lambda *_: assigned.set())

    def sit():
        while not stop.is_set():
            consumer.poll(0.1)

    thread = threading.Thread(target=sit)
    thread.start()
    try:
        assert assigned.wait(PATIENCE_S)
        row = one(status(settings, capsys))
        assert (row["state"], row["members"]) == ("NO EVIDENCE", 1)
        produce(settings, [head("features", 0, applied=1)], partition=0)
        assert one(status(settings, capsys))["state"] == "IDLE"
        produce(settings, candles(5), partition=0)
        assert one(status(settings, capsys))["state"] == "STALLED"
    finally:
        stop.set()
        thread.join()
        consumer.close()


def test_running_is_told_by_commits_that_rise(settings, capsys):
    produce(settings, candles(400), partition=0)
    produce(settings, [head("features", 0, applied=1)], partition=0)
    commit(settings, "features", at={("market.candles", 0): 1})
    stop = threading.Event()

    def work():
        for offset in range(2, 400):
            if stop.is_set():
                return
            commit(settings, "features", at={("market.candles", 0): offset})
            time.sleep(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        row = one(status(settings, capsys, "--interval", "1.0"))
    finally:
        stop.set()
        thread.join()
    assert row["state"] in ("RUNNING", "BEHIND")
    assert row["per_s"] > 0


def test_tables_and_watching(settings):
    produce(settings, [record("market.features", features(), "features:0-0:0")], partition=0)
    produce(settings, [refused(candles(1)[0], 3)])
    command = [sys.executable, "-m", "streams.cli.main", "status", "--watch", "-c", "2", "-i", "0.2", *flags(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("dead letters: market.candles.dlq 1") == 2
    assert "market.features-0@0" in done.stdout
    assert "NOT BUILT" in done.stdout
    assert "\x1b" not in done.stdout
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert [len(json.loads(text)["agents"]) for text in done.stdout.splitlines()] == [len(AGENTS)] * 2


def test_an_unreachable_broker_has_its_exit_code(settings, capsys):
    assert main(["status", *flags(settings.replace(broker="127.0.0.1:1"))]) == Exit.UNREACHABLE
    assert main(["status", "--count", "2", *flags(settings)]) == Exit.USAGE


CASES = st.fixed_dictionaries({
    "missing": st.sampled_from([(), ("market.features",)]), "proof": st.booleans(), "moved": st.integers(0, 10**6),
    "lag": st.integers(0, 10**6), "members": st.integers(0, 9), "interval_s": st.floats(0.1, 60)})


@given(CASES)
def test_no_state_pretends(case):
    state, why = judge(**case)
    assert state in STATES
    assert why
    assert (state == "NO TOPICS") == bool(case["missing"])
    if not case["proof"]:
        assert state in ("NO TOPICS", "NO EVIDENCE")
    if state in ("RUNNING", "BEHIND"):
        assert case["moved"] > 0
    if state == "IDLE":
        assert case["lag"] == 0
    if state in ("IDLE", "STALLED"):
        assert case["members"] > 0


@given(CASES, st.integers(0, 99))
def test_more_members_never_turn_into_running(case, members):
    state, _ = judge(**case)
    other, _ = judge(**case | {"members": members})
    assert (state in ("RUNNING", "BEHIND")) == (other in ("RUNNING", "BEHIND"))


@pytest.mark.parametrize(("moved", "lag", "expected"), [
    (100, 0, "RUNNING"), (100, 999, "RUNNING"), (100, 1001, "BEHIND"), (0, 0, "IDLE"), (0, 1, "STALLED")])
def test_behind_is_more_than_ten_seconds_of_work(moved, lag, expected):
    assert judge(missing=(), proof=True, moved=moved, lag=lag, members=1, interval_s=1.0)[0] == expected
