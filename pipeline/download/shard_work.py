"""What makes the tar and the rows of each shard of a source, in a process of its own that may be killed at any time."""

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import PIL
import pyarrow.parquet as pq

from pipeline.download.fork_server import ForkServer
from pipeline.download.job import COLUMNS, PARQUET, TAR, AnyJob
from pipeline.errors import ShardError, WinnowError
from pipeline.images import face_blur
from pipeline.ledger import blocklist
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.ledger import Shard
from pipeline.settings.download import Download
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage


def made_of(settings: Download) -> dict[str, Any]:
    """What decides which bytes are stored of a picture, for the key of a stage. Raises ModelError without an extra."""
    made_by: dict[str, Any] = {
        "pillow": PIL.__version__,
        "image_size": settings.image_size,
        "quality": settings.quality,
        "resample": settings.resample,
        "max_bytes": settings.max_bytes,
        "max_pixels": settings.max_pixels,
    }
    if settings.blur_faces:
        made_by["blur_faces"] = face_blur.identity()
    return made_by


class ShardWork(ABC):
    """Stores the pictures of shards, `at_once` of them at the same time.

    A call with a shard makes its objects unless they are stored. Raises ShardError if its process dies or takes more
    than `download.shard_seconds`. After a `with`, calls raise WinnowError.
    """

    at_once: int

    def __init__(self, source: Source, storage: Storage, made_by: Stage, server: ForkServer) -> None:
        self._source, self._storage, self._made_by, self._server = source, storage, made_by, server
        self._ended = False

    @abstractmethod
    def _job(self, pairs: Path, folder: Path, blocked: Blocked) -> AnyJob:
        """The job of the process for one shard."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self.close()

    def __call__(self, shard: Shard) -> None:
        """Store the tar and the rows of the shard."""
        storage = self._storage
        tar, parquet = (self._made_by.item(shard.number, suffix) for suffix in (".tar", ".parquet"))
        if storage.done(tar) and storage.done(parquet):
            return
        if self._ended:
            raise WinnowError("the download was stopped; run the same command to resume")
        self._made_by.describe(storage)
        with storage.scratch() as folder:
            job = self._job(storage.fetch(shard.key), folder, self._blocked)
            fault = self._server.run(job, self._source.download.shard_seconds)
            if isinstance(fault, OSError):
                raise fault  # a disk error: the scratch folder turns it into a message
            fault = fault or _misfit(job)
            if fault:
                raise ShardError("download", shard.number, fault)
            storage.put_file(tar, folder / TAR)
            storage.put_file(parquet, folder / PARQUET)

    @cached_property
    def _blocked(self) -> Blocked:
        """The block list at the first shard. No takedown begins while a run writes."""
        return blocklist.in_force(self._source, self._storage)

    def close(self) -> None:
        """End its processes, and with them the shards that they make."""
        self._server.close()


def _misfit(job: AnyJob) -> str | None:
    """The error in the files of the job, as read back from the disk; None without one."""
    uids = pq.read_table(job.pairs, columns=["uid"])["uid"]
    rows = pq.read_table(job.folder / PARQUET)
    if rows.schema != COLUMNS or rows["uid"] != uids:
        return "its rows are not those of the ledger"
    members = [name for name, content in tarfiles.read_stored(job.folder / TAR) if content]
    if members != rows["member"].drop_null().unique().to_pylist():
        return "its tar does not hold the pictures of its rows"
    return None
