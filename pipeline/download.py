"""One shard of the ledger: from URLs to JPEGs in a tar, and a row with a cause for everything that failed.

`shards-<key>/NNNNN.tar` holds one member for each distinct URL that could be fetched, in ledger order. Beside it, put
last, so that it means done, `NNNNN.parquet` has a row for each pair, aligned with the pairs file (`COLUMNS`).
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import blocked, shards
from pipeline.blocked import Blocked
from pipeline.decode import Limits
from pipeline.errors import ShardError, WinnowError
from pipeline.guard import Guard
from pipeline.pairs import Shard
from pipeline.source import MADE, OPT_OUTS, Source
from pipeline.stage import Stage
from pipeline.storage import Storage

VERSION = 1
"""Raised when the same web would give other results."""

COLUMNS = pa.schema(
    map(MADE.field, ("uid", "status", "cause", "error", "sha256", "width", "height", "bytes", "member"))
)
"""Of a shard's Parquet file."""

TAR, PARQUET = "shard.tar", "shard.parquet"
"""What a `Job` leaves in its folder."""

_START = 120
"""Seconds that importing img2dataset may take."""


@dataclass(frozen=True)
class Job:
    """What the process of one shard is told. `pairs` is the shard's pairs file, `blocked` what must not come back."""

    pairs: Path
    folder: Path
    guard: Guard
    limits: Limits
    threads: int
    blocked: Blocked


class Workshop:
    """A process that has img2dataset imported (3 s), and forks a process for each job. It ends with this object.

    multiprocessing's fork server does nearly that, but imports the caller's main program anew in every fork.
    """

    def __init__(self) -> None:
        self._end: weakref.finalize[..., Workshop] | None = None
        self._line: Connection | None = None
        self._lock = threading.Lock()

    def run(self, job: Job, seconds: float) -> OSError | str | None:
        """What went wrong: None if nothing did, an OSError if it was the disk. Threads wait for each other."""
        with self._lock:
            return self._run(job, seconds)

    def _run(self, job: Job, seconds: float) -> OSError | str | None:
        fault: OSError | str | None
        line = self._line or self._open()
        try:
            line.send(job)
            if line.poll(seconds):
                fault = line.recv()
                return fault
            fault = f"it took more than {seconds:g} s and was stopped"
        except (EOFError, ConnectionError):
            fault = "the process that img2dataset runs in ended"
        except BaseException:
            self.close()
            raise
        self.close()
        return fault

    def close(self) -> None:
        """End all its processes."""
        if self._end is not None:
            self._end()
        self._line = self._end = None

    def _open(self) -> Connection:
        """Start it. Raises WinnowError if that fails: no shard is to blame."""
        self._line, theirs = Pipe()
        folder = tempfile.mkdtemp()  # what img2dataset imports leaves folders behind, wherever temporary files belong
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.fetch", str(theirs.fileno())],
                stdin=subprocess.PIPE,  # never written to: its end is ours
                stdout=2,  # img2dataset prints, and standard output belongs to results
                pass_fds=[theirs.fileno()],
                env=os.environ | {"TMPDIR": folder},
                start_new_session=True,  # one group, which is killed together; Ctrl-C is for this process to hear
            )
        self._end = weakref.finalize(self, _end, process, self._line, folder)
        self._line.send(sys.path)
        try:
            ready = self._line.poll(_START) and self._line.recv()
        except EOFError:
            ready = False
        if not ready:
            self.close()
            raise WinnowError("img2dataset cannot be started: run `winnow doctor`")
        return self._line


def _end(process: "subprocess.Popen[bytes]", line: Connection, folder: str) -> None:
    line.close()
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def stage(source: Source) -> Stage:
    """What makes the shards of this source."""
    asked = source.download
    made_by: dict[str, Any] = {
        "version": VERSION,
        "img2dataset": version("img2dataset"),
        "pillow": PIL.__version__,
        "image_size": asked.image_size,
        "quality": asked.quality,
        "max_bytes": asked.max_bytes,
        "max_pixels": asked.max_pixels,
    }
    if set(asked.robots) != set(OPT_OUTS):
        made_by["robots"] = sorted(asked.robots)
    return Stage("shards", made_by)


def nameless(source: Source, storage: Storage, shards: Iterable[Shard]) -> str | None:
    """What to say if servers other than those of `allow_hosts` are to be asked, by a robot that names no contact."""
    asked, made_by = source.download, stage(source)
    if "@" in asked.agent or "//" in asked.agent:
        return None
    usual = {"http": ":80", "https": ":443"}
    ours = tuple(
        f"{scheme}://{name}/"
        for host in asked.allow_hosts
        for scheme, port in usual.items()
        for name in (host, host.removesuffix(port))
    )
    for shard in shards:
        if not storage.done(made_by.item(shard.number, ".parquet")):
            urls = pq.read_table(storage.fetch(shard.key), columns=["url"])["url"].to_pylist()
            if any(url.startswith("http") and not url.startswith(ours) for url in urls):
                return (
                    f"strangers' servers are asked by {asked.agent!r}, which names nobody: set contact under "
                    f"[download] in {source.path.name or source.name} to an address or page where they reach you"
                )
    return None


def make(source: Source, storage: Storage, guard: Guard | None = None) -> Callable[[Shard], None]:
    """A function that downloads one shard unless it is there. `guard` is the source's own policy unless given.

    It raises ShardError where the shard's process dies, or takes more than `download.shard_seconds`.
    """
    made_by = stage(source)
    asked = source.download
    policy = guard or Guard.of(asked)
    limits = Limits(asked.image_size, asked.quality, asked.max_pixels)
    workshop, taken_down = Workshop(), blocked.binding(source, storage)

    def download(shard: Shard) -> None:
        tar, parquet = made_by.item(shard.number, ".tar"), made_by.item(shard.number, ".parquet")
        if storage.done(tar) and storage.done(parquet):
            return
        made_by.describe(storage)
        with storage.scratch() as folder:
            job = Job(storage.fetch(shard.key), folder, policy, limits, asked.threads, taken_down)
            fault = workshop.run(job, asked.shard_seconds)
            if isinstance(fault, OSError):
                raise fault  # of the disk: the scratch folder knows what to say
            fault = fault or _misfit(job)
            if fault:
                raise ShardError("download", shard.number, fault)
            storage.put_file(tar, folder / TAR)
            storage.put_file(parquet, folder / PARQUET)

    return download


def _misfit(job: Job) -> str | None:
    """What is wrong with the files that the job left, as they lie on the disk."""
    uids = pq.read_table(job.pairs, columns=["uid"])["uid"]
    rows = pq.read_table(job.folder / PARQUET)
    if rows.schema != COLUMNS or rows["uid"] != uids:
        return "its rows are not those of the ledger"
    members = [name for name, content in shards.read(job.folder / TAR) if content]
    if members != rows["member"].drop_null().unique().to_pylist():
        return "its tar does not hold the pictures of its rows"
    return None
