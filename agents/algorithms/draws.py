"""Arrays of counter-based draws: like `counter`, a function of their name, so a replay draws the same.

The bits are SHAKE-128 (FIPS 202) of the name, so they hang on no library's random generator nor its release.
"""

from __future__ import annotations

from hashlib import shake_128
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri  # type: ignore[import-untyped]  # it ships no types

_SCALE = 2.0**-53


def bits(n: int, seed: int, *name: str | int) -> NDArray[np.uint64]:
    """n numbers of 64 random bits, [n]; the first m of them are those of a shorter draw of m."""
    text = "\x1f".join(map(str, (seed, *name))).encode()
    return np.frombuffer(shake_128(text).digest(8 * n), "<u8").astype(np.uint64, copy=False)


def uniforms(shape: tuple[int, ...], seed: int, *name: str | int) -> NDArray[np.float64]:
    """Numbers in [0, 1).

    >>> float(uniforms((2,), 1, "x")[0]) == float(uniforms((3,), 1, "x")[0])
    True
    """
    whole = bits(prod(shape), seed, *name) >> np.uint64(11)
    return (whole.astype(np.float64) * _SCALE).reshape(shape)  # exact: 53 bits fit


def normals(shape: tuple[int, ...], seed: int, *name: str | int) -> NDArray[np.float64]:
    """Standard normal numbers, by the inverse of their distribution function."""
    drawn: NDArray[np.float64] = ndtri(uniforms(shape, seed, *name) + _SCALE / 2)
    return drawn


def permutation(n: int, seed: int, *name: str | int) -> NDArray[np.intp]:
    """An order of 0 .. n - 1, all equally likely, [n]."""
    return np.argsort(bits(n, seed, *name), kind="stable")
