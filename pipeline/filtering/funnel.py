"""The effect of recipes on a manifest's pairs: each filter alone, in sequence and omitted, and their overlaps.

Every predicate of every recipe is evaluated once for every pair. Then the pairs with each pattern of answers are
counted. There are few patterns, and every figure is a sum over them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Self

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.core import DISTINCT, Distinct, Filter, Recipe
from pipeline.filtering.distinct import Losers
from pipeline.filtering.predicates import evaluation_query
from pipeline.filtering.sequence import in_sequence

DIGITS = 39
"""Answers of yes, no and unknown that fit a number of 64 bits. To group by one number is twice as fast."""


@dataclass(frozen=True)
class Step:
    """One filter of a funnel. All numbers count downloaded pairs.

    `alone` pairs pass this filter, `fails` pairs do not, and `unscored` pairs have no answer. `sequence` pairs pass it
    and all filters before it. `costs` is how many more pairs the recipe would keep without it. It is negative only if
    the recipe ends in `distinct`: a pair that is no longer dropped may be a better neighbour of several kept pairs.
    """

    filter: str
    sql: str
    why: str
    alone: int
    fails: int
    unscored: int
    sequence: int
    costs: int


@dataclass(frozen=True)
class Overlap:
    """The overlap of two filters or recipes: `both` pairs are dropped by both filters, or kept by both recipes.

    `jaccard` is their share of the union, 0 if both sets are empty. A filter drops a pair for which it has no answer.
    """

    one: str
    other: str
    both: int
    jaccard: float


@dataclass(frozen=True)
class Funnel:
    """The effect of a recipe. `overlaps` has every two of its filters, without `distinct`, which sees only the rest."""

    recipe: str
    kept: int
    steps: list[Step]
    overlaps: list[Overlap]


@dataclass(frozen=True)
class Comparison:
    """Recipes compared. `pool` is the number of downloaded pairs; `shared` has the overlap of every two recipes."""

    pool: int
    funnels: list[Funnel]
    shared: list[Overlap]

    def in_words_of(self, recipes: Sequence[Recipe]) -> Self:
        """The same with the SQL of these recipes, whose filters are equivalent."""
        return replace(
            self, funnels=[_in_words_of(recipe, each) for recipe, each in zip(recipes, self.funnels, strict=True)]
        )


def _in_words_of(recipe: Recipe, found: Funnel) -> Funnel:
    own = len(recipe.filters)
    steps = [replace(step, sql=each.sql) for each, step in zip(recipe.filters, found.steps, strict=False)]
    return replace(found, steps=[*steps, *found.steps[own:]])


@dataclass(frozen=True)
class _RecipePredicates:
    """The numbers of the predicates of a recipe.

    A pair that passes all of `keeps` is kept. `alone` has the predicate of each step, and `without` the predicates of
    the recipe without each step.
    """

    recipe: Recipe
    keeps: list[int]
    alone: list[int]
    without: list[list[int]]


@dataclass(frozen=True)
class _Patterns:
    """`pairs[p]` pairs answer predicate i with `answers[p, i]`: 1 for true, 0 for false, -1 for NULL."""

    answers: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.int64]

    def yes(self, predicates: Sequence[int]) -> npt.NDArray[np.bool_]:
        """The patterns that pass all of the predicates."""
        passes: npt.NDArray[np.bool_] = (self.answers[:, list(predicates)] == 1).all(axis=1)
        return passes

    def count(self, patterns: npt.NDArray[np.bool_]) -> int:
        """How many pairs have one of the patterns."""
        return int(self.pairs[patterns].sum())


def compare(
    con: duckdb.DuckDBPyConnection,
    parts: Sequence[Path],
    counts: Sequence[int],
    recipes: Sequence[Recipe],
    losers: Callable[[Recipe], Losers],
) -> Comparison:
    """Compare recipes on the rows of `parts`, which have `counts` rows.

    `losers` evaluates the `distinct` of a recipe.
    """
    predicates: dict[str, int] = {}
    places = f"{np.cumsum([0, *counts]).tolist()}[file_index::BIGINT + 1] + file_row_number"
    removed: dict[Recipe, str] = {}
    rests: dict[str, str] = {}

    def number(sql: str) -> int:
        return predicates.setdefault(sql, len(predicates))

    def keeps(recipe: Recipe) -> list[int]:
        sequenced = in_sequence(recipe.filters)
        rests.update(rest for each in sequenced for rest in each.rests)
        passed = [number(each.shared) for each in sequenced]
        if recipe.distinct is None:
            return passed
        ruled = replace(recipe, name=DISTINCT)
        if ruled not in removed:
            removed[ruled] = _lost(con, f"lost_{len(removed)}", losers(recipe), places)
        return [*passed, number(removed[ruled])]

    numbered = []
    for recipe in recipes:
        own = keeps(recipe)
        last = keeps(replace(recipe, filters=())) if recipe.distinct else []
        without = [keeps(recipe.without(reason)) for reason in recipe.reasons]
        numbered.append(_RecipePredicates(recipe, own, own[: len(recipe.filters)] + last, without))
    patterns = _patterns(con, parts, list(predicates), list(rests.items()))
    return Comparison(
        pool=int(patterns.pairs.sum()),
        funnels=[_funnel(each, patterns) for each in numbered],
        shared=_overlaps([(each.recipe.name, patterns.yes(each.keeps)) for each in numbered], patterns),
    )


def _lost(con: duckdb.DuckDBPyConnection, table: str, lost: Losers, places: str) -> str:
    """SQL for whether `distinct` keeps a row, NULL for a row without a hash. The places are stored in a table."""
    found = {"place": np.concatenate([lost.repeated, lost.unknown])}
    found["unknown"] = np.arange(len(found["place"])) >= len(lost.repeated)
    con.from_arrow(pa.table(found)).create(table)
    unknown = f"({places}) IN (SELECT place FROM {table} WHERE unknown)"
    return f"CASE WHEN {unknown} THEN NULL ELSE ({places}) NOT IN (SELECT place FROM {table}) END"


def _patterns(
    con: duckdb.DuckDBPyConnection,
    parts: Sequence[Path],
    predicates: Sequence[str],
    rests: Sequence[tuple[str, str]],
) -> _Patterns:
    names = [f"p{number}" for number in range(len(predicates))]
    answers = evaluation_query(parts, (), dict(zip(names, predicates, strict=True)), rests)
    packed = [
        " + ".join(f"coalesce({name}::TINYINT, 2)::BIGINT * {3**place}" for place, name in enumerate(some))
        for some in (names[start : start + DIGITS] for start in range(0, len(names), DIGITS))
    ]
    counted = f"SELECT {', '.join([*packed, 'count(*)'])} FROM ({answers}) WHERE ok GROUP BY ALL"
    found = np.array(con.execute(counted).fetchall(), np.int64).reshape(-1, len(packed) + 1)
    places = 3 ** np.arange(DIGITS, dtype=np.int64)
    digits = (found[:, :-1, None] // places % 3).reshape(len(found), len(packed) * DIGITS)[:, : len(names)]
    return _Patterns(np.where(digits == 2, -1, digits), found[:, -1])


def _funnel(numbers: _RecipePredicates, patterns: _Patterns) -> Funnel:
    recipe, kept = numbers.recipe, patterns.count(patterns.yes(numbers.keeps))
    filters = [(each.name, each.sql, each.why) for each in recipe.filters]
    if recipe.distinct:
        last = ending(recipe.distinct)
        filters.append((last.name, last.sql, last.why))
    steps = []
    for at, words in enumerate(filters):
        alone, no, unknown = (patterns.count(patterns.answers[:, numbers.alone[at]] == is_) for is_ in (1, 0, -1))
        sequence = patterns.count(patterns.yes(numbers.keeps[: at + 1]))
        costs = patterns.count(patterns.yes(numbers.without[at])) - kept
        steps.append(Step(*words, alone, no, unknown, sequence, costs))
    drops = [(each.name, ~patterns.yes([number])) for each, number in zip(recipe.filters, numbers.keeps, strict=False)]
    return Funnel(recipe.name, kept, steps, _overlaps(drops, patterns))


def ending(last: Distinct) -> Filter:
    """`Distinct` as a step of the funnel. Its `sql` is a description and cannot be executed."""
    return Filter(
        DISTINCT,
        f"of {last.of}, within {last.radius}, best by {last.best_by}",
        why="only the best of nearly identical pictures is kept",
    )


def _overlaps(sets: Sequence[tuple[str, npt.NDArray[np.bool_]]], patterns: _Patterns) -> list[Overlap]:
    found = []
    for (one, its), (other, others) in combinations(sets, 2):
        both, either = patterns.count(its & others), patterns.count(its | others)
        found.append(Overlap(one, other, both, round(both / either, 4) if either else 0.0))
    return found
