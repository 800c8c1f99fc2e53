"""One shard of the ledger: from URLs to JPEGs in a tar, and a row with a cause for everything that failed.

`shards-<key>/NNNNN.tar` holds one member for each distinct URL that could be fetched, in ledger order. Beside it, put
last, so that it means done, `NNNNN.parquet` has a row for each pair, aligned with the pairs file (`COLUMNS`).
"""

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import PIL
import pyarrow.parquet as pq

from pipeline.download.job import COLUMNS, Job
from pipeline.download.workshop import Workshop
from pipeline.errors import ShardError
from pipeline.images.sandbox import Limits
from pipeline.ledger import blocklist
from pipeline.ledger.ledger import Shard
from pipeline.settings.download import OPT_OUTS
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from pipeline.web.guard import Guard

VERSION = 1
"""Raised when the same web would give other results."""


TAR, PARQUET = "shard.tar", "shard.parquet"
"""What a `Job` leaves in its folder."""


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
    workshop, taken_down = Workshop(), blocklist.in_force(source, storage)

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
    members = [name for name, content in tarfiles.read(job.folder / TAR) if content]
    if members != rows["member"].drop_null().unique().to_pylist():
        return "its tar does not hold the pictures of its rows"
    return None
