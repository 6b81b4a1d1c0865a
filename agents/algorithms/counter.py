"""Counter-based randomness: a draw is a function of its name, so a replay draws the same.

Salmon, Moraes, Dror, Shaw 2011, Parallel random numbers: as easy as 1, 2, 3; here BLAKE2b is the mixing function.
"""

from __future__ import annotations

from hashlib import blake2b

_SCALE = 2.0**-53


def uniform(seed: int, *name: str | int) -> float:
    """A number in [0, 1) that depends on nothing but the seed and the name.

    >>> uniform(1, "decision", "BTCUSDT/q/0") == uniform(1, "decision", "BTCUSDT/q/0")
    True
    """
    digest = blake2b("\x1f".join(map(str, (seed, *name))).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * _SCALE


def choose(probabilities: tuple[float, ...], u: float) -> int:
    """Index drawn from probabilities (they sum to 1) by the uniform number u.

    >>> choose((0.2, 0.5, 0.3), 0.65)
    1
    """
    total = 0.0
    for i, p in enumerate(probabilities):
        total += p
        if u < total:
            return i
    return max(i for i, p in enumerate(probabilities) if p > 0)
