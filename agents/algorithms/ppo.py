"""Proximal policy optimisation for discrete actions: one file for every agent and environment.

Schulman, Wolski, Dhariwal, Radford, Klimov 2017, Proximal policy optimization algorithms. The details that decide
whether it works are from Engstrom et al. 2020, Implementation matters in deep policy gradients; Andrychowicz et al.
2021, What matters for on-policy deep actor-critic methods; Huang et al. 2022, The 37 implementation details of
proximal policy optimization: separate actor and critic with orthogonal weights, Adam with epsilon 1e-5, annealing,
advantages normalised in each minibatch, a clipped value objective, an entropy bonus, a bounded gradient.

    learner = new_learner(settings, seed, "agent", "scope")
    chosen = act(settings, learner.parameters, observations_BF, uniforms_B)
    learner, diagnostics = update(learner, batch, settings, seed, "agent", "scope")

Where advantages come from: `gae`. Who gathers experiences: `ppo_train` from environments, `rollout` one at a time.
No network here drops units out: what acts is what learns, and the ratio is 1 before the first step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.algorithms.adam import adam_step, clip_norm
from agents.algorithms.draws import permutation
from agents.algorithms.learner import Learner, Weights, networks
from agents.algorithms.mlp import backward, forward, output
from agents.algorithms.ppo_settings import PpoSettings

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
"""True where an action is valid, [B, A]."""

INVALID = -1e9
"""Logit of an invalid action: its probability is exactly 0 in both precisions (Huang and Ontanon 2022, A closer look
at invalid action masking in policy gradient algorithms)."""
NORMALISED_EPS = 1e-8
"""Added to the deviation of the advantages."""


class Policy(NamedTuple):
    """What the networks say of B observations.

    Attributes:
        log_probabilities: of each action, [B, A]; about -1e9 where invalid.
        values: of each observation, [B].
    """

    log_probabilities: Array
    values: Array

    @property
    def probabilities(self) -> Array:
        """Of each action, [B, A]; exactly 0 where invalid."""
        found: Array = np.exp(self.log_probabilities)
        return found

    @property
    def entropy(self) -> Array:
        """Nats, [B]."""
        found: Array = -_plogp(self.log_probabilities)[1].sum(axis=1)
        return found


class Acted(NamedTuple):
    """Choices for B observations, each [B].

    Attributes:
        actions: drawn from the policy.
        log_probabilities: of these actions.
        values: of the observations.
    """

    actions: NDArray[np.intp]
    log_probabilities: Array
    values: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Experiences of one update, B of them.

    Attributes:
        observations: [B, F].
        actions: taken, [B].
        log_probabilities: of these actions under the policy that took them, [B].
        values: of the observations before the update, [B].
        advantages: [B].
        returns: what the critic should say, [B]: advantages + values.
        masks: valid actions, [B, A]; None: all.
    """

    observations: Array
    actions: NDArray[np.integer[Any]]
    log_probabilities: Array
    values: Array
    advantages: Array
    returns: Array
    masks: Mask | None = None

    def __len__(self) -> int:
        return len(self.actions)

    def take(self, rows: NDArray[np.intp]) -> Batch:
        """The named rows, in their order."""
        return Batch(
            observations=self.observations[rows],
            actions=self.actions[rows],
            log_probabilities=self.log_probabilities[rows],
            values=self.values[rows],
            advantages=self.advantages[rows],
            returns=self.returns[rows],
            masks=None if self.masks is None else self.masks[rows],
        )


class Terms(NamedTuple):
    """Parts of the objective on one minibatch; means, plain numbers."""

    policy_loss: float
    value_loss: float
    entropy: float
    approx_kl: float
    clip_fraction: float


