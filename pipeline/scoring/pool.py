"""Scores that need all rows. They are computed from stored results, after every shard has its other scores.

Their results are a Parquet file per shard, as for other scorers, so that parts, SQL and filters treat them alike. The
key of such a stage contains the pool's digest: for the same pool nothing is computed again, and a changed pool has new
results.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import StorageError
from pipeline.ledger import stale
from pipeline.ledger.ledger import Ledger, Shard
from pipeline.progress import Progress, silent
from pipeline.scorers.spec import Columns, PoolSpec
from pipeline.scoring.plan import Plan, Results, aligned
from pipeline.scoring.writer import ScoreWriter
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage

_AT_ONCE = 64
"""Shards whose objects are copied, or stored, at once."""

_ALWAYS = ("uid", "url", "caption")
"""Columns of pairs that every pool has."""


class StoredPool:
    """A `pipeline.scorers.spec.Pool` of stored results. `of` names the scorers whose columns are in `rows`, `extra` the
    source's own columns.

    Only one shard is in memory at a time, unless a scorer reads a whole column.
    """

    def __init__(
        self,
        storage: Storage,
        folder: Path,
        made: Results,
        shards: Sequence[Shard],
        ledger: Ledger,
        of: Sequence[str],
        extra: Sequence[str] = (),
    ) -> None:
        self._storage, self._made, self._extra = storage, made, extra
        self.folder, self.rows, self.shards = folder, folder / "pool.parquet", shards
        gone, self.places = stale.stale(storage, ledger), []
        writer = None
        stages = [made.plan.shards, *(made.scores[name] for name in of)]
        for shard in self._prepared(stages, ".parquet"):
            table, place = self._shard(shard, gone.get(shard.number, ()), of)
            writer = writer or pq.ParquetWriter(self.rows, table.schema, compression="zstd", compression_level=1)
            writer.write_table(table)
            self.places.append(place)
        if writer:
            writer.close()

    places: list[npt.NDArray[np.int64]]
    """For each shard, the positions of the pool's rows among its pairs."""

    def __len__(self) -> int:
        return sum(map(len, self.places))

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of all rows."""
        return pq.read_table(self.rows, columns=[name])[name]

    def embeddings(self, of: str) -> Iterator[npt.NDArray[np.float16]]:
        """The stored embeddings of a scorer, shard by shard: float16 [rows, 2, dim], NaN for missing ones."""
        stage = self._made.plan.embeddings[of]
        for shard, place in zip(self._prepared([stage], ".npy"), self.places, strict=True):
            key = stage.item(shard.number, ".npy")
            stored: npt.NDArray[np.float16] = np.load(self._storage.fetch(key), mmap_mode="r", allow_pickle=False)
            if len(stored) != shard.rows:
                raise StorageError(f"{key} is not aligned with its pairs: delete it and run the same command again")
            yield stored[place]

    def _prepared(self, stages: Sequence[Stage], suffix: str) -> Iterator[Shard]:
        """All shards, with local copies of their pairs and of their results of these stages."""
        for start in range(0, len(self.shards), _AT_ONCE):
            block = self.shards[start : start + _AT_ONCE]
            made = (stage.item(shard.number, suffix) for stage in stages for shard in block)
            self._storage.prepare([*(shard.key for shard in block), *made])
            yield from block

    def uids(self, shard: Shard) -> pa.ChunkedArray:
        """The uids of all pairs of a shard, including pairs outside the pool."""
        return pq.read_table(self._storage.fetch(shard.key), columns=["uid"], partitioning=None)["uid"]

    def _shard(self, shard: Shard, gone: Sequence[int], of: Sequence[str]) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        path = self._storage.fetch(shard.key)
        pairs = pq.read_table(path, columns=[*_ALWAYS, *self._extra], partitioning=None)
        known = {name: pairs[name] for name in _ALWAYS}
        for name in self._extra:
            kind = self._made.columns.field(name).type  # shards may have other types, or lack a column that is new
            known[name] = pairs[name].cast(kind) if name in pairs.column_names else pa.nulls(len(pairs), kind)
        downloaded = aligned(self._storage, self._made.plan.shards.item(shard.number, ".parquet"), pairs)
        known["sha256"] = downloaded["sha256"]
        for name in of:
            known |= aligned(self._storage, self._made.scores[name].item(shard.number, ".parquet"), pairs)
        member = np.array(pc.equal(downloaded["status"], "ok"))
        member[list(gone)] = False
        place = np.flatnonzero(member)
        return pa.table(known).take(place), place


def run(
    plan: Plan,
    storage: Storage,
    ledger: Ledger,
    quarantined: Mapping[int, str],
    progress: Progress = silent,
) -> None:
    """Compute and store the missing results of every scorer of the whole pool.

    `progress` is called with the name of each scorer. If a run is killed, the next run gives the same results. Raises
    StorageError for a result that is missing or is not aligned with its pairs, and ModelError for a model that fails.
    """
    specs = {name: spec for name, spec in plan.source.scorers.items() if isinstance(spec, PoolSpec)}
    if not specs:
        return
    made = plan.results(storage, ledger, quarantined)
    shards = [shard for shard in ledger.shards if shard.number not in quarantined]
    missing = {name: spec for name, spec in specs.items() if not _done(storage, made.scores[name], spec, shards)}
    later = {name: spec for name, spec in missing.items() if set(spec.builds_on) & set(specs)}
    for each in ({name: spec for name, spec in missing.items() if name not in later}, later):
        if each:
            _score(made, storage, ledger, shards, each, progress)


def _score(
    made: Results,
    storage: Storage,
    ledger: Ledger,
    shards: Sequence[Shard],
    specs: Mapping[str, PoolSpec],
    progress: Progress,
) -> None:
    """Compute and store the results of these scorers. All that they read is stored."""
    with storage.scratch() as scratch:
        read = sorted({of for spec in specs.values() for of in spec.builds_on})
        extra = sorted({column for spec in specs.values() for column in spec.reads} - set(_ALWAYS))
        pool = StoredPool(storage, scratch, made, shards, ledger, read, extra)
        for name, spec in specs.items():
            load_model = made.plan.source.scorers[spec.model_of].load if spec.model_of else None
            columns = spec.load(load_model).score(pool, partial(progress, name))
            _store(storage, pool, name, spec, made.scores[name], columns)


def _done(storage: Storage, stage: Stage, spec: PoolSpec, shards: Sequence[Shard]) -> bool:
    left = (f"{stage.folder}/{file}" for file in spec.files)
    return all(map(storage.done, (*left, *(stage.item(shard.number, ".parquet") for shard in shards))))


def _store(storage: Storage, pool: StoredPool, name: str, spec: PoolSpec, stage: Stage, columns: Columns) -> None:
    """Store the scorer's files, and a Parquet file per shard. Pairs outside the pool have NULL."""
    stage.describe(storage)
    for file in spec.files:
        storage.put_file(f"{stage.folder}/{file}", pool.folder / file)
    start, made = 0, dict[str, Path]()
    for shard, place in zip(pool.shards, pool.places, strict=True):
        of_shard = {column: values[start : start + len(place)] for column, values in columns.items()}
        start += len(place)
        result = ScoreWriter(name, spec, shard.rows, pool.folder, None)
        result.add(place, of_shard)
        own = pool.folder / f"{name}-{shard.number}.parquet"
        made[stage.item(shard.number, ".parquet")] = result.write(pool.uids(shard)).rename(own)
        if len(made) == _AT_ONCE:
            storage.put_files(made)
            made.clear()
    storage.put_files(made)
