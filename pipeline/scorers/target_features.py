"""Features of a target set, and how near each picture of the pool is to them: what greedy matching chooses by.

The features are the centroids of the target pictures' embeddings. A recipe that ends in a selection of kind matching
(`pipeline.selection.matching`) reads them from the file `FEATURES`.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from pipeline.images import picture_sets
from pipeline.models import device
from pipeline.neighbours import kmeans_tree, soft_assignment
from pipeline.progress import StepProgress
from pipeline.scorers import gathering, targets
from pipeline.scorers.spec import Columns, Pool, scatter
from pipeline.scorers.target_file import FEATURES, Target, Vectors
from pipeline.scorers.target_set import PoolTargetSet
from pipeline.uids import random_bits

VERSION = 1


class TargetFeaturesSpec(PoolTargetSet):
    """The centroids of target pictures, for a recipe that ends in a selection of kind matching."""

    files: ClassVar[Sequence[str]] = (FEATURES,)
    kind: Literal["target_features"]
    count: int = Field(256, ge=1, description="features, at most; of fewer targets each is a feature of its own")
    temperature: float = Field(
        0.05, gt=0, le=1, description="1 - cosine at which a feature has fallen to a third; smaller: only the nearest"
    )

    def columns(self) -> Mapping[str, pa.DataType]:
        """feature: the number of the nearest feature, from 0; nearest: the cosine with its centroid, -1 to 1. NULL
        without an image embedding.
        """
        return {"feature": pa.int32(), "nearest": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """The settings, the targets, the test pictures, the versions of what computes, and the device's kind."""
        settings = {"version": [VERSION, soft_assignment.VERSION], "count": self.count, "temperature": self.temperature}
        return {
            **settings,
            "targets": picture_sets.digest(self.targets),
            "torch": version("torch"),
            "device": device.kind(),
            **self.tested(),
        }

    def load(self, of: Callable[[], Any] | None = None) -> "TargetFeatures":
        """The scorer with its targets. Raises ModelError for a broken picture, and for a file without embeddings."""
        return TargetFeatures(self.of, self.count, self.temperature, targets.embed(self.targets, of))


class TargetFeatures:
    """Finds the features of a target, and compares every picture of the pool with them."""

    def __init__(self, of: str, count: int, temperature: float, vectors: Vectors) -> None:
        """`vectors`: the targets' embeddings [targets, dim]."""
        self._target = summarize(of, vectors, count, temperature)

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `TargetFeaturesSpec`, and the features as a file."""
        self._target.write(pool.folder / FEATURES)
        present = gathering.present(pool, self._target.of)
        parts = [(np.empty(0, np.int32), np.empty(0, np.float32))]
        for images in gathering.images(pool, self._target.of):
            targets.check_width(self._target.centroids, images.shape[1])
            parts.append(_nearest(images, self._target.centroids))
        feature, nearest = (np.concatenate(each) for each in zip(*parts, strict=True))
        return scatter({"feature": pa.array(feature), "nearest": pa.array(nearest)}, present)


def summarize(of: str, vectors: Vectors, count: int, temperature: float) -> Target:
    """The features of a target set with these embeddings [targets, dim], at most `count`.

    k-means begins with targets in a random order, always the same, because files are often sorted by class.
    """
    order = np.argsort(random_bits("target_features", map(str, range(len(vectors)))), kind="stable")
    centroids = vectors[order]
    if len(vectors) > count:
        centroids = kmeans_tree.grow(centroids, count, lambda done, total: None).centroids
        centroids = centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    sums = soft_assignment.assign(vectors, centroids, temperature).sums(len(centroids))
    return Target(of, temperature, centroids, sums / sums.sum())


def _nearest(images: npt.NDArray[np.float16], centroids: Vectors) -> tuple[npt.NDArray[np.int32], Vectors]:
    """The nearest centroid of each picture, and the cosine with it."""
    cosines = images.astype(np.float32) @ centroids.T
    return cosines.argmax(axis=1).astype(np.int32), cosines.max(axis=1, initial=-1)
