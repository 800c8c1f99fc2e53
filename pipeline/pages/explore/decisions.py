"""What any recipe would do to a manifest's rows: verdicts and counts in milliseconds.

DuckDB evaluates each filter, so every count is the one that publishing the recipe would give. Its answers are cached by
the filter's SQL: while one threshold moves, the other filters are not evaluated again. The rest is numpy.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.core import DISTINCT, SELECTION, Distinct, Filter, Recipe
from pipeline.errors import RecipeError
from pipeline.filtering import distinct, thresholds
from pipeline.filtering.finite import finite
from pipeline.filtering.funnel import Step, endings
from pipeline.filtering.sequence import in_sequence
from pipeline.filtering.thresholds import Comparison, Threshold
from pipeline.pages.explore.chosen import Selections
from pipeline.pages.explore.rows import Pairs, Places, Rows

CACHED = 64
"""Filters whose answers are cached, a byte a pair each: a recipe's 63 at most, and one that moves."""


@dataclass(frozen=True)
class Verdict:
    """The answers of one filter, int8 [pool]: 1 passes, 0 fails, -1 unknown; and how many pass and are unknown."""

    answers: npt.NDArray[np.int8]
    passes: int
    unknown: int


@dataclass(frozen=True)
class Sides:
    """Downloaded pairs by which of two recipes keeps them."""

    both: int
    this: int
    other: int
    neither: int


@dataclass(frozen=True)
class Near:
    """The picture of each downloaded pair, whether it is known, and whether it may have a neighbour; and the two
    pictures of each edge."""

    pictures: npt.NDArray[np.uint64]
    known: Pairs
    crowded: Pairs
    low: npt.NDArray[np.uint64]
    high: npt.NDArray[np.uint64]


