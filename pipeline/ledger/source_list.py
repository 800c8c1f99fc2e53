"""Writes the list of a source as Parquet: each row with its position, uid and entry."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.ledger import lists
from pipeline.ledger.list_rows import agreed_type
from pipeline.schema import ORIGIN
from pipeline.sources.loading import members
from pipeline.sources.source import Source
from pipeline.uids import fractions, random_bits, uid

ORDINAL = "__ordinal"
"""The column with a row's position in the list, from 0. It continues across the members of a union."""


def write_list(
    source: Source,
    folder: Path,
    progress: Callable[[int], None],
    warn: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Write the list of a source as Parquet files in the folder. A change of column types begins a new file.

    Columns: `ORDINAL`, uid, entry, url, caption and the extra columns. `progress` is called with the number of rows
    read so far, and `warn` with warnings about the list. Raises SourceError if there is no pair.
    """
    if source.pairs is not None:
        return _write(lists.read(source.pairs, folder, warn), folder, progress)
    if not source.union:
        raise SourceError(f"{source.name}: the embedded source has no list until it is served")
    files = _write(_drawn(source, folder, warn), folder, progress)
    if not files:
        raise SourceError(f"{source.name}: no pair of its members is drawn: raise the shares in [union]")
    return files


def _drawn(source: Source, folder: Path, warn: Callable[[str], None]) -> Iterator[pa.RecordBatch]:
    for member, share in members(source):
        assert member.pairs is not None
        for batch in lists.read(member.pairs, folder, warn):
            yield _draw(batch, member.name, share)


def _draw(batch: pa.RecordBatch, name: str, share: float) -> pa.RecordBatch:
    """The pairs that the union draws, with their `ORIGIN`. A larger share contains all pairs of a smaller one."""
    uids = _uids(batch)
    batch = batch.append_column(ORIGIN, pa.array([name] * len(uids), pa.string()))
    return batch.filter(pa.array(fractions(random_bits("union", uids)) < share))


def _write(batches: Iterable[pa.RecordBatch], folder: Path, progress: Callable[[int], None]) -> list[Path]:
    """Write batches of a list, with a file for each run of batches with one schema.

    Returns the files, none without rows.
    """
    files: list[Path] = []
    types: dict[str, list[pa.DataType]] = {}
    ordinal = 0
    for schema, group in groupby(batches, key=lambda batch: batch.schema):
        files.append(folder / f"listed-{len(files)}.parquet")
        for field in schema:
            types.setdefault(field.name, []).append(field.type)
            _check_types(field.name, types[field.name])
        fields = [(ORDINAL, pa.int64()), ("uid", pa.string()), ("entry", pa.string()), *schema]
        with pq.ParquetWriter(files[-1], pa.schema(fields), compression="zstd", compression_level=1) as writer:
            for batch in group:
                uids = _uids(batch)
                ordinals = pa.array(range(ordinal, ordinal + len(batch)), pa.int64())
                columns = [ordinals, pa.array(uids, pa.string()), _entries(uids, batch, schema.names[2:])]
                writer.write_batch(pa.record_batch([*columns, *batch.columns], schema=writer.schema))
                ordinal += len(batch)
                progress(ordinal)
    return files if ordinal else []


def _check_types(name: str, types: list[pa.DataType]) -> None:
    """Raises SourceError if the files of a list have types of a column without a common type."""
    nested = len(set(types)) > 1 and any(pa.types.is_nested(each) for each in types)
    if nested or (agreed_type(types) == pa.string() and not any(map(_may_be_text, types))):
        others = " and ".join(dict.fromkeys(map(str, types)))
        raise SourceError(f"the column {name!r} is {others} in the files of one list: write it with one type")


def _may_be_text(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null))


def _uids(batch: pa.RecordBatch) -> list[str]:
    return [uid(*pair) for pair in zip(batch["url"].to_pylist(), batch["caption"].to_pylist(), strict=True)]


def _entries(uids: list[str], batch: pa.RecordBatch, extra: Sequence[str]) -> pa.Array:
    """The uids; with extra columns, digests of uid and extra columns: blake2b-128 of JSON, in hex."""
    if not extra:
        return pa.array(uids, pa.string())
    columns = {name: _values(batch[name]) for name in extra}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    texts = (json.dumps([key, row], sort_keys=True, default=str) for key, row in zip(uids, rows, strict=True))
    return pa.array([hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts], pa.string())


def _values(column: pa.Array) -> list[Any]:
    """The values of a column; Arrow's text for values that Python lacks, such as dates after the year 9999."""
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        return [_value(column, row) for row in range(len(column))]


def _value(column: pa.Array, row: int) -> Any:
    try:
        return column[row].as_py()
    except (OverflowError, ValueError):
        return column.slice(row, 1).to_string(window=1 << 20)
