"""`catalog.duckdb`: the views of a source, for DuckDB clients. It is small, and is rewritten with each manifest.

Beside it is `trials.parquet`, the view `trials`, for people without a DuckDB client.

Its paths are absolute, so that it opens from any folder. A source that was moved gets a new catalogue with the
next command that reads it. Open it read-only.
`manifests` and `trials` are tables, with the content of the time when the file was written.
"""

import contextlib
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from pipeline.errors import WinnowError
from pipeline.manifest import views
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.process.scratch import temporary_folder
from pipeline.store.storage import Storage
from pipeline.trials.trials import finished

KEY = "catalog.duckdb"
TRIALS = "trials.parquet"

READABLE = "v1.3.0"
"""The oldest DuckDB that can read the file: the first with the lambdas of its views. Shells, and ibis with the DuckDB
that it needs, are older than the library here."""


def refresh(storage: Storage) -> None:
    """Write the catalogue, unless the existing one is current."""
    if commits(storage) and _about(storage) != (now := _now(storage)):
        _write(storage, now)


def follow(storage: Storage) -> None:
    """Write the catalogue again if the source's folder was moved; not where nothing can be written."""
    about = _about(storage)
    if about and about[0] != str(storage.root):
        with contextlib.suppress(OSError, WinnowError):
            _write(storage, _now(storage))


def _now(storage: Storage) -> tuple[str, int, int]:
    """The inputs of a catalogue: the folder of the source, and the numbers of manifests and trials."""
    return str(storage.root), len(commits(storage)), len(finished(storage))


def _about(storage: Storage) -> tuple[str, int, int] | None:
    """The inputs of the existing catalogue; None if there is none, or if another process writes to it."""
    if not storage.done(KEY):
        return None
    with contextlib.suppress(duckdb.Error), duckdb.connect(str(storage.fetch(KEY)), read_only=True) as con:
        found: tuple[str, int, int] | None = con.execute("SELECT root, manifests, trials FROM about").fetchone()
        return found
    return None


def _write(storage: Storage, now: tuple[str, int, int]) -> None:
    manifest = Manifest.open(storage)
    with temporary_folder() as folder:  # DuckDB cannot write below a folder with a ? in it
        made = Path(folder, KEY)
        with duckdb.connect(str(made), config={"storage_compatibility_version": READABLE}) as con:
            con.execute("CREATE TABLE about AS SELECT $1 AS root, $2::BIGINT AS manifests, $3::BIGINT AS trials", now)
            for name, table in (("manifests", views.manifests([storage])), ("trials", views.trials([storage]))):
                con.from_arrow(table).create(name)
            seen = views.newest([manifest]) | views.history([storage]) | views.trained_on([storage])
            for name, view in seen.items():
                con.execute(f"CREATE VIEW {name} AS {view}")
        pq.write_table(views.trials([storage]), Path(folder, TRIALS))
        storage.put_file(TRIALS, Path(folder, TRIALS))
        storage.put_file(KEY, made)
