"""The log: which manifest became the newest one, and when. An entry is `log/<n>.json`, and is never changed."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage


@dataclass(frozen=True)
class Commit:
    """An entry of the log: a manifest became the newest one. `time` is UTC, ISO 8601."""

    number: int
    id: str
    parent: str | None
    time: str


def commits(storage: Storage) -> list[Commit]:
    """What was published, oldest first."""
    return [Commit(int(Path(key).stem), **json.loads(storage.fetch(key).read_bytes())) for key in storage.keys("log")]


def commit(storage: Storage, manifest: str) -> bool:
    """Make a manifest the newest one; False if it is. Each of several publishers at once gets a number of its own."""
    while True:
        known = commits(storage)
        parent = known[-1].id if known else None
        if parent == manifest:
            return False
        entry = {"id": manifest, "parent": parent, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        number = known[-1].number + 1 if known else 0
        if storage.put_if_absent(f"log/{number:08d}.json", canonical_json(entry)):
            return True
