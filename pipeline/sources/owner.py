"""Which source file the results in a store are of: two files with one name may not share a store."""

import json
import re
from pathlib import Path

from pipeline.errors import SourceError
from pipeline.sources.source import Source
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage

KEY = "source.json"
"""The object with the path of the source file. A store of an older winnow has none, and gets one."""


def claim(source: Source, storage: Storage) -> None:
    """Record that the store holds the results of this file. The caller holds the lock.

    A file that was moved keeps its store. Raises SourceError if the results are of another file that still exists.
    """
    path = source.path.resolve()
    if not source.path.name or check(source, storage) == path:  # without a name it was made without a file
        return
    with storage.making(KEY) as made:
        made.write_bytes(canonical_json({"path": str(path)}))


def check(source: Source, storage: Storage) -> Path | None:
    """The file that the store records; None if it records none. Raises SourceError as `claim` does."""
    if not source.path.name or not storage.done(KEY):
        return None
    path, owner = source.path.resolve(), Path(json.loads(storage.fetch(KEY).read_bytes())["path"])
    if _origin(owner) != _origin(path) and owner.is_file() and not owner.samefile(path):
        raise SourceError(
            f"{storage.root} holds the results of {owner}: give {path} another name, or choose another --root"
        )
    return owner


def _origin(path: Path) -> str:
    """The path, or its part inside the working directory of a job of Ray, which unpacks each upload to a new folder."""
    return re.sub(r"^.*/_ray_pkg_[0-9a-f]+/", "_ray_pkg/", path.as_posix())
