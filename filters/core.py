"""Filters and recipes as values.

A filter is a named SQL predicate. A recipe is a list of filters, and may end in `Distinct` and in a selection.

This module computes and reads nothing. `pipeline.manifest.manifest` binds the SQL to the rows and counts.
"""

import re
from dataclasses import dataclass, replace

from filters.selections import Selection

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
REST = "{rest}"
"""In a filter's SQL: the downloaded pairs that pass every filter before it, as in `FROM rows WHERE {rest}`."""

MOST_FILTERS = 63
"""A row's verdict is one 64-bit integer with a bit for each filter, `Distinct` and a selection included."""

DISTINCT = "distinct"
"""The name of `Distinct` in verdicts and funnels."""

SELECTION = "selection"
"""The name of a selection in verdicts and funnels."""


@dataclass(frozen=True)
class Filter:
    """Keep the rows for which `sql` is TRUE. A row for which it is NULL is dropped, and counted as unscored.

    `sql` is a boolean DuckDB expression over the columns of `rows`. It may contain scalar subqueries over `rows`
    (a quantile of the pool), or over `rows WHERE {rest}` (a quantile of the pairs that earlier filters keep).
    `why` is a sentence that tells a person why a row was dropped.
    Raises ValueError for a name that is not a lower-case word, and for empty SQL.
    """

    name: str
    sql: str
    why: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"filter name {self.name!r}: use lower-case letters, digits, - and _, at most 64")
        if not self.sql.strip():
            raise ValueError(f"filter {self.name!r} has no sql")


@dataclass(frozen=True)
class Distinct:
    """Keep the best of the rows whose pictures are duplicates. Only rows that pass every filter are compared.

    Rows are visited from the best to the worst by `best_by`, an SQL expression over the columns of `rows`: the highest
    first, NULL last, ties by uid. A row is kept unless a row that is already kept is within `radius` of it. So every
    dropped row is within the radius of a kept row that is at least as good. In a chain A~B~C, where A is the best
    and is far from C, B is dropped and C is not dropped for B.
    `of` names the scorer that found the neighbours. The distance of perceptual hashes is in bits of 64, that of
    embeddings is 1 - cosine. `of` may also name a column, such as sha256 or pixels_digest: rows with the same value are
    duplicates, and the radius is 0. Raises ValueError for a radius outside 0 to 64.
    """

    radius: float
    best_by: str
    of: str = "duplicates"

    def __post_init__(self) -> None:
        if not 0 <= self.radius <= 64:
            raise ValueError(
                f"distinct: the radius must be a number of bits, 0 to 64, or 1 - cosine, not {self.radius}"
            )
        if not self.best_by.strip():
            raise ValueError("distinct: best_by has no sql")


@dataclass(frozen=True)
class Recipe:
    """Keep the rows that pass every filter. With `distinct`, keep only the best of near-duplicates among them.

    With `selection`, choose a set of what is then left (`filters.selections`), perhaps with repetitions.

    The order of the filters is the order of the funnel, and decides what `{rest}` means. Raises ValueError if two
    filters have the same name, or if there are more than `MOST_FILTERS`.
    """

    name: str
    filters: tuple[Filter, ...] = ()
    distinct: Distinct | None = None
    selection: Selection | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"recipe name {self.name!r}: use lower-case letters, digits, - and _, at most 64")
        names = self.reasons
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"recipe {self.name!r} has two filters called {name!r}")
        if len(names) > MOST_FILTERS:
            raise ValueError(f"recipe {self.name!r} has {len(names)} filters, at most {MOST_FILTERS} fit a verdict")

    @property
    def reasons(self) -> list[str]:
        """The reasons to drop a row: the filters' names, then "distinct" and "selection" if they are set.

        Bit i of a verdict is reason i.
        """
        return [*(each.name for each in self.filters), *self.endings]

    @property
    def endings(self) -> list[str]:
        """The steps after the filters: "distinct" and "selection", if they are set."""
        return [*([DISTINCT] if self.distinct else []), *([SELECTION] if self.selection else [])]

    @property
    def repeats(self) -> bool:
        """Whether it may keep a row more than once."""
        return self.selection is not None and self.selection.repeats

    def without(self, name: str) -> "Recipe":
        """The recipe without one filter, or without its `distinct` or `selection`, for an ablation.

        Raises ValueError if it has no such filter.
        """
        renamed = replace(self, name=f"{self.name}-without-{name}"[:64])
        if name == DISTINCT and self.distinct:
            return replace(renamed, distinct=None)
        if name == SELECTION and self.selection:
            return replace(renamed, selection=None)
        kept = tuple(each for each in self.filters if each.name != name)
        if len(kept) == len(self.filters):
            raise ValueError(f"recipe {self.name!r} has no filter {name!r}")
        return replace(renamed, filters=kept)
