"""The effect of recipes on a manifest's pairs: each filter alone, in sequence and omitted, and their overlaps.

Every predicate of every recipe is evaluated once for every pair. Then the pairs with each pattern of answers are
counted. There are few patterns, and every figure is a sum over them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Protocol, Self

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.core import DISTINCT, SELECTION, Filter, Recipe
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
    the recipe ends in `distinct`: a pair that is no longer dropped may be a better neighbour of several kept pairs. Or
    in a selection with repetitions: it repeats fewer of more pairs.
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
    """The effect of a recipe. `overlaps` has every two of its filters, without the steps that see only the rest."""

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


class LastSteps(Protocol):
    """The steps of a recipe after its filters, evaluated on the rows."""

    def losers(self, recipe: Recipe) -> Mapping[str, Losers]:
        """The rows that pass the filters and that each of the steps drops, by its name."""
        ...

    def size(self, recipe: Recipe) -> tuple[int, int]:
        """How many rows a recipe with a selection keeps, and how many lack what the selection needs."""
        ...


@dataclass(frozen=True)
class _Selected:
    """A selection by its effects: pairs that it would keep of the pool, pairs without an answer, and the pairs that the
    recipe would keep without each of the steps before it."""

    alone: int
    unknown: int
    without: list[int]


@dataclass(frozen=True)
class _RecipePredicates:
    """The numbers of the predicates of a recipe.

    A pair that passes all of `keeps` is kept. `alone` has the predicate of each step, and `without` the predicates of
    the recipe without each step. A selection is too slow to be evaluated in so many ways: where there is one, `alone`
    and `without` lack it, and `selected` has its effects.
    """

    recipe: Recipe
    keeps: list[int]
    alone: list[int]
    without: list[list[int]]
    selected: _Selected | None


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
    last: LastSteps,
) -> Comparison:
    """Compare recipes on the rows of `parts`, which have `counts` rows."""
    predicates: dict[str, int] = {}
    places = f"{np.cumsum([0, *counts]).tolist()}[file_index::BIGINT + 1] + file_row_number"
    removed: dict[Recipe, list[str]] = {}
    rests: dict[str, str] = {}

    def number(sql: str) -> int:
        return predicates.setdefault(sql, len(predicates))

    def lost(recipe: Recipe) -> list[str]:
        ruled = replace(recipe, name=DISTINCT)
        if ruled not in removed:
            found = last.losers(recipe)
            removed[ruled] = [_lost(con, f"lost_{len(removed)}_{name}", found[name], places) for name in recipe.endings]
        return removed[ruled]

    def keeps(recipe: Recipe) -> list[int]:
        sequenced = in_sequence(recipe.filters)
        rests.update(rest for each in sequenced for rest in each.rests)
        passed = [number(each.shared) for each in sequenced]
        return [*passed, *(number(sql) for sql in (lost(recipe) if recipe.endings else ()))]

    def predicates_of(recipe: Recipe) -> _RecipePredicates:
        own, rows = keeps(recipe), replace(recipe, selection=None)
        alone = own[: len(recipe.filters)] + (keeps(replace(rows, filters=())) if recipe.distinct else [])
        if recipe.selection is None:
            return _RecipePredicates(recipe, own, alone, [keeps(recipe.without(each)) for each in recipe.reasons], None)
        pool, unknown = last.size(replace(recipe, filters=(), distinct=None))
        without = [last.size(recipe.without(each))[0] for each in rows.reasons]
        return _RecipePredicates(recipe, own, alone, [keeps(rows)], _Selected(pool, unknown, without))

    numbered = [predicates_of(recipe) for recipe in recipes]
    patterns = _patterns(con, parts, list(predicates), list(rests.items()))
    return Comparison(
        pool=int(patterns.pairs.sum()),
        funnels=[_funnel(each, patterns) for each in numbered],
        shared=_overlaps([(each.recipe.name, patterns.yes(each.keeps)) for each in numbered], patterns),
    )


def _lost(con: duckdb.DuckDBPyConnection, table: str, lost: Losers, places: str) -> str:
    """SQL for whether a last step keeps a row, NULL for a row without an answer. The places are stored in a table."""
    found = {"place": np.concatenate([lost.rejected, lost.unknown])}
    found["unknown"] = np.arange(len(found["place"])) >= len(lost.rejected)
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
    recipe, kept, selected = numbers.recipe, patterns.count(patterns.yes(numbers.keeps)), numbers.selected
    without = [patterns.count(patterns.yes(each)) for each in numbers.without]
    without = [*selected.without, *without] if selected else without
    answers = [[patterns.count(patterns.answers[:, each] == is_) for is_ in (1, 0, -1)] for each in numbers.alone]
    if selected:
        pool = int(patterns.pairs.sum())
        answers.append([selected.alone, pool - selected.alone - selected.unknown, selected.unknown])
    steps = []
    for at, each in enumerate([*recipe.filters, *endings(recipe)]):
        sequence = patterns.count(patterns.yes(numbers.keeps[: at + 1]))
        alone, no, unknown = answers[at]
        steps.append(Step(each.name, each.sql, each.why, alone, no, unknown, sequence, without[at] - kept))
    drops = [(each.name, ~patterns.yes([number])) for each, number in zip(recipe.filters, numbers.keeps, strict=False)]
    return Funnel(recipe.name, kept, steps, _overlaps(drops, patterns))


def endings(recipe: Recipe) -> list[Filter]:
    """The steps after the filters as steps of the funnel. Their `sql` is a description and cannot be executed."""
    found = []
    if last := recipe.distinct:
        described = f"of {last.of}, within {last.radius}, best by {last.best_by}"
        found.append(Filter(DISTINCT, described, why="only the best of nearly identical pictures is kept"))
    if recipe.selection:
        found.append(Filter(SELECTION, recipe.selection.described, recipe.selection.why))
    return found


def _overlaps(sets: Sequence[tuple[str, npt.NDArray[np.bool_]]], patterns: _Patterns) -> list[Overlap]:
    found = []
    for (one, its), (other, others) in combinations(sets, 2):
        both, either = patterns.count(its & others), patterns.count(its | others)
        found.append(Overlap(one, other, both, round(both / either, 4) if either else 0.0))
    return found
