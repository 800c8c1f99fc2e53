"""Rows parts: all columns of about a hundred shards in one Parquet file, in ledger order, named by its sha256.

A part whose shards, results and membership did not change is found by a digest of its inputs.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import redact
from pipeline.errors import StorageError
from pipeline.failure import FORGOTTEN
from pipeline.ledger.ledger import Ledger, Shard
from pipeline.ledger.stale import stale
from pipeline.scoring.plan import Results, aligned
from pipeline.store.damage import complete
from pipeline.store.digests import canonical_json, digest
from pipeline.store.parquet import Rows, put_parquet
from pipeline.store.storage import Storage

FORMAT = 3
"""The version of parts."""

SHARDS = 100
"""Shards of a part. Their numbers differ only in the last two digits, so removing a shard does not move others."""


def parts(storage: Storage, ledger: Ledger, made: Results, quarantined: Mapping[int, str]) -> list[Rows]:
    """The parts of all pairs that are in the source now. Missing parts are written.

    Raises StorageError for a result that is missing, or is not aligned with its pairs.
    """
    gone = stale(storage, ledger)
    columns = [[field.name, str(field.type)] for field in made.columns]
    found = []
    for _, group in groupby(ledger.shards, key=lambda shard: shard.number // SHARDS):
        shards = list(group)
        state = [[each.number, each.key, gone.get(each.number), quarantined.get(each.number)] for each in shards]
        index = f"rows/by-input/{digest([FORMAT, columns, made.keys, state])}.json"
        known = Rows(**json.loads(storage.fetch(index).read_bytes())) if storage.done(index) else None
        if known is not None and complete(storage, known.key, known.count):
            found.append(known)
            continue
        results = (stage.item(each.number, ".parquet") for stage in made.stages for each in shards)
        storage.prepare([*(each.key for each in shards), *results])
        whole = (_shard_rows(storage, each, made, quarantined.get(each.number)) for each in shards)
        current = (_without(table, gone.get(each.number)) for table, each in zip(whole, shards, strict=True))
        found.append(put_parquet(storage, "rows", made.columns, current))
        storage.put_if_absent(index, canonical_json({"key": found[-1].key, "count": found[-1].count}))
    return found


def _without(table: pa.Table, positions: Sequence[int] | None) -> pa.Table:
    if not positions:
        return table
    keep = np.ones(len(table), bool)
    keep[positions] = False
    return table.filter(pa.array(keep))


def _shard_rows(storage: Storage, shard: Shard, made: Results, reason: str | None) -> pa.Table:
    """All columns of one shard's pairs, including pairs that have left the source."""
    pairs = pq.read_table(storage.fetch(shard.key), partitioning=None)
    known = {name: pairs[name] for name in pairs.column_names}
    known["shard"] = pa.repeat(pa.scalar(shard.number, pa.int32()), len(pairs))
    if reason is None:
        for stage in made.stages:
            known |= aligned(storage, stage.item(shard.number, ".parquet"), pairs)
        missing = [name for name in made.columns.names if name not in known]
        if missing:
            raise StorageError(f"the results of shard {shard.number:05d} lack the column {missing[0]!r}")
    else:
        known |= {name: pa.repeat(pa.scalar("quarantined"), len(pairs)) for name in ("status", "cause")}
        known["error"] = pa.repeat(pa.scalar(reason), len(pairs))
    known["url"] = redact.redact_column(known["url"])
    if pc.any(down := pc.equal(known["cause"], FORGOTTEN)).as_py():
        known = {name: _taken(name, column, down) for name, column in known.items()}
    empty = pa.nulls(len(pairs))
    return pa.table([_typed(known.get(field.name, empty), field.type) for field in made.columns], schema=made.columns)


def _taken(name: str, column: pa.ChunkedArray, down: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without the values of pairs that were taken down. Their url and caption become empty, others NULL."""
    if name in ("uid", "status", "cause", "error", "shard"):
        return column
    instead = pa.scalar("" if name in ("url", "caption") else None, column.type)
    return pc.if_else(pc.fill_null(down, False), instead, column)


def _typed(column: pa.ChunkedArray | pa.Array, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """The column as `kind`, with NULL for NaN. In SQL NaN is the largest number, and would pass every minimum."""
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column.cast(kind)), pa.scalar(None, kind), column.cast(kind))
    return column.cast(kind)
