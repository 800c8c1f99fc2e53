"""Near-duplicate pictures, by the Hamming distance of their perceptual hashes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.errors import SourceError
from pipeline.neighbours import hamming
from pipeline.progress import StepProgress
from pipeline.scorers.edges import EDGES, group_columns, write_edges
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec, scatter

VERSION = 1


class DuplicatesSpec(PoolSpec):
    """Near-duplicates among the pool's pictures. A recipe removes them with `distinct`."""

    files: ClassVar[Sequence[str]] = (EDGES,)
    kind: Literal["duplicates"]
    of: str = Field("pixels", description="the scorer that made the hashes")
    radius: int = Field(6, ge=0, le=12, description="bits of 64 in which two hashes of near-duplicates differ, at most")

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer that made the hashes."""
        return (self.of,)

    def pictures(self, name: str) -> str:
        """The column of `rows` that identifies a pair's picture: the hashes. `name` is the scorer's."""
        return f"{self.of}_phash"

    def columns(self) -> Mapping[str, pa.DataType]:
        """count: pairs of the group, this one included, 1 if it is alone; group: the uid of the group's first pair;
        nearest: bits to the nearest picture of another pair, 0 to the radius. Both are NULL if it is alone.

        A group is a connected component of neighbours: its ends may be far apart. Pairs with one URL
        are neighbours at 0 bits, and so are files with the same bytes.
        """
        return {"count": pa.int32(), "group": pa.string(), "nearest": pa.uint8()}

    def identity(self) -> Mapping[str, Any]:
        """The version and the radius."""
        return {"version": VERSION, "radius": self.radius, "longest": hamming.LONGEST}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` makes no 64-bit hash."""
        if scorers[self.of].columns().get("phash") != pa.uint64():
            raise SourceError(f"{self.of!r} makes no phash; set of to a scorer of kind pixels")

    def load(self, of: Callable[[], Any] | None = None) -> "Duplicates":
        """The scorer, which has no weights."""
        return Duplicates(f"{self.of}_phash", self.radius)


class Duplicates:
    """Finds neighbours, and connects them to groups."""

    def __init__(self, hashes: str, radius: int) -> None:
        self._hashes, self._radius = hashes, radius

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `DuplicatesSpec`, and the edges as a file."""
        column = pool.column(self._hashes).combine_chunks()
        present = column.is_valid().to_numpy(zero_copy_only=False)
        distinct, picture = np.unique(column.drop_null().to_numpy(), return_inverse=True)
        edges = hamming.within(distinct, self._radius, progress)
        write_edges(pool.folder, edges.low, edges.high, edges.distance, edges.capped)
        low, high = np.searchsorted(distinct, edges.low), np.searchsorted(distinct, edges.high)
        return scatter(group_columns(pool, present, picture, low, high, edges.distance), present)
