"""Digests of large files, kept in the user's cache, so that a run does not read gigabytes to find nothing changed.

A digest is used again only for the same file by path, inode, size and the times of its last change, which the kernel
sets and no program can set back. It is not kept for a file that changed a moment ago.
"""

import functools
import hashlib
import os
import time
from pathlib import Path

from pipeline.store import user_cache
from pipeline.store.digests import file_digest

LARGE = 16 << 20
"""Bytes from which a digest is kept."""

SETTLED = 2.0
"""Seconds without a change, after which a further change gets another time."""


def digest_of(path: Path) -> str:
    """sha256 of a file, in hex."""
    before = path.stat()
    if before.st_size < LARGE:
        return file_digest(path)
    kept, state = _place(path), _state(before)
    known = user_cache.read(kept)
    if known.get("state") == state and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    found = _digest(path, *state)
    if _state(path.stat()) == state and time.time() - before.st_ctime > SETTLED:
        user_cache.write(kept, {"state": state, "sha256": found})
    return found


@functools.cache
def _digest(path: Path, *state: int) -> str:
    """Computed once a process while the file stays as it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(stat: os.stat_result) -> list[int]:
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _place(path: Path) -> Path:
    return user_cache.place("digests", hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32])
