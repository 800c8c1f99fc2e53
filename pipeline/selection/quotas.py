"""How many rows each cluster keeps: the quotas nearest to wanted ones, within bounds, with a given sum.

The quadratic program of density-based pruning (Abbas et al. 2024, arXiv 2401.04578, table 4): minimise the sum of
(quota - wanted)^2, where the quotas sum to the budget and each is at least 1 and at most the size of its cluster. Its
matrix is the identity, so the solution is wanted + level, cut at the bounds, for one level. It is found exactly,
without a solver.
"""

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_DIGITS = 9
"""Digits that are kept of a quota, so that 3 - 1e-15 is 3."""


def allot(wanted: Floats, sizes: Counts, budget: int) -> Counts:
    """Whole quotas [clusters] that sum to `budget`, or to all rows if there are fewer, for wanted quotas [clusters].

    A cluster gets at least one row, unless there are more clusters than the budget has rows. `sizes` has no 0.
    """
    budget = min(budget, int(sizes.sum()))
    least = np.full(len(sizes), 1.0 if budget >= len(sizes) else 0.0)
    return _whole(nearest(wanted, least, sizes.astype(np.float64), budget), sizes, budget)


def nearest(wanted: Floats, least: Floats, most: Floats, total: float) -> Floats:
    """The point that is nearest to `wanted` among those with this sum, and each number from `least` to `most`.

    `total` lies between the sums of `least` and of `most`.
    """
    levels = np.sort(np.concatenate([least - wanted, most - wanted]))

    def cut(level: float) -> Floats:
        found: Floats = np.clip(wanted + level, least, most)
        return found

    low, high = 0, len(levels) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cut(levels[middle]).sum() <= total else (low, middle)
    below, above = cut(levels[low]), cut(levels[high])
    rise = above.sum() - below.sum()
    part = (total - below.sum()) / rise if rise > 0 else 0.0
    return below + part * (above - below)


def _whole(quotas: Floats, sizes: Counts, budget: int) -> Counts:
    """Quotas rounded down, and the missing rows given to the largest remainders; of equal ones to the first."""
    exact = np.round(quotas, _DIGITS)
    whole: Counts = np.floor(exact).astype(np.int64)
    remainder = np.where(whole < sizes, exact - whole, -1.0)
    whole[np.argsort(-remainder, kind="stable")[: budget - int(whole.sum())]] += 1
    return whole
