"""The trader's training: which slots have a run, what a run rests on, results, failures, configuration, commands."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
from msgspec.structs import replace

from agents.algorithms.learner import from_bytes
from agents.algorithms.ppo import evaluate
from agents.algorithms.tensors import loaded
from agents.algorithms.trading_fit import unpacked
from agents.contract import Job, Output, Refused
from agents.ppo_trader import PpoTraderAgent, PpoTraderConfig
from agents.ppo_trader.schedule import MAX_SINGLE, ended, recut
from schemas.codec import Codec
from schemas.events import PolicyRecord, TraderDecision, TrainingCompleted, TrainingStarted
from tests.agents.check import check_agent
from tests.agents.test_ppo_trader_live import limits
from tests.agents.traders import (
    DAY_MS,
    QUARTER_MS,
    SMALL,
    START_MS,
    Traded,
    bars,
    command,
    config_event,
    in_order,
    refused,
    trade,
)

HALF_HOUR_MS = 1_800_000
STARTED, COMPLETED = "rl_v3.training.started", "rl_v3.training.completed"
CODEC = Codec()


def crash(agent: PpoTraderAgent, job: Job) -> Output:
    return agent.failed(job, "the trainer process ended with -9", 0)


# ---------------------------------------------------------------------- the schedule
def test_a_day_of_quarter_hours_has_exactly_the_slots_of_its_schedule() -> None:
    """Two bars a slot; the first three slots leave fewer than the eight bars that are needed."""
    t = trade(SMALL, bars(n=98)[:97])
    expected = [(START_MS + i * HALF_HOUR_MS, "warm_up" if i < 3 else "SUCCEEDED") for i in range(48)]
    assert t.slots == expected
    assert [s.slot_start_ms for s in t.of(STARTED)] == [ms for ms, how in expected if how == "SUCCEEDED"]
    assert len({s.run_id for s in t.of(STARTED)}) == 45
    assert [p.version for p in t.of("policy.ledger")] == list(range(1, 46))


def test_slots_without_bars_are_told() -> None:
    some = bars(n=60)
    t = trade(SMALL, [*some[:40], *some[49:]])
    silent = [s for s in t.slots if s[1] == "no_new_data"]
    first, last = some[39].ts_ms // HALF_HOUR_MS + 1, some[49].ts_ms // HALF_HOUR_MS
    assert silent == [(i * HALF_HOUR_MS, "no_new_data") for i in range(first, last)]
    assert len(silent) == 4


def test_a_long_silence_is_one_record_more() -> None:
    found = ended(0, 10, 1, 1, 10 * (MAX_SINGLE + 50), 10)
    assert (len(found), found[-1].slots) == (MAX_SINGLE + 2, 49)
    assert sum(e.slots for e in found) == MAX_SINGLE + 50
    assert found[-1].end_ms == 10 * (MAX_SINGLE + 50)
    assert (ended(0, 10, 1, 1, 9, 10), len(ended(0, 10, 1, 1, 10, 10))) == ([], 1)


def test_a_new_length_does_not_reach_back() -> None:
    assert recut(30, 40, 60) == (30, 60)
    assert recut(0, 40, 15) == (30, 45)


# ---------------------------------------------------------------------- runs
def test_a_run_goes_on_from_the_one_before_and_says_what_it_rested_on() -> None:
    t = trade(SMALL, bars(n=30))
    starts: list[TrainingStarted] = t.of(STARTED)
    results = [e for e in t.events if isinstance(e, TrainingCompleted) and e.status == "SUCCEEDED"]
    assert [s.parent_version for s in starts] == [None, *range(1, len(starts))]
    assert [r.parent_version for r in results] == [s.parent_version for s in starts]
    for s, r in zip(starts, results, strict=True):
        assert (s.last_open_ms or 0) + QUARTER_MS < s.slot_end_ms <= s.ts_ms
        assert (r.rows, r.first_open_ms, r.last_open_ms) == (s.rows, s.first_open_ms, s.last_open_ms)
        assert r.ts_ms == s.ts_ms + PpoTraderAgent.fit_latency_ms
        assert r.growth is not None
        assert r.drawdown is not None
        assert r.avg_reward == pytest.approx((r.growth + r.drawdown) / 2)
        assert CODEC.decode(COMPLETED, CODEC.encode(COMPLETED, r)) == r


def test_a_policy_is_the_network_that_was_trained() -> None:
    t = trade(SMALL, bars(n=30))
    policy: PolicyRecord = t.of("policy.ledger")[-1]
    assert policy.network is not None
    assert (policy.agent, policy.fallback, policy.status, policy.mask) == ("ppo_trader", "HOLD", "ACTIVE", ("spread",))
    assert sha256(policy.network.weights).hexdigest() == policy.network.weights_sha256
    arrays = loaded(policy.network.weights)
    x = np.random.default_rng(0).standard_normal((1, len(policy.network.inputs))).astype(np.float32)
    h = np.tanh(x @ arrays["actor.0.weight"] + arrays["actor.0.bias"])
    logits = h @ arrays["actor.1.weight"] + arrays["actor.1.bias"]
    ours = evaluate(SMALL.settings(), from_bytes(t.state.learner, SMALL.settings()).parameters, x)
    np.testing.assert_allclose(logits - np.log(np.exp(logits).sum()), ours.log_probabilities, atol=1e-6)
    assert CODEC.decode("policy.ledger", CODEC.encode("policy.ledger", policy)) == policy


def test_the_same_job_whenever_the_state_is_asked_and_the_same_result_whoever_performs_it() -> None:
    agent = PpoTraderAgent(SMALL)
    t = trade(SMALL, bars(n=20)[:12])
    t.take(bars(n=20)[12])
    (before,) = agent.jobs(t.state)
    for bar in bars(n=20)[13:]:
        t.take(bar)
    t.take(config_event('{"lr": 0.01}', bars(n=20)[13].ts_ms))
    again = CODEC.decode_state(type(t.state), CODEC.encode_state(t.state))
    assert agent.jobs(again) == agent.jobs(t.state) == (before,)
    assert agent.perform(before) == PpoTraderAgent(SMALL).perform(before)


def test_a_replay_ahead_of_its_fits_has_the_same_slots_on_the_same_bars() -> None:
    on_time, late = trade(SMALL, bars(n=40)), trade(SMALL, bars(n=40), late=True)
    assert late.slots == on_time.slots
    windows = [[(s.slot_start_ms, s.rows, s.last_open_ms) for s in t.of(STARTED)] for t in (on_time, late)]
    assert windows[0] == windows[1]
    learners = [e.learner_sha256 for t in (on_time, late) for e in t.events
                if isinstance(e, TrainingCompleted) and e.status == "SUCCEEDED"]
    assert learners[: len(learners) // 2] == learners[len(learners) // 2:]


def test_slots_wait_within_bounds() -> None:
    t = trade(replace(SMALL, max_waiting=3), bars(n=40), late=True)
    assert sum(how == "backlog" for _, how in t.slots) > 5
    assert len(t.slots) == 19  # each slot that is over is accounted for once


def test_the_window_keeps_the_newest_bars() -> None:
    t = trade(replace(SMALL, window_rows=20), bars(n=60))
    rows = unpacked(t.state.window)
    assert (len(rows), t.state.window_rows) == (20, 20)
    assert int(rows[-1, 0]) == t.of(STARTED)[-1].last_open_ms
    assert (np.diff(rows[:, 0]) == QUARTER_MS).all()


def test_the_first_result_of_a_job_counts_and_no_other() -> None:
    t = trade(SMALL, bars(n=20))
    taken = [e for e in t.events if isinstance(e, TrainingCompleted) and e.status == "SUCCEEDED"]
    for result in (taken[0], replace(taken[-1], learner=b"x"), replace(taken[-1], job_id="ppo_trader/T/1/1")):
        after, out = t.agent.step(t.state, result)
        assert after is t.state
        assert out == ()


# ---------------------------------------------------------------------- failures
def test_a_crash_leaves_the_old_policy_serving_and_is_retried_once_after_a_while() -> None:
    some = bars(n=40)
    t = trade(SMALL, some[:20])
    served, slots = t.state.version, len(t.of(STARTED))
    assert served > 0
    trade(SMALL, some[20:24], done=crash, traded=t)
    attempts = [(s.slot_start_ms, s.attempt) for s in t.of(STARTED)[slots:]]
    assert attempts[:2] == [(attempts[0][0], 1), (attempts[0][0], 2)]
    assert t.of(STARTED)[slots + 1].ts_ms - t.of(STARTED)[slots].ts_ms >= SMALL.retry_after_ms
    assert t.state.version == served
    decided: list[TraderDecision] = t.of("rl_v3.decision")[20:]
    assert {d.policy_version for d in decided} == {served}
    assert not {"no_policy", "policy_expired"} & {d.forced_reason for d in decided}
    trade(SMALL, some[24:], traded=t)
    assert t.state.version > served  # the slots after it are trained again
    failed = [e for e in t.events if isinstance(e, TrainingCompleted) and e.status == "FAILED"]
    assert {e.error for e in failed} == {"the trainer process ended with -9"}


def test_a_result_without_its_weights_is_a_failure() -> None:
    def hollow(agent: PpoTraderAgent, job: Job) -> Output:
        result = agent.perform(job).event
        assert isinstance(result, TrainingCompleted)
        return Output(COMPLETED, replace(result, learner=b"not a learner"))

    t = trade(SMALL, bars(n=30), done=hollow)
    assert t.state.version == 0
    assert {s.attempt for s in t.of(STARTED)} == {1, 2}


# ---------------------------------------------------------------------- configuration
def test_a_configuration_takes_effect_while_the_agent_runs() -> None:
    some = bars(n=120)
    hour = START_MS + DAY_MS // 2
    change = config_event('{"rl_v3.training.interval_minutes": 60, "rl_v3.training.episodes_per_run": 3}', hour)
    off = config_event('{"rl_v3.training.enabled": false}', hour + DAY_MS // 4)
    t = trade(SMALL, in_order([change, off], some))
    lengths = {(s.slot_end_ms - s.slot_start_ms, s.episodes) for s in t.of(STARTED) if s.ts_ms > hour + 3_600_000}
    assert lengths == {(3_600_000, 3)}
    assert {how for ms, how in t.slots if ms >= hour + DAY_MS // 4} == {"disabled"}
    before = [s.episodes for s in t.of(STARTED) if s.ts_ms < hour]
    assert set(before) == {2}
    starts = [ms for ms, _ in t.slots]
    assert starts == sorted(set(starts))


def test_a_configuration_waits_for_its_time() -> None:
    some = bars(n=40)
    change = config_event('{"rl_v3.training.episodes_per_run": 3}', some[30].ts_ms)
    t = trade(SMALL, [change, *some])
    assert [(s.episodes == 3) == (s.ts_ms >= some[30].ts_ms) for s in t.of(STARTED)] == [True] * len(t.of(STARTED))


@pytest.mark.parametrize("values", [
    "no json", "[]", '{"rl_v3.training.interval_minutes": 0}', '{"rl_v3.training.episodes_per_run": "two"}',
    '{"hidden": [8]}', '{"lr": -1.0}', '{"no_such_key": 1}', '{"mode": "LIVE"}', '{"drawdown_weight": -1.0}',
])
def test_a_bad_configuration_is_refused_and_the_old_one_kept(values: str) -> None:
    t = trade(SMALL, bars(n=20))
    good = config_event('{"rl_v3.training.episodes_per_run": 3}', t.state.now_ms)
    state, _ = t.agent.step(t.state, good)
    assert refused(t.agent, state, config_event(values, t.state.now_ms + 1)) == "BAD_CONFIG"
    assert t.agent.sticky_key(good) == "config"
    assert t.agent.sticky_key(config_event(values, 1)) is None


def test_configurations_of_others_and_older_ones_change_nothing() -> None:
    t = trade(SMALL, bars(n=20))
    state, _ = t.agent.step(t.state, config_event('{"lr": 0.1}', 1000))
    assert t.agent.step(state, config_event('{"lr": 0.2}', 999))[0] is state
    assert t.agent.step(state, config_event("{}", 2000, agent="forecast"))[0] is state


@pytest.mark.parametrize("bad", [{"training_interval_minutes": 0}, {"min_rows": 1}, {"min_confidence": 2.0},
                                 {"clip": 0.0}, {"max_attempts": 0}, {"hidden": (0,)}])
def test_a_bad_start_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        PpoTraderConfig(**bad)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- commands
def half() -> Traded:
    """A trader in the midst of a run."""
    t = trade(SMALL, bars(n=40)[:20])
    t.take(bars(n=40)[20])
    t.take(bars(n=40)[21])
    assert t.state.run is not None
    return t


def test_frozen_it_serves_and_learns_nothing() -> None:
    t = half()
    run, version = t.state.run, t.state.version
    assert run is not None
    out = [o.event for o in t.take(command("FREEZE", t.state.now_ms))]
    policy, given_up = out[0], out[1]
    assert isinstance(policy, PolicyRecord)
    assert isinstance(given_up, TrainingCompleted)
    assert (policy.version, policy.status, policy.valid_until_ms, policy.obeyed) == (version + 1, "FROZEN", None, True)
    assert (given_up.slot_start_ms, given_up.skipped) == (run.slot.start_ms, "frozen")
    assert t.agent.jobs(t.state) == ()
    trade(SMALL, bars(n=40)[22:30], traded=t)
    assert t.state.version == version + 1
    assert t.of("rl_v3.decision")[-1].policy_version == version + 1
    t.take(command("UNFREEZE", t.state.now_ms))
    trade(SMALL, bars(n=40)[30:], traded=t)
    assert t.state.version > version + 2


def test_retired_it_holds_and_its_policy_has_no_network() -> None:
    t = half()
    policy = t.take(command("RETIRE", t.state.now_ms))[0].event
    assert isinstance(policy, PolicyRecord)
    assert (policy.status, policy.network) == ("RETIRED", None)
    trade(SMALL, bars(n=40)[22:], traded=t)
    last = t.of("rl_v3.decision")[-1]
    assert (last.action, last.forced_reason) == ("HOLD", "policy_retired")


def test_a_rollback_takes_the_weights_back_and_gives_the_open_run_up() -> None:
    t = trade(SMALL, bars(n=40)[:16])
    old = t.state
    trade(SMALL, bars(n=40)[16:24], traded=t)
    t.take(bars(n=40)[24])
    t.take(bars(n=40)[25])
    assert t.state.run is not None
    version = t.state.version
    rollback = command("ROLLBACK", t.state.now_ms, version=old.version)
    t.state, out = t.agent.rolled_back(t.state, old, rollback)
    policy = out[0].event
    assert isinstance(policy, PolicyRecord)
    assert (policy.version, policy.obeyed, policy.restored_version) == (version + 1, True, old.version)
    assert (t.state.learner, t.state.window) == (old.learner, t.state.window)
    assert out[1].event.skipped == "rolled_back"  # type: ignore[attr-defined]
    trade(SMALL, bars(n=40)[26:30], traded=t)
    starts = t.of(STARTED)
    assert starts[-1].parent_version in (old.version, version + 2)
    without = replace(old, learner=bytes(32))
    t.state, out = t.agent.rolled_back(t.state, without, replace(rollback, command_id="again"))
    assert out[0].event.obeyed is False  # type: ignore[attr-defined]
    assert "NO_WEIGHTS" in out[0].event.reason  # type: ignore[attr-defined]


# ---------------------------------------------------------------------- the suite
def test_the_suite() -> None:
    events = []
    config = replace(SMALL, episode_bars=30, training_interval_minutes=60, mode="PRIMARY", min_confidence=0.0)
    for i, symbol in enumerate(("T", "U")):
        some = bars(symbol, seed=i + 1, n=60)
        agent = PpoTraderAgent(config)
        t = trade(config, some, traded=Traded(agent, agent.new(symbol)))
        events.append(t.events)
    at = START_MS + 40 * QUARTER_MS + 1
    more = [config_event('{"lr": 0.001}', at), command("HALT", at + 1, symbol="U"), command("RESUME", at + QUARTER_MS)]
    more.append(replace(limits(1, at - QUARTER_MS), source="synthetic:1"))
    check_agent(lambda: PpoTraderAgent(config), in_order(more, *events), monotone=False)


def test_a_bar_that_comes_late_is_refused_and_one_that_comes_again_ignored() -> None:
    t = trade(SMALL, bars(n=20))
    assert refused(t.agent, t.state, bars(n=20)[5]) == "LATE"
    assert t.agent.step(t.state, bars(n=20)[19])[0] is t.state
    assert t.agent.step(t.state, replace(bars(n=20)[19], interval_ms=60_000))[0] is t.state
    with pytest.raises(Refused, match="CONTRADICTORY"):
        t.agent.step(t.state, replace(bars(n=20)[19], open_time_ms=t.state.open_ms + 1))
