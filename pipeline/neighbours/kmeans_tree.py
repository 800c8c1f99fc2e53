"""k-means with many centroids: groups first, then the centroids of each group.

One level costs vectors times centroids, which is the square of a pool whose centroids are a share of its pictures. Here
a vector meets the heads of all groups and the centroids of its nearest few groups. With as many groups as a group has
centroids the cost is the power 1.5. Two levels are usual where centroids are many: Nister and Stewenius 2006, "Scalable
recognition with a vocabulary tree"; Vo et al. 2024, arXiv 2405.15613.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.neighbours.kmeans import Vectors, assign, k_means, means
from pipeline.progress import StepProgress

ONE_LEVEL = 256
"""Centroids up to which there is one group: plain k-means, and the nearest of all."""

HEADS_SAMPLE = 256
"""Vectors for each group that the heads are found from."""

NEAREST = 8
"""Groups whose centroids a vector is compared with."""

REFINEMENTS = 3
"""Rounds over all centroids, after those of each group."""

BLOCK = 65_536
"""Vectors that are assigned at once."""


@dataclass(frozen=True)
class Tree:
    """`centroids` [count, dim] in the order of their groups, `ends` [groups] the place after each group's last one."""

    centroids: npt.NDArray[np.float32]
    ends: npt.NDArray[np.int64]

    def assign(self, vectors: Vectors, nearest: bool = False) -> npt.NDArray[np.int64]:
        """For each vector the index of a centroid: of those in its nearest groups, the largest inner product.

        With `nearest` it is the centroid with the least distance.
        """
        half = (self.centroids**2).sum(axis=1) / 2 if nearest else None
        if len(self.ends) == 1:
            return assign(vectors, self.centroids, half)
        parts = [np.empty(0, np.int64)]
        for start in range(0, len(vectors), BLOCK):
            parts.append(self._assign(vectors[start : start + BLOCK].astype(np.float32), half))
        return np.concatenate(parts)

    def _assign(
        self, vectors: npt.NDArray[np.float32], half_squares: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.int64]:
        """The same for vectors that fit in memory, a group after another: each keeps the best so far."""
        near = vectors @ self._heads.T
        if half_squares is not None:
            near -= (self._heads**2).sum(axis=1) / 2
        groups = min(NEAREST, len(self.ends))
        chosen = np.argpartition(near, -groups, axis=1)[:, -groups:]
        order = np.argsort(chosen, axis=None, kind="stable")
        rows, bounds = order // groups, np.searchsorted(chosen.ravel()[order], np.arange(len(self.ends) + 1))
        best, found = np.full(len(vectors), -np.inf, np.float32), np.zeros(len(vectors), np.int64)
        for group, (first, end) in enumerate(zip(self._starts, self.ends, strict=True)):
            mine = rows[bounds[group] : bounds[group + 1]]
            products = vectors[mine] @ self.centroids[first:end].T
            if half_squares is not None:
                products -= half_squares[first:end]
            place = products.argmax(axis=1)
            value = products[np.arange(len(mine)), place]
            better = value > best[mine]
            best[mine[better]], found[mine[better]] = value[better], first + place[better]
        return found

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], self.ends[:-1]])

    @cached_property
    def _heads(self) -> npt.NDArray[np.float32]:
        """The mean of the centroids of each group [groups, dim]."""
        sizes = (self.ends - self._starts)[:, None]
        heads: npt.NDArray[np.float32] = (np.add.reduceat(self.centroids, self._starts) / sizes).astype(np.float32)
        return heads


def grow(vectors: Vectors, count: int, progress: StepProgress) -> Tree:
    """The centroids of vectors [n, dim], n >= count."""
    if count <= ONE_LEVEL:
        return Tree(k_means(vectors, count, progress), np.array([count]))
    groups = round(count**0.5)
    steps = groups + REFINEMENTS + 1
    heads = k_means(vectors[: groups * HEADS_SAMPLE], groups, lambda done, total: None)
    progress(1, steps)
    group = assign(vectors, heads, (heads**2).sum(axis=1) / 2)
    shares = _shares(np.bincount(group, minlength=groups), count)
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(groups + 1))
    found = []
    for number in range(groups):
        if shares[number]:
            mine = np.sort(order[bounds[number] : bounds[number + 1]])
            found.append(k_means(vectors[mine], int(shares[number]), lambda done, total: None))
        progress(number + 2, steps)
    tree = Tree(np.concatenate(found), np.cumsum(shares[shares > 0]))
    for done in range(REFINEMENTS):
        tree = Tree(means(vectors, tree.assign(vectors, nearest=True), tree.centroids), tree.ends)
        progress(groups + 2 + done, steps)
    return tree


def _shares(sizes: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Centroids of each group, in proportion to its vectors and never more than these."""
    exact = sizes * count / sizes.sum()
    shares: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    missing = count - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    return shares
