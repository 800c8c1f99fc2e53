"""The stored pictures of a selection: tar by tar, or any one of them."""

import contextlib
import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.engine.prefetch import Prefetched
from pipeline.errors import StorageError
from pipeline.store import forked, tarfiles
from pipeline.store.storage import Storage
from winnow.torch.selection import Numbers, Selection

_OPEN = 64
"""Tars that a process has open for `Pictures.read`, at most."""


_AT_ONCE = 65_536
"""Integers of Python that are made at once."""


class _Tar:
    """A tar that is open as long as something refers to it."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.open("rb", buffering=0)
        found = os.fstat(self.file.fileno())
        self.identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.file.close()


class Pictures:
    """The JPEGs of a selection's pictures, by their numbers. Files are opened when they are needed. Can be pickled."""

    def __init__(self, storage: Storage, stage: str, selection: Selection) -> None:
        self._storage, self._stage, self._selection = storage, stage, selection
        self._offsets = np.full(len(selection.shards), -1, np.int64)
        self._sizes = np.zeros(len(selection.shards), np.int64)
        self._indexed: dict[int, tuple[int, ...]] = {}
        self._open = lru_cache(_OPEN)(self._opened)
        self._made_by = os.getpid()

    def __reduce__(self) -> tuple[type["Pictures"], tuple[Storage, str, Selection]]:
        return Pictures, (self._storage, self._stage, self._selection)

    def read(self, number: int) -> bytes:
        """One picture. Reads the headers of each tar once. Raises StorageError for a missing or damaged tar."""
        shard = int(self._selection.shards[number])
        with self._reported(shard):
            tar = self._open(shard)
            if self._indexed.get(shard) != tar.identity:
                self._index(shard, tar.path)
                self._indexed[shard] = tar.identity
            if self._offsets[number] < 0:
                raise self._missing(number)
            return tarfiles.read_at(tar.file, int(self._offsets[number]), int(self._sizes[number]))

    def read_in_order(self, numbers: Numbers, shards: npt.NDArray[np.int32]) -> Iterator[bytes]:
        """These pictures, which may repeat. Each tar is read once, from its beginning, in the order of `shards`.

        A picture is in memory from the time its tar reaches it until its last use. Raises StorageError.
        """
        held: dict[int, bytes] = {}
        with contextlib.closing(self._arrivals(numbers, shards)) as arriving:
            for number, last in zip(integers(numbers), integers(_last_uses(numbers)), strict=True):
                while number not in held:
                    arrived, content = next(arriving)
                    held[arrived] = content
                yield held.pop(number) if last else held[number]

    def _arrivals(self, numbers: Numbers, shards: npt.NDArray[np.int32]) -> Generator[tuple[int, bytes], None, None]:
        needed = np.unique(numbers)
        of = self._selection.shards[needed]
        there = set(of.tolist())
        for shard, path in self._fetched([shard for shard in shards.tolist() if shard in there]):
            here = needed[np.searchsorted(of, shard) : np.searchsorted(of, shard, side="right")]
            names = self._selection.members.take(here).to_pylist()
            wanted = dict(zip(names, here.tolist(), strict=True))
            with self._reported(shard):
                for name, content in tarfiles.read(path, wanted):
                    yield wanted.pop(name), content
                    if not wanted:
                        break
            if wanted:
                raise self._missing(min(wanted.values()))

    def _fetched(self, shards: list[int]) -> Iterator[tuple[int, Path]]:
        """The tars of shards. From a bucket the next one is fetched while one is read."""
        paths = ((shard, self._path(shard)) for shard in shards)
        if isinstance(self._storage.root, Path):
            yield from paths
            return
        with ThreadPoolExecutor(1, thread_name_prefix="fetch") as thread:
            yield from Prefetched(paths, thread)

    def _index(self, shard: int, path: Path) -> None:
        here = np.flatnonzero(self._selection.shards == shard)
        places = tarfiles.index(path)
        found = [places.get(name, (-1, 0)) for name in self._selection.members.take(here).to_pylist()]
        self._offsets[here], self._sizes[here] = np.array(found, np.int64).T

    def _opened(self, shard: int) -> _Tar:
        return _Tar(self._path(shard))

    def _path(self, shard: int) -> Path:
        key = f"shards-{self._stage}/{shard:05d}.tar"
        if isinstance(self._storage.root, Path) or os.getpid() == self._made_by:
            return self._storage.fetch(key)
        return forked.fetch(self._storage, key)  # the process that made this has used the client of the bucket

    @contextlib.contextmanager
    def _reported(self, shard: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"the tar of shard {shard:05d} cannot be read: {error}") from error

    def _missing(self, number: int) -> StorageError:
        return StorageError(
            f"shard {self._selection.shards[number]:05d} has no picture {self._selection.members[number]}: open the "
            "newest manifest, or remove the shard's .tar and .parquet and run `winnow curate`"
        )


def integers(values: npt.NDArray[Any]) -> Iterator[int]:
    """The values as Python's integers, which take five times the memory: some at a time."""
    for start in range(0, len(values), _AT_ONCE):
        yield from values[start : start + _AT_ONCE].tolist()


def _last_uses(numbers: Numbers) -> npt.NDArray[np.bool_]:
    """Which of the numbers do not come again."""
    last = np.zeros(len(numbers), np.bool_)
    last[len(numbers) - 1 - np.unique(numbers[::-1], return_index=True)[1]] = True
    return last
