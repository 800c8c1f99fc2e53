"""Verdicts: a small Parquet file for each part, aligned with its rows, that tells whether each row is kept.

For a downloaded pair, bit i of `rejected` is set if reason i rejected it, and bit i of `unknown` if reason i had no
answer (`pipeline.filtering.reasons` names the bits). In the stored file the column of `rejected` is called
`dropped_by`. In the view `rows`, which people see, `dropped_by` names the reasons of both.

`copies` is how many times a pair is kept. It is stored only for a recipe that may keep a pair more than once.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from filters.core import Recipe
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
