"""`Distinct`, the end of a recipe: which rows go because a better one shows nearly the same picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters.core import DISTINCT, Distinct, Filter
from pipeline import tables
from pipeline.errors import RecipeError
from pipeline.storage import Storage

Places = npt.NDArray[np.int64]
"""Rows, as their positions among all rows of all parts."""


@dataclass(frozen=True)
class Neighbours:
    """Where a source's edges lie (the storage key of `scorers.duplicates.EDGES`), the column of `rows` with the hashes,
    and the radius up to which neighbours were looked for."""

    edges: str
    hashes: str
    radius: int


def check(distinct: Distinct | None, radius: int | None, columns: pa.Schema) -> None:
    """Check a recipe's end against the columns of `rows` and the `radius` of the source's neighbours, None without any.

    Raises RecipeError, in one line.
    """
    if distinct is None:
        return
    if radius is None:
        raise RecipeError(
            "distinct needs to know which pictures are neighbours: add [scorers.duplicates] with kind = "
            '"duplicates" to the source file, and curate it'
        )
    if distinct.radius > radius:
        raise RecipeError(
            f"distinct.radius is {distinct.radius}, and neighbours were looked for up to {radius}: "
            "raise the radius of the scorer of kind duplicates, or lower this one"
        )
    tables.bind_order(DISTINCT, distinct.best_by, columns)


def told(storage: Storage, neighbours: Neighbours) -> dict[str, int]:
    """How many edges there are, and how many comparisons were left out in crowds: if any, edges may be missing."""
    metadata = pq.read_metadata(storage.fetch(neighbours.edges))
    return {"edges": metadata.num_rows, "capped": int((metadata.metadata or {}).get(b"capped", 0))}


@dataclass(frozen=True)
class Losers:
    """The rows that pass the filters and go all the same: for a better neighbour, or because they have no hash."""

    repeated: Places
    unknown: Places

    def of(self, start: int, count: int) -> "Losers":
        """Those among `count` rows from `start` on, as positions among these."""
        return Losers(
            *(each[(each >= start) & (each < start + count)] - start for each in (self.repeated, self.unknown))
        )


def losers(
    con: duckdb.DuckDBPyConnection,
    storage: Storage,
    parts: Sequence[Path],
    counts: Sequence[int],
    filters: Sequence[Filter],
    distinct: Distinct,
    neighbours: Neighbours,
) -> Losers:
    """What `distinct` removes from the rows that pass all filters. `parts` are files of so many rows each."""
    edges = storage.fetch(neighbours.edges)
    near = f"(FROM read_parquet({tables.file_list([edges])}) WHERE distance <= {distinct.radius})"
    also = {"hash": f'"{neighbours.hashes}"', "best": distinct.best_by}
    passes = " AND ".join(["ok", *(f"f{number}" for number in range(len(filters)))])
    with tables.blaming(con, parts, [*filters, Filter(DISTINCT, f"(\n{distinct.best_by}\n) IS NULL")]):
        con.execute(
            "CREATE OR REPLACE TEMP TABLE survivors AS SELECT file_index, file_row_number, hash, best "
            f"FROM ({tables.judged(parts, filters, also)}) WHERE {passes}"
        )
    found = con.sql(
        "WITH crowded AS (SELECT hash FROM survivors GROUP BY hash HAVING count(*) > 1 "
        f"UNION SELECT low FROM {near} UNION SELECT high FROM {near}) "
        "SELECT file_index, file_row_number, hash FROM survivors WHERE hash IN (FROM crowded) "
        "ORDER BY best DESC NULLS LAST, file_index, file_row_number"
    ).to_arrow_table()
    unknown = con.sql("SELECT file_index, file_row_number FROM survivors WHERE hash IS NULL").to_arrow_table()
    pairs = con.sql(f"SELECT low, high FROM {near}").to_arrow_table()
    con.execute("DROP TABLE survivors")
    gone = beaten(found["hash"].to_numpy(), pairs["low"].to_numpy(), pairs["high"].to_numpy())
    return Losers(np.sort(places(found, counts)[gone]), np.sort(places(unknown, counts)))


def places(rows: pa.Table, counts: Sequence[int]) -> Places:
    """The places of rows with the columns file_index and file_row_number, in parts of so many rows."""
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    found: Places = starts[rows["file_index"].to_numpy()] + rows["file_row_number"].to_numpy()
    return found


def beaten(
    hashes: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64], high: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    """Which rows have a kept neighbour among those before them. Rows stand from the best to the worst.

    Rows of one hash have the same neighbours: the first of them is judged, the others go in any case.
    """
    distinct, first = np.unique(hashes, return_index=True)
    there = np.isin(low, distinct) & np.isin(high, distinct)
    one, other = np.searchsorted(distinct, low[there]), np.searchsorted(distinct, high[there])
    near, around = np.concatenate([one, other]), np.concatenate([other, one])
    around = around[np.argsort(near, kind="stable")]
    ends = np.cumsum(np.bincount(near, minlength=len(distinct)))
    gone = np.zeros(len(distinct), bool)
    for each in np.argsort(first):
        if not gone[each]:
            gone[around[ends[each - 1] if each else 0 : ends[each]]] = True
    beaten = np.ones(len(hashes), bool)
    beaten[first] = gone
    return beaten
