"""Reads pictures out of tables, by row number: Parquet, and Arrow's files and streams.

Rows are meant to be read in ascending order, as a shard has them: each row group is then read once.
"""

import os
import posixpath
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.failure import RowError
from pipeline.files import tables
from pipeline.files.row_groups import group_starts, read_groups

_KEPT = 2
"""Batches that are kept of a table."""


class TableRows:
    """Forward reading of the pictures of one table, with the last batches kept. For one thread at a time.

    `image` names their column; the only one with images of Hugging Face's `datasets` if None. `cache` is a folder for
    large row groups, which other processes read, too.
    """

    def __init__(self, path: Path, image: str | None, cache: Path | None = None) -> None:
        self._path, self._cache = path, cache
        self._kept: deque[tuple[int, pa.Array]] = deque(maxlen=_KEPT)
        self._batches: Iterator[pa.Array] = iter(())
        self._next: int | None = None
        self._broken: dict[int, tuple[int, Exception]] = {}
        with _faults(path.name):
            self._stamp = _stamp(path)
            self._column = tables.picture_column(tables.read_schema(path), image, path.name)
            self._starts = group_starts(path) if tables.is_parquet(path) else [0]

    def read(self, row: int, max_bytes: int) -> bytes | str:
        """The picture of a row, from 0, or the name of a file that the row has in its place.

        Raises RowError for a row that the table lacks, or that has no picture, and for a table that cannot be read, or
        changed.
        """
        with _faults(self._path.name):
            if _stamp(self._path) != self._stamp:
                raise RowError("changed_file", f"{self._path.name} changed while it was read")
            value = self._value(row)
        picture, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        found = picture or name
        if not found:
            raise RowError("empty", "its row has no picture")
        if isinstance(found, str):
            return found
        if len(found) > max_bytes:
            raise RowError("too_large", f"more than {max_bytes} bytes")
        return bytes(found)

    def _value(self, row: int) -> Any:
        found = self._find(row)
        if found is None:
            self._seek(row)
        while found is None:
            self._advance(row)
            found = self._find(row)
        return found.as_py()

    def _find(self, row: int) -> pa.Scalar | None:
        return next((column[row - start] for start, column in self._kept if start <= row < start + len(column)), None)

    def _seek(self, row: int) -> None:
        """Go to the row group of the row, unless reading on comes to it without another group between.

        Raises the error of a group that could not be read this far before.
        """
        group = max(start for start in self._starts if start <= row)
        reached, error = self._broken.get(group, (None, None))
        if reached is not None and error is not None and row >= reached:
            raise error
        if self._next is None or not group <= self._next <= row:
            self._batches, self._next = self._columns(group), group

    def _advance(self, row: int) -> None:
        assert self._next is not None
        try:
            column = next(self._batches)
        except StopIteration:
            raise RowError("missing_file", f"{self._path.name} has no row {row}") from None
        except (pa.ArrowException, OSError) as error:
            self._broken[max(start for start in self._starts if start <= row)] = self._next, error
            self._next = None
            raise
        self._kept.append((self._next, column))
        self._next += len(column)

    def _columns(self, group: int) -> Iterator[pa.Array]:
        if tables.is_parquet(self._path):
            return read_groups(self._path, self._column, self._starts, group, self._cache)
        return (batch.column(0) for batch in tables.arrow_batches(self._path, [self._column]))


@contextmanager
def _faults(name: str) -> Iterator[None]:
    """Faults of a table as failures of its rows."""
    try:
        yield
    except FileNotFoundError:
        raise RowError("missing_file", f"there is no file {name}") from None
    except (pa.ArrowException, SourceError, OSError) as error:
        raise RowError("unreadable", f"{name} cannot be read: {error or type(error).__name__}") from error


def file_place(base: Path, table: Path, given: str) -> str:
    """The place of a file that a row of a table names: relative to the table's folder, or absolute inside `base`.

    Any other name is returned as it is, and no reader takes it.
    """
    name = given
    inside = os.path.relpath(table.parent, base)
    if not name.startswith("/"):
        return posixpath.normpath(name if inside == "." else f"{inside}/{name}") if ".." not in name else name
    root = f"{base}/"
    if not name.startswith(root):
        folder, _, file = name.rpartition("/")
        name = f"{os.path.realpath(folder)}/{file}"
    return posixpath.normpath(name[len(root) :]) if name.startswith(root) else given


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
