"""Pictures that show nearly the same thing, by the cosine of their embeddings: who has neighbours, and which."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from pipeline.errors import SourceError
from pipeline.models import device
from pipeline.neighbours import cosine
from pipeline.progress import StepProgress
from pipeline.scorers.edges import EDGES, grouped, write_edges
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec, spread

VERSION = 1
"""Raised whenever the same pool would get other columns."""

_DIGEST = 16
"""Bytes that stand for an embedding."""


class SemanticSpec(PoolSpec):
    """Semantic duplicates among the pool's pictures. A recipe removes them with `distinct`, or as SemDeDup does."""

    leaves: ClassVar[Sequence[str]] = (EDGES,)
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
        """The column of `rows` that says which picture a pair shows. `name` is the scorer's."""
        return f"{name}_picture"

    def columns(self) -> Mapping[str, pa.DataType]:
        """picture: a number, the same for the same embedding; it means nothing to another pool.
        count: pairs of the group, this one included, 1 if it is alone; group: the uid of the group's first pair;
        nearest: 1 - cosine of the nearest other pair's picture, 0 to the radius. Both are NULL if it is alone. A group
        is all that can be reached from neighbour to neighbour: its ends may be far apart.
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
        limits = [cosine.SIZE, cosine.TAUGHT, cosine.GUESTS, cosine.LARGEST, cosine.MOST]
        settings = {"version": VERSION, "radius": self.radius, "clusters": self.clusters, "limits": limits}
        return settings | {"torch": version("torch"), "device": device.kind()}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` stores no embeddings."""
        if scorers[self.of].encoder is None:
            raise SourceError(f"{self.of!r} stores no embeddings; set of to a clip or recorded scorer")

    def load(self, of: Callable[[], Any] | None = None) -> "Semantic":
        """Nothing heavy: the model is not needed, its embeddings are."""
        return Semantic(self.of, self.radius, self.clusters)


class Semantic:
    """Finds neighbours, and connects them to groups. Embeddings stay in their files, and in one of distinct ones."""

    def __init__(self, of: str, radius: float, clusters: int | None) -> None:
        self._of, self._radius, self._clusters = of, radius, clusters

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `SemanticSpec`, and the edges as a file."""
        there, picture = _pictures(pool, self._of)
        _, first = np.unique(picture, return_index=True)
        found = cosine.within(_gathered(pool, self._of, there, first), self._radius, self._clusters, progress)
        write_edges(pool.folder, found.low, found.high, found.distance, found.capped)
        low, high = found.low.astype(np.int64), found.high.astype(np.int64)
        harder = np.zeros(len(picture), np.float32)  # of a picture's pairs all but the first have an equal before them
        harder[first] = found.harder
        columns = {
            "picture": pa.array(picture, pa.uint64()),
            **grouped(pool, there, picture, low, high, found.distance),
            "cluster": pa.array(found.cluster[picture]),
            "centrality": pa.array(found.centrality[picture]),
            "harder": pa.array(harder),
        }
        return spread(columns, there)


def _pictures(pool: Pool, of: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Which pairs have an image embedding; and of these which one, by numbers that rise with the first appearance."""
    there: list[npt.NDArray[np.bool_]] = [np.empty(0, bool)]
    digests = [pa.array([], pa.binary(_DIGEST))]
    for stored in pool.embeddings(of):
        images = np.ascontiguousarray(stored[:, 0])
        there.append(~np.asarray(np.isnan(images).any(axis=1)))
        rows = (hashlib.blake2b(row, digest_size=_DIGEST).digest() for row in images[there[-1]])
        digests.append(pa.array(list(rows), pa.binary(_DIGEST)))
    numbered = pa.concat_arrays(digests).dictionary_encode()
    return np.concatenate(there), numbered.indices.to_numpy().astype(np.int64)


def _gathered(
    pool: Pool, of: str, there: npt.NDArray[np.bool_], first: npt.NDArray[np.int64]
) -> npt.NDArray[np.float16]:
    """The image embeddings of the pairs that are `first` to show a picture, in one file on disk."""
    chosen = np.zeros(len(there), bool)
    chosen[np.flatnonzero(there)[first]] = True
    if not len(first):
        return np.empty((0, 0), np.float16)
    gathered: npt.NDArray[np.float16] | None = None
    row = filled = 0
    for stored in pool.embeddings(of):
        if gathered is None:
            shape = (len(first), stored.shape[2])
            gathered = np.lib.format.open_memmap(pool.folder / f"{of}.images.npy", "w+", np.float16, shape)
        images = stored[chosen[row : row + len(stored)], 0]
        gathered[filled : filled + len(images)] = images
        row, filled = row + len(stored), filled + len(images)
    assert gathered is not None
    return gathered
