"""Clusters of the pool's pictures, and which of them a target picture belongs to.

DataComp's image-based filtering (Gadre et al. 2023, arXiv 2304.14108, section 3.1, and its published code): k-means,
20 rounds, finds 100,000 centroids of a pool of 12.8 million pictures; pictures of the pool and target pictures belong
to the centroid with the largest inner product.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from pipeline.errors import SourceError
from pipeline.images import picture_sets
from pipeline.models import device
from pipeline.neighbours.kmeans import k_means, nearest
from pipeline.progress import StepProgress
from pipeline.scorers import targets
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec, spread
from pipeline.settings.fields import ExistingPath
from pipeline.uids import draws

VERSION = 1
"""Raised whenever the same pool and targets would get other columns."""

PICTURES, MOST = 128, 100_000
"""Of the pool for each centroid, and centroids at most: what is published for 12.8 million pictures."""


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
            "targets": picture_sets.digest(self.targets),
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

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `ClustersSpec`."""
        there = np.concatenate([np.empty(0, bool), *(has for has, _ in _pictures(pool, self._of))])
        pictures = int(there.sum())
        cluster, size, near = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool)
        if pictures:
            count = min(self._count or min(max(pictures // PICTURES, 1), MOST), pictures)
            sample = _sampled(pool, self._of, there, count * self._sample)
            targets.fit(self._targets, sample.shape[1])
            centroids = k_means(sample, count, progress)
            cluster = np.concatenate([nearest(each, centroids) for _, each in _pictures(pool, self._of)])
            size = np.bincount(cluster, minlength=count)[cluster]
            near = np.isin(cluster, nearest(self._targets, centroids))
        found = {
            "cluster": pa.array(cluster, pa.int32()),
            "size": pa.array(size, pa.int32()),
            "near_target": pa.array(near),
        }
        return spread(found, there)


def _pictures(pool: Pool, of: str) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.float16]]]:
    """By shard, which pairs of the pool have an image embedding, and these."""
    for stored in pool.embeddings(of):
        has = ~np.asarray(np.isnan(stored[:, 0]).any(axis=1))
        yield has, stored[:, 0][has]


def _sampled(pool: Pool, of: str, there: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.float16]:
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