class Diagnostics(NamedTuple):
    """How an update went; plain numbers, fit for an event.

    Attributes:
        experiences: in the batch.
        policy_loss: mean over the minibatches of the last epoch, as the next four.
        value_loss: mean squared error, squared units of reward.
        entropy: nats.
        approx_kl: from the policy that acted to the one that learned, nats, as mean (ratio - 1) - ln ratio (Schulman
            2020, Approximating KL divergence).
        clip_fraction: share of ratios outside of the clip range.
        explained_variance: 1 - Var(return - value) / Var(return), of the values before the update; 0 where the returns
            do not vary.
        grad_norm: largest norm of a gradient before it was scaled down.
        lr: learning rate.
        clip: clip range.
        gradient_steps: of this update.
        stopped_early: whether `max_kl` ended it.
    """

    experiences: int
    policy_loss: float
    value_loss: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    explained_variance: float
    grad_norm: float
    lr: float
    clip: float
    gradient_steps: int
    stopped_early: bool


Gradient = Callable[[Weights, Batch, PpoSettings, float, Weights], Terms]
"""(parameters, minibatch, settings, clip range, gradient to be overwritten) -> terms."""


def evaluate(settings: PpoSettings, parameters: Array, observations_BF: Array, masks_BA: Mask | None = None) -> Policy:
    """What the networks with these parameters say of the observations."""
    nets = networks(settings)
    weights = nets.weights(parameters)
    x_BF = np.asarray(observations_BF, settings.precision)
    return Policy(
        log_softmax(output(nets.actor, weights.actor, x_BF), masks_BA),
        output(nets.critic, weights.critic, x_BF)[:, 0],
    )


def act(
    settings: PpoSettings, parameters: Array, observations_BF: Array, uniforms_B: Array, masks_BA: Mask | None = None
) -> Acted:
    """Draw an action for each observation.

    Args:
        uniforms_B: numbers in [0, 1) that decide; the caller draws them by name (`draws.uniforms`).
        masks_BA: valid actions, at least one a row; None: all.
    """
    policy = evaluate(settings, parameters, observations_BF, masks_BA)
    actions_B = sampled(policy.log_probabilities, uniforms_B)
    return Acted(actions_B, policy.log_probabilities[np.arange(len(actions_B)), actions_B], policy.values)


def sampled(log_probabilities_BA: Array, uniforms_B: Array) -> NDArray[np.intp]:
    """Actions by the inverse of the distribution function, [B]; an action of probability 0 is never drawn.

    The logarithms may be off by a constant in each row, as long as their exponentials are numbers.
    """
    reached_BA = np.exp(log_probabilities_BA, dtype=np.float64).cumsum(axis=1)
    thresholds_B1 = (uniforms_B * reached_BA[:, -1])[:, None]
    found: NDArray[np.intp] = (reached_BA <= thresholds_B1).sum(axis=1)
    return found


def log_softmax(logits_BA: Array, masks_BA: Mask | None = None) -> Array:
    """Logarithms of probabilities, [B, A], stored action by action: sums along a few actions are slow row by row."""
    logits_BA = np.array(logits_BA, order="F")
    if masks_BA is not None:
        logits_BA[~masks_BA] = INVALID
    logits_BA -= logits_BA.max(axis=1, keepdims=True)
    logits_BA -= np.log(np.exp(logits_BA).sum(axis=1, keepdims=True))
    return logits_BA


def closed_gradient(weights: Weights, batch: Batch, settings: PpoSettings, clip: float, gradient: Weights) -> Terms:
    """Gradient of the objective on one minibatch, written out.

        loss = mean(-min(ratio A, clipped ratio A)) + c_v mean((v - R)^2) - c_e mean(entropy)

    The value term is the larger of the two where values are clipped.
    """
    nets = networks(settings)
    seen = forward(nets.actor, weights.actor, batch.observations)
    valued = forward(nets.critic, weights.critic, batch.observations)
    d_logits_BA, policy_terms = _policy_gradient(log_softmax(seen[-1], batch.masks), batch, settings, clip)
    d_values_B, value_loss = _value_gradient(valued[-1][:, 0], batch, settings)
    backward(nets.actor, weights.actor, seen, d_logits_BA, gradient.actor)
    backward(nets.critic, weights.critic, valued, d_values_B[:, None], gradient.critic)
    policy_loss, entropy, approx_kl, clip_fraction = policy_terms
    return Terms(policy_loss, value_loss, entropy, approx_kl, clip_fraction)


