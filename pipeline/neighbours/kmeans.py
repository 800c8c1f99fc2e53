"""k-means over embeddings, which may be a memory-mapped file."""

import numpy as np
import numpy.typing as npt

from pipeline.models import device
from pipeline.progress import StepProgress

ROUNDS = 20
"""Rounds of Lloyd's algorithm, as DataComp publishes it; fewer if no vector changes its centroid any more."""

CELLS = 1 << 25
"""Inner products that are in memory at once: 128 MB."""

BLOCK = 65_536
"""Vectors that are added up at once."""

Vectors = npt.NDArray[np.float16] | npt.NDArray[np.float32]


def k_means(vectors: Vectors, count: int, progress: StepProgress) -> npt.NDArray[np.float32]:
    """The centroids [count, dim] of vectors [n, dim], n >= count, by Lloyd's algorithm from the first `count` vectors.

    A centroid without vectors does not move.
    """
    centroids = vectors[:count].astype(np.float32)
    before = np.full(len(vectors), -1)
    for done in range(ROUNDS):
        progress(done, ROUNDS)
        cluster = assign(vectors, centroids, half_squares=(centroids**2).sum(axis=1) / 2)
        if np.array_equal(cluster, before):
            break
        centroids, before = means(vectors, cluster, centroids), cluster
    progress(ROUNDS, ROUNDS)
    return centroids


def assign(
    vectors: Vectors, centroids: npt.NDArray[np.float32], half_squares: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.int64]:
    """For each vector the index of the centroid with the largest inner product.

    With `half_squares`, half the squared norms of the centroids, it is the centroid with the least distance.
    """
    import torch

    against = torch.from_numpy(centroids.T.copy()).to(device.kind())
    less = None if half_squares is None else torch.from_numpy(half_squares).to(device.kind())
    rows = max(CELLS // len(centroids), 1)
    found: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    with torch.inference_mode():
        for start in range(0, len(vectors), rows):
            block = torch.from_numpy(vectors[start : start + rows].astype(np.float32)).to(device.kind())
            products = block @ against
            found.append((products if less is None else products.sub_(less)).argmax(dim=1).cpu().numpy())
    return np.concatenate(found)


def means(
    vectors: Vectors, cluster: npt.NDArray[np.int64], centroids: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The means of the clusters, added up on the processor in a fixed order: a GPU's sums differ from run to run."""
    sums = np.zeros(centroids.shape)
    for start in range(0, len(vectors), BLOCK):
        numbers = cluster[start : start + BLOCK]
        order = np.argsort(numbers, kind="stable")
        filled, first = np.unique(numbers[order], return_index=True)
        sums[filled] += np.add.reduceat(vectors[start : start + BLOCK].astype(np.float64)[order], first, axis=0)
    sizes = np.bincount(cluster, minlength=len(centroids))[:, None]
    means: npt.NDArray[np.float32] = np.where(sizes > 0, sums / np.maximum(sizes, 1), centroids).astype(np.float32)
    return means
