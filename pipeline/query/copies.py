"""What the views of a query read, in a folder of this machine: the process of the query has no network."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.store.storage import Storage


@contextmanager
def in_folder(storage: Storage, sql: str, manifest: str | None = None) -> Iterator[Path]:
    """The root of a store with all that the views named by the SQL read: its own root, if that is a folder.

    Raises QueryError for SQL that is no SELECT.
    """
    if isinstance(storage.root, Path):
        yield storage.root
        return
    read, known = _keys(storage, sql, manifest)
    with storage.offline(read, known) as local:
        yield Path(local.address(""))


def _keys(storage: Storage, sql: str, manifest: str | None) -> tuple[list[str], list[str]]:
    """The keys of the objects to read, and of those that only need to exist."""
    from pipeline.manifest.log import commits
    from pipeline.manifest.manifest import Manifest
    from pipeline.query import statement

    names = statement.check(sql)
    ids = list(dict.fromkeys(commit.id for commit in commits(storage)))
    chosen = Manifest.open(storage, manifest)
    read, known = [chosen], list[str]()
    if names & {"history", "manifests"}:
        every = [Manifest.open(storage, name) for name in ids]
        there = [each for each in every if each.complete]
        read += there if "history" in names else []
        known += [key for each in there for part in each.parts for key in (part.rows, part.verdicts)]
    keys = [f"manifests/{name}.json" for name in ids if names & {"history", "manifests"} or name == chosen.id]
    keys += [key for each in read for part in each.parts for key in (part.rows, part.verdicts)]
    keys += [key for folder in ("trials", "draws") if names & {"trials", "trained_on"} for key in storage.keys(folder)]
    return [*storage.keys("log"), *dict.fromkeys(keys)], known
