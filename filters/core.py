"""What we keep, as values. A filter is a named SQL predicate; a recipe is a list of filters, and may end in `Distinct`.

Nothing here computes or reads anything: `pipeline.manifest.manifest` binds the SQL against the rows and counts.
"""

import re
from dataclasses import dataclass, replace

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
REST = "{rest}"
"""In a filter's SQL: the downloaded pairs that pass every filter before it, as in `FROM rows WHERE {rest}`."""

MOST_FILTERS = 63
"""A row's verdict is one 64-bit integer with a bit for each filter, `Distinct` included."""

DISTINCT = "distinct"
"""The name under which `Distinct` stands in verdicts and funnels."""


@dataclass(frozen=True)
class Filter:
    """Keep the rows for which `sql` is TRUE. NULL is not yes: such a row is dropped, and counted as unscored.

    `sql` is a boolean DuckDB expression over the columns of `rows`; it may hold scalar subqueries over `rows`
    (a quantile of the pool), or over `rows WHERE {rest}` (a quantile of what the filters before it leave).
    `why` is a sentence for the person who asks why a row is gone.
    Raises ValueError for a name that is no lower-case word, or empty SQL.
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
    """Of rows whose pictures are duplicates keep the best. It looks only at rows that pass every filter.

    Rows are taken from the best to the worst by `best_by`, an SQL expression over the columns of `rows`: the highest
    first, NULL last, ties by uid. A row is kept unless one that is kept already is within `radius` of it. So every row
    that goes is within the radius of one that stays and is at least as good, and in a chain A~B~C with A far from C
    never are all but B lost.
    `of` names the scorer that found the neighbours: perceptual hashes are so many of 64 bits apart, embeddings 1 -
    cosine. Or it names a column, such as sha256 or pixels_digest, of which rows with one value are duplicates: then the
    radius is 0. Raises ValueError for a radius beyond 0 to 64.
    """

    radius: float
    best_by: str
    of: str = "duplicates"

    def __post_init__(self) -> None:
        if not 0 <= self.radius <= 64:
            raise ValueError(f"distinct: the radius is a number of bits, 0 to 64, or 1 - cosine, not {self.radius}")
        if not self.best_by.strip():
            raise ValueError("distinct: best_by has no sql")


@dataclass(frozen=True)
class Recipe:
    """Keep the rows that pass every filter, and of near-duplicates among them the best if there is a `distinct`.

    The order of the filters is the order of the funnel, and decides what `{rest}` means. Raises ValueError for
    two filters of one name, or more than `MOST_FILTERS`.
    """

    name: str
    filters: tuple[Filter, ...] = ()
    distinct: Distinct | None = None

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
        """Why a row may go: the filters' names, then "distinct" if there is one. Bit i of a verdict is number i."""
        return [*(each.name for each in self.filters), *([DISTINCT] if self.distinct else [])]

    def without(self, name: str) -> "Recipe":
        """The same recipe less one filter, or less its `distinct`: an ablation. Raises ValueError if there is none."""
        if name == DISTINCT and self.distinct:
            return replace(self, name=f"{self.name}-without-{name}"[:64], distinct=None)
        kept = tuple(each for each in self.filters if each.name != name)
        if len(kept) == len(self.filters):
            raise ValueError(f"recipe {self.name!r} has no filter {name!r}")
        return replace(self, name=f"{self.name}-without-{name}"[:64], filters=kept)
