"""Copies of objects in a forked process, where the client of an object store that its parent used waits forever."""

from pathlib import Path

from pipeline.process.calls import Limits, call
from pipeline.store.storage import Storage

_LIMITS = Limits(deadline=7200, memory=1 << 44)


def fetch(storage: Storage, key: str) -> Path:
    """As `storage.fetch`, in a process of its own. Raises StorageError."""
    path: Path = call("pipeline.store.forked:fetch_here", storage, key, limits=_LIMITS)
    return path


def fetch_here(storage: Storage, key: str) -> Path:
    """In that process."""
    return storage.fetch(key)
