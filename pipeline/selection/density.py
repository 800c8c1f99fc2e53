"""Density-based pruning: fewer rows of dense clusters, more of spread ones, and of each the least typical.

Abbas et al. 2024, "Effective pruning of web-scale datasets based on complexity of concept clusters", arXiv 2401.04578.
k-means over image embeddings; for each cluster d_intra, the mean distance of its rows to its centroid, and d_inter, the
mean distance of its centroid to the 20 nearest others, both 1 - cosine; a softmax of d_intra * d_inter / temperature
gives the share of the budget that the cluster should keep; a quadratic program fits the shares to the sizes of the
clusters (`pipeline.selection.quotas`); each cluster keeps its rows that are farthest from the centroid.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.neighbours import kmeans_tree
from pipeline.neighbours.kmeans import Vectors
from pipeline.progress import StepProgress
from pipeline.selection import quotas

VERSION = 1

NEIGHBOURS = 20
"""Nearest centroids that d_inter is the mean over, as published."""

SAMPLE = 128
"""Rows for each centroid that the centroids are found from, at most. The authors use all rows."""

CLUSTERS = 500
"""As published for LAION; 100 for the medium pool of DataComp."""

ROWS_PER_CLUSTER = 100
"""Rows that a cluster has on average, at least. A small pool has fewer clusters than asked for."""

BLOCK = 65_536

Places = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Clusters:
    """`cluster` [rows] is the number of each row's cluster, `distance` [rows] 1 - cosine to its centroid.

    `centroids` [clusters, dim] have length 1. No cluster is empty.
    """

    cluster: Places
    distance: npt.NDArray[np.float32]
    centroids: npt.NDArray[np.float32]

    @property
    def sizes(self) -> Places:
        """The rows of each cluster."""
        return np.bincount(self.cluster, minlength=len(self.centroids))


def prune(vectors: Vectors, budget: int, clusters: int, temperature: float, progress: StepProgress) -> Places:
    """The places of the `budget` rows that are kept, ascending; all places if there are not more rows.

    `vectors` [rows, dim] are L2-normalised, without NaN, in an order that does not depend on the pool's order: the
    first of them are the sample, and of equally distant rows the first is kept.
    """
    if budget >= len(vectors):
        return np.arange(len(vectors))
    found = cluster(vectors, clusters, progress)
    kept = quotas.allot(budget * _softmax(complexity(found) / temperature), found.sizes, budget)
    return farthest(found, kept)


def cluster(vectors: Vectors, clusters: int, progress: StepProgress) -> Clusters:
    """k-means on the first rows, then the nearest centroid by cosine of every row. At most `clusters` clusters."""
    count = max(min(clusters, len(vectors) // ROWS_PER_CLUSTER), 1)
    grown = kmeans_tree.grow(vectors[: count * SAMPLE], count, progress)
    norms = np.linalg.norm(grown.centroids, axis=1, keepdims=True)
    tree = kmeans_tree.Tree(grown.centroids / np.maximum(norms, np.finfo(np.float32).tiny), grown.ends)
    number = tree.assign(vectors)
    filled, number = np.unique(number, return_inverse=True)
    centroids = tree.centroids[filled]
    return Clusters(number, _distances(vectors, centroids, number), centroids)


def complexity(found: Clusters) -> Floats:
    """d_intra * d_inter of each cluster; for a single cluster 0."""
    intra = np.bincount(found.cluster, found.distance.astype(np.float64)) / found.sizes
    return intra * _inter(found.centroids)


def farthest(found: Clusters, kept: Places) -> Places:
    """The places of the `kept` rows of each cluster that are farthest from its centroid, ascending."""
    order = np.lexsort((-found.distance, found.cluster))  # stable: of equal distances the first row comes first
    starts = np.cumsum(found.sizes) - found.sizes
    rank = np.arange(len(order)) - starts[found.cluster[order]]
    chosen: Places = np.sort(order[rank < kept[found.cluster[order]]])
    return chosen


def _inter(centroids: npt.NDArray[np.float32]) -> Floats:
    """The mean of 1 - cosine to the nearest other centroids; 0 if there is no other."""
    near = min(NEIGHBOURS, len(centroids) - 1)
    found = np.zeros(len(centroids))
    for start in range(0, len(centroids) if near else 0, BLOCK // 16):
        cosines = centroids[start : start + BLOCK // 16] @ centroids.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -np.inf
        nearest = -np.partition(-cosines, near - 1, axis=1)[:, :near].astype(np.float64)
        found[start : start + len(cosines)] = 1 - np.sort(nearest, axis=1).mean(axis=1)
    return found


def _distances(vectors: Vectors, centroids: npt.NDArray[np.float32], number: Places) -> npt.NDArray[np.float32]:
    """1 - cosine of each row to its centroid."""
    found = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float32)
        own = centroids[number[start : start + BLOCK]]
        found[start : start + BLOCK] = 1 - np.einsum("nd,nd->n", block, own)
    return found


def _softmax(values: Floats) -> Floats:
    powers = np.exp(values - values.max())
    found: Floats = powers / powers.sum()
    return found
