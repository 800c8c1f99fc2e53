"""What we keep, as values. A filter is a named SQL predicate; a recipe is a list of filters.

Nothing here computes or reads anything: `pipeline.manifest` binds the SQL against the rows and counts.
"""

import re
from dataclasses import dataclass, replace

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
MOST_FILTERS = 63
"""A row's verdict is one 64-bit integer with a bit for each filter."""


@dataclass(frozen=True)
class Filter:
    """Keep the rows for which `sql` is TRUE. NULL is not yes: such a row is dropped, and counted as unscored.

    `sql` is a boolean DuckDB expression over the columns of `rows`; it may hold scalar subqueries over `rows`
    (a quantile). `why` is a sentence for the person who asks why a row is gone.
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
class Recipe:
    """Keep the rows that pass every filter. The order decides only how the funnel is told.

    Raises ValueError for two filters of one name, or more than `MOST_FILTERS`.
    """

    name: str
    filters: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"recipe name {self.name!r}: use lower-case letters, digits, - and _, at most 64")
        names = [each.name for each in self.filters]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"recipe {self.name!r} has two filters called {name!r}")
        if len(names) > MOST_FILTERS:
            raise ValueError(f"recipe {self.name!r} has {len(names)} filters, at most {MOST_FILTERS} fit a verdict")

    def without(self, name: str) -> "Recipe":
        """The same recipe less one filter: an ablation. Raises ValueError if there is no such filter."""
        kept = tuple(each for each in self.filters if each.name != name)
        if len(kept) == len(self.filters):
            raise ValueError(f"recipe {self.name!r} has no filter {name!r}")
        return replace(self, name=f"{self.name}-without-{name}"[:64], filters=kept)
