"""The log: which manifest became the newest one, and when. An entry is `log/<n>.json`, which is never changed.

`winnow gc --keep` removes entries of older manifests (`pipeline.manifest.removed`), and never the newest entry.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.errors import StorageError
from pipeline.manifest import removed
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
    """All entries of the log, oldest first."""
    return [Commit(int(path.stem), **json.loads(path.read_bytes())) for path in storage.fetch_all(storage.keys("log"))]


def newest(storage: Storage, prefix: str | None = None) -> str:
    """The id of the newest manifest, or of the one whose id begins with `prefix`; "-2" is the one before the newest.

    Raises StorageError unless there is exactly one.
    """
    known = [commit.id for commit in commits(storage)]
    if not known:
        raise StorageError(f"nothing is published in {storage.root} yet: run `winnow curate` first")
    if prefix is None:
        return known[-1]
    if re.fullmatch(r"-[1-9]\d*", prefix):
        if int(prefix[1:]) > len(known):
            raise StorageError(f"there is no manifest {prefix}: {len(known)} are published")
        return known[int(prefix)]
    matches = sorted({each for each in known if each.startswith(prefix)})
    if len(matches) != 1:
        gone = removed.ids(storage, prefix)
        if not matches and len(gone) == 1:
            left = ", ".join(each[:12] for each in known[-5:])
            raise StorageError(f"{removed.explain(gone[0])}: take one of {left}")
        some = ", ".join(each[:12] for each in matches or known[-5:])
        raise StorageError(f"{len(matches)} manifests begin with {prefix!r}; choose one of {some}")
    return matches[0]


def check_not_removed(storage: Storage, manifest: str) -> None:
    """Raises StorageError for a manifest that was removed, perhaps after a reader had opened it."""
    if manifest in removed.ids(storage, manifest) and all(each.id != manifest for each in commits(storage)):
        raise StorageError(f"{removed.explain(manifest)}: take a newer one")


def commit(storage: Storage, manifest: str) -> bool:
    """Make a manifest the newest one. Returns False if it already is. Concurrent publishers get different numbers."""
    while True:
        known = commits(storage)
        parent = known[-1].id if known else None
        if parent == manifest:
            return False
        entry = {"id": manifest, "parent": parent, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        number = known[-1].number + 1 if known else 0
        if storage.put_if_absent(f"log/{number:08d}.json", canonical_json(entry)):
            return True
