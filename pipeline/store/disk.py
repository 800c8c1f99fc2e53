"""What a broken disk says, in one line."""

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
    """Turn what the disk says, in any library's words, into one line with the way out; `option` names the folder."""
    try:
        yield
    except Exception as error:
        number, words = errno_of(error), str(error).replace(_BROKEN, "")
        elsewhere = str(root) not in words and "/" in words
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            where = tempfile.gettempdir() if elsewhere and tempfile.gettempdir() in words else root
            raise StorageError(
                f"no space left in {where}: free some and run the same command again; nothing was lost"
            ) from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS) and not elsewhere:
            raise StorageError(
                f"cannot write in {root}: {os.strerror(number)}; choose another folder with {option}"
            ) from error
        if broken := disk_broken(error):
            raise StorageError(f"{broken}; or choose another folder with {option}") from error
        raise


def disk_broken(error: Exception) -> str | None:
    """What to say of a disk that gives an input/output error, whoever met it; None of any other error."""
    if errno_of(error) != errno.EIO:
        return None
    quoted = re.search(r'"(/[^"]+)"', str(error))  # as DuckDB does
    named = getattr(error, "filename", None) or (quoted and quoted[1])
    return f"the disk fails{f' at {named}' if named else ''}: {_BROKEN}; see to it, then run the same command again"


def errno_of(error: Exception) -> int | None:
    """Of an error of the disk, unless it was told in a line before; DuckDB's have its words alone."""
    if isinstance(error, StorageError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    return next((number for number in told if os.strerror(number) in str(error)), None)
