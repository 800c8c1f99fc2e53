"""`catalog.duckdb`: the views of a source, for DuckDB clients. It is small, and is rewritten with each manifest.

Beside it is `trials.parquet`, the view `trials`, for people without a DuckDB client.

Its paths are absolute, so that it opens from any folder. A source that was moved gets a new catalogue with the
next command that reads it. Open it read-only.
In a bucket it has no views over rows: those would need DuckDB's extension httpfs, which winnow never loads. Its table
`views` has their SQL over s3:// URLs, for a client that has the extension and the credentials.
`manifests` and `trials` are tables, with the content of the time when the file was written.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import WinnowError
from pipeline.manifest import views
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.process.scratch import temporary_folder
from pipeline.store import duck
from pipeline.store.storage import Storage
from pipeline.trials.trials import finished

KEY = "catalog.duckdb"
TRIALS = "trials.parquet"

NOTE = "Views over the newest manifest. Open this file read-only."
NOTE_OF_BUCKET = (
    "The rows are in a bucket. This file has the tables manifests and trials, and in the table views the SQL of each "
    "view over URLs, for a client with DuckDB's httpfs and credentials. winnow sql --root reads the rows without it."
)
"""What the file is good for: the column `note` of its table `about`."""

READABLE = "v1.3.0"
"""The oldest DuckDB that can read the file: the first with the lambdas of its views. Shells, and ibis with the DuckDB
that it needs, are older than the library here."""


def refresh(storage: Storage) -> None:
    """Write the catalogue, unless the existing one is current."""
    if commits(storage) and _about(storage) != (now := _now(storage)):
        _write(storage, now)


def follow(storage: Storage) -> None:
    """Write the catalogue again if the source's folder was moved; not where nothing can be written."""
    about = _about(storage) if isinstance(storage.root, Path) else None
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
            note = NOTE if isinstance(storage.root, Path) else NOTE_OF_BUCKET
            con.execute(
                "CREATE TABLE about AS SELECT $1 AS root, $2::BIGINT AS manifests, $3::BIGINT AS trials, $4 AS note",
                (*now, note),
            )
            for name, table in (("manifests", views.manifests([storage])), ("trials", views.trials([storage]))):
                con.from_arrow(table).create(name)
            seen = views.of_rows([manifest]) | views.history([storage]) | views.trained_on([storage])
            if isinstance(storage.root, Path):
                for name, view in seen.items():
                    con.execute(f"CREATE VIEW {name} AS {view}")
            else:
                con.from_arrow(_over_urls(storage, manifest, seen)).create("views")
        pq.write_table(views.trials([storage]), Path(folder, TRIALS))
        storage.put_file(TRIALS, Path(folder, TRIALS))
        storage.put_file(KEY, made)


def _over_urls(storage: Storage, manifest: Manifest, seen: Mapping[str, str]) -> pa.Table:
    """The table `views`: name and SQL of each view, with the URLs of objects in place of the paths of their copies."""
    texts, parts = list(seen.values()), zip(manifest.parts, manifest.row_files(), strict=True)
    for folder in {str(path).removesuffix(part.rows) for part, path in parts}:
        texts = [text.replace(duck.escape(Path(folder)) + "/", f"{storage.root}/") for text in texts]
    return pa.table({"name": list(seen), "sql": texts})
