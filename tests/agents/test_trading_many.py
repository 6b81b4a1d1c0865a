"""The accounts on arrays are the accounts one by one; the gymnasium environment is the one that training steps."""

from __future__ import annotations

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.algorithms.environments import Environments
from agents.algorithms.trading import Account, Bar, Happened, Rules, opened, step, valid
from agents.algorithms.trading_gym import TradingEnv
from agents.algorithms.trading_many import TradingEnvironments
from agents.algorithms.trading_view import COLUMNS, FEATURES, Tape, dropped, seen
from tests.agents.tapes import QUARTER_MS, made_tape, rough_tape

FIELDS = [f for f in Account.__struct_fields__ if f != "first"]
HARSH = Rules(fee_bps=10.0, half_spread_bps=3.0, slippage_bps=4.0, funding_bps=5.0, funding_interval_ms=4 * QUARTER_MS,
              risk_pct=0.2, max_leverage=8.0, cooldown_bars=3, ruin=0.6)


def drawn(rng: np.random.Generator, masks: np.ndarray) -> np.ndarray:
    """Valid actions mostly, any other now and then."""
    any_ = rng.integers(0, masks.shape[1], len(masks))
    fit = np.array([rng.choice(np.flatnonzero(m)) for m in masks])
    return np.where(rng.random(len(masks)) < 0.2, any_, fit)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([Rules(), HARSH]))
def test_many_accounts_are_the_single_ones(seed: int, rules: Rules) -> None:
    tape, rng = rough_tape(seed, 60), np.random.default_rng(seed)
    envs = TradingEnvironments(tape, 4, rules, episode_bars=25, once=True, starts=[0, 7, 20, 34])
    _, masks = envs.reset(seed)
    distances, follows = tape.distances(rules.stop_atr), tape.follows
    points = tape.funding_points(rules.funding_interval_ms)
    alone, at, over = [opened(rules)] * 4, [0, 7, 20, 34], [False] * 4
    for t in range(25):
        assert masks is not None
        actions = drawn(rng, masks)
        got = envs.step(actions)
        happened_N = envs.happened
        assert happened_N is not None
        for i in range(4):
            assert got.void[i] == over[i]
            if over[i]:
                continue
            row = at[i] + 1
            bar = Bar(*tape.rows[row, 1:5].tolist(), float(distances[row - 1]), int(points[row]), bool(follows[row]))
            alone[i], happened = step(rules, alone[i], int(actions[i]), bar, t == 24)
            assert [getattr(envs.accounts, f)[i] for f in FIELDS] == [getattr(alone[i], f) for f in FIELDS]
            assert [x[i] for x in happened_N] == pytest.approx(list(happened), rel=1e-9, abs=1e-9)
            at[i], over[i] = row, happened.ruined or t == 24
            assert (got.terminated[i], got.truncated[i]) == (happened.ruined, t == 24 and not happened.ruined)
        masks = got.masks
    assert all(over)
    assert envs.over


def test_the_harsh_rules_ruin_some() -> None:
    envs = TradingEnvironments(rough_tape(1, 60), 8, HARSH, episode_bars=25)
    rng, ends = np.random.default_rng(3), np.zeros(2)
    _, masks = envs.reset(1)
    for _ in range(300):
        assert masks is not None
        got = envs.step(drawn(rng, masks))
        masks = got.masks
        ends += got.terminated.sum(), got.truncated.sum()
    assert ends.min() > 0  # so the comparison above meets both ways to end


def test_check_env() -> None:
    check_env(TradingEnv(made_tape(1, 800), episode_bars=50), skip_render_check=True)


@pytest.mark.parametrize("tape", [made_tape(2, 700), rough_tape(5, 300), made_tape(2, 700, volume=False)],
                         ids=["made", "rough", "no volume"])
