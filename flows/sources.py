"""From a name that a person types to a source and its results. Errors are raised before any work starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SourceError
from pipeline.store.storage import Storage

if TYPE_CHECKING:
    from pipeline.sources.source import Source


def load(name: str, root: Path) -> tuple["Source", Storage]:
    """The source that a path or a name means, and the store of its results, whose catalogue follows a move.

    Raises SourceError.
    """
    from pipeline.manifest import database
    from pipeline.sources import loading

    described = loading.load(name)
    storage = Storage(root / described.name)
    database.follow(storage)
    return described, storage


def check(name: str) -> "Source":
    """The source, with its filters bound against the columns that its rows will have. Raises WinnowError."""
    from pipeline.filtering import distinct, predicates
    from pipeline.ledger import lists
    from pipeline.sources import loading
    from pipeline.sources.columns import row_columns

    described = loading.load(name)
    columns = lists.extra_columns(described)
    if columns is not None:
        columns = row_columns(columns, described.scorers)
        predicates.bind(described.own_recipe.filters, columns)
        radii = {name: spec.radius for name, spec in described.neighbour_scorers.items()}
        distinct.check(described.own_recipe.distinct, radii, columns)
    return described


def published(root: Path, names: Sequence[str]) -> list[Storage]:
    """The stores of the named sources, or of the only source under the root. Raises SourceError."""
    existing = sorted(path.parent.name for path in root.glob("*/log") if path.is_dir())
    if not existing:
        raise SourceError(f"nothing is published under {root}: run `winnow curate` first, or name another --root")
    if not names and len(existing) > 1:
        raise SourceError(f"{root} has several sources; choose with --source: {', '.join(existing)}")
    for name in names:
        if name not in existing:
            raise SourceError(f"nothing is published under {root} for {name!r}; there is {', '.join(existing)}")
    return [Storage(root / name) for name in names or existing]


def stored(root: Path) -> list[tuple["Source | None", Storage]]:
    """Every source with results under the root, and its file in data_manifests/, or None if it has none there."""
    from pipeline.sources import loading

    files = {path.stem: path for path in loading.source_files()}
    folders = sorted(path.parent for path in root.glob("*/ledger") if path.is_dir())
    if not folders:
        raise SourceError(f"there is no source under {root}; name another --root")
    return [(loading.load(files[each.name]) if each.name in files else None, Storage(each)) for each in folders]