class Decisions:
    """The decisions of recipes about the rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self._manifest = rows, rows.manifest
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._lines = lru_cache(CACHED)(self._read_lines)
        self._near = lru_cache(4)(self._read_near)
        self._ranking = lru_cache(4)(self._rank)
        self._selections = Selections(rows)

    def kept(self, recipe: Recipe) -> Pairs:
        """The pairs that a recipe keeps. Raises RecipeError for one that does not bind, or fails on a row."""
        kept = self._rows.all()
        for verdict in self.verdicts(recipe):
            kept &= verdict.answers == 1
        kept = self._representatives(kept, recipe.distinct)[0] if recipe.distinct else kept
        if recipe.selection is None:
            return kept
        self._manifest.check_last(recipe)
        return self._selections.kept(recipe.selection, kept)

    def verdicts(self, recipe: Recipe) -> list[Verdict]:
        """The verdict of each filter in the sequence of the recipe. Raises RecipeError, as `kept` does."""
        sequenced = in_sequence(recipe.filters)
        known = {each.sql: self._known(each.sql) for each in sequenced}
        new = [each for each in sequenced if known[each.sql] is None]
        if new:
            known |= dict(zip([each.sql for each in new], self._evaluate(new), strict=True))
        found = [known[each.sql] for each in sequenced]
        return [verdict for verdict in found if verdict is not None]

    def funnel(self, recipe: Recipe) -> list[Step]:
        """The same as `Manifest.funnel`. Raises RecipeError, as `kept` does."""
        whole = int(np.count_nonzero(self.kept(recipe)))
        sequence, steps = self._rows.all(), []
        for each, verdict in zip(recipe.filters, self.verdicts(recipe), strict=True):
            sequence &= verdict.answers == 1
            left = int(np.count_nonzero(sequence))
            costs = self._costs(recipe, each.name, whole)
            steps.append(self._step(each, verdict.passes, verdict.unknown, left, costs))
        for last in endings(recipe):
            alone, unknown = self._last_alone(recipe, last.name)
            costs = self._costs(recipe, last.name, whole)
            left = whole if last.name == recipe.endings[-1] else whole + self._costs(recipe, SELECTION, whole)
            steps.append(self._step(last, alone, unknown, left, costs))
        return steps

    def _last_alone(self, recipe: Recipe, name: str) -> tuple[int, int]:
        """Of the whole pool the numbers of pairs that a step after the filters keeps, and has no answer for."""
        if name == DISTINCT and recipe.distinct:
            best, unknown = self._representatives(self._rows.all(), recipe.distinct)
            return int(np.count_nonzero(best)), unknown
        assert recipe.selection
        found = self._selections.size(recipe.selection, self._rows.all())
        return found.kept, found.unknown

    def lines(self, recipe: Recipe) -> list[Threshold]:
        """The thresholds of the filters on columns that have an axis."""
        return [replace(line, filter=each.name) for each in recipe.filters for line in self._lines(each.sql)]

    def sides(self, this: Pairs, other: Pairs) -> Sides:
        """Count the pairs by which of two sets they are in."""
        both, one, two = (int(np.count_nonzero(each)) for each in (this & other, this, other))
        return Sides(both, one - both, two - both, self._rows.pool - one - two + both)

    def _step(self, each: Filter, passes: int, unknown: int, left: int, costs: int) -> Step:
        fails = self._rows.pool - passes - unknown
        return Step(each.name, each.sql, each.why, passes, fails, unknown, sequence=left, costs=costs)

    def _costs(self, recipe: Recipe, reason: str, whole: int) -> int:
        left = recipe.without(reason)
        kept = self.kept(replace(left, selection=None))
        if left.selection:
            return self._selections.size(left.selection, kept).kept - whole
        return int(np.count_nonzero(kept)) - whole

    def _representatives(self, pairs: Pairs, last: Distinct) -> tuple[Pairs, int]:
        """The best pair of each group of near-duplicates among the pairs, and the number of pairs without a hash."""
        order, near = self._ranking(last), self._near(last.of, last.radius)
        ranked = order[(pairs & near.crowded)[order]]
        best = pairs & near.known
        best[ranked[distinct.has_better_neighbour(near.pictures[ranked], near.low, near.high)]] = False
        return best, int(np.count_nonzero(pairs & ~near.known))

    def _known(self, sql: str) -> Verdict | None:
        """The cached verdict of a filter."""
        with self._lock:
            if sql in self._verdicts:
                self._verdicts.move_to_end(sql)
            return self._verdicts.get(sql)

    def _evaluate(self, filters: Sequence[Filter]) -> list[Verdict]:
        """The verdicts of filters, in one pass over their columns. Caches them."""
        try:
            columns = self._answers(filters)
        except (RecipeError, duckdb.Error):
            columns = [answers for each in filters for answers in self._named_answers(each)]  # which of them is it?
        found = [Verdict(each, int(np.count_nonzero(each == 1)), int(np.count_nonzero(each == -1))) for each in columns]
        with self._lock:
            self._verdicts.update(zip([each.sql for each in filters], found, strict=True))
            while len(self._verdicts) > CACHED:
                self._verdicts.popitem(last=False)
        return found

    def _answers(self, filters: Sequence[Filter]) -> list[npt.NDArray[np.int8]]:
        self._manifest.check(*(each for each in filters if not self._is_moved(each.sql)))
        return self._rows.columns([f"coalesce((\n{each.sql}\n)::TINYINT, -1::TINYINT)" for each in filters])

    def _named_answers(self, each: Filter) -> list[npt.NDArray[np.int8]]:
        try:
            return self._answers([each])
        except duckdb.Error as error:
            raise RecipeError(f"filter {each.name!r} fails on a row: {str(error).splitlines()[0]}") from None

    def _is_moved(self, sql: str) -> bool:
        """Whether it compares a number that has a histogram, so that it need not be checked while a slider moves."""
        moved = Comparison.of(sql) or Comparison.of_quantile(sql)
        return moved is not None and moved.column in {axis.column for axis in self._rows.axes}

    def _read_near(self, of: str, radius: float) -> Near:
        among = distinct.among(of, self._manifest.neighbours)
        edges = pa.table({name: pa.array([], pa.uint64()) for name in ("low", "high")})
        if among.edges:
            edges = pq.read_table(self._manifest.storage.fetch(among.edges))
            edges = edges.filter(pc.less_equal(edges["distance"], radius))
        column = self._rows.column(f'"{among.pictures}"')
        known = column.is_valid().to_numpy()
        pictures, low, high = distinct.picture_arrays(
            column.fill_null("" if pa.types.is_string(column.type) else 0), edges
        )
        several, times = np.unique(pictures[known], return_counts=True)
        crowded = np.isin(pictures, np.concatenate([low, high, several[times > 1]])) & known
        return Near(pictures, known, crowded, low, high)

    def _rank(self, last: Distinct) -> Places:
        """The places of the pairs from the best to the worst."""
        self._manifest.check_last(Recipe(DISTINCT, distinct=last))
        numbered = f"SELECT (\n{finite(last.best_by)}\n) AS best, uid, row_number() OVER () - 1 AS number FROM rows"
        try:
            ordered = self._rows.query(f"SELECT number FROM ({numbered}) ORDER BY best DESC NULLS LAST, uid")
        except duckdb.Error as error:
            raise RecipeError(f"{DISTINCT}: best_by fails on a row: {str(error).splitlines()[0]}") from None
        return self._rows.places(ordered["number"].to_numpy())

    def _read_lines(self, sql: str) -> Sequence[Threshold]:
        with self._rows.cursor() as con:
            recipe = Recipe("typed", (Filter("typed", sql),))
            return thresholds.find(con, recipe, [axis.column for axis in self._rows.axes])
