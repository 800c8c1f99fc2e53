"""The tar of a shard: the same members always make the same bytes.

A member is a picture, or a reference to one (`pipeline.store.references`), which is read where it is.
"""

import contextlib
import io
import os
import tarfile
from collections.abc import Container, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import StorageError
from pipeline.store.references import resolve
from pipeline.store.storage import Storage

_INDEXED = 64
"""Tars whose index is cached."""

_END = bytes(1024)
"""Two empty blocks end a tar. Python's reader accepts a tar without them as a whole one."""


def member_name(number: int) -> str:
    """The name of the picture of a URL, by its number in the shard."""
    return f"{number:05d}.jpg"


def write(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write (name, content) pairs in their order, without times or owners."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def read(path: Path, wanted: Container[str] | None = None) -> Iterator[tuple[str, bytes]]:
    """The (name, picture) pairs, in order; with `wanted`, of members with these names only.

    Raises StorageError if the file was cut short or damaged, or if a file that it refers to has changed.
    """
    for name, stored in read_stored(path, wanted):
        yield name, resolve(stored)


def read_stored(path: Path, wanted: Container[str] | None = None) -> Iterator[tuple[str, bytes]]:
    """As `read`, with references as they are stored, to copy them."""
    with _opened(path) as tar:
        for member in tar:
            if wanted is not None and member.name not in wanted:
                continue
            content = tar.extractfile(member)
            if content is None:
                raise _damaged(path)
            yield member.name, content.read()


def index(path: Path) -> dict[str, tuple[int, int]]:
    """Where the content of each member begins, and how many bytes it has; only headers are read.

    Raises StorageError if the file was cut short or damaged.
    """
    with _opened(path) as tar:
        return {member.name: (member.offset_data, member.size) for member in tar}


def read_at(tar: BinaryIO, offset: int, size: int) -> bytes:
    """The picture of a member of an open tar, by its place in `index`. Raises StorageError as `read` does."""
    return resolve(os.pread(tar.fileno(), size, offset))


class Tars:
    """Random access to the members of the tars of a stage: reads only the headers of a tar and the wanted member."""

    def __init__(self, storage: Storage, stage: str) -> None:
        self._storage, self._stage = storage, stage
        self._index = lru_cache(_INDEXED)(lambda path, *identity: index(path))

    def read(self, shard: int, member: str) -> bytes | None:
        """The picture of a member; None if there is no such tar or member. Otherwise as the function `read`."""
        if not self._storage.done(self._key(shard)):
            return None
        path = self._storage.fetch(self._key(shard))
        with path.open("rb") as tar:
            found = os.fstat(tar.fileno())  # a takedown writes a tar again
            members = self._index(path, found.st_ino, found.st_size, found.st_mtime_ns)
            offset, size = members.get(member, (0, 0))
            return read_at(tar, offset, size) if size else None

    def require(self, shard: int, member: str) -> bytes:
        """As `read`. Raises StorageError for a picture that is missing, too."""
        picture = self.read(shard, member)
        if picture is None:
            raise StorageError(
                f"shard {shard:05d} has no picture {member}: remove its .tar and .parquet, and run `winnow curate`"
            )
        return picture

    def _key(self, shard: int) -> str:
        return f"shards-{self._stage}/{shard:05d}.tar"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - len(_END)))
        if file.read() != _END:
            raise _damaged(path)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                yield tar
        except tarfile.TarError as error:
            raise _damaged(path) from error


def _damaged(path: Path) -> StorageError:
    return StorageError(f"{path} is damaged: delete it, and the next run fetches that shard again")
