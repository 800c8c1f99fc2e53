"""What a store that is filled in part says of its pool: shares, and bytes of each kind, from a sample of shards."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.bench.rates import Rates
from pipeline.download import by_source
from pipeline.ledger.ledger import Shard, committed
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.sources.source import Source
from pipeline.store import duck
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage

SAMPLED = 100
"""Shards that are looked at, evenly over all that are downloaded."""


_RESULTS = (("scores", "parquet"), ("embeddings", "npy"))


@dataclass(frozen=True)
class Known:
    """Rows of the ledger, its shards, how many of them are downloaded, and how many were looked at.

    `rates` are those of the store where it has some, `scorer_bytes` the bytes of a row by the name of the scorer.
    """

    rows: int
    shards: int
    downloaded: int
    sampled: int
    rates: Rates
    scorer_bytes: Mapping[str, float]


def known(source: Source, storage: Storage, rates: Rates) -> Known | None:
    """What the store knows; None if no shard is downloaded under the source's settings.

    Rows are those of the newest manifest's list; without a manifest, all pairs of the ledger.
    """
    shards, stage = committed(storage) if storage.keys("ledger") else [], by_source.stage(source)
    there = {key.rpartition("/")[2].split(".")[0] for key in storage.find(f"{stage.folder}/*.parquet")}
    done = [shard for shard in shards if f"{shard.number:05d}" in there]
    if not done:
        return None
    sample = done[:: -(-len(done) // SAMPLED)]
    newest = Manifest.open(storage) if commits(storage) else None
    of_row = _row_bytes(storage, stage, sample, newest)
    better = rates.with_pool(**_pool(storage, stage, sample, rates.rows.tar), kept=_kept(newest))
    better = better.model_copy(update={"rows": better.rows.model_copy(update=of_row)})
    rows = newest.counts.input if newest else sum(shard.rows for shard in shards)
    return Known(rows, len(shards), len(done), len(sample), better, _scorer_bytes(storage, sample, newest))


def _pool(storage: Storage, stage: Stage, sample: Sequence[Shard], of_tar: float) -> dict[str, float]:
    """The share that downloads, and the mean bytes of a picture; nothing of shards without any."""
    files = storage.fetch_all(stage.item(shard.number, ".parquet") for shard in sample)
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        ((good, fetched),) = con.execute(
            f"SELECT count(*) FILTER (status = 'ok'), avg(bytes) FILTER (status = 'ok') FROM {duck.parquet(files)}"
        ).fetchall()
    if not good:
        return {}
    tars = _bytes(storage, (stage.item(shard.number, ".tar") for shard in sample))
    return {"success": good / _rows(sample), "picture_bytes": max(1.0, tars / good - of_tar), "fetched_bytes": fetched}


def _kept(newest: Manifest | None) -> float | None:
    return newest.counts.kept / newest.counts.pool if newest and newest.counts.pool else None


def _row_bytes(storage: Storage, stage: Stage, sample: Sequence[Shard], newest: Manifest | None) -> dict[str, float]:
    found = {
        "ledger": _bytes(storage, (shard.key for shard in sample)) / _rows(sample),
        "download": _bytes(storage, (stage.item(shard.number, ".parquet") for shard in sample)) / _rows(sample),
    }
    if newest and newest.parts:
        keys = (key for part in newest.parts for key in (part.rows, part.verdicts))
        found["published"] = _bytes(storage, keys) / sum(part.count for part in newest.parts)
    return found


def _scorer_bytes(storage: Storage, sample: Sequence[Shard], newest: Manifest | None) -> dict[str, float]:
    def keys(stage: str) -> Iterator[str]:
        return (f"{kind}/{stage}/{shard.number:05d}.{ending}" for shard in sample for kind, ending in _RESULTS)

    stages = newest.stages.scores if newest else {}
    return {name: _bytes(storage, keys(f"{name}-{key}")) / _rows(sample) for name, key in stages.items()}


def _rows(sample: Sequence[Shard]) -> int:
    return sum(shard.rows for shard in sample)


def _bytes(storage: Storage, keys: Iterable[str]) -> int:
    """Of those objects that exist."""
    return sum(storage.size(key) for key in keys if storage.done(key))
