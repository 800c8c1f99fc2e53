"""Near neighbours among unit vectors: pairs within a radius of cosine distance, searched inside k-means clusters.

Vectors are compared with those of their own cluster, and with guests: vectors of other clusters that are nearly as near
to this one as to their own. The work grows with the number of vectors, not with its square. A pair across the border of
two clusters may be missed; tests/benchmarks/README.md has measurements.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.neighbours.kmeans import k_means

Vectors = npt.NDArray[np.float16]
Places = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

SIZE = 1000
"""Vectors in a cluster, on average. At a million vectors, finding centres and comparing then take equal time."""

SAMPLED = 64
"""Vectors a cluster that the centres are computed from."""

GUESTS = 2
"""Other clusters that a vector is compared in, at most."""

LARGEST = 20_000
"""Larger clusters are cut into parts of this many vectors, which are compared among themselves."""

MOST = 200
"""Neighbours of a vector that are stored among the more central vectors, the nearest first."""

BLOCK = 1024
"""Rows of a matrix of cosines."""


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of vectors, by their places `low` < `high`, sorted, and their cosine distance, 0 to 2.

    `capped` counts the comparisons and neighbours that were left out in crowds: above 0, pairs may be missing there.
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
) -> SimilarPairs:
    """The pairs within `radius` of vectors [n, dim], which are about normalised and may be a memory-mapped file.

    `clusters`: unset, one for `SIZE` vectors. `tell` gets the numbers of finished and of all clusters. It takes 40
    bytes a vector and 24 a pair, and 0.3 GB for the centres of a million vectors of 512 numbers.
    """
    if not len(vectors):
        none, nothing = np.empty(0, np.uint64), np.empty(0, np.float32)
        return SimilarPairs(none, none, nothing, 0, np.empty(0, np.int32), nothing, nothing)
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
            found = _compare(vectors, members, guests, radius)
            harder[members] = found.harder
            pairs.append(found.pairs)
            distances.append(found.distances)
            capped += found.left_out + len(members) * (len(own) - start - len(members))
        tell(number + 1, len(centres))
    every, first = np.unique(np.concatenate(pairs), return_index=True)
    low, high = np.divmod(every, np.uint64(len(vectors)))
    return SimilarPairs(low, high, np.concatenate(distances)[first], capped, cluster, cosine[:, 0], harder)


def normalize(vectors: npt.NDArray[np.float16] | Floats) -> Floats:
    """The vectors with a norm of 1, float32. Zeros stay zeros."""
    wide = vectors.astype(np.float32)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    found: Floats = (wide / np.where(norms == 0, 1, norms)).astype(np.float32)
    return found


def _margin(radius: float) -> float:
    """A vector is a guest of another cluster if its cosine with that centre is lower by at most this.

    Two vectors within the radius are sqrt(2 * radius) apart. With some tens of dimensions, hardly any pair differs by
    more than a quarter of it along the line between two centres.
    """
    return math.sqrt(2 * radius) / 4


def _centres(vectors: Vectors, count: int) -> Floats:
    """The centres of `count` clusters, computed from a fixed sample of the vectors."""
    sample = np.random.default_rng(0).choice(len(vectors), min(len(vectors), SAMPLED * count), replace=False)
    return normalize(k_means(normalize(vectors[sample]), count, lambda done, total: None))


def _nearest_centres(vectors: Vectors, centres: Floats) -> tuple[npt.NDArray[np.int32], Floats]:
    """For each vector the nearest centres, at most 1 + `GUESTS`, the nearest first, and their cosines."""
    count = min(1 + GUESTS, len(centres))
    found, cosine = np.empty((len(vectors), count), np.int32), np.empty((len(vectors), count), np.float32)
    for start in range(0, len(vectors), BLOCK):
        cosines = normalize(vectors[start : start + BLOCK]) @ centres.T
        rows = np.arange(len(cosines))
        for place in range(count):
            best = cosines.argmax(axis=1)
            found[start + rows, place], cosine[start + rows, place] = best, cosines[rows, best]
            cosines[rows, best] = -np.inf
    return found, cosine


@dataclass(frozen=True)
class _Crowd:
    pairs: npt.NDArray[np.uint64]
    distances: Floats
    harder: Floats
    left_out: int


def _compare(vectors: Vectors, members: Places, guests: Places, radius: float) -> _Crowd:
    """The pairs within the radius among members, which are sorted least central first, and between members and guests.

    A pair of places i < j is the number i * len(vectors) + j.
    """
    places = np.concatenate([members, guests])
    wide = normalize(vectors[places])
    best = np.zeros(len(members), np.float32)
    pairs, distances, left_out = [np.empty(0, np.uint64)], [np.empty(0, np.float32)], 0
    for top in range(0, len(members), BLOCK):
        rows = min(BLOCK, len(members) - top)
        cosines = wide[top : top + rows] @ wide[top:].T
        cosines[np.tril_indices(rows)] = -1  # itself, and earlier vectors, which were compared with it
        best[top:] = np.maximum(best[top:], cosines[:, : len(members) - top].max(axis=0))
        row, column = np.divmod(np.flatnonzero(cosines >= 1 - radius), cosines.shape[1])
        cosine = cosines[row, column]
        few = _nearest_few(row, cosine)
        left_out += len(row) - len(few)
        one, other = places[top + row[few]].astype(np.uint64), places[top + column[few]].astype(np.uint64)
        pairs.append(np.minimum(one, other) * np.uint64(len(vectors)) + np.maximum(one, other))
        distances.append(np.maximum(1 - cosine[few], 0))
    return _Crowd(np.concatenate(pairs), np.concatenate(distances), np.maximum(1 - best, 0), left_out)


def _nearest_few(row: Places, cosine: Floats) -> Places:
    """The entries that are among the `MOST` of their row with the highest cosine. `row` is sorted."""
    counts = np.bincount(row)
    if not len(row) or counts.max() <= MOST:
        return np.arange(len(row))
    order = np.lexsort((-cosine, row))
    rank = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank < MOST])
