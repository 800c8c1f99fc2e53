"""SQL that a person typed: one SELECT over what is published, in a process of its own.

The SQL is parsed and refused unless it only reads (`pipeline.query.statement`). The process creates views of the
manifests, lets DuckDB read their files alone, locks it, and then runs the SQL. The kernel lets it write into its own
temporary folder alone, where it can (`pipeline.process.confinement`); memory and the size of the answer are limited. At
the deadline, and when the command ends, the process is killed.
"""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from pipeline.errors import QueryError, StorageError, WinnowError
from pipeline.filtering.finite import finite_select
from pipeline.manifest import views
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.process import confinement, lifeline
from pipeline.process.scratch import temporary_folder
from pipeline.query import statement
from pipeline.query.portable import portable
from pipeline.store import duck
from pipeline.store.storage import Storage

DEADLINE = 30.0
"""Seconds from the start of the process to its last row."""

MEMORY = 2 << 30
"""Bytes of memory that a query may use; beyond that DuckDB spills to a temporary folder."""

SPILL = 4 << 30
"""Bytes that a query may spill, and the most bytes of its result."""


@dataclass(frozen=True)
class _Job:
    """What the process gets: the SQL, the folders of the sources, the folder for its answer, and its row limit."""

    sql: str
    roots: Sequence[str]
    folder: str
    limit: int | None


def run(sql: str, storages: Sequence[Storage], limit: int | None = None, deadline: float = DEADLINE) -> pa.Table:
    """The answer to one SELECT over the views of these sources (`pipeline.manifest.views`).

    `rows` has a column `source`; `limit` is the most rows of the answer, None for all. Raises QueryError, in one line,
    for anything but a SELECT, for SQL that fails, and at the deadline; StorageError where nothing is published.
    """
    published = [str(storage.root) for storage in storages if commits(storage)]
    if not published:
        raise StorageError("nothing is published yet: run `winnow curate` first")
    with temporary_folder() as folder:
        _supervise(_Job(sql, published, str(folder), limit), deadline)
        with pa.memory_map(str(folder / "result")) as file, pa.ipc.open_stream(file) as reader:
            return reader.read_all()


def _supervise(job: _Job, deadline: float) -> None:
    """Run the job in a process of its own. Raises QueryError, in one line, for whatever goes wrong there."""
    try:
        with lifeline.start(
            lifeline.python("pipeline.query.sandbox"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                out, err = process.communicate(json.dumps(asdict(job)).encode(), deadline)
            except BaseException:
                process.kill()
                raise
    except subprocess.TimeoutExpired:
        raise QueryError(f"stopped after {deadline:g} s: select fewer rows or fewer columns") from None
    if process.returncode == 0 and out:
        raise QueryError(out.decode())
    if process.returncode != 0:
        reason = (err.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise QueryError(f"the query ended its process with status {process.returncode}: {reason}")


def _write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _answer(job: _Job) -> None:
    """In the process: create the views, lock DuckDB, run the SQL, leave the answer in the folder."""
    views_named = statement.check(job.sql)
    storages = [Storage(Path(root)) for root in job.roots]
    with duck.connect(Path(job.folder, "spill")) as con:
        allowed = _create_views(con, storages, views_named)
        con.execute(f"SET memory_limit = '{MEMORY}B'")
        con.execute(f"SET max_temp_directory_size = '{SPILL}B'")
        con.execute(f"SET allowed_paths = [{', '.join(duck.literal(str(path)) for path in allowed)}]")
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


def _create_views(con: duckdb.DuckDBPyConnection, storages: Sequence[Storage], names: Set[str]) -> list[Path]:
    """Create the views that the SQL may refer to, and give the files that they read.

    `history` and `trained_on` open the files of every manifest and every trial, so they exist for SQL that names them.
    """
    newest = [Manifest.open(storage) for storage in storages]
    selects, files = views.newest(newest), [path for manifest in newest for path in manifest.files()]
    if "history" in names:
        selects |= views.history(storages)
        files += [path for manifest in views.every(storages) for path in manifest.files()]
    if "trained_on" in names:
        selects |= views.trained_on(storages)
        files += views.draws(storages)
    con.from_arrow(views.manifests(storages)).create("manifests")
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


def _main() -> None:
    lifeline.hold()
    job = _Job(**json.load(sys.stdin))
    confinement.limit(4 * MEMORY, SPILL)
    confinement.forbid_writing([Path(job.folder)])
    try:
        _answer(job)
    except (duckdb.Error, pa.ArrowException, WinnowError, MemoryError, OSError) as error:
        print(_one_line(error), end="")


if __name__ == "__main__":
    _main()
