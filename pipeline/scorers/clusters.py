"""Clusters of the pool's pictures, and which of them a target picture belongs to.

DataComp's image-based filtering (Gadre et al. 2023, arXiv 2304.14108, section 3.1, and its published code): k-means,
20 rounds, finds 100,000 centroids of a pool of 12.8 million pictures; pictures of the pool and target pictures belong
to the centroid with the largest inner product.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from pipeline.collected import spread
from pipeline.draws import draws
from pipeline.errors import SourceError
from pipeline.score import Columns, PoolSpec, Spec
from pipeline.scorers import device, pictured, targets
from pipeline.settings import ExistingPath

if TYPE_CHECKING:  # a pool is of a source, and a source of specs
    from pipeline.pool import Pool, Tell

VERSION = 1
"""Raised whenever the same pool and targets would get other columns."""

PICTURES, MOST = 128, 100_000
"""Of the pool for each centroid, and centroids at most: what is published for 12.8 million pictures."""

ROUNDS = 20
"""Of k-means, as published; fewer where no picture changes its centroid any more."""

CELLS = 1 << 25
"""Products of pictures and centroids that are in memory at once: 128 MB."""

BLOCK = 65_536
"""Pictures that are added up at once."""

Vectors = npt.NDArray[np.float16] | npt.NDArray[np.float32]


class ClustersSpec(PoolSpec):
    """k-means over the image embeddings of a clip or recorded scorer, and the clusters of target pictures."""

    kind: Literal["clusters"]
    of: str = Field("clip", description="the scorer whose embeddings it reads")
    targets: ExistingPath = Field(
        description="pictures (a folder, a tar, or Parquet with a column image), or their embeddings as .npy [n, dim]"
    )
    count: int | None = Field(None, ge=1, description="centroids; unset, one for 128 pictures, at most 100,000")
    sample: int = Field(64, ge=1, description="pictures a centroid that the centroids are found from, at most")

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer whose embeddings it reads."""
        return (self.of,)

    def columns(self) -> Mapping[str, pa.DataType]:
        """cluster: the number of the picture's centroid, from 0; size: pairs of the pool in it, this one included;
        near_target: whether some target picture is in it. NULL without an image embedding.
        """
        return {"cluster": pa.int32(), "size": pa.int32(), "near_target": pa.bool_()}

    def identity(self) -> Mapping[str, Any]:
        """The settings, the targets, the version of what computes, and the device's kind."""
        from importlib.metadata import version

        settings = {"version": VERSION, "count": self.count, "sample": self.sample}
        return settings | {
            "targets": pictured.digest(self.targets),
            "torch": version("torch"),
            "device": device.kind(),
        }

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` stores no embeddings, ModelError for targets that it cannot encode."""
        if scorers[self.of].encoder is None:
            raise SourceError(f"{self.of!r} stores no embeddings; set of to a clip or recorded scorer")
        targets.check(self.targets, self.of, scorers[self.of])

    def load(self, of: Callable[[], Any] | None = None) -> "Clusters":
        """The targets' embeddings. Raises ModelError for a target that is no picture, or vectors that are none."""
        assert of is not None
        return Clusters(self.of, self.count, self.sample, targets.embedded(self.targets, of))


class Clusters:
    """Finds the centroids of a sample on disk, then the cluster of every picture, one shard in memory at a time."""

    def __init__(self, of: str, count: int | None, sample: int, wanted: npt.NDArray[np.float32]) -> None:
        """`wanted`: the targets' embeddings [targets, dim]."""
        self._of, self._count, self._sample, self._targets = of, count, sample, wanted

    def score(self, pool: "Pool", tell: "Tell") -> Columns:
        """The columns of `ClustersSpec`."""
        there = np.concatenate([np.empty(0, bool), *(has for has, _ in _pictures(pool, self._of))])
        pictures = int(there.sum())
        cluster, size, near = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool)
        if pictures:
            count = min(self._count or min(max(pictures // PICTURES, 1), MOST), pictures)
            sample = _sampled(pool, self._of, there, count * self._sample)
            targets.fit(self._targets, sample.shape[1])
            centroids = k_means(sample, count, tell)
            cluster = np.concatenate([nearest(each, centroids) for _, each in _pictures(pool, self._of)])
            size = np.bincount(cluster, minlength=count)[cluster]
            near = np.isin(cluster, nearest(self._targets, centroids))
        found = {
            "cluster": pa.array(cluster, pa.int32()),
            "size": pa.array(size, pa.int32()),
            "near_target": pa.array(near),
        }
        return spread(found, there)


def k_means(vectors: Vectors, count: int, tell: "Tell") -> npt.NDArray[np.float32]:
    """The centroids [count, dim] of vectors [n, dim], n >= count, by Lloyd's rounds from the first `count` vectors.

    A centroid that no vector is nearest to stays where it is.
    """
    centroids = vectors[:count].astype(np.float32)
    before = np.full(len(vectors), -1)
    for done in range(ROUNDS):
        tell(done, ROUNDS)
        cluster = nearest(vectors, centroids, half_squares=(centroids**2).sum(axis=1) / 2)
        if np.array_equal(cluster, before):
            break
        centroids, before = _means(vectors, cluster, centroids), cluster
    tell(ROUNDS, ROUNDS)
    return centroids


def nearest(
    vectors: Vectors, centroids: npt.NDArray[np.float32], half_squares: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.int64]:
    """By vector the centroid with the largest inner product; less half its square that is the nearest one."""
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


def _means(
    vectors: Vectors, cluster: npt.NDArray[np.int64], centroids: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Of the vectors of each cluster, added up on the processor in one order: a GPU's comes out anew each time."""
    sums = np.zeros(centroids.shape)
    for start in range(0, len(vectors), BLOCK):
        numbers = cluster[start : start + BLOCK]
        order = np.argsort(numbers, kind="stable")
        filled, first = np.unique(numbers[order], return_index=True)
        sums[filled] += np.add.reduceat(vectors[start : start + BLOCK].astype(np.float64)[order], first, axis=0)
    sizes = np.bincount(cluster, minlength=len(centroids))[:, None]
    means: npt.NDArray[np.float32] = np.where(sizes > 0, sums / np.maximum(sizes, 1), centroids).astype(np.float32)
    return means


def _pictures(pool: "Pool", of: str) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.float16]]]:
    """By shard, which pairs of the pool have an image embedding, and these."""
    for stored in pool.embeddings(of):
        has = ~np.asarray(np.isnan(stored[:, 0]).any(axis=1))
        yield has, stored[:, 0][has]


def _sampled(pool: "Pool", of: str, there: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.float16]:
    """At most so many of the pool's image embeddings, in one file on disk: those that draw the lowest, in that order.

    Which they are depends on the pairs, not on their order.
    """
    drawn = draws("clusters", pool.column("uid").filter(pa.array(there)).to_pylist())
    chosen = np.argsort(drawn, kind="stable")[:most]
    place = np.full(len(drawn), -1)
    place[chosen] = np.arange(len(chosen))
    sample, start = None, 0
    for _, pictures in _pictures(pool, of):
        if sample is None:
            sample = np.lib.format.open_memmap(
                pool.folder / f"{of}-sample.npy", "w+", np.float16, (len(chosen), pictures.shape[1])
            )
        at = place[start : start + len(pictures)]
        sample[at[at >= 0]] = pictures[at >= 0]
        start += len(pictures)
    assert sample is not None
    return sample