def test_gymnasium_and_training_see_the_same(tape: Tape) -> None:
    """Over several episodes: observations, masks, rewards, ends, and where episodes begin."""
    n, seed, rng = 3, 11, np.random.default_rng(1)
    envs = TradingEnvironments(tape, n, HARSH, episode_bars=40)
    assert isinstance(envs, Environments)
    single = [TradingEnv(tape, HARSH, episode_bars=40) for _ in range(n)]
    seen_NF, masks = envs.reset(seed)
    told = [env.reset(seed=seed + i) for i, env in enumerate(single)]
    for _ in range(150):
        assert masks is not None
        for i, (observation, info) in enumerate(told):
            assert single[i].observation_space.contains(observation)
            np.testing.assert_array_equal(seen_NF[i], observation)
            np.testing.assert_array_equal(masks[i], info["action_mask"])
        actions = drawn(rng, masks)
        got = envs.step(actions)
        told = []
        for i, env in enumerate(single):
            observation, reward, terminated, truncated, info = env.step(actions[i])
            assert (got.terminated[i], got.truncated[i]) == (terminated, truncated)
            assert got.rewards[i] == pytest.approx(reward, rel=1e-9, abs=1e-9)
            np.testing.assert_array_equal(got.final[i], observation)
            assert set(Happened._fields) <= set(info)
            told.append(env.reset() if terminated or truncated else (observation, info))
        seen_NF, masks = got.observations, got.masks


def test_the_spaces() -> None:
    env = TradingEnv(made_tape(1, 800))
    assert isinstance(env.action_space, gymnasium.spaces.Discrete)
    assert (env.action_space.n, env.observation_space.shape) == (6, (FEATURES,))


def test_a_feed_without_volume_drops_the_column_and_nothing_else() -> None:
    tape = made_tape(2, 700, volume=False)
    assert dropped(tape) == ("spread", "volume")
    columns, known = seen(tape.columns, dropped(tape))
    assert known.all()
    assert not columns[:, COLUMNS.index("volume")].any()
    assert dropped(made_tape(2, 700)) == ("spread",)


def test_where_another_column_is_absent_only_hold_is_valid() -> None:
    tape = rough_tape(5, 300)
    absent = np.isnan(tape.columns).any(axis=1)
    assert 0 < absent.sum() < 60
    env = TradingEnv(tape, episode_bars=299)
    _, info = env.reset(seed=0, options={"start": 0})
    for row in range(299):
        assert info["row"] == row
        expected = [True] + [False] * 5 if absent[row] else list(valid(env.account.side, env.account.cooldown))
        assert list(info["action_mask"]) == expected
        *_, info = env.step(np.int64(0))


def test_observations_hold_no_price_level() -> None:
    tape = made_tape(2, 700)
    scaled = tape.rows.copy()
    scaled[:, 1:5] *= 1000.0
    ours, theirs = TradingEnv(tape, HARSH), TradingEnv(Tape(scaled, tape.interval_ms), HARSH)
    rng = np.random.default_rng(0)
    one, info = ours.reset(seed=3)
    other, _ = theirs.reset(seed=3)
    for _ in range(200):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
        action = np.int64(rng.choice(np.flatnonzero(info["action_mask"])))
        one, _, ended, cut, info = ours.step(action)
        other = theirs.step(action)[0]
        if ended or cut:
            break


def test_nothing_to_come_is_seen() -> None:
    tape = made_tape(2, 700)
    changed = tape.rows.copy()
    changed[300:, 1:5] *= 0.5
    changed[300:, 7:] = 1.0
    ours, theirs = (TradingEnv(Tape(r, tape.interval_ms), HARSH, episode_bars=400) for r in (tape.rows, changed))
    one, info = ours.reset(seed=0, options={"start": 0})
    other, _ = theirs.reset(seed=0, options={"start": 0})
    rng = np.random.default_rng(0)
    for _ in range(299):
        np.testing.assert_array_equal(one, other)
        action = np.int64(rng.choice(np.flatnonzero(info["action_mask"])))
        (one, *_, info), (other, *_) = ours.step(action), theirs.step(action)


def test_a_rule_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="in order of time"):
        Tape(made_tape(1, 800).rows[::-1], QUARTER_MS)
    with pytest.raises(ValueError, match="T at least 2"):
        Tape(made_tape(1, 800).rows[:1], QUARTER_MS)
    assert msgspec.structs.replace(Rules(), ruin=0.0).ruin == 0.0
