"""The list of a source, read into a Parquet file: each row with its place, uid and entry."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.ledger import lists
from pipeline.schema import ORIGIN
from pipeline.sources.loading import members
from pipeline.sources.source import Source
from pipeline.uids import fractions, random_bits, uid

ORDINAL = "__ordinal"
"""The column with a row's place in the list, from 0. The members of a union are counted one after the other."""


def write_list(source: Source, folder: Path, progress: Callable[[int], None]) -> list[Path]:
    """Write the list of a source as a Parquet file in the folder, or one file for each member of a union.

    Columns: `ORDINAL`, uid, entry, url, caption and the extra columns. `progress` is called with the rows read so far.
    Raises SourceError if there is no pair.
    """
    if source.pairs is not None:
        _write(lists.read(source.pairs, folder), folder / "listed.parquet", 0, progress)
        return [folder / "listed.parquet"]
    if not source.union:
        raise SourceError(f"{source.name}: the embedded source has no list until it is served")
    files: list[Path] = []
    rows = 0
    for member, share in members(source):
        assert member.pairs is not None
        files.append(folder / f"listed-{len(files)}.parquet")
        batches = (_draw(batch, member.name, share) for batch in lists.read(member.pairs, folder))
        rows = _write(batches, files[-1], rows, progress)
    if not rows:
        raise SourceError(f"{source.name}: no pair of its members is drawn: raise the shares in [union]")
    return files


def _draw(batch: pa.RecordBatch, name: str, share: float) -> pa.RecordBatch:
    """The share of the pairs that the union draws, with their `ORIGIN`. A larger share holds all pairs of a smaller."""
    uids = _uids(batch)
    batch = batch.append_column(ORIGIN, pa.array([name] * len(uids), pa.string()))
    return batch.filter(pa.array(fractions(random_bits("union", uids)) < share))


def _write(batches: Iterable[pa.RecordBatch], target: Path, start: int, progress: Callable[[int], None]) -> int:
    """Write batches of a list, whose first row has the ordinal `start`. Gives the ordinal after the last row."""
    writer, ordinal = None, start
    for batch in batches:
        extra = batch.schema.names[2:]
        uids = _uids(batch)
        ordinals = pa.array(range(ordinal, ordinal + len(batch)), pa.int64())
        columns = [ordinals, pa.array(uids), _entries(uids, batch, extra), *batch.columns]
        table = pa.record_batch(columns, names=[ORDINAL, "uid", "entry", *batch.schema.names])
        writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd", compression_level=1)
        writer.write_batch(table)
        ordinal += len(batch)
        progress(ordinal)
    if writer:
        writer.close()
    return ordinal


def _uids(batch: pa.RecordBatch) -> list[str]:
    return [uid(*pair) for pair in zip(batch["url"].to_pylist(), batch["caption"].to_pylist(), strict=True)]


def _entries(uids: list[str], batch: pa.RecordBatch, extra: Sequence[str]) -> pa.Array:
    """The uids; with extra columns, digests of uid and extra columns: blake2b-128 of JSON, in hex."""
    if not extra:
        return pa.array(uids)
    rows = batch.select(list(extra)).to_pylist()
    texts = (json.dumps([key, row], sort_keys=True, default=str) for key, row in zip(uids, rows, strict=True))
    return pa.array([hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts])
