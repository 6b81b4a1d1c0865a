"""What it costs to treat unrelated decisions as one episode: gamma .99 and lambda .95 against reward - V(s)."""

from __future__ import annotations

import numpy as np
import pytest

from agents.algorithms.draws import bits, normals, uniforms
from agents.algorithms.learner import Learner, new_learner
from agents.algorithms.ppo import act, evaluate, update
from agents.algorithms.ppo_settings import PpoSettings
from agents.algorithms.rollout import Kept, Rollout, RolloutSettings, added, drained, packed, ready

pytestmark = pytest.mark.soak

BEST = np.array([0, 3, 1, 2])
"""Action that earns 1 standard deviation in each regime; neutral (3) earns 0, the others lose half of it."""
SETTINGS = PpoSettings(features=20, actions=4, hidden=(128, 128))
LIMITS = RolloutSettings(size=64)


def means() -> np.ndarray:
    """Mean reward, [regime, action]."""
    table = np.full((4, 4), -0.5)
    table[:, 3] = 0.0
    table[np.arange(4), BEST] = 1.0
    return table


def contexts(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Regimes that last 40 decisions in the mean, and features: 16 of noise, 4 that name the regime."""
    change = uniforms((n,), seed, "change") < 1 / 40
    regime = (bits(n, seed, "regime") % 4).astype(np.intp)[np.maximum.accumulate(np.where(change, np.arange(n), 0))]
    return regime, np.hstack([normals((n, 16), seed, "noise"), np.eye(4)[regime]]).astype(np.float32)


def gain(learner: Learner, seed: int) -> float:
    """Share of the way from the uniform policy to the best one, on the true means."""
    regime, x = contexts(2_000, 10_000 + seed)
    chosen = evaluate(SETTINGS, learner.parameters, x).log_probabilities.argmax(axis=1)
    table = means()
    uniform, best = table[regime].mean(), table[regime, BEST[regime]].mean()
    return float((table[regime, chosen].mean() - uniform) / (best - uniform))


def learned(seed: int, outcomes: int, one_step: bool) -> float:
    """Gain after so many outcomes, through the rollout, one at a time."""
    learner, rollout = new_learner(SETTINGS, seed, "one step"), Rollout()
    regime, x = contexts(outcomes + 1, seed)
    noise, table = normals((outcomes,), seed, "reward"), means()
    for i in range(outcomes):
        acted = act(SETTINGS, learner.parameters, x[i : i + 1], uniforms((1,), seed, "act", i))
        action = int(acted.actions[0])
        kept = Kept(
            id=str(i), stream="S", place=i, observation=packed(x[i], SETTINGS), action=action,
            log_probability=float(acted.log_probabilities[0]), reward=float(table[regime[i], action] + noise[i]),
            version=learner.updates, terminated=one_step, following=b"" if one_step else packed(x[i + 1], SETTINGS))
        rollout = added(rollout, kept, SETTINGS, LIMITS, learner.parameters, learner.updates)
        if ready(rollout, LIMITS):
            batch, rollout = drained(rollout, SETTINGS, learner.parameters)
            learner, _ = update(learner, batch, SETTINGS, seed, "one step")
    return gain(learner, seed)


def test_one_step_episodes_reach_the_oracle_and_chained_ones_do_not() -> None:
    """d = 1.0, 5,000 outcomes."""
    own = [learned(seed, 5_000, True) for seed in range(16)]
    chained = [learned(seed, 5_000, False) for seed in range(16)]
    assert sum(g >= 0.9 for g in own) >= 15, own
    assert sum(g >= 0.9 for g in chained) <= 1, chained
