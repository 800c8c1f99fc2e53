"""Storage of results: objects under keys, and the few operations on them.

A key is a relative POSIX path ("scores/clip-1a2b3c4d/00007.parquet"). An object appears whole or not at all and is
never edited, so that an existing object means that its work is done. Only a takedown (`pipeline.takedown`) replaces or
removes results. No other module of winnow renames, links or removes one.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import BusyError, StorageError
from pipeline.process.scratch import temporary_folder
from pipeline.store.disk import disk_errors, sync


class Storage:
    """Objects under one local folder. Safe for many readers; the writer of a source holds `lock()`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root) or path == self.root:
            raise StorageError(f"{key!r} is no key: it leads out of {self.root}")
        return path

    def done(self, key: str) -> bool:
        """Whether the object exists. It is whole then."""
        return self._path(key).is_file()

    def fetch(self, key: str) -> Path:
        """The path of a local, read-only copy (here: the object itself). Raises StorageError for a missing object."""
        path = self._path(key)
        if not path.is_file():
            raise StorageError(f"{key} is missing from {self.root}: run `winnow curate`, which makes it again")
        return path

    def put_file(self, key: str, local: Path) -> None:
        """Move a finished local file to the object `key`, atomically and durably. Replaces an existing object."""
        target = self._path(key)
        with disk_errors(self.root):
            _make(target.parent)
            if local.stat().st_dev != target.parent.stat().st_dev:
                with tempfile.NamedTemporaryFile(dir=self._tmp(), delete=False) as copy:
                    shutil.copyfile(local, copy.name)
                local.unlink()
                local = Path(copy.name)
            sync(local)
            local.replace(target)
            sync(target.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create the object `key` unless it exists. True if this call created it; of many callers exactly one does."""
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
            sync(target.parent)  # in either case: the first caller may have died before it synced
            return first

    def remove(self, key: str) -> None:
        """Remove the object, for a takedown. Processes that have it open can still read it."""
        target = self._path(key)
        with disk_errors(self.root):
            target.unlink(missing_ok=True)
            if target.parent.is_dir():
                sync(target.parent)

    def keys(self, prefix: str) -> list[str]:
        """The keys directly inside the folder `prefix`, sorted."""
        folder = self._path(prefix)
        if not folder.is_dir():
            return []
        return sorted(f"{prefix}/{entry.name}" for entry in os.scandir(folder) if entry.is_file())

    def find(self, pattern: str) -> list[str]:
        """The keys that match a pattern such as "scores/*/00007.parquet", sorted. A star matches no slash."""
        found = (path for path in self.root.glob(pattern) if path.is_file())
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder on the same disk, removed afterwards; after a kill, by the next `lock()`.

        Where nothing can be written below the root, for readers, it is in the folder of temporary files.
        """
        with disk_errors(self.root), contextlib.ExitStack() as held:
            try:
                folder = Path(tempfile.mkdtemp(dir=self._tmp()))
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                folder = held.enter_context(temporary_folder())
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer on this machine, or raise BusyError at once. The lock ends with its process.

        Open a store for writing with `pipeline.takedown.writing.writing`, which takes this lock.
        """
        from filelock import FileLock, Timeout

        with disk_errors(self.root):
            _make(self.root)
            try:
                with FileLock(self.root / ".lock", timeout=0):
                    self._sweep()
                    yield
            except Timeout:
                busy = f"another run is writing in {self.root}: wait for it, or stop it, then try again"
                raise BusyError(busy) from None

    def _tmp(self) -> Path:
        folder = self.root / ".tmp" / str(os.getpid())
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _sweep(self) -> None:
        """Remove the scratch of killed processes, after syncing all folders: they may have died before they synced."""
        killed = [folder for folder in (self.root / ".tmp").glob("*") if not _is_alive(int(folder.name))]
        for folder, _, _ in os.walk(self.root) if killed else ():
            with contextlib.suppress(FileNotFoundError):  # a reader's own, which has just ended
                sync(Path(folder))
        for left in killed:
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(process: int) -> bool:
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
        sync(each.parent)
