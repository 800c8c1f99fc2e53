"""Which source file the results in a store are of: two files with one name may not share a store."""

import json
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
    if not source.path.name:  # it was made without a file
        return
    path = source.path.resolve()
    if storage.done(KEY):
        owner = Path(json.loads(storage.fetch(KEY).read_bytes())["path"])
        if owner == path:
            return
        if owner.is_file() and not owner.samefile(path):
            raise SourceError(
                f"{storage.root} holds the results of {owner}: give {path} another name, or choose another --root"
            )
    with storage.scratch() as scratch:
        (scratch / KEY).write_bytes(canonical_json({"path": str(path)}))
        storage.put_file(KEY, scratch / KEY)