def _policy_gradient(
    logp_BA: Array, batch: Batch, settings: PpoSettings, clip: float
) -> tuple[Array, tuple[float, float, float, float]]:
    """Gradient of the policy's terms by the logits, [B, A]; and loss, entropy, approximate KL, clip fraction."""
    n, rows = len(batch), np.arange(len(batch))
    log_ratio_B = logp_BA[rows, batch.actions] - batch.log_probabilities
    ratio_B = np.exp(log_ratio_B)
    bounded_B = np.minimum(np.maximum(ratio_B, 1 - clip), 1 + clip)
    gain_B, bounded_gain_B = ratio_B * batch.advantages, bounded_B * batch.advantages
    # Where the clipped term is the smaller one it is a constant: no gradient. Inside the range both are the same.
    pull_B = np.where(gain_B <= bounded_gain_B, gain_B, 0)
    pull_B /= -n
    p_BA, plogp_BA = _plogp(logp_BA)
    entropy_B = -np.add.reduce(plogp_BA, axis=1)
    d_BA = -pull_B[:, None] * p_BA
    d_BA[rows, batch.actions] += pull_B
    if settings.entropy_coefficient:
        plogp_BA += p_BA * entropy_B[:, None]
        plogp_BA *= settings.entropy_coefficient / n
        d_BA += plogp_BA
    return d_BA, (
        -_mean(np.minimum(gain_B, bounded_gain_B)),
        _mean(entropy_B),
        _mean(ratio_B - 1 - log_ratio_B),
        float(np.count_nonzero(ratio_B != bounded_B)) / n,
    )


def _value_gradient(values_B: Array, batch: Batch, settings: PpoSettings) -> tuple[Array, float]:
    """Gradient of the critic's term by the values, [B], and the mean squared error that it falls down."""
    off_B = values_B - batch.returns
    squared_B = off_B * off_B
    if settings.value_clip is not None:
        moved_B = values_B - batch.values
        near_B = np.minimum(np.maximum(moved_B, -settings.value_clip), settings.value_clip)
        clipped_B = batch.values + near_B - batch.returns
        clipped_B *= clipped_B
        # Outside of the range the clipped error is a constant; it counts where it is the larger one.
        off_B = np.where((near_B == moved_B) | (squared_B >= clipped_B), off_B, 0)
        squared_B = np.maximum(squared_B, clipped_B)
    return off_B * (2 * settings.value_coefficient / len(batch)), _mean(squared_B)


def _plogp(logp_BA: Array) -> tuple[Array, Array]:
    """p and p ln p, [B, A] each; both 0 where an action is invalid."""
    p_BA = np.exp(logp_BA)
    return p_BA, p_BA * logp_BA


def _mean(x_B: Array) -> float:
    return float(np.add.reduce(x_B)) / len(x_B)


def gradient_of(settings: PpoSettings) -> Gradient:
    """The way to the gradient that the settings name.

    The module with autograd is loaded by its name, so that agents, which all go by the closed form, neither need
    PyTorch nor have its version in the hash of their code.

    Raises:
        ModuleNotFoundError: autograd is asked for and PyTorch is not installed.
    """
    if settings.gradients == "closed":
        return closed_gradient
    found: Gradient = import_module("agents.algorithms.ppo_autograd").autograd_gradient
    return found


