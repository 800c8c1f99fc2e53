"""The tar of a shard: the same members always make the same bytes."""

import contextlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from pipeline.errors import StorageError
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


def read(path: Path) -> Iterator[tuple[str, bytes]]:
    """The (name, content) pairs, in order. Raises StorageError if the file was cut short or damaged."""
    with _opened(path) as tar:
        for member in tar:
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


class Tars:
    """Random access to the members of the tars of a stage: reads only the headers of a tar and the wanted member."""

    def __init__(self, storage: Storage, stage: str) -> None:
        self._storage, self._stage = storage, stage
        self._index = lru_cache(_INDEXED)(self._indexed)

    def read(self, shard: int, member: str) -> bytes | None:
        """The content of a member; None if there is no such tar or member. Raises StorageError for a damaged tar."""
        if not self._storage.done(self._key(shard)):
            return None
        offset, size = self._index(shard).get(member, (0, 0))
        if not size:
            return None
        with self._storage.fetch(self._key(shard)).open("rb") as tar:
            tar.seek(offset)
            return tar.read(size)

    def _key(self, shard: int) -> str:
        return f"shards-{self._stage}/{shard:05d}.tar"

    def _indexed(self, shard: int) -> dict[str, tuple[int, int]]:
        return index(self._storage.fetch(self._key(shard)))


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
