"""The share of pairs that a recipe removes, by language, origin, domain, length and words of the caption."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb

from filters.core import Recipe
from pipeline.filtering.domain import DOMAIN
from pipeline.manifest.manifest import Manifest
from pipeline.progress import StepProgress, silent_step
from pipeline.review.rates import Rate
from pipeline.schema import ORIGIN

MOST = 200
"""Groups of each kind, at most."""

OTHERS = "(all others)"
NONE = "(unknown)"

_BY: Mapping[str, str] = {
    "language": f"coalesce(captions_language, '{NONE}')",
    ORIGIN: ORIGIN,
    "domain": f"coalesce({DOMAIN}, '{NONE}')",
    "length": "CASE WHEN length(caption) < 10 THEN '0 to 9' WHEN length(caption) < 20 THEN '10 to 19' "
    "WHEN length(caption) < 40 THEN '20 to 39' WHEN length(caption) < 80 THEN '40 to 79' "
    "WHEN length(caption) < 160 THEN '80 to 159' ELSE '160 and more' END",
    "word": "unnest(list_distinct(regexp_extract_all(lower(caption), '[\\p{L}\\p{N}]+')))",
}
"""By kind of group, SQL for the group of a pair, or its groups: a pair is in the group of each of its words."""

_NEEDS = {"language": "captions_language", ORIGIN: ORIGIN}
"""The optional column that a kind of group needs."""


@dataclass(frozen=True)
class Group:
    """Downloaded pairs with the same `value`, by one kind of group, and the share of them that the recipe removes."""

    by: str
    value: str
    removed: Rate


@dataclass(frozen=True)
class Audit:
    """The share of the downloaded pairs that a recipe removes, and of each group: by kind, the largest first."""

    recipe: str
    removed: Rate
    groups: list[Group]

    def of(self, by: str) -> list[Group]:
        """The groups of one kind."""
        return [each for each in self.groups if each.by == by]

    def above_average(self, by: str) -> list[Group]:
        """The groups whose interval is above the share of all pairs, the highest first."""
        whole = self.removed.share or 0.0
        over = [each for each in self.of(by) if (each.removed.low or 0.0) > whole]
        return sorted(over, key=lambda each: -(each.removed.low or 0.0))


def audit(manifest: Manifest, recipe: Recipe, most: int = MOST, progress: StepProgress = silent_step) -> Audit:
    """Count the pairs of each group that the recipe would remove. Raises RecipeError if it does not fit the manifest.

    Each kind has its `most` largest groups, and one for all others. Groups by language need the column
    captions_language, and groups by origin a union. `progress` is that of a selection.
    """
    kept = manifest.select(recipe, progress)
    known = manifest.columns.names
    columns = ["url", "caption", *(column for column in _NEEDS.values() if column in known)]
    with manifest.connection() as con:
        con.from_arrow(kept).create("chosen")
        con.execute(
            f"CREATE TABLE pool AS SELECT {', '.join(columns)}, uid IN (SELECT uid FROM chosen) AS kept FROM rows "
            "WHERE status = 'ok'"
        )
        ((pairs, removed),) = con.execute("SELECT count(*), count(*) FILTER (NOT kept) FROM pool").fetchall()
        kinds = [by for by in _BY if _NEEDS.get(by, "url") in known]
        return Audit(
            recipe.name, Rate.count(removed, pairs), [group for by in kinds for group in _groups(con, by, most)]
        )


def _groups(con: duckdb.DuckDBPyConnection, by: str, most: int) -> Iterator[Group]:
    """The largest groups, and all others as one. Words have no others: a pair is in many groups."""
    found = con.execute(
        f"SELECT value, count(*) AS pairs, count(*) FILTER (NOT kept) FROM (SELECT {_BY[by]} AS value, kept FROM pool) "
        "GROUP BY value ORDER BY pairs DESC, value"
    )
    for value, pairs, removed in found.fetchmany(most):
        yield Group(by, value, Rate.count(removed, pairs))
    rest = [] if by == "word" else found.fetchall()
    if rest:
        yield Group(by, OTHERS, Rate.count(sum(row[2] for row in rest), sum(row[1] for row in rest)))
