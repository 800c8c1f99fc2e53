"""Semantic duplicates: pictures that show nearly the same, by the cosine of their embeddings."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from pipeline.models import device
from pipeline.neighbours import cosine
from pipeline.progress import StepProgress
from pipeline.scorers import gathering
from pipeline.scorers.edges import EDGES, group_columns, write_edges
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec, scatter

VERSION = 1

_DIGEST = 16
"""Bytes of the digest that identifies an embedding."""


class SemanticSpec(PoolSpec):
    """Semantic duplicates among the pool's pictures. A recipe removes them with `distinct`, or as SemDeDup does."""

    files: ClassVar[Sequence[str]] = (EDGES,)
    kind: Literal["semantic"]
    of: str = Field("clip", description="the scorer whose image embeddings are compared")
    radius: float = Field(0.05, gt=0, le=0.5, description="1 - cosine of two pictures that show the same, at most")
    clusters: int | None = Field(
        None, ge=1, description="inside which pictures are compared; a thousandth of the pictures if unset"
    )

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer that stored the embeddings."""
        return (self.of,)

    def pictures(self, name: str) -> str:
        """The column of `rows` that identifies a pair's picture. `name` is the scorer's."""
        return f"{name}_picture"

    def columns(self) -> Mapping[str, pa.DataType]:
        """picture: a number, the same for the same embedding, valid in this pool only.
        count: pairs of the group, this one included, 1 if it is alone; group: the uid of the group's first pair;
        nearest: 1 - cosine of the nearest other pair's picture, 0 to the radius. Both are NULL if it is alone. A group
        is a connected component of neighbours: its ends may be far apart.
        cluster: a number from 0 on; centrality: the cosine with the cluster's centre; harder: 1 - cosine of the nearest
        picture of the cluster that is less central, or equal and before it; 1 for the least central one. So harder <=
        eps is what SemDeDup removes (Abbas et al. 2023, arXiv 2303.09540, section 3).

        All are NULL where there is no embedding.
        """
        group = {"count": pa.int32(), "group": pa.string(), "nearest": pa.float32()}
        return {
            "picture": pa.uint64(),
            **group,
            "cluster": pa.int32(),
            "centrality": pa.float32(),
            "harder": pa.float32(),
        }

    def identity(self) -> Mapping[str, Any]:
        """The settings, the versions of what computes, and the device's kind, on which the centres are found."""
        limits = [cosine.SIZE, cosine.SAMPLED, cosine.GUESTS, cosine.LARGEST, cosine.MOST]
        settings = {"version": VERSION, "radius": self.radius, "clusters": self.clusters, "limits": limits}
        return settings | {"torch": version("torch"), "device": device.kind()}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` stores no embeddings."""
        gathering.check(scorers, self.of)

    def load(self, of: Callable[[], Any] | None = None) -> "Semantic":
        """The scorer. It needs the stored embeddings, not their model."""
        return Semantic(self.of, self.radius, self.clusters)


class Semantic:
    """Finds neighbours, and connects them to groups. Embeddings stay in files."""

    def __init__(self, of: str, radius: float, clusters: int | None) -> None:
        self._of, self._radius, self._clusters = of, radius, clusters

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `SemanticSpec`, and the edges as a file."""
        present = gathering.present(pool, self._of)
        picture = _number(pool, self._of)
        _, first = np.unique(picture, return_index=True)
        vectors = gathering.gather(pool, self._of, np.flatnonzero(present)[first])
        found = cosine.within(vectors, self._radius, self._clusters, progress)
        write_edges(pool.folder, found.low, found.high, found.distance, found.capped)
        low, high = found.low.astype(np.int64), found.high.astype(np.int64)
        harder = np.zeros(len(picture), np.float32)  # of a picture's pairs all but the first have an equal before them
        harder[first] = found.harder
        columns = {
            "picture": pa.array(picture, pa.uint64()),
            **group_columns(pool, present, picture, low, high, found.distance),
            "cluster": pa.array(found.cluster[picture]),
            "centrality": pa.array(found.centrality[picture]),
            "harder": pa.array(harder),
        }
        return scatter(columns, present)


def _number(pool: Pool, of: str) -> npt.NDArray[np.int64]:
    """By row with an image embedding, the number of this embedding. Numbers rise with the first appearance."""
    digests = [pa.array([], pa.binary(_DIGEST))]
    for images in gathering.images(pool, of):
        rows = [hashlib.blake2b(row, digest_size=_DIGEST).digest() for row in np.ascontiguousarray(images)]
        digests.append(pa.array(rows, pa.binary(_DIGEST)))
    numbers: npt.NDArray[np.int32] = pa.concat_arrays(digests).dictionary_encode().indices.to_numpy()
    return numbers.astype(np.int64)
