"""Running mean and variance of rows, to bring features and rewards to one scale.

Chan, Golub, LeVeque 1979, Updating formulae and a pairwise algorithm for computing sample variances. Scaled and clipped
as in Huang et al. 2022, details of the continuous domains, which help wherever features differ in scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
EPS, CLIP = 1e-8, 10.0


@dataclass(frozen=True, eq=False)
class Moments:
    """Of the rows seen so far.

    Attributes:
        mean: [F].
        variance: of the population, [F]; 1 before anything was seen.
        n: rows seen.
    """

    mean: Array
    variance: Array
    n: int = 0

    @classmethod
    def of(cls, features: int) -> Moments:
        """Nothing seen."""
        return cls(np.zeros(features), np.ones(features))

    def seen(self, rows_BF: Array) -> Moments:
        """With these rows too."""
        m = len(rows_BF)
        if m == 0:
            return self
        mean, variance = rows_BF.mean(axis=0), rows_BF.var(axis=0)
        if self.n == 0:
            return Moments(mean, variance, m)
        total, apart = self.n + m, mean - self.mean
        spread = self.variance * self.n + variance * m + apart * apart * (self.n * m / total)
        return Moments(self.mean + apart * (m / total), spread / total, total)

    def scaled(self, rows_BF: Array) -> Array:
        """To mean 0 and deviation 1, within +-10, [B, F]."""
        found: Array = np.clip((rows_BF - self.mean) / np.sqrt(self.variance + EPS), -CLIP, CLIP)
        return found

    def divided(self, rows_BF: Array) -> Array:
        """To deviation 1, the zero where it was, within +-10, [B, F]: for rewards, whose sign means something."""
        found: Array = np.clip(rows_BF / np.sqrt(self.variance + EPS), -CLIP, CLIP)
        return found
