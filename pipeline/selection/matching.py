"""Greedy matching of a target set: the rows whose features, added up, are distributed like the target's.

The objective is sum_u p_u log(a b p_u + c_u): p_u is the target's share of feature u, b the budget, c_u the sum of the
feature over the chosen rows, scaled to rows of mean 1, and a is `EMPTY`. Without a it is largest where c is in
proportion to p, that is, where the relative entropy of both is least (Shinohara 2014, "A submodular optimization
approach to sentence set selection"). With a, a feature that the pool hardly has is not filled with whatever is nearest.
It is a sum of concave functions and so submodular (Wei et al. 2014, "Submodular subset selection for large-scale speech
training data"). Greedy choice reaches 1 - 1/e of the optimum (Nemhauser et al. 1978). Gains only fall, so an old gain
is a bound of a new one, and most need no computation (lazy greedy, Minoux 1978).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.neighbours.soft_assignment import Assigned
from pipeline.progress import StepProgress

VERSION = 1

EMPTY = 0.1
"""Of the sum that a feature should have, the part up to which it counts as empty."""

BLOCKS = (16_384, 256)
"""Rows whose bounds are searched, and rows of these whose gains are computed, at once."""

Places = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def choose(features: Assigned, shares: Floats, budget: int, progress: StepProgress) -> Places:
    """The places of the `budget` rows that are chosen, in the order of the choice; all of them if there are no more.

    `shares` [features] is the target's, with the sum 1.
    """
    count = min(budget, len(features.values))
    mass = np.sort(features.values.sum(axis=1))[len(features.values) - count :]
    if not count or not mass.sum():
        return np.arange(count)
    empty = EMPTY * count * mass.mean() * shares[features.numbers]
    values = np.divide(features.values, empty, out=np.zeros_like(features.values), where=empty > 0)
    greedy = _Greedy(features.numbers, values, shares, count, progress)
    greedy.take(np.arange(len(values)), -np.inf, BLOCKS)
    return np.array(greedy.chosen, np.int64)


@dataclass
class _Greedy:
    """`values` are in units of what counts as empty, and `sums` [features] are those of the chosen rows.

    `bounds` [rows] has the last computed gain of a row, -inf of a chosen one.
    """

    numbers: npt.NDArray[np.int64]
    values: Floats
    shares: Floats
    count: int
    progress: StepProgress
    chosen: list[int] = field(default_factory=list)
    sums: Floats = field(init=False)
    bounds: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros(len(self.shares))
        self.bounds = self._gains(np.arange(len(self.values)))

    def take(self, rows: Places, until: float, blocks: Sequence[int]) -> None:
        """Choose among `rows` while the best gains at least `until`. `blocks`: sizes of ever smaller parts of them."""
        if not blocks:
            self._take_all(rows, until)
            return
        bounds = self.bounds[rows]
        size = min(blocks[0], len(rows))
        while len(self.chosen) < self.count:
            order = np.argpartition(-bounds, min(size, len(rows) - 1))
            top, next_best = order[:size], bounds[order[size]] if size < len(rows) else -np.inf
            if bounds[top].max() < until:
                return
            self.take(rows[top], max(until, next_best), blocks[1:])
            bounds[top] = self.bounds[rows[top]]
            self.progress(len(self.chosen), self.count)

    def _take_all(self, rows: Places, until: float) -> None:
        numbers, values = self.numbers[rows], self.values[rows]
        shares, left = self.shares[numbers], np.where(np.isneginf(self.bounds[rows]), -np.inf, 0.0)
        while True:
            gains = (shares * np.log1p(values / (1 + self.sums[numbers]))).sum(axis=1) + left
            best = int(gains.argmax())
            if gains[best] < until or len(self.chosen) == self.count or left[best]:
                break
            self.chosen.append(int(rows[best]))
            self.sums[numbers[best]] += values[best]
            left[best] = -np.inf
        self.bounds[rows] = gains

    def _gains(self, rows: Places) -> Floats:
        numbers = self.numbers[rows]
        gains: Floats = (self.shares[numbers] * np.log1p(self.values[rows] / (1 + self.sums[numbers]))).sum(axis=1)
        return gains
