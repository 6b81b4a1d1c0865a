"""PPO: its gradient against differences and autograd, its objective by hand, its bits, and that it learns."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.algorithms.draws import bits, normals, uniforms
from agents.algorithms.learner import Learner, from_bytes, networks, new_learner, to_bytes
from agents.algorithms.ppo import (
    Batch,
    Terms,
    act,
    closed_gradient,
    evaluate,
    explained_variance,
    log_softmax,
    sampled,
    update,
)
from agents.algorithms.ppo_settings import PpoSettings

BASE = PpoSettings(features=3, actions=4, hidden=(6, 5), precision="float64", entropy_coefficient=0.0,
                   normalise_advantages=False)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "relu": {"activation": "relu"},
    "entropy": {"entropy_coefficient": 0.3},
    "values free": {"value_clip": None},
    "values tight": {"value_clip": 0.05},
    "policy alone": {"value_coefficient": 0.0},
    "critic of its own": {"critic_hidden": (7,), "hidden": (4, 4, 4)},
    "everything, relu": {"entropy_coefficient": 0.3, "value_clip": 0.05, "activation": "relu"},
}


def case(settings: PpoSettings, masked: bool, n: int = 32, seed: int = 1) -> tuple[np.ndarray, Batch]:
    """Parameters and a batch in which some ratios and values are outside of their ranges on either side."""
    dtype = settings.precision
    apart = normals((networks(settings).count,), seed, "t") / 5
    theta = (new_learner(settings, seed, "x").parameters + apart).astype(dtype)
    masks = None
    actions = (bits(n, seed, "a") % settings.actions).astype(np.intp)
    if masked:
        masks = uniforms((n, settings.actions), seed, "m") < 0.5
        masks[np.arange(n), actions] = True
    obs = normals((n, settings.features), seed, "o").astype(dtype)
    policy = evaluate(settings, theta, obs, masks)
    taken = policy.log_probabilities[np.arange(n), actions]
    batch = Batch(
        observations=obs, actions=actions, masks=masks, advantages=normals((n,), seed, "A").astype(dtype),
        log_probabilities=(taken + normals((n,), seed, "l") * 0.3).astype(dtype),
        values=(policy.values + normals((n,), seed, "v") * 0.3).astype(dtype),
        returns=normals((n,), seed, "r").astype(dtype))
    return theta, batch


def closed(theta: np.ndarray, batch: Batch, settings: PpoSettings, gradient: np.ndarray) -> Terms:
    """The closed form on flat vectors."""
    views = networks(settings).weights
    return closed_gradient(views(theta), batch, settings, settings.clip, views(gradient))


def loss(theta: np.ndarray, batch: Batch, settings: PpoSettings) -> float:
    """The objective, experience by experience, from the papers."""
    policy = evaluate(settings, theta, batch.observations, batch.masks)
    total = 0.0
    for i in range(len(batch)):
        p = [x for x in policy.probabilities[i] if x > 0]
        ratio = np.exp(policy.log_probabilities[i, batch.actions[i]] - batch.log_probabilities[i])
        bounded = min(max(ratio, 1 - settings.clip), 1 + settings.clip)
        total -= min(ratio * batch.advantages[i], bounded * batch.advantages[i])
        total -= settings.entropy_coefficient * -sum(x * np.log(x) for x in p)
        v, old, target = policy.values[i], batch.values[i], batch.returns[i]
        error = (v - target) ** 2
        if settings.value_clip is not None:
            near = old + min(max(v - old, -settings.value_clip), settings.value_clip)
            error = max(error, (near - target) ** 2)
        total += settings.value_coefficient * error
    return total / len(batch)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("changed", CASES.values(), ids=CASES.keys())
def test_the_gradient_is_what_differences_say(changed: dict[str, Any], masked: bool) -> None:
    settings = msgspec.structs.replace(BASE, **changed)
    theta, batch = case(settings, masked)
    gradient = np.full_like(theta, np.nan)
    terms = closed(theta, batch, settings, gradient)
    assert 0.1 < terms.clip_fraction < 0.9
    for i in range(0, len(theta), 3):
        apart = np.zeros_like(theta)
        apart[i] = 1e-6
        slope = (loss(theta + apart, batch, settings) - loss(theta - apart, batch, settings)) / 2e-6
        assert gradient[i] == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("changed", CASES.values(), ids=CASES.keys())
def test_the_gradient_is_autograds(changed: dict[str, Any], masked: bool, precision: str) -> None:
    pytest.importorskip("torch", reason="the extra `learn` is not installed")
    from agents.algorithms.ppo_autograd import autograd_gradient

    settings = msgspec.structs.replace(BASE, **changed, precision=precision)
    for seed in range(5):
        theta, batch = case(settings, masked, n=64, seed=seed)
        own, judged = np.full_like(theta, np.nan), np.full_like(theta, np.nan)
        found = closed(theta, batch, settings, own)
        views = networks(settings).weights
        expected = autograd_gradient(views(theta), batch, settings, settings.clip, views(judged))
        assert np.abs(own - judged).max() <= (1e-5 if precision == "float32" else 1e-12)
        assert found == pytest.approx(expected, abs=1e-5)


def test_autograd_and_closed_form_learn_the_same() -> None:
    """Through Adam, clipping and minibatches, whole updates."""
    pytest.importorskip("torch", reason="the extra `learn` is not installed")
    settings = msgspec.structs.replace(
        BASE, minibatch=16, epochs=3, normalise_advantages=True, entropy_coefficient=0.01)
    _, batch = case(settings, True, n=50)
    learner = new_learner(settings, 1, "x")
    own, told = update(learner, batch, settings, 1, "x")
    judged, expected = update(learner, batch, msgspec.structs.replace(settings, gradients="autograd"), 1, "x")
    assert np.abs(own.parameters - judged.parameters).max() < 1e-9
    assert told == pytest.approx(expected, abs=1e-9)


def by_hand(ratio: float, advantage: float) -> tuple[Terms, float]:
    """Terms, and the slope of the objective along the logit of the action taken, of one experience of two actions."""
    settings = PpoSettings(features=1, actions=2, hidden=(), precision="float64", entropy_coefficient=0.0,
                           value_coefficient=0.0)
    theta = np.zeros(networks(settings).count)
    one = np.ones(1)
    batch = Batch(observations=np.zeros((1, 1)), actions=np.array([0]), log_probabilities=np.log(0.5 / ratio) * one,
                  values=0 * one, advantages=advantage * one, returns=0 * one)
    gradient = np.empty_like(theta)
    terms = closed(theta, batch, settings, gradient)
    return terms, float(gradient[2])  # the actor's first bias


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope"),
    [
        (1.0, 2.0, 2.0, 1.0),     # ratio x A x (1 - p)
        (1.5, 2.0, 2.4, 0.0),     # far enough already
        (0.5, 2.0, 1.0, 0.5),     # on the way
        (1.5, -2.0, -3.0, -1.5),  # must go back
        (0.5, -2.0, -1.6, 0.0),   # far enough already
        (1.1, -2.0, -2.2, -1.1),
    ],
)
def test_the_clipped_objective_by_hand(ratio: float, advantage: float, objective: float, slope: float) -> None:
    terms, found = by_hand(ratio, advantage)
    assert terms.policy_loss == pytest.approx(-objective)
    assert found == pytest.approx(-slope)
    assert terms.clip_fraction == (abs(ratio - 1) > 0.2)
    assert terms.approx_kl == pytest.approx(ratio - 1 - np.log(ratio))


@pytest.mark.parametrize(
    ("value", "error", "slope"),
    [
        (0.1, 0.9**2, -1.8),   # inside the range of .2 around 0, target 1
        (0.5, 0.8**2, 0.0),    # beyond it on the way to the target: the clipped error is larger, and a constant
        (-0.5, 1.5**2, -3.0),  # beyond it on the wrong side: the true error is larger
    ],
)
def test_the_clipped_value_by_hand(value: float, error: float, slope: float) -> None:
    settings = PpoSettings(features=1, actions=2, hidden=(), precision="float64", value_clip=0.2, value_coefficient=1.0)
    theta = np.zeros(networks(settings).count)
    theta[-1] = value
    one = np.ones(1)
    batch = Batch(observations=np.zeros((1, 1)), actions=np.array([0]), log_probabilities=np.log(0.5) * one,
                  values=0 * one, advantages=0 * one, returns=one)
    gradient = np.empty_like(theta)
    assert closed(theta, batch, settings, gradient).value_loss == pytest.approx(error)
    assert gradient[-1] == pytest.approx(slope)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_ratio_is_one_before_the_first_step(precision: str) -> None:
    """Whatever acted one at a time is what learns."""
    settings = msgspec.structs.replace(BASE, precision=precision, activation="relu")
    learner = new_learner(settings, 1, "x")
    obs = normals((40, 3), 1, "o").astype(precision)
    one_by_one = [act(settings, learner.parameters, obs[i : i + 1], uniforms((1,), 1, i)) for i in range(40)]
    batch = Batch(
        observations=obs, actions=np.concatenate([a.actions for a in one_by_one]),
        log_probabilities=np.concatenate([a.log_probabilities for a in one_by_one]),
        values=np.concatenate([a.values for a in one_by_one]),
        advantages=normals((40,), 1, "A").astype(precision), returns=normals((40,), 1, "r").astype(precision))
    terms = closed(learner.parameters, batch, settings, np.empty_like(learner.parameters))
    assert terms.clip_fraction == 0
    assert abs(terms.approx_kl) < 1e-6
    assert terms.policy_loss == pytest.approx(-float(batch.advantages.mean()), abs=1e-5)


def test_invalid_actions_have_no_probability_and_are_never_drawn() -> None:
    masks = np.array([[True, False, True, False], [False, False, False, True]])
    policy = log_softmax(np.array([[0.0, 90.0, 0.0, 90.0], [5.0, 5.0, 5.0, -90.0]]), masks)
    assert np.exp(policy).tolist() == [[0.5, 0, 0.5, 0], [0, 0, 0, 1]]
    for u in (0.0, 0.25, 0.5, 0.75, 1 - 2**-53):
        assert sampled(policy, np.array([u, u])).tolist() == [0 if u < 0.5 else 2, 3]
    assert evaluate(BASE, new_learner(BASE, 1).parameters, np.zeros((2, 3)), masks).entropy == pytest.approx(
        [np.log(2), 0.0])


def test_actions_are_drawn_as_often_as_said() -> None:
    chances = np.log(np.tile([0.1, 0.2, 0.7], (20_000, 1)))
    share = np.bincount(sampled(chances, uniforms((20_000,), 1, "u"))) / 20_000
    assert share == pytest.approx([0.1, 0.2, 0.7], abs=0.01)


def settings_of_a_run(**changed: Any) -> PpoSettings:
    return PpoSettings(
        features=3, actions=4, hidden=(8,), minibatch=16, epochs=3, lr_end=0.0, anneal_updates=9, **changed)


def run(settings: PpoSettings, updates: int, through_bytes: bool = False) -> tuple[Learner, list[Any]]:
    learner, told = new_learner(settings, 7, "x"), []
    for i in range(updates):
        if through_bytes:
            learner = from_bytes(to_bytes(learner, settings), settings)
        learner, diagnostics = update(learner, case(settings, True, n=50, seed=i)[1], settings, 7, "x")
        told.append(diagnostics)
    return learner, told


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_same_inputs_give_the_same_bits_also_through_bytes(precision: str) -> None:
    settings = settings_of_a_run(precision=precision)
    (a, told_a), (b, told_b), (c, told_c) = run(settings, 6), run(settings, 6), run(settings, 6, through_bytes=True)
    assert to_bytes(a, settings) == to_bytes(b, settings) == to_bytes(c, settings)
    assert told_a == told_b == told_c
    assert (a.updates, a.steps) == (6, 6 * 3 * 4)


def test_an_update_leaves_its_arguments_alone_and_hangs_on_seed_and_name() -> None:
    settings = settings_of_a_run()
    learner, batch = new_learner(settings, 7, "x"), case(settings, True, n=50)[1]
    before = to_bytes(learner, settings), batch.observations.tobytes(), batch.advantages.tobytes()
    same = to_bytes(update(learner, batch, settings, 7, "x")[0], settings)
    assert before == (to_bytes(learner, settings), batch.observations.tobytes(), batch.advantages.tobytes())
    assert to_bytes(update(learner, batch, settings, 8, "x")[0], settings) != same
    assert to_bytes(update(learner, batch, settings, 7, "y")[0], settings) != same


def test_an_update_stops_where_the_policy_has_moved_too_far() -> None:
    settings = settings_of_a_run(lr=0.05, max_kl=0.01)
    learner, batch = new_learner(settings, 7, "x"), case(settings, False, n=50)[1]
    close = evaluate(settings, learner.parameters, batch.observations).log_probabilities
    batch = dataclasses.replace(batch, log_probabilities=close[np.arange(50), batch.actions])
    _, diagnostics = update(learner, batch, settings, 7, "x")
    assert diagnostics.stopped_early
    assert 1 <= diagnostics.gradient_steps < 12
    _, free = update(learner, batch, msgspec.structs.replace(settings, max_kl=None), 7, "x")
    assert (free.stopped_early, free.gradient_steps) == (False, 12)
    assert all(isinstance(x, (int, float, bool)) for x in free)


def test_explained_variance() -> None:
    r = np.array([1.0, 2.0, 3.0])
    assert explained_variance(r, r) == 1
    assert explained_variance(np.zeros(3), r) == 0
    assert explained_variance(-r, r) == pytest.approx(-3)
    assert explained_variance(r, np.ones(3)) == 0


@pytest.mark.parametrize(
    ("name", "wrong", "why"),
    [
        ("observations", np.zeros((50, 2), np.float32), "observations"),
        ("advantages", np.full(50, np.nan, np.float32), "advantages"),
        ("returns", np.zeros(50), "returns"),
        ("actions", np.full(50, 4), "actions"),
        ("masks", np.zeros((50, 4), np.bool_), "invalid"),
    ],
)
def test_a_wrong_batch_is_refused(name: str, wrong: np.ndarray, why: str) -> None:
    settings = settings_of_a_run()
    batch = dataclasses.replace(case(settings, True, n=50)[1], **{name: wrong})
    with pytest.raises(ValueError, match=why):
        update(new_learner(settings, 7, "x"), batch, settings, 7, "x")


def test_a_batch_of_one_is_learned_from() -> None:
    settings = settings_of_a_run()
    batch = case(settings, False, n=1)[1]
    learner, _ = update(new_learner(settings, 7, "x"), batch, settings, 7, "x")
    assert np.isfinite(learner.parameters).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_contextual_bandit_is_learned(seed: int) -> None:
    """Four contexts, four actions, noise as large as the edge: the right action in each after 2,000 outcomes."""
    settings = PpoSettings(features=4, actions=4, hidden=(32, 32), lr=1e-3)
    learner, best = new_learner(settings, seed, "bandit"), np.array([2, 0, 3, 1])
    for i in range(2_000 // 64):
        context = (bits(64, seed, "context", i) % 4).astype(np.intp)
        obs = np.eye(4, dtype=np.float32)[context]
        acted = act(settings, learner.parameters, obs, uniforms((64,), seed, "act", i))
        reward = ((acted.actions == best[context]) + normals((64,), seed, "noise", i)).astype(np.float32)
        batch = Batch(observations=obs, actions=acted.actions, log_probabilities=acted.log_probabilities,
                      values=acted.values, advantages=reward - acted.values, returns=reward)
        learner, _ = update(learner, batch, settings, seed, "bandit")
    policy = evaluate(settings, learner.parameters, np.eye(4, dtype=np.float32))
    assert policy.log_probabilities.argmax(axis=1).tolist() == best.tolist()
