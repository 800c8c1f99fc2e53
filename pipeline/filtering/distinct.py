"""`Distinct`, the end of a recipe: it drops rows whose picture is nearly the same as that of a better row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters.core import DISTINCT, Distinct, Filter, Recipe
from pipeline.errors import RecipeError
from pipeline.filtering import predicates
from pipeline.filtering.finite import finite
from pipeline.store import duck
from pipeline.store.storage import Storage

Places = npt.NDArray[np.int64]
"""Rows, as their positions among all rows of all parts."""


@dataclass(frozen=True)
class Neighbours:
    """The near-duplicates that a scorer found.

    `edges` is the storage key of its `EDGES` file; None if only identical pictures are duplicates. `pictures` is the
    column of `rows` that identifies the picture of a pair. `radius` is the largest distance that was searched.
    """

    edges: str | None
    pictures: str
    radius: float


def check(distinct: Distinct | None, radii: Mapping[str, float], columns: pa.Schema) -> None:
    """Check a recipe's `distinct` against the columns of `rows` and the radius of each scorer that found neighbours.

    Raises RecipeError with a message of one line.
    """
    if distinct is None:
        return
    if distinct.of not in radii and distinct.of not in columns.names:
        known = f"; there is {', '.join(radii)}" if radii else ""
        raise RecipeError(
            f"distinct.of: no scorer {distinct.of!r} says which pictures are neighbours{known}: add "
            '[scorers.duplicates] with kind = "duplicates" to the source file, and curate it, or name a column such as '
            "sha256"
        )
    if distinct.radius > (radius := radii.get(distinct.of, 0)):
        raise RecipeError(
            f"distinct.radius is {distinct.radius}, and neighbours were looked for up to {radius}: "
            f"raise the radius of the scorer {distinct.of}, or lower this one"
            if distinct.of in radii
            else f"distinct.radius is {distinct.radius}, and {distinct.of} is a column: set radius = 0"
        )
    predicates.bind_order(f"{DISTINCT}.best_by", distinct.best_by, columns)


def among(of: str, known: Mapping[str, Neighbours]) -> Neighbours:
    """The neighbours that the `of` of a `Distinct` names. `known` has the neighbours by scorer."""
    return known.get(of) or Neighbours(None, of, 0)


def picture_arrays(
    pictures: pa.ChunkedArray, edges: pa.Table
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The arguments of `has_better_neighbour`: the pictures of rows, and the two ends of each edge.

    Pictures that are text, such as sha256, are numbered. They have no edges.
    """
    if not pa.types.is_uint64(pictures.type):
        pictures = pa.chunked_array([pictures.combine_chunks().dictionary_encode().indices.cast(pa.uint64())])
    return pictures.to_numpy(), edges["low"].to_numpy(), edges["high"].to_numpy()


def edge_counts(storage: Storage, known: Mapping[str, Neighbours]) -> dict[str, dict[str, int]]:
    """The number of edges by scorer, and the number of comparisons that were skipped in crowds.

    If comparisons were skipped, edges may be missing.
    """
    found = {name: pq.read_metadata(storage.fetch(each.edges)) for name, each in known.items() if each.edges}
    return {
        name: {"edges": each.num_rows, "capped": int((each.metadata or {}).get(b"capped", 0))}
        for name, each in found.items()
    }


def remarks(found: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A line for each scorer of `edge_counts` that skipped comparisons."""
    return [
        f"{name}: {each['capped']:,} comparisons were skipped in crowds of nearly the same picture, so "
        "near-duplicates may remain there"
        for name, each in found.items()
        if each["capped"]
    ]


@dataclass(frozen=True)
class Losers:
    """Rows that pass the filters and that a step after them drops, or has no answer for: their picture is unknown."""

    rejected: Places
    unknown: Places

    def of(self, start: int, count: int) -> "Losers":
        """The losers among `count` rows from `start` on, as positions relative to `start`."""
        return Losers(
            *(each[(each >= start) & (each < start + count)] - start for each in (self.rejected, self.unknown))
        )


def losers(
    con: duckdb.DuckDBPyConnection,
    storage: Storage,
    parts: Sequence[Path],
    counts: Sequence[int],
    recipe: Recipe,
    neighbours: Neighbours,
) -> Losers:
    """The rows that pass all filters of the recipe and that its `distinct` removes. `parts` have `counts` rows."""
    filters, distinct = recipe.filters, recipe.distinct
    assert distinct is not None
    near = "(SELECT picture AS low, picture AS high FROM survivors WHERE false)"
    if neighbours.edges:
        edges = duck.parquet([storage.fetch(neighbours.edges)])
        near = f"(FROM {edges} WHERE distance <= {distinct.radius})"
    also = {"picture": f'"{neighbours.pictures}"', "best": finite(distinct.best_by)}
    passes = " AND ".join(["ok", *(f"f{number}" for number in range(len(filters)))])
    with predicates.attribute_errors(con, parts, [*filters, Filter(DISTINCT, f"(\n{distinct.best_by}\n) IS NULL")]):
        con.execute(
            "CREATE OR REPLACE TEMP TABLE survivors AS SELECT uid, file_index, file_row_number, picture, best "
            f"FROM ({predicates.evaluation_query(parts, filters, also)}) WHERE {passes}"
        )
    found = con.sql(
        "WITH crowded AS (SELECT picture FROM survivors GROUP BY picture HAVING count(*) > 1 "
        f"UNION SELECT low FROM {near} UNION SELECT high FROM {near}) "
        "SELECT file_index, file_row_number, picture FROM survivors WHERE picture IN (FROM crowded) "
        "ORDER BY best DESC NULLS LAST, uid"
    ).to_arrow_table()
    unknown = con.sql("SELECT file_index, file_row_number FROM survivors WHERE picture IS NULL").to_arrow_table()
    pairs = con.sql(f"SELECT low, high FROM {near}").to_arrow_table()
    con.execute("DROP TABLE survivors")
    gone = has_better_neighbour(*picture_arrays(found["picture"], pairs))
    return Losers(np.sort(places(found, counts)[gone]), np.sort(places(unknown, counts)))


def places(rows: pa.Table, counts: Sequence[int]) -> Places:
    """The places of rows with the columns file_index and file_row_number.

    `counts` has the number of rows of each part.
    """
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    found: Places = starts[rows["file_index"].to_numpy()] + rows["file_row_number"].to_numpy()
    return found


def has_better_neighbour(
    pictures: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64], high: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    """Which rows have a kept neighbour among the rows before them. Rows are ordered from the best to the worst.

    Rows of one picture have the same neighbours: only the first of them can stay, the others are always dropped.
    """
    distinct, first = np.unique(pictures, return_index=True)
    there = np.isin(low, distinct) & np.isin(high, distinct)
    one, other = np.searchsorted(distinct, low[there]), np.searchsorted(distinct, high[there])
    near, around = np.concatenate([one, other]), np.concatenate([other, one])
    around = around[np.argsort(near, kind="stable")]
    ends = np.cumsum(np.bincount(near, minlength=len(distinct)))
    gone = np.zeros(len(distinct), bool)
    for each in np.argsort(first):
        if not gone[each]:
            gone[around[ends[each - 1] if each else 0 : ends[each]]] = True
    removed = np.ones(len(pictures), bool)
    removed[first] = gone
    return removed
