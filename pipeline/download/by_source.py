"""How a source gets its pictures: from the web, or from files of this machine."""

from collections.abc import Iterable

from pipeline.download import download, taking
from pipeline.download.shard_work import ShardWork
from pipeline.ledger.ledger import Shard
from pipeline.sources.source import Source
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from pipeline.web.guard import Guard
from pipeline.web.throttle import Caller


def stage(source: Source) -> Stage:
    """The stage that makes the tars of this source."""
    where = taking.lists(source)
    return download.stage(source) if where is None else taking.stage(source, where)


def fetching(
    source: Source,
    storage: Storage,
    guard: Guard | None = None,
    cores: int | None = None,
    throttle: Caller | None = None,
) -> ShardWork:
    """What makes the tars: `Downloading`, or `Taking`, which needs no guard and no throttle."""
    where = taking.lists(source)
    if where is None:
        return download.Downloading(source, storage, guard, cores, throttle)
    return taking.Taking(source, storage, where, cores)


def shards_at_once(source: Source, cores: int) -> int:
    """How many shards are made at the same time on so many cores."""
    return cores if taking.lists(source) else download.shards_at_once(source.download, cores)


def missing_contact(source: Source, storage: Storage, shards: Iterable[Shard]) -> str | None:
    """The warning of `pipeline.download.download.missing_contact`; None of a source that asks nobody."""
    return None if taking.lists(source) else download.missing_contact(source, storage, shards)
