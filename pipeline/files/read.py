"""Reads local pictures by their places."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.failure import RowError
from pipeline.files import plain
from pipeline.files.places import join, split
from pipeline.files.table_rows import TableRows, file_place
from pipeline.files.tar_members import TarMembers

_OPEN = 8
"""Tars and tables that are kept ready."""

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """The bytes of a picture, and the file that has them as they are, from `offset` on; None if there is none."""

    content: bytes
    file: Path | None
    offset: int = 0


class Reader:
    """Reads the places of one list. Cheap if they come in the order of the list. For one thread at a time.

    `image` is the column of pictures in tables. `cache` is a folder for what several readers need.
    """

    def __init__(
        self, base: Path, max_bytes: int, symlinks: bool = False, image: str | None = None, cache: Path | None = None
    ) -> None:
        self._base, self._max_bytes, self._symlinks, self._image, self._cache = base, max_bytes, symlinks, image, cache
        self._ready: OrderedDict[str, Any] = OrderedDict()

    def read(self, place: str) -> bytes:
        """The bytes of a picture. Raises RowError, or StorageError if a tar changes while it is read."""
        return self.find(place).content

    def find(self, place: str) -> Found:
        """As `read`, with the file that holds the bytes."""
        file, inside = split(place)
        if inside is None:
            path = join(self._base, file, self._symlinks)
            return Found(plain.read(path, file, self._max_bytes), path)
        if file.lower().endswith(".tar"):
            tar = self._kept(file, lambda: TarMembers(join(self._base, file, self._symlinks), self._cache))
            content, offset = tar.read(inside, self._max_bytes)
            return Found(content, tar.path, offset)
        return self._row(file, inside)

    def _row(self, file: str, inside: str) -> Found:
        """A row of a table: the bytes themselves, or the file that it names.

        Where links may lead out of the folder, such a name may be an absolute path.
        """
        path = join(self._base, file, self._symlinks)
        if not inside.isdecimal():
            raise RowError("missing_file", f"{file} has no row {inside!r}")
        found = self._kept(file, lambda: TableRows(path, self._image, self._cache)).read(int(inside), self._max_bytes)
        if isinstance(found, bytes):
            return Found(found, None)
        named = file_place(self._base, path, found)
        outside = self._symlinks and named.startswith("/")
        where = Path(named) if outside else join(self._base, named, self._symlinks)
        return Found(plain.read(where, named, self._max_bytes), where)

    def _kept(self, file: str, make: Callable[[], T]) -> T:
        if file not in self._ready:
            self._ready[file] = make()
            if len(self._ready) > _OPEN:
                self._ready.popitem(last=False)
        self._ready.move_to_end(file)
        kept: T = self._ready[file]
        return kept
