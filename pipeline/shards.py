"""The tar of a shard: the same members always make the same bytes."""

import contextlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.errors import StorageError

_END = bytes(1024)
"""Two empty blocks end a tar. Python's reader takes a tar without them for a whole one."""


def member(number: int) -> str:
    """The name of the picture of a shard's URL of that number."""
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
