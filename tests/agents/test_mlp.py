"""The closed-form network: its gradient against differences, its initialisation, Adam by hand."""

from __future__ import annotations

import numpy as np
import pytest

from agents.algorithms.adam import adam_step, clip_norm
from agents.algorithms.draws import bits, normals, permutation, uniforms
from agents.algorithms.mlp import Activation, Mlp, backward, forward, initial, orthogonal, output


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("sizes", [(3, 2), (4, 5, 1), (3, 6, 5, 2), (2, 4, 4, 4, 3)])
def test_the_gradient_is_what_differences_say(sizes: tuple[int, ...], activation: Activation) -> None:
    mlp = Mlp(sizes=sizes, activation=activation)
    flat = normals((mlp.count,), 1, "weights", *sizes) / 2
    x, target = normals((7, sizes[0]), 1, "x"), normals((7, sizes[-1]), 1, "target")

    def loss(at: np.ndarray) -> float:
        return float(((output(mlp, mlp.layers(at), x) - target) ** 2).sum())

    given = forward(mlp, mlp.layers(flat), x)
    gradient = np.full(mlp.count, np.nan)
    backward(mlp, mlp.layers(flat), given, 2 * (given[-1] - target), mlp.layers(gradient))
    for i in range(mlp.count):
        apart = np.zeros(mlp.count)
        apart[i] = 1e-6
        assert gradient[i] == pytest.approx((loss(flat + apart) - loss(flat - apart)) / 2e-6, rel=1e-5, abs=1e-6)


def test_layers_are_views_in_the_stated_layout() -> None:
    mlp = Mlp(sizes=(2, 3, 1))
    flat = np.arange(float(mlp.count))
    (w0, b0), (w1, b1) = mlp.layers(flat)
    assert w0.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (b0.tolist(), w1.tolist(), b1.tolist()) == ([6, 7, 8], [[9], [10], [11]], [12])
    b1[0] = -1
    assert flat[-1] == -1
    with pytest.raises(ValueError, match="13"):
        mlp.layers(flat[1:])


@pytest.mark.parametrize("sizes", [(3,), (3, 0)])
def test_impossible_sizes_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Mlp(sizes=sizes)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (1, 4), (4, 1)])
def test_weights_are_orthogonal(shape: tuple[int, int]) -> None:
    w = orthogonal(shape, 3, "w")
    small = w @ w.T if shape[0] <= shape[1] else w.T @ w
    assert small == pytest.approx(np.eye(min(shape)), abs=1e-12)


def test_gains_and_biases_of_a_new_network() -> None:
    mlp = Mlp(sizes=(8, 8, 2))
    (w0, b0), (w1, b1) = mlp.layers(initial(mlp, 0.01, 1, "net"))
    assert np.linalg.svd(w0)[1] == pytest.approx(2**0.5)
    assert np.linalg.svd(w1)[1] == pytest.approx(0.01)
    assert not b0.any()
    assert not b1.any()


def test_two_steps_of_adam_by_hand() -> None:
    theta, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    adam_step(theta, np.array([2.0]), m, v, step=1, lr=0.1, eps=1e-5)
    assert (m[0], v[0]) == pytest.approx((0.2, 0.004))
    assert theta[0] == pytest.approx(1 - 0.1 * 2 / (2 + 1e-5), abs=1e-12)
    before = theta[0]
    adam_step(theta, np.array([-1.0]), m, v, step=2, lr=0.1, eps=1e-5)
    mean, square = (0.9 * 0.2 - 0.1) / (1 - 0.9**2), (0.999 * 0.004 + 0.001) / (1 - 0.999**2)
    assert theta[0] == pytest.approx(before - 0.1 * mean / (square**0.5 + 1e-5), abs=1e-12)


def test_a_norm_is_bounded_and_told() -> None:
    gradient = np.array([3.0, 4.0])
    assert clip_norm(gradient, 10.0) == 5.0
    assert gradient.tolist() == [3.0, 4.0]
    assert clip_norm(gradient, 0.5) == 5.0
    assert gradient == pytest.approx([0.3, 0.4])


def test_draws_are_functions_of_their_names() -> None:
    assert (bits(3, 1, "a") == bits(5, 1, "a")[:3]).all()
    for other in (bits(3, 2, "a"), bits(3, 1, "b"), bits(3, 1, "a", 0)):
        assert (other != bits(3, 1, "a")).all()
    # printf '1\x1fa' | openssl dgst -shake128 -xoflen 16
    assert bits(2, 1, "a").tobytes().hex() == "47e1fe7d5b75c7a85d87ed996d87aa0c"


def test_draws_have_their_distributions() -> None:
    u, z = uniforms((200, 100), 1, "u"), normals((200, 100), 1, "z")
    assert u.shape == (200, 100)
    assert 0 <= u.min() < u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=0.01)
    assert (z.mean(), z.std()) == pytest.approx((0, 1), abs=0.03)
    assert sorted(permutation(50, 1, "p").tolist()) == list(range(50))
    firsts = [int(permutation(5, seed, "p")[0]) for seed in range(2_000)]
    assert np.bincount(firsts) == pytest.approx([400] * 5, abs=80)
