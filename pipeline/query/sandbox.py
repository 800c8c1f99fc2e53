"""SQL typed by a person: one SELECT over what is published, in a process that cannot write, look elsewhere, or stay.

The process sees views of the newest manifests and reads their files alone; DuckDB is locked before it meets the SQL,
its memory is capped, and at the deadline the process is killed.
"""

import contextlib
import itertools
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from pipeline.errors import QueryError, StorageError
from pipeline.manifest import views
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.store import duck
from pipeline.store.storage import Storage

DEADLINE = 30.0
"""Seconds, from the start of the process to its last row."""

MEMORY = 2 << 30
"""Bytes that a query may hold in memory; beyond that it spills to a temporary folder."""

SPILL = 4 << 30
"""Bytes that a query may spill, and that its result may have."""


@dataclass(frozen=True)
class _Job:
    """What the process is told. `views` are SELECTs by name, `tables` Arrow files by name."""

    sql: str
    views: Mapping[str, str]
    tables: Mapping[str, str]
    allowed: Sequence[str]
    folder: str
    limit: int | None


def run(sql: str, storages: Sequence[Storage], limit: int | None = None, deadline: float = DEADLINE) -> pa.Table:
    """The answer to one SELECT over the views of these sources (`pipeline.manifest.views`).

    `rows` has a column `source`; `limit` cuts the answer, None gives all of it. Raises QueryError, in one line, for
    anything but a SELECT, for SQL that fails, and at the deadline; StorageError where nothing is published.
    """
    newest = [Manifest.open(storage) for storage in storages if commits(storage)]
    if not newest:
        raise StorageError("nothing is published yet: run `winnow curate` first")
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        kept = {"manifests": views.manifests(storages), "trials": views.trials(storages)}
        for name, table in kept.items():
            _write(Path(folder, name), table.schema, table.to_batches())
        spanning = storages if "history" in sql.lower() else ()  # it opens the files of every manifest
        drawn = storages if "trained_on" in sql.lower() else ()
        job = _Job(
            sql=sql,
            views=views.newest(newest) | views.history(spanning) | views.trained_on(drawn),
            tables={name: str(Path(folder, name)) for name in kept},
            allowed=[str(path) for manifest in [*newest, *views.every(spanning)] for path in manifest.files()]
            + [str(path) for path in views.draws(drawn)],
            folder=folder,
            limit=limit,
        )
        _supervise(job, deadline)
        with pa.memory_map(str(Path(folder, "result"))) as file, pa.ipc.open_stream(file) as reader:
            return reader.read_all()


def _supervise(job: _Job, deadline: float) -> None:
    """Run the job in a process of its own, and turn whatever becomes of it into nothing or one line."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.query.sandbox"],
            input=json.dumps(asdict(job)).encode(),
            capture_output=True,
            timeout=deadline,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise QueryError(f"stopped after {deadline:g} s: ask for less, or for fewer columns") from None
    if done.returncode == 0 and done.stdout:
        raise QueryError(done.stdout.decode())
    if done.returncode != 0:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise QueryError(f"the query broke its process ({done.returncode}): {reason}")


def _write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _answer(job: _Job) -> None:
    """In the process: lock DuckDB, run the SQL, leave the answer in the folder."""
    _only_select(job.sql)
    with duck.connect(Path(job.folder, "spill")) as con:
        for name, path in job.tables.items():
            with pa.memory_map(path) as file, pa.ipc.open_stream(file) as reader:
                con.from_arrow(reader.read_all()).create(name)
        for name, view in job.views.items():
            con.execute(f"CREATE VIEW {name} AS {view}")
        con.execute(f"SET memory_limit = '{MEMORY}B'")
        con.execute(f"SET max_temp_directory_size = '{SPILL}B'")
        con.execute(f"SET allowed_paths = [{', '.join(map(duck.literal, job.allowed))}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        reader = con.sql(job.sql).to_arrow_reader(10_000)
        schema = _distinct_names(reader.schema)
        _write(Path(job.folder, "result"), schema, _first(reader, schema, job.limit))


def _only_select(sql: str) -> None:
    kinds = [statement.type.name for statement in duckdb.extract_statements(sql)]
    if kinds != ["SELECT"]:
        found = "nothing" if not kinds else kinds[0] if len(kinds) == 1 else f"{len(kinds)} statements"
        raise QueryError(f"only one SELECT can be run here, and this is {found}")


def _distinct_names(schema: pa.Schema) -> pa.Schema:
    """The second column of a name gets a number: by name alone, as in JSON, one of the two would be lost."""
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
    """The first line of what was said, with the names that DuckDB holds out instead."""
    text = str(error).strip()
    hint = re.search(r"^(?:Candidate \w+:|Did you mean)[: ]*(.+)", text, re.MULTILINE)
    first = text.splitlines()[0] if text else type(error).__name__
    return f"{first} Did you mean {hint[1].rstrip('?')}?" if hint else first


def _main() -> None:
    job = _Job(**json.load(sys.stdin))
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY, 4 * MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPILL, SPILL))
    try:
        _answer(job)
    except (duckdb.Error, pa.ArrowException, QueryError, MemoryError, OSError) as error:
        print(_one_line(error), end="")


if __name__ == "__main__":
    _main()
