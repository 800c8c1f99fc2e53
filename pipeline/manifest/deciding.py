"""Deciding: the verdicts of a recipe on every row, for the files that `pipeline.manifest.verdicts` describes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from filters.core import Filter, Recipe
from pipeline.errors import StorageError
from pipeline.filtering import predicates
from pipeline.filtering.reasons import Reasons
from pipeline.manifest import endings
from pipeline.manifest.document import Inputs
from pipeline.manifest.endings import Endings, Pool
from pipeline.manifest.verdicts import COPIES, REJECTED, SCHEMA, UNKNOWN
from pipeline.progress import StepProgress
from pipeline.store.parquet import ROW_GROUP, put_parquet
from pipeline.store.storage import Storage


def put(con: duckdb.DuckDBPyConnection, storage: Storage, inputs: Inputs, progress: StepProgress) -> list[str]:
    """Store an aligned verdict file for each part. Returns their storage keys. `progress` is that of a selection.

    The connection must have one thread, so that a threshold that is an average is always the same.
    """
    counts, paths = [part.count for part in inputs.rows], storage.fetch_all(part.key for part in inputs.rows)
    predicates.view_parts(con, paths)
    pool = Pool(storage, paths, counts, inputs.neighbours or {}, inputs.stages, progress)
    return [put_parquet(storage, "verdicts", table.schema, [table]).key for table in evaluate(con, pool, inputs.recipe)]


def evaluate(con: duckdb.DuckDBPyConnection, pool: Pool, recipe: Recipe) -> Iterator[pa.Table]:
    """The verdicts of each part, as they are stored. `con` has the view `rows`."""
    reasons = Reasons.of(recipe)
    last = endings.evaluate(con, pool, recipe)
    with predicates.attribute_errors(con, pool.paths, recipe.filters):
        reader = con.sql(_verdict_query(pool.paths, recipe.filters, reasons)).to_arrow_reader(ROW_GROUP)
        start = 0
        for path, count, table in zip(pool.paths, pool.counts, _cut(reader, pool.counts), strict=True):
            if not np.array_equal(table["file_row_number"], np.arange(count)):
                raise StorageError(f"the rows of {path.name} were read in another order: report this")
            found = _with(last, start, table.select(SCHEMA.names), reasons)
            yield found.append_column(COPIES, pa.array(last.copies_of(start, count))) if recipe.repeats else found
            start += count


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


def _with(last: Endings, start: int, verdicts: pa.Table, reasons: Reasons) -> pa.Table:
    """The verdicts of a part that begins at row `start`, with the verdicts of the steps after the filters added."""
    if not last.losers:
        return verdicts
    columns = {name: verdicts[name].to_numpy().copy() for name in SCHEMA.names}
    for name, losers in last.losers.items():
        here = losers.of(start, len(verdicts))
        for rows, column in ((here.rejected, REJECTED), (here.unknown, UNKNOWN)):
            columns["kept"][rows] = False
            columns[column][rows] |= np.uint64(reasons.bit(name))
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
