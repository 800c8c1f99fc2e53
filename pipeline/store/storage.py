"""Keys, not paths: where results live, and the few verbs that touch them.

A key is a relative POSIX path ("scores/clip-1a2b3c4d/00007.parquet"). An object appears whole or not at all,
and is never edited, so that a finished object under its key means done. Only a takedown
(`pipeline.takedown`) replaces or removes one. Nothing else in winnow renames, links or removes a result.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import BusyError, StorageError
from pipeline.store.disk import disk_errors


class Storage:
    """Objects under one local folder. Safe for many readers; writers of one source hold `lock()`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root) or path == self.root:
            raise StorageError(f"{key!r} is no key: it leaves the store")
        return path

    def done(self, key: str) -> bool:
        """Whether the object is there, whole."""
        return self._path(key).is_file()

    def fetch(self, key: str) -> Path:
        """A local, read-only copy of the object (here: the object itself). Raises StorageError if it is missing."""
        path = self._path(key)
        if not path.is_file():
            raise StorageError(f"{key} is missing from {self.root}: run `winnow curate` again to make it anew")
        return path

    def put_file(self, key: str, local: Path) -> None:
        """Make a finished local file the object `key`, in one step, durably. The local file is consumed."""
        target = self._path(key)
        with disk_errors(self.root):
            _make(target.parent)
            if local.stat().st_dev != target.parent.stat().st_dev:
                with tempfile.NamedTemporaryFile(dir=self._tmp(), delete=False) as copy:
                    shutil.copyfile(local, copy.name)
                local.unlink()
                local = Path(copy.name)
            _sync(local)
            local.replace(target)
            _sync(target.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create the object `key` unless it exists; True if this call made it. Of many callers exactly one wins."""
        target = self._path(key)
        with disk_errors(self.root):
            _make(target.parent)
            with tempfile.NamedTemporaryFile(dir=self._tmp(), delete=False) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(file.name, target)
                first = True
            except FileExistsError:
                first = False
            finally:
                Path(file.name).unlink()
            _sync(target.parent)  # in either case: whoever came first may not have come as far as this
            return first

    def remove(self, key: str) -> None:
        """Let the object be gone, for a takedown. Whoever reads it at this moment reads on."""
        target = self._path(key)
        with disk_errors(self.root):
            target.unlink(missing_ok=True)
            if target.parent.is_dir():
                _sync(target.parent)

    def keys(self, prefix: str) -> list[str]:
        """The keys directly inside the folder `prefix`, sorted."""
        folder = self._path(prefix)
        if not folder.is_dir():
            return []
        return sorted(f"{prefix}/{entry.name}" for entry in os.scandir(folder) if entry.is_file())

    def find(self, pattern: str) -> list[str]:
        """The keys that fit a pattern such as "scores/*/00007.parquet", sorted. A star stands for no slash."""
        found = (path for path in self.root.glob(pattern) if path.is_file())
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder on the same disk, gone afterwards. A killed run's is removed by the next `lock()`."""
        with disk_errors(self.root):
            folder = Path(tempfile.mkdtemp(dir=self._tmp()))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer on this machine, or raise BusyError at once. The lock dies with its process."""
        from filelock import FileLock, Timeout

        with disk_errors(self.root):
            _make(self.root)
            try:
                with FileLock(self.root / ".lock", timeout=0):
                    self._sweep()
                    yield
            except Timeout:
                busy = f"another run is at work in {self.root}: wait for it, or stop it, then try again"
                raise BusyError(busy) from None

    def _tmp(self) -> Path:
        folder = self.root / ".tmp" / str(os.getpid())
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _sweep(self) -> None:
        """Remove what killed processes left half-written, once what they put is synced: they may have died before."""
        killed = [folder for folder in (self.root / ".tmp").glob("*") if not _lives(int(folder.name))]
        for folder, _, _ in os.walk(self.root) if killed else ():
            with contextlib.suppress(FileNotFoundError):  # a reader's own, which has just ended
                _sync(Path(folder))
        for left in killed:
            shutil.rmtree(left, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _make(folder: Path) -> None:
    """Make a folder that a power cut leaves there."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _sync(each.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
