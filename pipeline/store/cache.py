"""Local copies of the objects of buckets, in a folder of limited size that all processes of a person share.

The copies that were not used for the longest time are removed first, and none that is in use: a copy that was used
since the oldest living process of winnow began is kept. Copies of pictures and embeddings, which are large and are
read a shard at a time, are kept for `BRIEFLY` seconds after their last use. An open file stays readable in any case.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from pipeline.errors import StorageError

FOLDER = "WINNOW_CACHE"
"""The variable that names the folder."""

LIMIT = "WINNOW_CACHE_GB"
"""The variable with the limit of its size, in 10^9 bytes. By default it is a fifth of the disk."""

BRIEFLY = 600.0
"""Seconds."""

_LARGE = (".tar", ".npy")

_FULL = (errno.ENOSPC, errno.EDQUOT)

_ROOM = 1 << 30
"""Bytes of the disk that are made free, if copies can be removed, before something is written."""


class Cache:
    """A folder of copies by name, a relative path. Any process and thread may use it at the same time."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self._limit = folder, limit
        self._added = limit  # the first copy looks at the size of the folder
        with self._errors():
            folder.mkdir(parents=True, exist_ok=True)
            self._own = _register(folder)

    def path(self, name: str) -> Path:
        """Where the copy is, if there is one."""
        return self.folder / "copies" / name

    def get(self, name: str) -> Path | None:
        """The copy, which is in use from now on; None if there is none."""
        path = self.path(name)
        try:
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        except FileNotFoundError:
            return None
        return path

    def add(self, write: Callable[[Path], tuple[str, float] | None]) -> Path | None:
        """Make a copy. `write` fills a file, and returns the name and the time of modification; or None, for no copy.

        Raises StorageError if the disk is full even without the copies that are not in use.
        """
        with self._errors():
            try:
                return self._add(write)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self.shrink(0)
                return self._add(write)

    def adopt(self, name: str, local: Path, modified: float) -> Path:
        """Make a copy of a finished file, by moving it. Raises StorageError."""
        path, length = self.path(name), local.stat().st_size
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            if local.stat().st_dev != path.parent.stat().st_dev:
                with tempfile.NamedTemporaryFile(dir=self._own, delete=False) as copy:
                    shutil.copyfile(local, copy.name)
                local = Path(copy.name)
            os.utime(local, (time.time(), modified))
            local.replace(path)
        self._added += length
        if self._added > self._limit // 20:
            self._added = 0
            self.shrink(self._limit)
        return path

    def drop(self, name: str) -> None:
        """Remove the copy, or all copies in a folder."""
        path = self.path(name)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private folder on the disk of the copies."""
        with self._errors():
            if shutil.disk_usage(self.folder).free < _ROOM:
                self.shrink(0)
            folder = Path(tempfile.mkdtemp(dir=self._own))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def shrink(self, limit: int) -> None:
        """Remove copies that are not in use until their size is below `limit` bytes."""
        with (self.folder / "shrink.lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # another process does it
            oldest = _oldest(self.folder)
            copies = sorted(_copies(self.folder / "copies"))
            size = sum(each[2] for each in copies)
            for used, path, length in copies:
                if size <= limit:
                    return
                before = max(oldest, time.time() - BRIEFLY) if path.endswith(_LARGE) else oldest
                if used < before:
                    size -= _remove_unused(Path(path), before) * length

    def _add(self, write: Callable[[Path], tuple[str, float] | None]) -> Path | None:
        descriptor, made = tempfile.mkstemp(dir=self._own)
        os.close(descriptor)
        try:
            named = write(Path(made))
            return self.adopt(named[0], Path(made), named[1]) if named else None
        finally:
            Path(made).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (*_FULL, errno.EACCES, errno.EPERM, errno.EROFS):
                raise StorageError(
                    f"cannot keep copies in {self.folder}: {error.strerror}; free some space and run the same command "
                    f"again, or name another folder with {FOLDER}; nothing is lost"
                ) from error
            raise


@cache
def of_user() -> Cache:
    """The cache of this process: the folder and the limit that the variables name. Raises StorageError."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get(FOLDER) or home / "winnow").absolute()
    given = os.environ.get(LIMIT)
    try:
        limit = int(float(given) * 1e9) if given else None
        if limit is not None and limit < 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise StorageError(f"{LIMIT} is {given!r}: set it to a number, the size of {folder} in GB") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot keep copies in {folder}: {error.strerror}; name another folder with {FOLDER}"
        ) from error
    return Cache(folder, shutil.disk_usage(folder).total // 5 if limit is None else limit)


_held: list[int] = []
"""Descriptors with the locks of this process, which end with it."""


def _register(folder: Path) -> Path:
    """A folder of this process in the cache, locked while it lives. Removes those of processes that ended."""
    users = folder / "users"
    users.mkdir(exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=users))
    _held.append(os.open(own, os.O_RDONLY))
    fcntl.flock(_held[-1], fcntl.LOCK_EX)
    (own / "began").touch()
    for other in users.iterdir():
        if other != own and not _lives(other):
            shutil.rmtree(other, ignore_errors=True)
    return own


def _lives(user: Path) -> bool:
    """Whether the process of this folder lives, or has just made it."""
    try:
        descriptor = os.open(user, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return not (user / "began").exists()
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _oldest(folder: Path) -> float:
    """When the oldest living process began, in seconds since 1970."""
    began = [time.time()]
    for user in (folder / "users").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if _lives(user):
                began.append((user / "began").stat().st_mtime)
    return min(began)


def _remove_unused(path: Path, before: float) -> bool:
    """Remove a copy that was not used since; another process may have used it since the folder was read."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_atime >= before:
            return False
        path.unlink()
    return True


def _copies(folder: Path) -> Iterator[tuple[float, str, int]]:
    """The time of the last use, the path and the size of each copy."""
    for below, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                path = Path(below, name)
                status = path.stat()
                yield status.st_atime, str(path), status.st_size
