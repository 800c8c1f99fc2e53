"""Large row groups of Parquet, unpacked once for all processes that read parts of them.

A row group can only be read from its beginning. Without this each shard would read the part before its own.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from filelock import FileLock

from pipeline.files import tables

LARGE = 1 << 28
"""Bytes of a row group that is unpacked, from this on. A smaller one is read in less than a second."""

ROWS = 64
"""Pictures that are read at once."""

_BEHIND = 65_536
"""Rows before a row group whose unpacked groups are kept, because other shards are still at work there."""


def group_starts(path: Path) -> list[int]:
    """The first row of each row group."""
    starts = [0]
    with tables.open_parquet(path) as file:
        for group in range(file.metadata.num_row_groups - 1):
            starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
    return starts


def read_groups(path: Path, column: str, starts: list[int], start: int, cache: Path | None) -> Iterator[pa.Array]:
    """The values of a column from the row group on that begins at the row `start`, a few at a time.

    Large groups are unpacked into the folder `cache`, if there is one with room for them.
    """
    with tables.open_parquet(path) as file:
        for group in range(starts.index(start), len(starts)):
            large = cache is not None and file.metadata.row_group(group).total_byte_size >= LARGE
            stored = _unpacked(path, column, group, starts[group], cache) if large and cache is not None else None
            if stored is None:
                batches = file.iter_batches(ROWS, row_groups=[group], columns=[column], use_threads=False)
            else:
                batches = tables.arrow_batches(stored, [column])
            for batch in batches:
                yield batch.column(0)


def _unpacked(path: Path, column: str, group: int, start: int, cache: Path) -> Path | None:
    """An Arrow file with the column of a row group; None if the disk has no room for it."""
    cache.mkdir(exist_ok=True)
    found = path.stat()
    text = f"{path}\0{column}\0{found.st_ino}\0{found.st_size}\0{found.st_mtime_ns}"
    name = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    stored = cache / f"{name}-{start}.arrow"
    with FileLock(cache / f"{name}-{start}.lock"):
        if stored.exists():
            return stored
        _remove_before(cache, name, start - _BEHIND)
        part = stored.with_suffix(".part")
        try:
            _unpack(path, column, group, part)
        except OSError:
            part.unlink(missing_ok=True)
            return None
        part.rename(stored)
    return stored


def _unpack(path: Path, column: str, group: int, target: Path) -> None:
    with tables.open_parquet(path) as file:
        kind = file.schema_arrow.field(column)
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, pa.schema([kind])) as writer:
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=[column], use_threads=False):
                writer.write_batch(batch)


def _remove_before(cache: Path, name: str, row: int) -> None:
    """Remove unpacked row groups of a table that begin before a row. Who reads one meanwhile goes on."""
    for path in cache.glob(f"{name}-*.arrow"):
        begins = re.search(r"-(\d+)\.arrow$", path.name)
        if begins and int(begins[1]) < row:
            with contextlib.suppress(OSError):
                path.unlink()