def update(
    learner: Learner, batch: Batch, settings: PpoSettings, seed: int, *name: str | int
) -> tuple[Learner, Diagnostics]:
    """Learn from a batch of experiences: some epochs of gradient steps on minibatches.

    Args:
        learner: stays as it is.
        batch: at least one experience.
        settings: of the learner.
        seed: with the name and the number of the update it decides how minibatches are dealt. A minibatch that holds
            the whole batch is not shuffled.
        name: agent and scope.

    Returns:
        The learner after the update and how it went. The same arguments give the same bits on the same platform.

    Raises:
        ValueError: shapes that do not fit, an action that does not exist or was invalid, numbers that are not finite.
    """
    checked(batch, settings)
    lr, clip = settings.rates(learner.updates)
    gradient_at = gradient_of(settings)
    theta, first, second = learner.parameters.copy(), learner.first.copy(), learner.second.copy()
    steps, stopped, largest = learner.steps, False, 0.0
    nets, gradient = networks(settings), np.empty_like(theta)
    weights, slopes = nets.weights(theta), nets.weights(gradient)
    of_epoch: list[Terms] = []
    whole = [_normalised(batch, settings)] if len(batch) <= settings.minibatch else None
    for epoch in range(settings.epochs):
        of_epoch = []
        for part in whole or _minibatches(batch, settings, seed, *name, learner.updates, epoch):
            terms = gradient_at(weights, part, settings, clip, slopes)
            of_epoch.append(terms)
            if settings.max_kl is not None and terms.approx_kl > settings.max_kl:
                stopped = True
                break
            largest = max(largest, clip_norm(gradient, settings.max_grad_norm))
            steps += 1
            adam_step(theta, gradient, first, second, step=steps, lr=lr, eps=settings.adam_eps)
        if stopped:
            break
    if not np.isfinite(theta).all():
        raise ValueError(f"update {learner.updates}: a parameter is no longer finite; lower lr or scale the rewards")
    means = (sum(column) / len(of_epoch) for column in zip(*of_epoch, strict=True))
    policy_loss, value_loss, entropy, approx_kl, clip_fraction = means
    return (
        Learner(parameters=theta, first=first, second=second, steps=steps, updates=learner.updates + 1),
        Diagnostics(
            len(batch), policy_loss, value_loss, entropy, approx_kl, clip_fraction,
            explained_variance(batch.values, batch.returns), largest, lr, clip, steps - learner.steps, stopped,
        ),
    )


def _minibatches(batch: Batch, settings: PpoSettings, seed: int, *name: str | int) -> list[Batch]:
    n, size = len(batch), settings.minibatch
    order = permutation(n, seed, *name)
    return [_normalised(batch.take(order[at : at + size]), settings) for at in range(0, n, size)]


def _normalised(batch: Batch, settings: PpoSettings) -> Batch:
    if not settings.normalise_advantages or len(batch) < 2:
        return batch
    centred = batch.advantages - _mean(batch.advantages)
    deviation = (float(np.dot(centred, centred)) / (len(batch) - 1)) ** 0.5
    centred /= deviation + NORMALISED_EPS
    return Batch(
        observations=batch.observations, actions=batch.actions, log_probabilities=batch.log_probabilities,
        values=batch.values, advantages=centred, returns=batch.returns, masks=batch.masks,
    )


def explained_variance(values_B: Array, returns_B: Array) -> float:
    """1 - Var(return - value) / Var(return); 0 where the returns do not vary."""
    spread = float(np.var(returns_B))
    return 0.0 if spread == 0 else 1 - float(np.var(returns_B - values_B)) / spread


def checked(batch: Batch, settings: PpoSettings) -> None:
    """Refuse a batch that would be learned from in the wrong way.

    Raises:
        ValueError: what is wrong with it.
    """
    n = len(batch)
    numbers = ("observations", "log_probabilities", "values", "advantages", "returns")
    for name in numbers:
        array = getattr(batch, name)
        wanted = (n, settings.features) if name == "observations" else (n,)
        if array.shape != wanted or array.dtype != settings.precision:
            raise ValueError(f"{name} {array.shape} {array.dtype}; {wanted} {settings.precision} is needed")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: a number is not finite")
    if n == 0 or batch.actions.min() < 0 or batch.actions.max() >= settings.actions:
        raise ValueError(f"actions 0 to {settings.actions - 1} are needed, at least one experience")
    if batch.masks is not None:
        if batch.masks.shape != (n, settings.actions) or batch.masks.dtype != np.bool_:
            raise ValueError(f"masks {batch.masks.shape} {batch.masks.dtype}; {(n, settings.actions)} bool is needed")
        if not batch.masks[np.arange(n), batch.actions].all():
            raise ValueError("an action was taken that its mask calls invalid")
