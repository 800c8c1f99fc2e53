"""Soft assignment: how near each vector is to its nearest few of a set of centroids, as numbers from 0 to 1."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.neighbours.kmeans import Vectors

VERSION = 1

NEAREST = 8
"""Centroids that a vector is assigned to; it has no part in the others."""

BLOCK = 16_384

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Assigned:
    """Of each row the nearest centroids, `numbers` [rows, nearest], and the nearness, `values` [rows, nearest]."""

    numbers: npt.NDArray[np.int64]
    values: Floats

    def sums(self, count: int) -> Floats:
        """The sum of the nearness to each of `count` centroids over all rows."""
        found: Floats = np.bincount(self.numbers.ravel(), self.values.ravel(), minlength=count).astype(np.float64)
        return found


def assign(vectors: Vectors, centroids: npt.NDArray[np.float32], temperature: float) -> Assigned:
    """exp((cosine - 1) / temperature) for the nearest centroids [count, dim] of each row of `vectors` [rows, dim].

    Both are L2-normalised. A vector that is far from all centroids has only small numbers.
    """
    near = min(NEAREST, len(centroids))
    numbers, values = np.empty((len(vectors), near), np.int64), np.empty((len(vectors), near))
    for start in range(0, len(vectors), BLOCK):
        cosines = vectors[start : start + BLOCK].astype(np.float32) @ centroids.T
        best = np.sort(np.argpartition(-cosines, near - 1, axis=1)[:, :near], axis=1)
        numbers[start : start + len(best)] = best
        values[start : start + len(best)] = np.take_along_axis(cosines, best, axis=1)
    return Assigned(numbers, np.exp((values - 1) / temperature))
