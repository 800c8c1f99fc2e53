"""Reads a range of a regular file, with a bound, and notices if the file changes meanwhile."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.failure import CHANGED_FILE, RowError


@dataclass(frozen=True)
class Stamp:
    """What a file shows of its content without being read: inode, bytes, and time of the last change in ns."""

    inode: int
    size: int
    changed: int

    @classmethod
    def of(cls, descriptor: int) -> "Stamp":
        """Of an open file. Raises RowError if it is no regular file."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise RowError("missing_file", "this is no file")
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)


@contextmanager
def opened(path: Path, name: str) -> Iterator[tuple[int, Stamp]]:
    """A descriptor of a regular file, and its stamp. Raises RowError, in which it is called `name`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not wait for a writer
    except (FileNotFoundError, NotADirectoryError):
        raise RowError("missing_file", f"there is no file {name}") from None
    except OSError as error:
        raise unreadable(name, error) from None
    try:
        yield descriptor, Stamp.of(descriptor)
    except OSError as error:
        raise unreadable(name, error) from error
    finally:
        os.close(descriptor)


def read(path: Path, name: str, max_bytes: int) -> bytes:
    """The whole file. Raises RowError: missing_file, unreadable, empty, too_large or changed_file."""
    with opened(path, name) as (descriptor, before):
        check_size(before.size, max_bytes)
        content = os.pread(descriptor, before.size, 0)
        if len(content) < before.size or Stamp.of(descriptor) != before:
            raise RowError(CHANGED_FILE, f"{name} changed while it was read")
        return content


def check_size(size: int, max_bytes: int) -> None:
    """Raises RowError for a picture of no bytes, or of more than `max_bytes`."""
    if size > max_bytes:
        raise RowError("too_large", f"more than {max_bytes} bytes")
    if size == 0:
        raise RowError("empty", "no bytes")


def unreadable(name: str, error: OSError) -> RowError:
    """The failure of a row whose file cannot be read."""
    return RowError("unreadable", f"{name} cannot be read: {error.strerror or error}")
