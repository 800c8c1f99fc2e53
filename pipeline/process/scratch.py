"""Temporary folders that go with the process that made them, at the latest when another one makes its own."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PREFIX = "winnow-"
_LOCK = ".lock"
_YOUNG = 60.0
"""Seconds that a folder may have no lock yet."""


@contextlib.contextmanager
def temporary_folder(home: Path | None = None) -> Iterator[Path]:
    """A private folder where temporary files belong, gone afterwards. Removes those that killed processes left.

    With a `home` it is a hidden folder in there, to be on the same disk.
    """
    prefix = f".{PREFIX}" if home else PREFIX
    home = home or Path(tempfile.gettempdir())
    sweep(home, prefix)
    folder, lock = _held_folder(home, prefix)
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _held_folder(home: Path, prefix: str) -> tuple[Path, IO[str]]:
    """A new folder and its lock. If a sweep takes the lock file first, it removes the folder: then another."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=home))
        lock = (folder / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock.fileno()).st_nlink:
            return folder, lock
        lock.close()


def sweep(home: Path, prefix: str = PREFIX) -> None:
    """Remove this user's folders in `home` that no process holds. The kernel frees the lock of a killed one."""
    for folder in home.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            state = folder.stat(follow_symlinks=False)
            if state.st_uid == os.getuid() and not folder.is_symlink():
                _remove_if_abandoned(folder, state.st_mtime)


def _remove_if_abandoned(folder: Path, changed: float) -> None:
    """Hold the lock while the folder goes, so that its owner does not take it. Raises OSError if it is held."""
    lock = folder / _LOCK
    if lock.exists():
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    elif not any(folder.iterdir()) and time.time() - changed > _YOUNG:
        shutil.rmtree(folder, ignore_errors=True)
