"""Near neighbours among unit vectors: which have a cosine distance within a radius, found inside k-means clusters.

Vectors are compared with those of their own cluster, and with guests: vectors of other clusters to which this one is
nearly as near as their own. So the work grows with the number of vectors, and not with its square; a pair on both
sides of a border may be missed (tests/benchmarks/README.md says how many are).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float16]
Places = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

SIZE = 1000
"""Vectors of a cluster, about: the work of finding centres and that of comparing are alike then at a million."""

TAUGHT = 64
"""Vectors a cluster from which the centres are found."""

GUESTS = 2
"""Other clusters in which a vector is looked at, at most."""

LARGEST = 20_000
"""Of a larger cluster so many are compared with one another at a time."""

MOST = 200
"""Neighbours of a vector that are taken down among those that are more central, the nearest first."""

BLOCK = 1024
"""Rows of a matrix of cosines."""


@dataclass(frozen=True)
class Alike:
    """Pairs of vectors, by their places `low` < `high`, sorted, and their cosine distance, 0 to 2.

    `capped` counts the comparisons and neighbours left out in crowds: where it is not 0, pairs may be missing there.
    By vector: its `cluster`; `centrality`, the cosine with the cluster's centre; and `harder`, the cosine distance to
    the nearest vector of the cluster that is less central, 1 for the least central one (equals stand in their order).
    """

    low: npt.NDArray[np.uint64]
    high: npt.NDArray[np.uint64]
    distance: Floats
    capped: int
    cluster: npt.NDArray[np.int32]
    centrality: Floats
    harder: Floats


def within(
    vectors: Vectors,
    radius: float,
    clusters: int | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Alike:
    """The pairs within `radius` of vectors [n, dim], which may lie in a file and are about normalised.

    `clusters` are as many as `SIZE` asks for if unset. `tell` is told how many of how many are done. Takes 40 bytes a
    vector and 24 a pair, beside 0.3 GB for the centres of a million vectors of 512 numbers.
    """
    if not len(vectors):
        none, nothing = np.empty(0, np.uint64), np.empty(0, np.float32)
        return Alike(none, none, nothing, 0, np.empty(0, np.int32), nothing, nothing)
    count = clusters or math.ceil(len(vectors) / SIZE)
    centres = _centres(vectors, min(count, len(vectors)))
    near, cosine = _nearest_centres(vectors, centres)
    cluster = near[:, 0]
    order = np.lexsort((cosine[:, 0], cluster))  # stable: the least central first
    invited = cosine[:, 1:] >= cosine[:, :1] - _margin(radius)
    guest, seat = np.nonzero(invited)
    host = near[:, 1:][guest, seat]
    by_host = np.argsort(host, kind="stable")
    guest, homes = guest[by_host], np.arange(len(centres) + 1)
    at, guests_at = np.searchsorted(cluster[order], homes), np.searchsorted(host[by_host], homes)
    harder = np.ones(len(vectors), np.float32)
    pairs, distances, capped = [np.empty(0, np.uint64)], [np.empty(0, np.float32)], 0
    for number in range(len(centres)):
        own, guests = order[slice(*at[number : number + 2])], guest[slice(*guests_at[number : number + 2])]
        for start in range(0, len(own), LARGEST):
            members = own[start : start + LARGEST]
            found = _crowd(vectors, members, guests, radius)
            harder[members] = found.harder
            pairs.append(found.pairs)
            distances.append(found.distances)
            capped += found.left_out + len(members) * (len(own) - start - len(members))
        tell(number + 1, len(centres))
    every, first = np.unique(np.concatenate(pairs), return_index=True)
    low, high = np.divmod(every, np.uint64(len(vectors)))
    return Alike(low, high, np.concatenate(distances)[first], capped, cluster, cosine[:, 0], harder)


def unit(vectors: npt.NDArray[np.float16] | Floats) -> Floats:
    """The same directions, float32, with a norm of 1."""
    wide = vectors.astype(np.float32)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    found: Floats = (wide / np.where(norms == 0, 1, norms)).astype(np.float32)
    return found


def _margin(radius: float) -> float:
    """By how much less a vector's cosine with another centre may be, for it to have neighbours there.

    Two vectors within the radius are sqrt(2 * radius) apart; a quarter of it is what hardly any pair differs by along
    the line between two centres, where there are some tens of dimensions.
    """
    return math.sqrt(2 * radius) / 4


def _centres(vectors: Vectors, count: int) -> Floats:
    """Of so many clusters, found from some of the vectors, the same each time."""
    from pipeline.neighbours.kmeans import k_means  # a scorer of this kind is made of this module

    some = np.random.default_rng(0).choice(len(vectors), min(len(vectors), TAUGHT * count), replace=False)
    return unit(k_means(unit(vectors[some]), count, lambda done, total: None))


def _nearest_centres(vectors: Vectors, centres: Floats) -> tuple[npt.NDArray[np.int32], Floats]:
    """Of each vector the nearest centres, at most 1 + `GUESTS` of them, the nearest first; and the cosines."""
    count = min(1 + GUESTS, len(centres))
    found, cosine = np.empty((len(vectors), count), np.int32), np.empty((len(vectors), count), np.float32)
    for start in range(0, len(vectors), BLOCK):
        cosines = unit(vectors[start : start + BLOCK]) @ centres.T
        rows = np.arange(len(cosines))
        for place in range(count):
            best = cosines.argmax(axis=1)
            found[start + rows, place], cosine[start + rows, place] = best, cosines[rows, best]
            cosines[rows, best] = -np.inf
    return found, cosine


@dataclass(frozen=True)
class _Found:
    pairs: npt.NDArray[np.uint64]
    distances: Floats
    harder: Floats
    left_out: int


def _crowd(vectors: Vectors, members: Places, guests: Places, radius: float) -> _Found:
    """The pairs within the radius among members, the least central first, and between these and the guests.

    A pair of places i < j is the number i * len(vectors) + j.
    """
    places = np.concatenate([members, guests])
    wide = unit(vectors[places])
    best = np.zeros(len(members), np.float32)
    pairs, distances, left_out = [np.empty(0, np.uint64)], [np.empty(0, np.float32)], 0
    for top in range(0, len(members), BLOCK):
        rows = min(BLOCK, len(members) - top)
        cosines = wide[top : top + rows] @ wide[top:].T
        cosines[np.tril_indices(rows)] = -1  # itself, and those before it, which were compared with it
        best[top:] = np.maximum(best[top:], cosines[:, : len(members) - top].max(axis=0))
        row, column = np.divmod(np.flatnonzero(cosines >= 1 - radius), cosines.shape[1])
        cosine = cosines[row, column]
        few = _nearest_few(row, cosine)
        left_out += len(row) - len(few)
        one, other = places[top + row[few]].astype(np.uint64), places[top + column[few]].astype(np.uint64)
        pairs.append(np.minimum(one, other) * np.uint64(len(vectors)) + np.maximum(one, other))
        distances.append(np.maximum(1 - cosine[few], 0))
    return _Found(np.concatenate(pairs), np.concatenate(distances), np.maximum(1 - best, 0), left_out)


def _nearest_few(row: Places, cosine: Floats) -> Places:
    """Which entries are among the `MOST` of their row with the highest cosine. Rows rise."""
    counts = np.bincount(row)
    if not len(row) or counts.max() <= MOST:
        return np.arange(len(row))
    order = np.lexsort((-cosine, row))
    rank = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank < MOST])
