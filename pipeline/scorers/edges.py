"""Edges between near-duplicates: the file that pool scorers store, and the groups that edges connect."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.neighbours import groups
from pipeline.scorers.spec import Pool

EDGES = "edges.parquet"
"""A file beside the scores, with the columns low, high (two distinct pictures of the pool, as hashes or numbers) and
distance (bits, or 1 - cosine). Each pair within the radius is one row.

Its rows are pairs of pictures, not of rows: ten thousand white pictures are one hash, but fifty million pairs."""

Numbers = npt.NDArray[np.uint64]

_FAR = 255
"""Larger than any distance."""


def write_edges(folder: Path, low: Numbers, high: Numbers, distance: npt.NDArray[Any], capped: int) -> None:
    """Write `EDGES`. Its metadata hold `capped`, the number of comparisons that were left out."""
    table = pa.table({"low": low, "high": high, "distance": distance})
    pq.write_table(table.replace_schema_metadata({"capped": str(capped)}), folder / EDGES, compression="zstd")


def group_columns(
    pool: Pool,
    present: npt.NDArray[np.bool_],
    picture: npt.NDArray[np.int64],
    low: npt.NDArray[np.int64],
    high: npt.NDArray[np.int64],
    distance: npt.NDArray[Any],
) -> dict[str, pa.Array]:
    """The columns count, group and nearest for the rows that are `present`.

    `picture`: the number of each row's picture, from 0. `low` and `high`: numbers of pictures `distance` apart.
    """
    rows = np.bincount(picture)
    group = groups.connected(len(rows), low, high)[picture]
    _, first, size = np.unique(group, return_index=True, return_counts=True)
    nearest = np.full(len(rows), _FAR, distance.dtype)
    np.minimum.at(nearest, low, distance)
    np.minimum.at(nearest, high, distance)
    nearest[rows > 1] = 0
    alone = size[group] == 1
    uids = pool.column("uid").filter(pa.array(present)).combine_chunks()
    return {
        "count": pa.array(size[group], pa.int32()),
        "group": uids.take(pa.array(first[group], mask=alone)),
        "nearest": pa.array(nearest[picture], mask=alone),
    }
