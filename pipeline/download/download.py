"""Downloads a shard of the ledger: from URLs to JPEGs in a tar, and a row with a cause for each failure.

`shards-<key>/NNNNN.tar` has one member for each distinct downloaded URL, in ledger order. `NNNNN.parquet` beside it has
a row for each pair, aligned with the pairs file (`COLUMNS`). It is written last, and marks the shard as done.
"""

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.download.fork_server import ForkServer
from pipeline.download.job import Job
from pipeline.download.shard_work import ShardWork, made_of
from pipeline.images.limits import Limits
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.ledger import Shard
from pipeline.process import machine
from pipeline.settings.download import OPT_OUTS, Download
from pipeline.sources.source import Source
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from pipeline.web.guard import Guard
from pipeline.web.throttle import Caller

VERSION = 2

THREADS = 32
"""Requests at once of one shard, at least. By default there are so many for each core."""


def stage(source: Source) -> Stage:
    """The stage that downloads the shards of this source."""
    settings = source.download
    made_by: dict[str, Any] = {
        "version": VERSION,
        "img2dataset": version("img2dataset"),
        **made_of(settings),
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


def shards_at_once(settings: Download, cores: int) -> int:
    """How many shards are downloaded at the same time on so many cores."""
    return max(1, min(cores, (settings.threads or THREADS * cores) // THREADS))


class Downloading(ShardWork):
    """Downloads shards of one source, `at_once` of them at the same time.

    All calls share decoders, what is known of hosts, and the number of requests at once. `guard` defaults to the policy
    of the source, `cores` to those of this machine. `throttle` knows the hosts of other machines, too; without one it
    is this machine's own.
    """

    def __init__(
        self,
        source: Source,
        storage: Storage,
        guard: Guard | None = None,
        cores: int | None = None,
        throttle: Caller | None = None,
    ) -> None:
        settings, cores = source.download, cores or machine.cores()
        self.at_once = shards_at_once(settings, cores)
        self._threads = (settings.threads or THREADS * cores) // self.at_once
        self._guard = guard or Guard.of(settings)
        super().__init__(source, storage, stage(source), ForkServer(Limits.of(settings), cores, throttle))

    def _job(self, pairs: Path, folder: Path, blocked: Blocked) -> Job:
        return Job(pairs, folder, self._guard, self._threads, blocked)
