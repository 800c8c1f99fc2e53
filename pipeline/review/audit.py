"""Whom a recipe removes: its share by language, domain, length and words of the caption, so that nobody goes unseen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb

from filters.core import Recipe
from pipeline.filtering.domain import DOMAIN
from pipeline.manifest.manifest import Manifest
from pipeline.review.rates import Rate
from pipeline.schema import ORIGIN

MOST = 200

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
"""Of each kind the SQL that gives a pair's group, or its groups: a pair is in that of each of its words."""

_ASKED = {"language": "captions_language", ORIGIN: ORIGIN}
"""Columns that not every manifest has, by the kind that needs them."""


@dataclass(frozen=True)
class Group:
    """Downloaded pairs that have something in common, `by` which, and how many of them the recipe removes."""

    by: str
    value: str
    removed: Rate


@dataclass(frozen=True)
class Audit:
    """What a recipe removes of the downloaded pairs, and of each group: of each kind the largest first."""

    recipe: str
    removed: Rate
    groups: list[Group]

    def of(self, by: str) -> list[Group]:
        """The groups of one kind."""
        return [each for each in self.groups if each.by == by]

    def hit(self, by: str) -> list[Group]:
        """The groups that are surely removed more than the whole: their interval lies above its share, worst first."""
        whole = self.removed.share or 0.0
        over = [each for each in self.of(by) if (each.removed.low or 0.0) > whole]
        return sorted(over, key=lambda each: -(each.removed.low or 0.0))


def audit(manifest: Manifest, recipe: Recipe, most: int = MOST) -> Audit:
    """Count by group what the recipe would remove of this manifest. Raises RecipeError where the recipe does not fit.

    The `most` largest groups of each kind have a figure of their own. Without a column captions_language there is
    nothing by language, and by origin only of a union.
    """
    kept = manifest.select(recipe)
    known = manifest.columns.names
    columns = ["url", "caption", *(column for column in _ASKED.values() if column in known)]
    with manifest.connection() as con:
        con.from_arrow(kept).create("chosen")
        con.execute(
            f"CREATE TABLE pool AS SELECT {', '.join(columns)}, uid IN (FROM chosen) AS kept FROM rows "
            "WHERE status = 'ok'"
        )
        ((pairs, removed),) = con.execute("SELECT count(*), count(*) FILTER (NOT kept) FROM pool").fetchall()
        kinds = [by for by in _BY if _ASKED.get(by, "url") in known]
        return Audit(
            recipe.name, Rate.count(removed, pairs), [group for by in kinds for group in _groups(con, by, most)]
        )


def _groups(con: duckdb.DuckDBPyConnection, by: str, most: int) -> Iterator[Group]:
    """The largest groups, and all others as one; a pair has many words, so that those have no others."""
    found = con.execute(
        f"SELECT value, count(*) AS pairs, count(*) FILTER (NOT kept) FROM (SELECT {_BY[by]} AS value, kept FROM pool) "
        "GROUP BY value ORDER BY pairs DESC, value"
    )
    for value, pairs, removed in found.fetchmany(most):
        yield Group(by, value, Rate.count(removed, pairs))
    rest = [] if by == "word" else found.fetchall()
    if rest:
        yield Group(by, OTHERS, Rate.count(sum(row[2] for row in rest), sum(row[1] for row in rest)))
