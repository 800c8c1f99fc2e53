"""SQL that a person typed: one SELECT over what is published, in a process of its own.

`pipeline.query.answering` is that process. At the deadline, and when the command ends, it is killed. The command itself
imports neither DuckDB nor the manifest: the process does, meanwhile.
"""

import contextlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pipeline.errors import QueryError, StorageError
from pipeline.manifest.log import commits
from pipeline.process import confinement, lifeline
from pipeline.process.scratch import temporary_folder
from pipeline.query import copies
from pipeline.store.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa

DEADLINE = 30.0
"""Seconds from the job to its last row."""

_prepared: "list[subprocess.Popen[bytes]]" = []
"""At most one process that waits for its job."""


@dataclass(frozen=True)
class Job:
    """What the process gets: the SQL, the folders of the sources, the folder for its answer, and its row limit.

    `manifest` is the id of the manifest behind the views of rows, for one source; the newest if None.
    """

    sql: str
    roots: Sequence[str]
    folder: str
    limit: int | None
    manifest: str | None = None


def prepare() -> None:
    """Start the process of the next `run` now. It imports DuckDB while this process still reads its command line."""
    _prepared[:] = [_start()]


def run(
    sql: str,
    storages: Sequence[Storage],
    limit: int | None = None,
    deadline: float = DEADLINE,
    manifest: str | None = None,
) -> "pa.Table":
    """The answer to one SELECT over the views of these sources (`pipeline.manifest.views`).

    `rows` has a column `source`; `limit` is the most rows of the answer, None for all. The rows are those of the newest
    manifests, or for one source of its `manifest`. Raises QueryError, in one line,
    for anything but a SELECT, for SQL that fails, and at the deadline; StorageError where nothing is published.
    """
    published = [storage for storage in storages if commits(storage)]
    if not published:
        raise StorageError("nothing is published yet: run `winnow curate` first")
    with contextlib.ExitStack() as held:
        folder = held.enter_context(temporary_folder())
        roots = [str(held.enter_context(copies.in_folder(storage, sql, manifest))) for storage in published]
        _supervise(Job(sql, roots, str(folder), limit, manifest), deadline)
        import pyarrow as pa

        with pa.memory_map(str(folder / "result")) as file, pa.ipc.open_stream(file) as reader:
            return reader.read_all()


def _supervise(job: Job, deadline: float) -> None:
    """Run the job in a process of its own. Raises QueryError, in one line, for whatever goes wrong there."""
    try:
        with _prepared.pop() if _prepared else _start() as process:
            import pyarrow as pa  # noqa: F401 - while the process starts

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


def _start() -> "subprocess.Popen[bytes]":
    return lifeline.start(
        lifeline.python("pipeline.query.answering"),
        confinement.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
