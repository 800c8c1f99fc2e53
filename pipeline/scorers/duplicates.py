"""Pictures that are nearly the same, by their perceptual hashes: who has neighbours, and which."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline import neighbours
from pipeline.collected import spread
from pipeline.errors import SourceError
from pipeline.score import Columns, PoolSpec, Spec

if TYPE_CHECKING:  # a pool is of a source, and a source of specs
    from pipeline.pool import Pool, Tell

VERSION = 1
"""Raised whenever the same pool would get other groups."""

EDGES = "edges.parquet"
"""Beside the scores: low, high (two distinct hashes of the pool), distance (bits), each pair within the radius once.

Not pairs of rows: ten thousand white pictures are one hash, and would be fifty million pairs."""


class DuplicatesSpec(PoolSpec):
    """Near-duplicates among the pool's pictures. A recipe removes them with `distinct`."""

    leaves: ClassVar[Sequence[str]] = (EDGES,)
    kind: Literal["duplicates"]
    of: str = Field("pixels", description="the scorer that made the hashes")
    radius: int = Field(6, ge=0, le=12, description="bits of 64 in which two hashes of near-duplicates differ, at most")

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer that made the hashes."""
        return (self.of,)

    @property
    def hashes(self) -> str:
        """The column of `rows` that holds the hashes."""
        return f"{self.of}_phash"

    def columns(self) -> Mapping[str, pa.DataType]:
        """count: pairs of the group, this one included, 1 if it is alone; group: the uid of the group's first pair;
        nearest: bits to the nearest other pair's picture, 0 to the radius. Both are NULL if it is alone.

        A group is all that can be reached from neighbour to neighbour: its ends may be far apart. Pairs with one URL
        are neighbours at 0 bits, and so are files with the same bytes.
        """
        return {"count": pa.int32(), "group": pa.string(), "nearest": pa.uint8()}

    def identity(self) -> Mapping[str, Any]:
        """The version and the radius."""
        return {"version": VERSION, "radius": self.radius, "longest": neighbours.LONGEST}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` makes no 64-bit hash."""
        if scorers[self.of].columns().get("phash") != pa.uint64():
            raise SourceError(f"{self.of!r} makes no phash; set of to a scorer of kind pixels")

    def load(self, of: Callable[[], Any] | None = None) -> "Duplicates":
        """Nothing heavy."""
        return Duplicates(self.hashes, self.radius)


class Duplicates:
    """Finds neighbours, and connects them to groups."""

    def __init__(self, hashes: str, radius: int) -> None:
        self._hashes, self._radius = hashes, radius

    def score(self, pool: "Pool", tell: "Tell") -> Columns:
        """The columns of `DuplicatesSpec`, and the edges as a file."""
        column = pool.column(self._hashes).combine_chunks()
        there = column.is_valid().to_numpy(zero_copy_only=False)
        distinct, picture, rows = np.unique(column.drop_null().to_numpy(), return_inverse=True, return_counts=True)
        edges = neighbours.within(distinct, self._radius, tell)
        low, high = np.searchsorted(distinct, edges.low), np.searchsorted(distinct, edges.high)
        pq.write_table(
            pa.table({"low": edges.low, "high": edges.high, "distance": edges.distance}).replace_schema_metadata(
                {"capped": str(edges.capped)}
            ),
            pool.folder / EDGES,
            compression="zstd",
        )
        group = _connected(len(distinct), low, high)[picture]
        _, first, size = np.unique(group, return_index=True, return_counts=True)
        nearest = np.full(len(distinct), 255, np.uint8)
        np.minimum.at(nearest, low, edges.distance)
        np.minimum.at(nearest, high, edges.distance)
        nearest[rows > 1] = 0
        alone = size[group] == 1
        uids = pool.column("uid").filter(column.is_valid()).combine_chunks()
        found = {
            "count": pa.array(size[group], pa.int32()),
            "group": uids.take(pa.array(first[group], mask=alone)),
            "nearest": pa.array(nearest[picture], mask=alone),
        }
        return spread(found, there)


def _connected(nodes: int, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The number of each node's connected component, from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(low), np.int8), (low, high)), shape=(nodes, nodes))
    component: npt.NDArray[np.int64] = connected_components(edges, directed=False)[1]
    return component
