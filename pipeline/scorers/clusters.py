"""Clusters of the pool's pictures, and the clusters of target pictures.

DataComp's image-based filtering (Gadre et al. 2023, arXiv 2304.14108, section 3.1, and its published code): k-means,
20 rounds, finds 100,000 centroids of a pool of 12.8 million pictures; pictures of the pool and target pictures belong
to the centroid with the largest inner product. Above 256 centroids k-means has two levels here, and a picture is
compared with the centroids of its nearest groups (`pipeline.neighbours.kmeans_tree`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from pipeline.images import picture_sets
from pipeline.models import device
from pipeline.neighbours import kmeans_tree
from pipeline.progress import StepProgress
from pipeline.scorers import gathering, targets
from pipeline.scorers.spec import Columns, Pool, scatter
from pipeline.scorers.target_set import PoolTargetSet
from pipeline.uids import random_bits

VERSION = 2

PICTURES, MOST = 128, 100_000
"""Pictures for each centroid, and the most centroids, as published for 12.8 million pictures."""


class ClustersSpec(PoolTargetSet):
    """k-means over the image embeddings of a clip or recorded scorer, and the clusters of target pictures."""

    kind: Literal["clusters"]
    count: int | None = Field(None, ge=1, description="centroids; unset, one for 128 pictures, at most 100,000")
    sample: int = Field(64, ge=1, description="pictures a centroid that the centroids are found from, at most")

    def columns(self) -> Mapping[str, pa.DataType]:
        """cluster: the number of the picture's centroid, from 0; size: pairs in the cluster, this one included;
        near_target: whether a target picture is in the cluster. NULL without an image embedding.
        """
        return {"cluster": pa.int32(), "size": pa.int32(), "near_target": pa.bool_()}

    def identity(self) -> Mapping[str, Any]:
        """The settings, the targets (and test pictures, if they are embeddings), the version, and the device's kind."""
        from importlib.metadata import version

        settings = {"version": VERSION, "count": self.count, "sample": self.sample}
        return settings | {
            "targets": picture_sets.digest(self.targets),
            "torch": version("torch"),
            "device": device.kind(),
            **(self.tested() if self.are_vectors else {}),
        }

    def load(self, of: Callable[[], Any] | None = None) -> "Clusters":
        """The scorer with its targets. Raises ModelError for a broken picture, and for a file without embeddings."""
        return Clusters(self.of, self.count, self.sample, targets.embed(self.targets, of))


class Clusters:
    """Computes the centroids of a sample on disk, then the cluster of every picture, shard by shard."""

    def __init__(self, of: str, count: int | None, sample: int, vectors: npt.NDArray[np.float32]) -> None:
        """`vectors`: the targets' embeddings [targets, dim]."""
        self._of, self._count, self._sample, self._targets = of, count, sample, vectors

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `ClustersSpec`."""
        present = gathering.present(pool, self._of)
        rows = np.flatnonzero(present)
        cluster, size, near = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool)
        if len(rows):
            count = min(self._count or min(max(len(rows) // PICTURES, 1), MOST), len(rows))
            sample = _sample(pool, self._of, rows, count * self._sample)
            targets.check_width(self._targets, sample.shape[1])
            tree = kmeans_tree.grow(sample, count, progress)
            cluster = np.concatenate([tree.assign(images) for images in gathering.images(pool, self._of)])
            size = np.bincount(cluster, minlength=count)[cluster]
            near = np.isin(cluster, tree.assign(self._targets))
        found = {
            "cluster": pa.array(cluster, pa.int32()),
            "size": pa.array(size, pa.int32()),
            "near_target": pa.array(near),
        }
        return scatter(found, present)


def _sample(pool: Pool, of: str, rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.float16]:
    """The image embeddings of at most `most` of these rows: those with the lowest draws, in the order of the draws.

    Which they are depends on the pairs, not on their order.
    """
    drawn = random_bits("clusters", pool.column("uid").take(pa.array(rows)).to_pylist())
    return gathering.gather(pool, of, rows[np.argsort(drawn, kind="stable")[:most]])
