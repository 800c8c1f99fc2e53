"""Errors of the disk, in one line."""

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import StorageError

_BROKEN = os.strerror(errno.EIO)


@contextlib.contextmanager
def disk_errors(root: Path, option: str = "--root") -> Iterator[None]:
    """Turn an error of the disk, from any library, into a StorageError of one line. `option` chooses another folder."""
    try:
        yield
    except Exception as error:
        number, words = errno_of(error), str(error).replace(_BROKEN, "")
        elsewhere = str(root) not in words and "/" in words
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            where = tempfile.gettempdir() if elsewhere and tempfile.gettempdir() in words else root
            raise StorageError(
                f"no space left in {where}: free some and run the same command again; nothing is lost"
            ) from error
        nowhere = number in (errno.ENOENT, errno.ENOTDIR) and not root.is_dir()
        if nowhere or (number in (errno.EACCES, errno.EPERM, errno.EROFS) and not elsewhere):
            raise StorageError(
                f"cannot write in {root}: {os.strerror(number or 0)}; choose another folder with {option}"
            ) from error
        if broken := disk_broken(error):
            raise StorageError(f"{broken}; or choose another folder with {option}") from error
        raise


def disk_broken(error: Exception) -> str | None:
    """The message for an input/output error of the disk, from any library; None for any other error."""
    if errno_of(error) != errno.EIO:
        return None
    quoted = re.search(r'"(/[^"]+)"', str(error))  # as DuckDB does
    named = getattr(error, "filename", None) or (quoted and quoted[1])
    return (
        f"the disk fails{f' at {named}' if named else ''}: {_BROKEN}; check the disk, then run the same command again"
    )


def errno_of(error: Exception) -> int | None:
    """The errno of an error of the disk; None for other errors, and for a StorageError, which is one line already.

    Errors of DuckDB and safetensors have no number, only the text.
    """
    if isinstance(error, StorageError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
    return next((number for number in numbers if os.strerror(number) in str(error)), None)


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk, so that a power cut does not take them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
