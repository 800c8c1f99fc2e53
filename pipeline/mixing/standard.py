"""Score columns with mean 0 and deviation 1, so that their weights can be compared."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.mixing.pairs import Floats

FAR = 4.0
"""Deviations from the mean beyond which a value counts as this far. Sizes in bytes have a few enormous values."""


@dataclass(frozen=True)
class Standard:
    """The mean and the deviation of each column: float64 [columns]."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, columns: Floats) -> Self:
        """By the pairs [pairs, columns]. A column that never changes has the deviation 1."""
        deviation = columns.std(axis=0)
        return cls(columns.mean(axis=0), np.where(deviation > 0, deviation, 1.0))

    def __call__(self, columns: Floats) -> Floats:
        """float64 [pairs, columns], -`FAR` to `FAR`."""
        standardised: Floats = np.clip((columns - self.mean) / self.deviation, -FAR, FAR)
        return standardised
