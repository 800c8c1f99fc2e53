"""The columns of a manifest's rows: which exist, and which are scores."""

from collections.abc import Iterable

import pyarrow.parquet as pq

from pipeline.errors import QueryError, did_you_mean
from pipeline.manifest.manifest import Manifest


def check_known(manifest: Manifest, names: Iterable[str]) -> None:
    """Raises QueryError for a name that is no column of `rows`, and for a text in place of a list of names."""
    if isinstance(names, str):
        raise QueryError(f"columns is a list of names: write [{names!r}]")
    known = manifest.columns.names
    for name in names:
        if name not in known:
            raise QueryError(f"there is no column {name!r}{did_you_mean(name, known)}")


def score_columns(manifest: Manifest) -> frozenset[str]:
    """The names of the score columns, as the manifest's card (numbers) and the stored results (all types) list them.

    Names are not parsed, because an extra column may begin like a score column.
    """
    return frozenset(manifest.card["ranges"]) | frozenset(scorers_of_columns(manifest))


def scorers_of_columns(manifest: Manifest) -> dict[str, str]:
    """By score column the scorer that made it, of scorers whose results are stored."""
    found: dict[str, str] = {}
    for name, key in manifest.stages.scores.items():
        for result in manifest.storage.find(f"scores/{name}-{key}/[0-9]*.parquet")[:1]:
            columns = pq.read_schema(manifest.storage.fetch(result)).names
            found |= {column: name for column in columns if column != "uid"}
    return found
