"""Objects as files below a folder of this machine."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.errors import BusyError, StorageError
from pipeline.process.scratch import temporary_folder
from pipeline.store.disk import disk_errors, sync


class Folder:
    """`pipeline.store.storage.Objects` in a folder. Its lock is a file lock, and holds for this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def path(self, key: str) -> Path:
        """The file of an object, whether it exists or not. Raises StorageError for a key that leads out."""
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root) or path == self.root:
            raise StorageError(f"{key!r} is no key: it leads out of {self.root}")
        return path

    def exists(self, key: str) -> bool:
        """Whether the file is there."""
        return self.path(key).is_file()

    def size(self, key: str) -> int | None:
        """Bytes of the object; None if it does not exist."""
        path = self.path(key)
        return path.stat().st_size if path.is_file() else None

    def fetch(self, keys: Sequence[str]) -> Mapping[str, Path]:
        """The files of those objects that exist."""
        paths = {key: self.path(key) for key in keys}
        return {key: path for key, path in paths.items() if path.is_file()}

    def put_file(self, key: str, local: Path) -> None:
        """Move a finished file to the object, atomically and durably."""
        target = self.path(key)
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
        """Create the object by a link, which exactly one of many callers can make."""
        target = self.path(key)
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
        """Remove the file. Processes that have it open can still read it."""
        target = self.path(key)
        with disk_errors(self.root):
            target.unlink(missing_ok=True)
            if target.parent.is_dir():
                sync(target.parent)

    def keys(self, prefix: str) -> list[str]:
        """The keys directly inside the folder `prefix`, sorted."""
        folder = self.path(prefix)
        if not folder.is_dir():
            return []
        return sorted(f"{prefix}/{entry.name}" for entry in os.scandir(folder) if entry.is_file())

    def find(self, pattern: str) -> list[str]:
        """The keys that match a pattern, sorted."""
        found = (path for path in self.root.glob(pattern) if path.is_file())
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder below `.tmp`, on the disk of the objects, so that a finished file can be moved."""
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
        """A file lock, which ends with its process. Raises BusyError if another process has it."""
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

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """A file lock in the folder `name`, waited for."""
        from filelock import FileLock

        folder = self.path(name)
        with disk_errors(self.root):
            _make(folder)
            with FileLock(folder / ".lock"):
                yield

    @property
    def local(self) -> Path:
        """The folder itself."""
        return self.root

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
