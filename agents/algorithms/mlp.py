"""A small multilayer perceptron with its backward pass written out, for networks where autograd costs more than sums.

The gradient of a network of two hidden layers of 64 takes PyTorch 2 ms on a batch of 256, most of it bookkeeping; the
sums themselves take a fifth. So they stand here, in NumPy, and the tests hold them to autograd.

Parameters are one flat vector, so that an optimiser, a norm or a file sees one array. Its layout: layer by layer the
weight [in, out] row by row, then the bias [out]. A layer computes x @ weight + bias; the last one has no activation.

Rumelhart, Hinton, Williams 1986, Learning representations by back-propagating errors; Saxe, McClelland, Ganguli 2014,
Exact solutions to the nonlinear dynamics of learning in deep linear neural networks (orthogonal initialisation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agents.algorithms.draws import normals

Array = NDArray[np.floating[Any]]
Activation = Literal["tanh", "relu"]
Layers = tuple[tuple[Array, Array], ...]
"""(weight [in, out], bias [out]) of each layer."""


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """Shape of a network; the numbers are elsewhere.

    Attributes:
        sizes: inputs, hidden layers, outputs.
        activation: of the hidden layers.

    Raises:
        ValueError: fewer than two sizes, or one below 1.
    """

    sizes: tuple[int, ...]
    activation: Activation = "tanh"

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes {self.sizes}: inputs and outputs are needed, each at least 1")

    @cached_property
    def count(self) -> int:
        """Number of parameters."""
        return sum((before + 1) * after for before, after in zip(self.sizes, self.sizes[1:], strict=False))

    def layers(self, flat: Array) -> Layers:
        """Views into a flat vector [count], layer by layer.

        Raises:
            ValueError: the vector has another length.
        """
        if flat.shape != (self.count,):
            raise ValueError(f"{flat.shape} numbers for a network of {self.sizes}, which has {self.count}")
        found, at = [], 0
        for before, after in zip(self.sizes, self.sizes[1:], strict=False):
            weight = flat[at : at + before * after].reshape(before, after)
            at += before * after
            found.append((weight, flat[at : at + after]))
            at += after
        return tuple(found)


def initial(mlp: Mlp, last_gain: float, seed: int, *name: str | int) -> NDArray[np.float64]:
    """Orthogonal weights and zero biases, [count]; hidden layers with gain sqrt 2, the last with `last_gain`."""
    flat = np.zeros(mlp.count)
    layers = mlp.layers(flat)
    for i, (weight, _) in enumerate(layers):
        gain = last_gain if i == len(layers) - 1 else 2.0**0.5
        weight[:] = gain * orthogonal(weight.shape, seed, *name, i)
    return flat


def orthogonal(shape: tuple[int, ...], seed: int, *name: str | int) -> NDArray[np.float64]:
    """A random matrix with orthonormal rows or columns, whichever are fewer, uniform among them."""
    rows, columns = shape
    tall = normals((max(rows, columns), min(rows, columns)), seed, *name)
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T


def forward(mlp: Mlp, layers: Layers, x_BF: Array) -> list[Array]:
    """What every layer gives, the input first and the output [B, outputs] last: what `backward` needs."""
    given = [x_BF]
    last = len(layers) - 1
    for i, (weight, bias) in enumerate(layers):
        h = given[-1] @ weight
        h += bias
        if i < last:
            if mlp.activation == "tanh":
                np.tanh(h, out=h)
            else:
                np.maximum(h, 0, out=h)
        given.append(h)
    return given


def output(mlp: Mlp, layers: Layers, x_BF: Array) -> Array:
    """The output alone, [B, outputs]."""
    return forward(mlp, layers, x_BF)[-1]


def backward(mlp: Mlp, layers: Layers, given: Sequence[Array], d_output: Array, gradient: Layers) -> None:
    """Write the gradient of a loss by the parameters into `gradient`.

    Args:
        given: of `forward`.
        d_output: gradient of the loss by the output, [B, outputs].
        gradient: views into a flat vector; overwritten.
    """
    d, ones_B = d_output, np.ones(len(d_output), d_output.dtype)
    for i in range(len(layers) - 1, -1, -1):
        d_weight, d_bias = gradient[i]
        np.matmul(given[i].T, d, out=d_weight)
        np.matmul(ones_B, d, out=d_bias)  # their sum; quicker than np.sum along the rows
        if i:
            h = given[i]
            weight = layers[i][0]
            d = d * weight.T if weight.shape[1] == 1 else d @ weight.T  # BLAS is slow where a single column is summed
            if mlp.activation == "tanh":
                slope = h * h
                np.subtract(1, slope, out=slope)
                d *= slope
            else:
                d *= h > 0
