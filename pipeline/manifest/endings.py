"""The steps of a recipe after its filters, `distinct` and a selection, evaluated over the rows of a manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.core import DISTINCT, SELECTION, Filter, Recipe
from pipeline.filtering import distinct, predicates
from pipeline.filtering.distinct import Losers, Neighbours, Places
from pipeline.filtering.finite import finite
from pipeline.manifest.document import StageKeys
from pipeline.manifest.embeddings import Embeddings
from pipeline.progress import StepProgress, silent_step
from pipeline.scorers.target_file import FEATURES, Target
from pipeline.selection import choosing
from pipeline.selection.survivors import Chosen, Copies, Size, Survivors
from pipeline.store.storage import Storage


@dataclass(frozen=True)
class Pool:
    """The rows of a manifest: files, with how many rows each has, the neighbours and the stages of its scorers.

    `progress` is called while a selection chooses a set from them.
    """

    storage: Storage
    paths: Sequence[Path]
    counts: Sequence[int]
    neighbours: Mapping[str, Neighbours]
    stages: StageKeys
    progress: StepProgress = silent_step


@dataclass(frozen=True)
class Endings:
    """What the steps after the filters did. `losers` has the rows that each of them drops, by its name, in order.

    With a selection, `places` are the rows that it keeps, ascending, and `copies` how many times it keeps each of them.
    """

    losers: Mapping[str, Losers]
    places: Places
    copies: Copies

    @property
    def dropped(self) -> Places:
        """All rows that pass the filters and are dropped."""
        return _dropped(self.losers)

    def copies_of(self, start: int, count: int) -> Copies:
        """The copies of each of `count` rows from `start` on."""
        found = np.zeros(count, np.uint16)
        here = (self.places >= start) & (self.places < start + count)
        found[self.places[here] - start] = self.copies[here]
        return found


@dataclass(frozen=True)
class OverRows:
    """The steps after the filters for a funnel (`pipeline.filtering.funnel.LastSteps`). `con` has the view `rows`.

    `stored` has the losers of recipes whose verdicts are stored: they are not evaluated again.
    """

    con: duckdb.DuckDBPyConnection
    pool: Pool
    stored: Mapping[Recipe, Mapping[str, Losers]] = field(default_factory=dict)

    def losers(self, recipe: Recipe) -> Mapping[str, Losers]:
        """The rows that pass the filters and that each step drops, by its name."""
        return self.stored.get(recipe) or evaluate(self.con, self.pool, recipe).losers

    def size(self, recipe: Recipe) -> tuple[int, int]:
        """How many rows a recipe with a selection keeps, and how many lack what the selection needs."""
        found = size(self.con, self.pool, recipe)
        return found.kept, found.unknown


def evaluate(con: duckdb.DuckDBPyConnection, pool: Pool, recipe: Recipe) -> Endings:
    """Evaluate the steps after the filters. `con` has the view `rows`. Raises RecipeError."""
    losers = _distinct(con, pool, recipe)
    places, copies = np.empty(0, np.int64), np.empty(0, np.uint16)
    if recipe.selection:
        survivors, at = _survivors(con, pool, recipe, losers)
        chosen = choosing.choose(recipe.selection, survivors, pool.progress)
        losers[SELECTION] = _losers(chosen, at)
        kept = chosen.copies > 0
        places, copies = at[kept], chosen.copies[kept]
    return Endings(losers, places, copies)


def size(con: duckdb.DuckDBPyConnection, pool: Pool, recipe: Recipe) -> Size:
    """How many rows a recipe with a selection keeps. Less work than `evaluate` where a selection fills its budget."""
    assert recipe.selection
    survivors, _ = _survivors(con, pool, recipe, _distinct(con, pool, recipe))
    return choosing.size(recipe.selection, survivors)


def _distinct(con: duckdb.DuckDBPyConnection, pool: Pool, recipe: Recipe) -> dict[str, Losers]:
    if not recipe.distinct:
        return {}
    among = distinct.among(recipe.distinct.of, pool.neighbours)
    return {DISTINCT: distinct.losers(con, pool.storage, pool.paths, pool.counts, recipe, among)}


def _dropped(losers: Mapping[str, Losers]) -> Places:
    parts = [part for each in losers.values() for part in (each.rejected, each.unknown)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _losers(chosen: Chosen, at: Places) -> Losers:
    return Losers(at[(chosen.copies == 0) & ~chosen.unknown], at[chosen.unknown])


def _survivors(
    con: duckdb.DuckDBPyConnection, pool: Pool, recipe: Recipe, losers: Mapping[str, Losers]
) -> tuple[Survivors, Places]:
    """What the selection chooses from, in ledger order, and the place of each of these rows."""
    assert recipe.selection
    values = recipe.selection.values
    also = {"shard": "shard"} | {f"v{number}": finite(sql) for number, sql in enumerate(values.values())}
    passes = " AND ".join(["ok", *(f"f{number}" for number in range(len(recipe.filters)))])
    numbers = "".join(f", v{number}::DOUBLE AS v{number}" for number in range(len(values)))
    typed = [Filter(SELECTION, f"(\n{sql}\n)::DOUBLE IS NULL") for sql in values.values()]
    with predicates.attribute_errors(con, pool.paths, [*recipe.filters, *typed]):
        table = con.sql(
            f"SELECT uid, shard, file_index, file_row_number{numbers} "
            f"FROM ({predicates.evaluation_query(pool.paths, recipe.filters, also)}) WHERE {passes}"
        ).to_arrow_table()
    ((downloaded,),) = con.execute("SELECT count(*) FROM rows WHERE status = 'ok'").fetchall()
    places = distinct.places(table, pool.counts)
    order = np.argsort(places, kind="stable")
    order = order[np.isin(places[order], _dropped(losers), invert=True)]
    table, places = table.take(pa.array(order)), places[order]
    uids = table["uid"].combine_chunks()
    shards: npt.NDArray[np.int64] = table["shard"].to_numpy().astype(np.int64)
    found = Survivors(
        uids=uids.to_pylist(),
        pool=int(downloaded),
        values={name: _numbers(table[f"v{number}"]) for number, name in enumerate(values)},
        embeddings=lambda scorer: Embeddings(pool.storage, pool.stages, scorer, uids, shards),
        target=lambda scorer: target(pool.storage, pool.stages, scorer),
    )
    return found, places


def features_scorers(storage: Storage, stages: StageKeys) -> list[str]:
    """The scorers that stored the features of a target set."""
    return [name for name, key in stages.scores.items() if storage.done(_features(name, key))]


def target(storage: Storage, stages: StageKeys, scorer: str) -> Target:
    """The features of a target set that a scorer stored."""
    return Target.read(storage.fetch(_features(scorer, stages.scores[scorer])))


def _features(scorer: str, key: str) -> str:
    return f"scores/{scorer}-{key}/{FEATURES}"


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = column.fill_null(np.nan).to_numpy()
    return found
