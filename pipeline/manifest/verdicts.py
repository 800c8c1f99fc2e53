"""Verdicts: a small Parquet file for each part, aligned with its rows, that tells whether each row is kept.

For a downloaded pair, bit i of `rejected` is set if reason i rejected it, and bit i of `unknown` if reason i had no
answer (`pipeline.filtering.reasons` names the bits). In the stored file the column of `rejected` is called
`dropped_by`. In the view `rows`, which people see, `dropped_by` names the reasons of both.

`copies` is how many times a pair is kept. It is stored only for a recipe that may keep a pair more than once.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.core import Recipe
from pipeline.filtering.distinct import Losers
from pipeline.filtering.reasons import Reasons
from pipeline.store import duck

SCHEMA = pa.schema({"kept": pa.bool_(), "dropped_by": pa.uint64(), "unknown": pa.uint64()})
"""The stored columns. Bits are 0 unless the pair was downloaded."""

COPIES = pa.field("copies", pa.uint16())
"""The stored column of a recipe that may keep a pair more than once."""

REJECTED, UNKNOWN = "dropped_by", "unknown"
"""The names of the two columns of bits in the file."""


def select(files: Iterable[Path], recipe: Recipe) -> str:
    """A SELECT of the verdicts in these files, in order: kept, rejected, unknown, copies."""
    copies = COPIES.name if recipe.repeats else f"kept::USMALLINT AS {COPIES.name}"
    return f"SELECT kept, {REJECTED} AS rejected, {UNKNOWN}, {copies} FROM {duck.parquet(files)}"


def losers(files: Iterable[Path], recipe: Recipe) -> dict[str, Losers]:
    """The rows that each step of the recipe after its filters dropped, by its name, as the verdicts in these files say.

    Rows are numbered through all files, which are those of the recipe.
    """
    tables = [pq.read_table(path, columns=[REJECTED, UNKNOWN]) for path in files]
    bits = [
        np.concatenate([np.empty(0, np.uint64), *(table[column].to_numpy() for table in tables)])
        for column in (REJECTED, UNKNOWN)
    ]
    reasons = {name: np.uint64(Reasons.of(recipe).bit(name)) for name in recipe.endings}
    return {name: Losers(*(np.flatnonzero(each & bit) for each in bits)) for name, bit in reasons.items()}


def count(con: duckdb.DuckDBPyConnection, rows: Sequence[Path], verdicts: Sequence[Path]) -> dict[str, int]:
    """The number of rows by outcome in these parts and their verdicts, by the field names of `Counts`."""
    tests = {
        "kept": "kept",
        "dropped": "status = 'ok' AND NOT kept",
        "unscored": "unknown <> 0",
        "failed": "status = 'failed'",
        "quarantined": "status = 'quarantined'",
    }
    row = con.execute(
        f"SELECT {', '.join(f'count(*) FILTER ({test})' for test in tests.values())} FROM "
        f"{duck.parquet(rows)} POSITIONAL JOIN {duck.parquet(verdicts)}"
    ).fetchone()
    return dict(zip(tests, row or (), strict=True))
