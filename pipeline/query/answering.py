"""The process of one query: it parses the SQL, creates views of the manifests, locks DuckDB, and leaves the answer.

The SQL is refused unless it only reads (`pipeline.query.statement`). DuckDB may read the manifests' files alone. The
kernel lets the process write into its own temporary folder alone, where it can (`pipeline.process.confinement`). Memory
and the size of the answer are limited. The job comes as JSON on standard input. A fault goes to standard output, in one
line.
"""

import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

import duckdb
import pyarrow as pa

from pipeline.errors import WinnowError
from pipeline.filtering.finite import finite_select
from pipeline.manifest import views
from pipeline.manifest.manifest import Manifest
from pipeline.process import confinement, lifeline
from pipeline.query import statement
from pipeline.query.portable import portable
from pipeline.query.sandbox import Job
from pipeline.store import duck
from pipeline.store.storage import Storage

MEMORY = 2 << 30
"""Bytes of memory that a query may use; beyond that DuckDB spills to a temporary folder."""

SPILL = 4 << 30
"""Bytes that a query may spill, and the most bytes of its result."""


def _write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _answer(job: Job) -> None:
    """In the process: create the views, lock DuckDB, run the SQL, leave the answer in the folder."""
    views_named = statement.check(job.sql)
    storages = [Storage(Path(root)) for root in job.roots]
    with duck.connect(Path(job.folder, "spill")) as con:
        allowed = _create_views(con, storages, views_named, job.manifest)
        con.execute(f"SET memory_limit = '{MEMORY}B'")
        con.execute(f"SET max_temp_directory_size = '{SPILL}B'")
        names = sorted({name for path in allowed for name in (str(path), duck.escape(path))})  # DuckDB checks both
        con.execute(f"SET allowed_paths = [{', '.join(map(duck.literal, names))}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        reader = portable(_bound(con, job.sql)).to_arrow_reader(10_000)
        schema = _distinct_names(reader.schema)
        _write(Path(job.folder, "result"), schema, _first(reader, schema, job.limit))


def _bound(con: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    """The SQL with NULL for NaN and infinity, as in filters; errors are about the SQL as it was typed."""
    try:
        return con.sql(finite_select(sql))
    except duckdb.Error:
        return con.sql(sql)


def _create_views(
    con: duckdb.DuckDBPyConnection, storages: Sequence[Storage], names: Set[str], chosen: str | None
) -> list[Path]:
    """Create the views that the SQL may refer to, and give the files that they read.

    All but the views of rows read a file for each manifest or trial, so they exist for SQL that names
    them.
    """
    manifests = [Manifest.open(storage, chosen) for storage in storages]
    selects, files = views.of_rows(manifests), [path for manifest in manifests for path in manifest.files()]
    if "history" in names:
        selects |= views.history(storages)
        files += [path for manifest in views.every(storages) for path in manifest.files()]
    if "trained_on" in names:
        selects |= views.trained_on(storages)
        files += views.draws(storages)
    if "manifests" in names:
        con.from_arrow(views.manifests(storages)).create("manifests")
    if names & {"trials", "trained_on"}:
        con.from_arrow(views.trials(storages)).create("trials")
    for name, select in selects.items():
        con.execute(f"CREATE VIEW {name} AS {select}")
    return files


def _distinct_names(schema: pa.Schema) -> pa.Schema:
    """Number the columns whose name is already used. In JSON, where names are keys, one of two would be lost."""
    names: list[str] = []
    for name in schema.names:
        others = (f"{name}_{number}" for number in itertools.count(1))
        names.append(name if name not in names else next(each for each in others if each not in schema.names + names))
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


def _first(batches: Iterable[pa.RecordBatch], schema: pa.Schema, limit: int | None) -> Iterable[pa.RecordBatch]:
    for batch in batches:
        named = pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        yield named if limit is None else named.slice(0, limit)
        if limit is not None:
            limit -= len(batch)
            if limit <= 0:
                return


def _one_line(error: BaseException) -> str:
    """The first line of an error, with the names that DuckDB suggests."""
    text = str(error).strip()
    hint = re.search(r"^(?:Candidate \w+:|Did you mean)[: ]*(.+)", text, re.MULTILINE)
    first = text.splitlines()[0] if text else type(error).__name__
    return f"{first} Did you mean {hint[1].rstrip('?')}?" if hint else first


class _WithoutPandas:
    """A finder that hides pandas, which Arrow imports for 0.2 s to ask whether a list is one of its Series."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def _main() -> None:
    lifeline.hold()
    job = Job(**json.load(sys.stdin))
    confinement.limit(4 * MEMORY, SPILL)
    confinement.forbid_writing([Path(job.folder)])
    sys.meta_path.insert(0, _WithoutPandas())
    try:
        _answer(job)
    except (duckdb.Error, pa.ArrowException, WinnowError, MemoryError, OSError) as error:
        print(_one_line(error), end="")


if __name__ == "__main__":
    _main()
    sys.stdout.flush()
    os._exit(0)  # the interpreter would take 0.05 s to unload what it imported
