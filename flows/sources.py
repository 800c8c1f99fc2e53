"""From a name that a person types to a source and its results. Errors are raised before any work starts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import SourceError
from pipeline.store import storage as store
from pipeline.store.places import Place
from pipeline.store.storage import Storage

if TYPE_CHECKING:
    from pipeline.sources.source import Source


def load(name: str, root: Place) -> tuple["Source", Storage]:
    """The source that a path or a name means, and the store of its results, whose catalogue follows a move.

    Raises SourceError.
    """
    from pipeline.manifest import database
    from pipeline.sources import loading

    described = loading.load(name)
    storage = Storage(root / described.name)
    database.follow(storage)
    return described, storage


def published(root: Place, names: Sequence[str]) -> list[Storage]:
    """The stores of the named sources, or of the only source under the root. Raises SourceError."""
    existing = store.sources(root, "log")
    if not existing:
        raise SourceError(f"nothing is published under {root}: run `winnow curate` first, or name another --root")
    if not names and len(existing) > 1:
        raise SourceError(f"{root} has several sources; choose with --source: {', '.join(existing)}")
    for name in names:
        if name not in existing:
            raise SourceError(f"nothing is published under {root} for {name!r}; there is {', '.join(existing)}")
    return [Storage(root / name) for name in names or existing]


def stored(root: Place) -> list[tuple["Source | None", Storage]]:
    """Every source with results under the root, and its file in data_manifests/, or None if it has none there."""
    from pipeline.sources import loading

    files = {path.stem: path for path in loading.source_files()}
    names = store.sources(root, "ledger")
    if not names:
        raise SourceError(f"there is no source under {root}; name another --root")
    return [(loading.load(files[name]) if name in files else None, Storage(root / name)) for name in names]
