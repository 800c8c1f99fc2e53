"""How many URLs have the same bytes. Many are placeholders that sites show for a missing picture."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pyarrow as pa

from pipeline.progress import StepProgress
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec
from pipeline.store import duck

VERSION = 1


class PictureCountsSpec(PoolSpec):
    """The number of the pool's URLs that gave the same bytes."""

    kind: Literal["picture_counts"]

    def columns(self) -> Mapping[str, pa.DataType]:
        """urls: distinct URLs whose bytes have this sha256, this one included."""
        return {"urls": pa.int32()}

    def identity(self) -> Mapping[str, Any]:
        """The version."""
        return {"version": VERSION}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Always fits: it reads only columns that every pair has."""

    def load(self, of: Callable[[], Any] | None = None) -> "PictureCounts":
        """The scorer, which has no weights."""
        return PictureCounts()


class PictureCounts:
    """Counts in DuckDB, which spills to disk."""

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The column of `PictureCountsSpec`."""
        rows = duck.parquet([pool.rows], "file_row_number")
        with duck.connect(pool.folder) as con:
            counted = con.sql(
                f"SELECT urls FROM {rows} JOIN (SELECT sha256, count(DISTINCT url)::INTEGER AS urls FROM {rows} "
                "GROUP BY sha256) USING (sha256) ORDER BY file_row_number"
            ).to_arrow_table()
        progress(1, 1)
        return {"urls": counted["urls"].combine_chunks()}
