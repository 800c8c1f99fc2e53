"""Verdicts: a small Parquet file for each part, aligned with its rows, that tells whether each row is kept.

For a downloaded pair, bit i of `rejected` is set if reason i rejected it, and bit i of `unknown` if reason i had no
answer (`pipeline.filtering.reasons` names the bits). In the stored file the column of `rejected` is called
`dropped_by`. In the view `rows`, which people see, `dropped_by` names the reasons of both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from filters.core import DISTINCT, Filter, Recipe
from pipeline.errors import StorageError
from pipeline.filtering import distinct, predicates
from pipeline.filtering.distinct import Losers, Neighbours
from pipeline.filtering.reasons import Reasons
from pipeline.store import duck
from pipeline.store.parquet import ROW_GROUP, Rows, put_parquet
from pipeline.store.storage import Storage

SCHEMA = pa.schema({"kept": pa.bool_(), "dropped_by": pa.uint64(), "unknown": pa.uint64()})
"""The stored columns. Bits are 0 unless the pair was downloaded."""

REJECTED, UNKNOWN = "dropped_by", "unknown"
"""The names of the two columns of bits in the file."""


def select(files: Iterable[Path]) -> str:
    """A SELECT of the verdicts in these files, in order: kept, rejected, unknown."""
    return f"SELECT kept, {REJECTED} AS rejected, {UNKNOWN} FROM {duck.parquet(files)}"


def put(
    con: duckdb.DuckDBPyConnection,
    storage: Storage,
    rows: Sequence[Rows],
    recipe: Recipe,
    neighbours: Mapping[str, Neighbours],
) -> list[str]:
    """Store an aligned verdict file for each part. Returns their storage keys.

    The connection must have one thread, so that a threshold that is an average is always the same.
    """
    paths, counts, reasons = (
        [storage.fetch(part.key) for part in rows],
        [part.count for part in rows],
        Reasons.of(recipe),
    )
    predicates.view_parts(con, paths)
    losers = None
    if recipe.distinct:
        among = distinct.among(recipe.distinct.of, neighbours)
        losers = distinct.losers(con, storage, paths, counts, recipe, among)
    with predicates.attribute_errors(con, paths, recipe.filters):
        reader = con.sql(_verdict_query(paths, recipe.filters, reasons)).to_arrow_reader(ROW_GROUP)
        keys, start = [], 0
        for part, table in zip(rows, _cut(reader, counts), strict=True):
            if not np.array_equal(table["file_row_number"], np.arange(part.count)):
                raise StorageError(f"the rows of {part.key} were read in another order: report this")
            table = table.select(SCHEMA.names)
            if losers:
                table = _with(losers.of(start, part.count), table, reasons.bit(DISTINCT))
            keys.append(put_parquet(storage, "verdicts", SCHEMA, [table]).key)
            start += part.count
    return keys


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


def _verdict_query(paths: Sequence[Path], filters: Sequence[Filter], reasons: Reasons) -> str:
    """A SELECT of the filters' verdicts on all rows: the stored columns, and `file_row_number`."""
    answers = {each.name: f"f{number}" for number, each in enumerate(filters)}
    rejected = reasons.mask(answers, lambda name: f"ok AND {answers[name]} = false")
    unknown = reasons.mask(answers, lambda name: f"ok AND {answers[name]} IS NULL")
    return (
        f"SELECT file_row_number, ok AND rejected = 0 AND unknown = 0 AS kept, rejected AS {REJECTED}, "
        f"unknown AS {UNKNOWN} FROM (SELECT file_row_number, ok, {rejected} AS rejected, {unknown} AS unknown "
        f"FROM ({predicates.evaluation_query(paths, filters)}))"
    )


def _with(losers: Losers, verdicts: pa.Table, bit: int) -> pa.Table:
    """The verdicts of a part, with the verdicts of `distinct` added."""
    columns = {name: verdicts[name].to_numpy().copy() for name in SCHEMA.names}
    for rows, column in ((losers.repeated, REJECTED), (losers.unknown, UNKNOWN)):
        columns["kept"][rows] = False
        columns[column][rows] |= np.uint64(bit)
    return pa.table(columns, schema=SCHEMA)


def _cut(reader: pa.RecordBatchReader, lengths: Sequence[int]) -> Iterator[pa.Table]:
    """One table for each length, in order. Raises StorageError if there are more rows than the sum of the lengths."""
    held = reader.schema.empty_table()
    for length in lengths:
        while len(held) < length and (batch := next(reader, None)) is not None:
            held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        yield held.slice(0, length)
        held = held.slice(length)
    if len(held) or next(reader, None) is not None:
        raise StorageError("the parts have more rows than the manifest counts: report this")
