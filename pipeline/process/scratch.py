"""Temporary folders that go with the process that made them, at the latest when another one makes its own."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "winnow-"
_LOCK = ".lock"
_YOUNG = 60.0
"""Seconds that a folder may have no lock yet."""


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A private folder where temporary files belong, gone afterwards. Removes those that killed processes left."""
    sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(home: Path) -> None:
    """Remove this user's folders in `home` that no process holds. The kernel frees the lock of a killed one."""
    for folder in home.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            state = folder.stat(follow_symlinks=False)
            if state.st_uid == os.getuid() and not folder.is_symlink() and _abandoned(folder, state.st_mtime):
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path, changed: float) -> bool:
    lock = folder / _LOCK
    if not lock.exists():
        return folder.is_dir() and not any(folder.iterdir()) and time.time() - changed > _YOUNG
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
