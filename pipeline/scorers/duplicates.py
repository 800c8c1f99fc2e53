"""Pictures that are nearly the same, by their perceptual hashes: who has neighbours, and which."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
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
"""Beside the scores: low, high (two distinct pictures of the pool: hashes, or numbers), distance (bits, or 1 - cosine),
each pair within the radius once.

Not pairs of rows: ten thousand white pictures are one hash, and would be fifty million pairs."""

Numbers = npt.NDArray[np.uint64]

_FAR = 255
"""Beyond any distance."""


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

    def pictures(self, name: str) -> str:
        """The column of `rows` that says which picture a pair shows: the hashes. `name` is the scorer's."""
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
        return Duplicates(f"{self.of}_phash", self.radius)


class Duplicates:
    """Finds neighbours, and connects them to groups."""

    def __init__(self, hashes: str, radius: int) -> None:
        self._hashes, self._radius = hashes, radius

    def score(self, pool: "Pool", tell: "Tell") -> Columns:
        """The columns of `DuplicatesSpec`, and the edges as a file."""
        column = pool.column(self._hashes).combine_chunks()
        there = column.is_valid().to_numpy(zero_copy_only=False)
        distinct, picture = np.unique(column.drop_null().to_numpy(), return_inverse=True)
        edges = neighbours.within(distinct, self._radius, tell)
        write_edges(pool.folder, edges.low, edges.high, edges.distance, edges.capped)
        low, high = np.searchsorted(distinct, edges.low), np.searchsorted(distinct, edges.high)
        return spread(grouped(pool, there, picture, low, high, edges.distance), there)


def write_edges(folder: Path, low: Numbers, high: Numbers, distance: npt.NDArray[Any], capped: int) -> None:
    """`EDGES`, and in its metadata how many comparisons were left out."""
    table = pa.table({"low": low, "high": high, "distance": distance})
    pq.write_table(table.replace_schema_metadata({"capped": str(capped)}), folder / EDGES, compression="zstd")


def grouped(
    pool: "Pool",
    there: npt.NDArray[np.bool_],
    picture: npt.NDArray[np.int64],
    low: npt.NDArray[np.int64],
    high: npt.NDArray[np.int64],
    distance: npt.NDArray[Any],
) -> dict[str, pa.Array]:
    """count, group and nearest of the rows that are `there`; each shows a picture, by its number from 0 on.

    `low` and `high` are pictures `distance` apart.
    """
    rows = np.bincount(picture)
    group = neighbours.connected(len(rows), low, high)[picture]
    _, first, size = np.unique(group, return_index=True, return_counts=True)
    nearest = np.full(len(rows), _FAR, distance.dtype)
    np.minimum.at(nearest, low, distance)
    np.minimum.at(nearest, high, distance)
    nearest[rows > 1] = 0
    alone = size[group] == 1
    uids = pool.column("uid").filter(pa.array(there)).combine_chunks()
    return {
        "count": pa.array(size[group], pa.int32()),
        "group": uids.take(pa.array(first[group], mask=alone)),
        "nearest": pa.array(nearest[picture], mask=alone),
    }
