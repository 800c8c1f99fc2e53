"""Median ranks: of queries, in bootstrap resamples of them, and by chance.

The median is the smallest rank within which at least half of the queries find what they look for. So it is a rank, also
for an even number of queries.
"""

import numpy as np
import numpy.typing as npt

from training.data.pairs import Positions
from training.measures.metrics import Floats

_COARSE = 32


def median(ranks: Positions) -> int:
    """The median of ranks [queries], which count from 1."""
    return int(np.sort(ranks)[(len(ranks) - 1) // 2])


def resampled(ranks: Positions, picture: Positions, times: npt.NDArray[np.float32]) -> Floats:
    """The median in each resample: [resamples]. A picture counts with its queries.

    `picture` numbers the picture of each query. `times` each picture occurs in a resample: [resamples, pictures]; at
    least once some picture that has a query.
    """
    values, place = np.unique(ranks, return_inverse=True)
    low, high = 0, len(values)
    for step in (max(len(values) // _COARSE, 1), 1):  # the second time between the least and the largest of the first
        tried = np.append(np.arange(low, high - 1, step), high - 1)
        found = _first(tried, place, picture, times)
        low, high = int(tried[max(found.min() - 1, 0)]), int(tried[found.max()]) + 1
    medians: Floats = values[tried[found]].astype(np.float64)
    return medians


def by_chance(relevant: Positions, candidates: int) -> int:
    """The median rank in a random order of the candidates, of which so many are `relevant` to each query."""
    missed, counts = np.unique(relevant, return_counts=True)
    none_yet = np.ones(len(missed))
    for rank in range(1, candidates + 1):
        none_yet = none_yet * (1 - missed / (candidates - rank + 1)).clip(min=0)
        if none_yet @ counts <= len(relevant) / 2:
            return rank
    return candidates


def _first(
    tried: Positions, place: Positions, picture: Positions, times: npt.NDArray[np.float32]
) -> npt.NDArray[np.intp]:
    """By resample, the first of `tried` positions of a rank within which half of the queries are."""
    pictures = times.shape[1]
    slot = np.searchsorted(tried, place)
    counts = np.bincount(picture * (len(tried) + 1) + slot, minlength=pictures * (len(tried) + 1))
    counts = counts.reshape(pictures, len(tried) + 1)
    within = times @ counts[:, :-1].cumsum(axis=1).astype(np.float32)
    whole = times @ counts.sum(axis=1).astype(np.float32)
    first: npt.NDArray[np.intp] = (2 * within >= whole[:, None]).argmax(axis=1)
    return first
