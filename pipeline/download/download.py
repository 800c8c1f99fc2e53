"""Downloads a shard of the ledger: from URLs to JPEGs in a tar, and a row with a cause for each failure.

`shards-<key>/NNNNN.tar` has one member for each distinct downloaded URL, in ledger order. `NNNNN.parquet` beside it has
a row for each pair, aligned with the pairs file (`COLUMNS`). It is written last, and marks the shard as done.
"""

from collections.abc import Iterable
from functools import cached_property
from importlib.metadata import version
from typing import Any, Self

import PIL
import pyarrow.parquet as pq

from pipeline.download.fork_server import ForkServer
from pipeline.download.job import COLUMNS, Job
from pipeline.errors import ShardError, WinnowError
from pipeline.images.decode_process import Limits
from pipeline.ledger import blocklist
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.ledger import Shard
from pipeline.process import machine
from pipeline.settings.download import OPT_OUTS
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from pipeline.web.guard import Guard

VERSION = 2

THREADS = 32
"""Requests at once of one shard, at least. By default there are so many for each core."""

TAR, PARQUET = "shard.tar", "shard.parquet"
"""The files that a `Job` writes to its folder."""


def stage(source: Source) -> Stage:
    """The stage that downloads the shards of this source."""
    settings = source.download
    made_by: dict[str, Any] = {
        "version": VERSION,
        "img2dataset": version("img2dataset"),
        "pillow": PIL.__version__,
        "image_size": settings.image_size,
        "quality": settings.quality,
        "resample": settings.resample,
        "max_bytes": settings.max_bytes,
        "max_pixels": settings.max_pixels,
    }
    if set(settings.robots) != set(OPT_OUTS):
        made_by["robots"] = sorted(settings.robots)
    return Stage("shards", made_by)


def missing_contact(source: Source, storage: Storage, shards: Iterable[Shard]) -> str | None:
    """A warning if hosts outside `allow_hosts` get requests and the user agent has no contact; else None."""
    settings, made_by = source.download, stage(source)
    if "@" in settings.agent or "//" in settings.agent:
        return None
    usual = {"http": ":80", "https": ":443"}
    ours = tuple(
        f"{scheme}://{name}/"
        for host in settings.allow_hosts
        for scheme, port in usual.items()
        for name in (host, host.removesuffix(port))
    )
    for shard in shards:
        if not storage.done(made_by.item(shard.number, ".parquet")):
            urls = pq.read_table(storage.fetch(shard.key), columns=["url"])["url"].to_pylist()
            if any(url.startswith("http") and not url.startswith(ours) for url in urls):
                return (
                    f"the user agent {settings.agent!r} has no contact for the operators of servers: set contact under "
                    f"[download] in {source.path.name or source.name} to an address or a page"
                )
    return None


class Downloading:
    """Downloads shards of one source, `at_once` of them at the same time, each in a process of its own.

    A call with a shard downloads it unless it is stored. Raises ShardError if its process dies or takes more than
    `download.shard_seconds`. All calls share decoders, what is known of hosts, and the number of requests at once.
    `guard` defaults to the policy of the source, `cores` to those of this machine. After a `with`, calls raise
    WinnowError.
    """

    def __init__(self, source: Source, storage: Storage, guard: Guard | None = None, cores: int | None = None) -> None:
        settings, cores = source.download, cores or machine.cores()
        threads = settings.threads or THREADS * cores
        self.at_once = max(1, min(cores, threads // THREADS))
        self._threads = threads // self.at_once
        self._source, self._storage, self._made_by = source, storage, stage(source)
        self._guard = guard or Guard.of(settings)
        self._server = ForkServer(Limits.of(settings), cores)
        self._ended = False

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
            job = Job(storage.fetch(shard.key), folder, self._guard, self._threads, self._blocked)
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
        """End its processes, and with them the shards that they download."""
        self._server.close()


def _misfit(job: Job) -> str | None:
    """The error in the files of the job, as read back from the disk; None without one."""
    uids = pq.read_table(job.pairs, columns=["uid"])["uid"]
    rows = pq.read_table(job.folder / PARQUET)
    if rows.schema != COLUMNS or rows["uid"] != uids:
        return "its rows are not those of the ledger"
    members = [name for name, content in tarfiles.read(job.folder / TAR) if content]
    if members != rows["member"].drop_null().unique().to_pylist():
        return "its tar does not hold the pictures of its rows"
    return None
