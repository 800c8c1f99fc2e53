"""Reads single members of tars, which are never extracted."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock

from pipeline.errors import StorageError
from pipeline.failure import RowError
from pipeline.files import plain
from pipeline.files.places import check_name
from pipeline.files.plain import Stamp
from pipeline.files.samples import PICTURES, key_and_ending, kind
from pipeline.files.tar_scan import scan

Range = tuple[int, int]
"""Where the content of a member begins, and its bytes."""


@dataclass(frozen=True)
class Index:
    """The members of a tar by name, those of one name in order; the pictures of each sample; why the rest is lost."""

    members: dict[str, list[Range]] = field(default_factory=dict)
    pictures: dict[str, list[str]] = field(default_factory=dict)
    broken: str | None = None

    def find(self, name: str, tar: str) -> Range:
        """The member of this name, or the only picture of the sample with this key. Raises RowError."""
        check_name(name)
        found = self.members.get(name) or [
            place for each in self.pictures.get(name, ()) for place in self.members[each]
        ]
        if len(found) > 1:
            what = f"members called {name!r}" if name in self.members else f"pictures of sample {name!r}"
            raise RowError("several_pictures", f"{tar} has {len(found)} {what}")
        if not found:
            if self.broken:
                raise RowError("broken_tar", f"{tar}: {self.broken}")
            raise RowError("missing_member", f"{tar} has no picture {name!r}")
        return found[0]


def index(path: Path) -> tuple[Index, Stamp]:
    """The index of a tar, and the stamp of the file that it belongs to. Raises RowError if it cannot be read."""
    made: dict[str, list[Range]] = {}
    pictures: dict[str, list[str]] = {}
    broken = None
    with plain.opened(path, path.name) as (descriptor, stamp), os.fdopen(os.dup(descriptor), "rb") as file:
        try:
            for member in scan(file):
                made.setdefault(member.name, []).append((member.offset, member.size))
                named = key_and_ending(member.name)
                if named and kind(named[1]) in PICTURES and member.name not in pictures.get(named[0], ()):
                    pictures.setdefault(named[0], []).append(member.name)
        except RowError as error:
            broken = error.error
        if Stamp.of(descriptor) != stamp:
            raise changed(path)
    return Index(made, pictures, broken), stamp


def changed(path: Path) -> StorageError:
    """The error of a shard whose tar changed while it was read."""
    return StorageError(f"{path} changed while it was read: run the same command again once it is whole")


class TarMembers:
    """Members of one tar, which must not change meanwhile.

    `cache` is a folder for indexes that other processes read, too: an index of 10,000 samples takes half a second.
    Raises RowError if the tar cannot be read, StorageError if it changes.
    """

    def __init__(self, path: Path, cache: Path | None = None) -> None:
        self.path, self._name = path, path.name
        self._index, self._stamp = _cached(path, cache) if cache else index(path)

    def read(self, name: str, max_bytes: int) -> tuple[bytes, int]:
        """A picture, and where it begins in the tar. `name` is that of a member, or the key of its sample."""
        offset, size = self._index.find(name, self._name)
        plain.check_size(size, max_bytes)
        with self._opened() as descriptor:
            content = os.pread(descriptor, size, offset)
        return content, offset

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with plain.opened(self.path, self._name) as (descriptor, stamp):
            yield descriptor
            if stamp != self._stamp or Stamp.of(descriptor) != stamp:
                raise changed(self.path)


def _cached(path: Path, cache: Path) -> tuple[Index, Stamp]:
    """The index of a tar, from the cache if another process has made it."""
    with plain.opened(path, path.name) as (_, stamp):
        name = hashlib.sha256(json.dumps([str(path), *asdict(stamp).values()]).encode()).hexdigest()
    cache.mkdir(exist_ok=True)
    stored = cache / f"{name}.json"
    with FileLock(cache / f"{name}.lock"):
        if stored.exists():
            return Index(**json.loads(stored.read_bytes())), stamp
        made, of = index(path)
        part = cache / f"{name}.part"
        part.write_text(json.dumps(asdict(made)))
        part.rename(stored)
        return made, of
