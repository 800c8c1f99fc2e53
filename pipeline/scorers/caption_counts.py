"""How often a caption occurs in the pool. A caption of a thousand pictures describes none of them."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import pyarrow as pa

from pipeline.progress import StepProgress
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec
from pipeline.store import duck

VERSION = 1

SAME = r"lower(nfc_normalize(regexp_replace(trim(caption), '\s+', ' ', 'g')))"
"""Captions with an equal value count as one. It ignores letter case, white space and the encoding of accents."""


class CaptionCountsSpec(PoolSpec):
    """The number of the pool's pairs that have the caption."""

    kind: Literal["caption_counts"]

    def columns(self) -> Mapping[str, pa.DataType]:
        """count: downloaded pairs with this caption, this one included; letter case and white space are ignored."""
        return {"count": pa.int32()}

    def identity(self) -> Mapping[str, Any]:
        """The version, and what counts as the same caption."""
        return {"version": VERSION, "same": SAME}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Always fits: it reads only captions."""

    def load(self, of: Callable[[], Any] | None = None) -> "CaptionCounts":
        """The scorer, which has no weights."""
        return CaptionCounts()


class CaptionCounts:
    """Counts in DuckDB, which spills to disk."""

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The column of `CaptionCountsSpec`."""
        with duck.connect(pool.folder) as con:
            con.execute(
                f"CREATE TABLE captions AS SELECT file_row_number AS row, {SAME} AS same "
                f"FROM {duck.parquet([pool.rows], 'file_row_number')}"
            )
            counted = con.sql(
                "SELECT count FROM captions JOIN (SELECT same, count(*)::INTEGER AS count FROM captions GROUP BY same) "
                "USING (same) ORDER BY row"
            ).to_arrow_table()
        progress(1, 1)
        return {"count": counted["count"].combine_chunks()}
