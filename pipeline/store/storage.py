"""Storage of results: objects under keys, and the few operations on them.

A key is a relative POSIX path ("scores/clip-1a2b3c4d/00007.parquet"). An object appears whole or not at all and is
never edited, so that an existing object means that its work is done. Only a takedown (`pipeline.takedown`) replaces or
removes results, and `winnow gc` removes what nothing needs. No other module of winnow renames, links or removes one.

The objects of a source are in a folder (`pipeline.store.folder`) or in a bucket (`pipeline.store.bucket`).
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pipeline.errors import StorageError
from pipeline.store.folder import Folder
from pipeline.store.places import AT_ONCE, BucketUrl, Place


class Objects(Protocol):
    """What `Storage` needs of a place of objects."""

    @property
    def root(self) -> Place:
        """Where the objects are."""

    @property
    def local(self) -> Path:
        """A folder of this machine that belongs to the place."""

    def exists(self, key: str) -> bool:
        """Whether the object exists."""

    def size(self, key: str) -> int | None:
        """Bytes of the object; None if it does not exist."""

    def fetch(self, keys: Sequence[str]) -> Mapping[str, Path]:
        """Local copies of those objects that exist."""

    def put_file(self, key: str, local: Path) -> None:
        """Move a finished local file to the object."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create the object unless it exists."""

    def remove(self, key: str) -> None:
        """Remove the object, if it exists."""

    def keys(self, prefix: str) -> list[str]:
        """The keys directly inside a folder, sorted."""

    def find(self, pattern: str) -> list[str]:
        """The keys that match a pattern, sorted."""

    def scratch(self) -> AbstractContextManager[Path]:
        """A private folder, removed afterwards."""

    def lock(self) -> AbstractContextManager[None]:
        """Be the only writer."""

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Wait to be the only one in this block."""


class Storage:
    """The objects of a source under `root`. Safe for many readers; the writer of a source holds `lock()`.

    It can be pickled: another process, or another machine that reaches the root, gets the same objects.
    """

    def __init__(self, root: Place) -> None:
        self._objects: Objects = _bucket(root) if isinstance(root, BucketUrl) else Folder(root)
        self.root = self._objects.root

    def __reduce__(self) -> tuple[type["Storage"], tuple[Place]]:
        return Storage, (self.root,)

    @property
    def name(self) -> str:
        """The last part of the root: the name of the source."""
        return self.root.name

    @property
    def local(self) -> "Storage":
        """A store on this machine, for what is made on each machine again: itself, if its root is a folder."""
        return self if isinstance(self.root, Path) else Storage(self._objects.local)

    def beside(self, name: str) -> "Storage":
        """The store of another source under the same root."""
        return Storage(self.root.parent / name)

    def below(self, name: str) -> "Storage":
        """A store in a folder of this one."""
        return Storage(self.root / name)

    def address(self, key: str) -> str:
        """The object's path or URL, for a person."""
        return f"{self.root}/{key}"

    def done(self, key: str) -> bool:
        """Whether the object exists. It is whole then."""
        return self._objects.exists(key)

    def size(self, key: str) -> int:
        """Bytes of the object. Raises StorageError for a missing object."""
        size = self._objects.size(key)
        if size is None:
            raise self._missing(key)
        return size

    def fetch(self, key: str) -> Path:
        """The path of a local, read-only copy. In a folder it is the object itself.

        Raises StorageError for a missing object.
        """
        return self.fetch_all([key])[0]

    def fetch_all(self, keys: Iterable[str]) -> list[Path]:
        """As `fetch`, of several objects at once."""
        keys = list(keys)
        paths = self._objects.fetch(keys)
        for key in keys:
            if key not in paths:
                raise self._missing(key)
        return [paths[key] for key in keys]

    @contextlib.contextmanager
    def offline(self, keys: Iterable[str], known: Iterable[str] = ()) -> Iterator["Storage"]:
        """A store in a folder with copies of these objects, and empty files for `known` ones, which are not read.

        It is for a process without a network. A store in a folder is itself.
        """
        if isinstance(self.root, Path):
            yield self
            return
        keys = list(keys)
        with self.scratch() as scratch:
            local = Storage(scratch / self.name)
            for key, path in zip(keys, self.fetch_all(keys), strict=True):
                Path(local.address(key)).parent.mkdir(parents=True, exist_ok=True)
                Path(local.address(key)).hardlink_to(path)
            for key in set(known) - set(keys):
                Path(local.address(key)).parent.mkdir(parents=True, exist_ok=True)
                Path(local.address(key)).touch()
            yield local

    def put_file(self, key: str, local: Path) -> None:
        """Move a finished local file to the object `key`, atomically and durably. Replaces an existing object."""
        self._objects.put_file(key, local)

    def put_files(self, files: Mapping[str, Path]) -> None:
        """As `put_file`, of several files by key; in a bucket several at once."""
        with ThreadPoolExecutor(1 if isinstance(self.root, Path) else AT_ONCE) as pool:
            list(pool.map(self.put_file, files.keys(), files.values()))

    def prepare(self, keys: Iterable[str]) -> None:
        """Make local copies of those of the objects that exist, in a bucket several at once."""
        self._objects.fetch(list(keys))

    @contextlib.contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """A path to write, of which the object `key` is made at the end of the block. Replaces an existing object."""
        with self.scratch() as scratch:
            path = scratch / Path(key).name
            yield path
            self.put_file(key, path)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create the object `key` unless it exists. True if this call created it; of many callers exactly one does."""
        return self._objects.put_if_absent(key, data)

    def remove(self, key: str) -> None:
        """Remove the object, if it is there. Processes that have it open can still read it."""
        self._objects.remove(key)

    def keys(self, prefix: str) -> list[str]:
        """The keys directly inside the folder `prefix`, sorted."""
        return self._objects.keys(prefix)

    def find(self, pattern: str) -> list[str]:
        """The keys that match a pattern such as "scores/*/00007.parquet", sorted. A star matches no slash."""
        return self._objects.find(pattern)

    def scratch(self) -> AbstractContextManager[Path]:
        """A private folder on the disk of local copies, removed afterwards; after a kill, by a later run.

        Where nothing can be written below the root, for readers, it is in the folder of temporary files.
        """
        return self._objects.scratch()

    def lock(self) -> AbstractContextManager[None]:
        """Be the only writer, or raise BusyError. A folder is locked for this machine, a bucket for all.

        Open a store for writing with `pipeline.takedown.writing.writing`, which takes this lock.
        """
        return self._objects.lock()

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Wait to be the only one in this block, for a small change to an object inside the folder `name`."""
        return self._objects.turn(name)

    def _missing(self, key: str) -> StorageError:
        return StorageError(f"{key} is missing from {self.root}: run `winnow curate`, which makes it again")


def sources(root: Place, having: str) -> list[str]:
    """The names of the sources under a root that have an object inside the folder `having`, sorted."""
    if isinstance(root, BucketUrl):
        from pipeline.store.bucket import names

        return [name for name in names(root) if Storage(root / name).keys(having)]
    return sorted(path.parent.name for path in root.glob(f"*/{having}") if path.is_dir())


def _bucket(root: BucketUrl) -> Objects:
    from pipeline.store.bucket import Bucket  # obstore is loaded where a bucket is used

    return Bucket(root)
