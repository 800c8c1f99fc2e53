"""Pairs that a mix is learned from: their score columns, their embeddings, their pictures, and their folds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

OUTSIDE = -1
"""The fold of a reference pair that is no pair of the pool. No mix scores it, so every fold may learn from it."""


@dataclass(frozen=True)
class Pairs:
    """Aligned by pair. `columns` float64 [pairs, columns], without NaN; None for reference pairs that have none.

    `embeddings` float16 or float32 [pairs, 2, dim], picture then caption, L2-normalised. `pictures` numbers the
    pictures: pairs with the same number are never on both sides of a split. `fold` is the fold of each pair's picture,
    from 0, or `OUTSIDE`.
    """

    columns: Floats | None
    embeddings: npt.NDArray[np.floating]
    pictures: Rows
    fold: Rows

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> "Pairs":
        """Some of the pairs, by number or mask."""
        columns = None if self.columns is None else self.columns[rows]
        return Pairs(columns, self.embeddings[rows], self.pictures[rows], self.fold[rows])

    def outside_of(self, fold: int) -> "Pairs":
        """The pairs that the mix of a fold may learn from."""
        return self.take(self.fold != fold)

    def halves(self, seed: int) -> "tuple[Pairs, Pairs]":
        """Two random halves of the pictures, with all of their pairs."""
        known, picture = np.unique(self.pictures, return_inverse=True)
        first = np.random.default_rng([seed, len(known)]).permutation(len(known))[picture] < len(known) / 2
        return self.take(first), self.take(~first)
