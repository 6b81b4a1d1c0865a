"""PPO's objective in PyTorch, differentiated by autograd: the judge of the closed form, and another way to run it.

Written from the paper, not from `ppo`: a mistake in one of the two shows as a difference. It needs PyTorch (the extra
`learn`), which nothing else here imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from agents.algorithms.learner import Weights, networks
from agents.algorithms.ppo_settings import PpoSettings

if TYPE_CHECKING:
    from agents.algorithms.ppo import Batch, Terms


def autograd_gradient(
    weights: Weights, batch: Batch, settings: PpoSettings, clip: float, gradient: Weights
) -> Terms:
    """Gradient of the objective on one minibatch; see `ppo.closed_gradient`."""
    from agents.algorithms.ppo import Terms

    theta = torch.from_numpy(weights.flat.copy()).requires_grad_()
    logits, values = _outputs(theta, torch.from_numpy(batch.observations), settings)
    if batch.masks is not None:
        logits = logits.masked_fill(~torch.from_numpy(batch.masks), -1e9)
    policy = torch.distributions.Categorical(logits=logits)
    log_ratio = policy.log_prob(  # type: ignore[no-untyped-call]
        torch.from_numpy(batch.actions)) - torch.from_numpy(batch.log_probabilities)
    ratio, advantages = log_ratio.exp(), torch.from_numpy(batch.advantages)
    policy_loss = -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()
    value_loss = _value_loss(values, batch, settings)
    entropy = policy.entropy().mean()  # type: ignore[no-untyped-call]
    loss = policy_loss + settings.value_coefficient * value_loss - settings.entropy_coefficient * entropy
    gradient.flat[:] = torch.autograd.grad(loss, theta)[0].numpy()
    with torch.no_grad():
        approx_kl = ((ratio - 1) - log_ratio).mean()
        clip_fraction = ((ratio < 1 - clip) | (ratio > 1 + clip)).double().mean()
    return Terms(policy_loss.item(), value_loss.item(), entropy.item(), approx_kl.item(), clip_fraction.item())


def _outputs(theta: torch.Tensor, x: torch.Tensor, settings: PpoSettings) -> tuple[torch.Tensor, torch.Tensor]:
    nets, at, given = networks(settings), 0, []
    for mlp in (nets.actor, nets.critic):
        h = x
        for i, (before, after) in enumerate(zip(mlp.sizes, mlp.sizes[1:], strict=False)):
            weight = theta[at : at + before * after].view(before, after)
            bias = theta[at + before * after : at + (before + 1) * after]
            at += (before + 1) * after
            h = torch.addmm(bias, h, weight)
            if i < len(mlp.sizes) - 2:
                h = torch.tanh(h) if mlp.activation == "tanh" else torch.relu(h)
        given.append(h)
    return given[0], given[1].squeeze(1)


def _value_loss(values: torch.Tensor, batch: Batch, settings: PpoSettings) -> torch.Tensor:
    returns, before = torch.from_numpy(batch.returns), torch.from_numpy(batch.values)
    squared = (values - returns) ** 2
    if settings.value_clip is None:
        return squared.mean()
    clipped = before + (values - before).clamp(-settings.value_clip, settings.value_clip)
    return torch.max(squared, (clipped - returns) ** 2).mean()
