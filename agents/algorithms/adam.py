"""Adam and the clipping of a gradient's norm, on flat vectors and in place.

Kingma and Ba 2015, Adam: a method for stochastic optimization; the formula is PyTorch's.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
BETA1, BETA2 = 0.9, 0.999  # the paper's


def clip_norm(gradient: Array, max_norm: float) -> float:
    """Scale a gradient in place so that its Euclidean norm is at most `max_norm`; returns the norm it had."""
    norm = sqrt(float(np.dot(gradient, gradient)))
    if norm > max_norm:
        gradient *= max_norm / norm
    return norm


def adam_step(
    parameters: Array, gradient: Array, first: Array, second: Array, *, step: int, lr: float, eps: float
) -> None:
    """One step, in place.

    Args:
        parameters: [P], moved.
        gradient: [P]; its content is lost.
        first: running mean of the gradients, [P], moved.
        second: running mean of their squares, [P], moved.
        step: number of this step, from 1.
        lr: learning rate.
        eps: added to the root of the second moment; 1e-5 for PPO (Huang et al. 2022, detail 3).
    """
    first *= BETA1
    first += (1 - BETA1) * gradient
    second *= BETA2
    gradient *= gradient
    gradient *= 1 - BETA2
    second += gradient
    scale = np.sqrt(second)
    scale /= (1 - BETA2**step) ** 0.5
    scale += eps
    np.divide(first, scale, out=scale)
    scale *= lr / (1 - BETA1**step)
    parameters -= scale
