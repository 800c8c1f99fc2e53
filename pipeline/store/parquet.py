"""Parquet objects named by their content, always the same bytes."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.damage import intact
from pipeline.store.storage import Storage

ROW_GROUP = 65_536
"""Rows of a Parquet row group, and of a batch that is read from one."""


@dataclass(frozen=True)
class Rows:
    """The storage key of a Parquet object, and how many rows it has."""

    key: str
    count: int


def put_parquet(storage: Storage, folder: str, schema: pa.Schema, batches: Iterable[pa.Table]) -> Rows:
    """Write tables as one Parquet object named by its content: row groups of `ROW_GROUP`, always the same bytes."""
    with storage.scratch() as scratch:
        local, count = scratch / "part.parquet", 0
        with pq.ParquetWriter(local, schema, **_layout(schema)) as writer:
            for group in rechunk(batches, ROW_GROUP):
                writer.write_table(group, row_group_size=ROW_GROUP)
                count += len(group)
        with local.open("rb") as file:
            key = f"{folder}/{hashlib.file_digest(file, 'sha256').hexdigest()}.parquet"
        if not intact(storage, key):
            storage.put_file(key, local)
    return Rows(key, count)


def _layout(schema: pa.Schema) -> dict[str, Any]:
    """How columns are stored, for readers of a few columns of all rows.

    Text is compressed. uids are noise, and unpacking them takes longer than reading them; numbers hardly shrink.
    Columns whose values nearly all differ get no dictionary: it costs time and space.
    """
    floating = [field.name for field in schema if pa.types.is_floating(field.type)]
    text = [field.name for field in schema if pa.types.is_string(field.type) and field.name != "uid"]
    own = {"uid", "url", "caption", "sha256", *floating}
    return {
        "compression": {name: "zstd" if name in text else "none" for name in schema.names},
        "use_dictionary": [name for name in schema.names if name not in own],
    }


def rechunk(batches: Iterable[pa.Table], length: int) -> Iterator[pa.Table]:
    """The same rows in tables of `length` rows; the last has fewer, or none."""
    tables: list[pa.Table] = []
    for batch in batches:
        tables.append(batch)
        while sum(map(len, tables)) >= length:
            whole = pa.concat_tables(tables)
            yield whole.slice(0, length)
            tables = [whole.slice(length)]
    yield pa.concat_tables(tables)
