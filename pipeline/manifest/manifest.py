"""A source's published rows: the kept rows and the reasons, what another recipe would keep, and SQL over all rows.

A manifest is a JSON document that lists parts: the wide rows of about a hundred shards, and a small aligned file with
their verdicts. One object, `log/<n>.json`, commits it, so that readers see either the whole manifest or nothing.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.core import Filter, Recipe
from pipeline.errors import RecipeError, StorageError
from pipeline.filtering import distinct, funnel, predicates, quantiles
from pipeline.filtering.distinct import Neighbours
from pipeline.filtering.funnel import Comparison, Step
from pipeline.filtering.reasons import Reasons
from pipeline.filtering.sequence import in_sequence
from pipeline.manifest import card, verdicts
from pipeline.manifest.document import Counts, Document, StageKeys, without_why
from pipeline.manifest.log import check_not_removed, newest
from pipeline.progress import StepProgress, silent_step
from pipeline.store import duck
from pipeline.store.storage import Storage

if TYPE_CHECKING:  # a query opens a manifest, and needs neither torch nor the algorithms of selections
    from pipeline.manifest.embeddings import Embeddings
    from pipeline.manifest.endings import Pool
    from pipeline.scorers.target_file import Target


@dataclass(frozen=True)
class Part:
    """Storage keys of a rows object and its aligned verdicts, and how many rows each has."""

    rows: str
    verdicts: str
    count: int


@dataclass(frozen=True)
class Manifest:
    """One published manifest. Its id is a digest of `document`."""

    storage: Storage
    id: str
    document: Document

    @classmethod
    def open(cls, storage: Storage, id: str | None = None) -> Self:  # noqa: A002
        """The newest manifest, or the one that `id` names (`pipeline.manifest.log.newest`). Raises StorageError."""
        id = newest(storage, id)  # noqa: A001
        key = f"manifests/{id}.json"
        if not storage.done(key):
            check_not_removed(storage, id)
        return cls(storage, id, Document.parse(storage.fetch(key).read_bytes()))

    @property
    def counts(self) -> Counts:
        """The number of rows by outcome."""
        return self.document.counts

    @property
    def source(self) -> str:
        """The name of its source."""
        return self.document.inputs.source

    @property
    def stages(self) -> StageKeys:
        """The keys of the stages that made its rows."""
        return self.document.inputs.stages

    @property
    def parts(self) -> list[Part]:
        """The data, in ledger order."""
        rows = zip(self.document.inputs.rows, self.document.verdicts, strict=True)
        return [Part(row.key, verdicts, row.count) for row, verdicts in rows]

    @cached_property
    def card(self) -> Mapping[str, Any]:
        """Facts about how it was made that are not part of its id: versions, timings, score ranges, reasons."""
        facts: dict[str, Any] = json.loads(self.storage.fetch(card.key(self.id)).read_bytes())
        return facts

    @property
    def recipe(self) -> Recipe:
        """The published recipe, with the sentences of the card for its filters."""
        recipe, why = self.document.inputs.recipe, self.card["why"]
        return replace(recipe, filters=tuple(replace(each, why=why.get(each.name, "")) for each in recipe.filters))

    @property
    def reasons(self) -> Reasons:
        """The meaning of the bits of its verdicts."""
        return Reasons.of(self.document.inputs.recipe)

    @property
    def neighbours(self) -> Mapping[str, Neighbours]:
        """The edges between near-duplicates, by the scorer that found them.

        Raises StorageError for a manifest that stores them in an older form.
        """
        neighbours = self.document.inputs.neighbours
        if neighbours is None:
            raise StorageError(f"manifest {self.id} is of an older winnow: `winnow curate` publishes it again")
        return neighbours

    def check_last(self, recipe: Recipe) -> None:
        """Check the `distinct` and the `selection` of a recipe. Raises RecipeError."""
        distinct.check(recipe.distinct, {name: each.radius for name, each in self.neighbours.items()}, self.columns)
        if recipe.selection:
            from pipeline.manifest import endings
            from pipeline.selection import choosing
            from pipeline.selection.survivors import Scorers

            scorers = Scorers(self.embedding_scorers, endings.features_scorers(self.storage, self.stages))
            choosing.check(recipe.selection, scorers, self.columns)

    @cached_property
    def embedding_scorers(self) -> list[str]:
        """The scorers that stored embeddings."""
        from pipeline.manifest.embeddings import scorers_with_embeddings

        return scorers_with_embeddings(self.storage, self.stages)

    def embeddings(self, scorer: str, uids: pa.Array) -> "Embeddings":
        """The embeddings that a scorer stored, a row for each of `uids`.

        Raises ModelError for a scorer without embeddings, StorageError for a uid that the manifest does not have.
        """
        import pyarrow.compute as pc

        from pipeline.manifest.embeddings import Embeddings

        rows = pa.concat_tables(pq.read_table(path, columns=["uid", "shard", "status"]) for path in self.row_files())
        at = pc.index_in(uids, rows["uid"].combine_chunks())
        if at.null_count:
            raise StorageError(f"manifest {self.id[:12]} has no pair {uids.filter(at.is_null())[0].as_py()!r}")
        chosen = rows.take(at)
        shards = np.where(pc.equal(chosen["status"], "quarantined").to_numpy(), -1, chosen["shard"].to_numpy())
        return Embeddings(self.storage, self.stages, scorer, uids, shards.astype(np.int64))

    def target(self, scorer: str) -> "Target":
        """The features of a target set that a scorer of kind target_features stored."""
        from pipeline.manifest import endings

        return endings.target(self.storage, self.stages, scorer)

    @cached_property
    def columns(self) -> pa.Schema:
        """The columns that a filter can use."""
        return pq.read_schema(self._rows[0]).remove_metadata()

    @property
    def complete(self) -> bool:
        """Whether all its rows and verdicts exist. A takedown removes rows of older manifests."""
        return all(self.storage.done(key) for part in self.parts for key in (part.rows, part.verdicts))

    @cached_property
    def _rows(self) -> list[Path]:
        if not self.complete:
            check_not_removed(self.storage, self.id)
            self._check_not_taken_down()
        return self.storage.fetch_all(part.rows for part in self.parts)

    def _check_not_taken_down(self) -> None:
        from pipeline.ledger.blocklist import FOLDER

        if self.storage.keys(FOLDER):
            raise StorageError(
                f"manifest {self.id[:12]} is no longer complete: pairs of it were taken down by `winnow forget`; take "
                "a newer one, or run `winnow curate` if this is the newest"
            )

    def row_files(self) -> list[Path]:
        """The files with its rows, in ledger order, without verdicts."""
        return list(self._rows)

    def files(self) -> list[Path]:
        """All files with its rows and verdicts."""
        return [*self._rows, *self._verdict_files(self.parts)]

    def _verdict_files(self, parts: Sequence[Part]) -> list[Path]:
        if not all(self.storage.done(part.verdicts) for part in parts):
            check_not_removed(self.storage, self.id)
        return self.storage.fetch_all(part.verdicts for part in parts)

    def check(self, *filters: Filter) -> None:
        """Bind filters against the columns. Raises RecipeError."""
        predicates.bind(filters, self.columns)

    def fits(self, recipe: Recipe) -> bool:
        """Whether the manifest has all columns and neighbours that the recipe needs."""
        try:
            self.check(*recipe.filters)
            self.check_last(recipe)
        except RecipeError:
            return False
        return True

    def funnel(self, recipe: Recipe, progress: StepProgress = silent_step) -> list[Step]:
        """The effect of each filter of a recipe on this manifest's pairs. `progress` as of `compare`."""
        return self.compare([recipe], progress).funnels[0].steps

    def compare(self, recipes: Sequence[Recipe], progress: StepProgress = silent_step) -> Comparison:
        """The effects of recipes on this manifest's pairs, in one pass over the columns they name.

        `progress` is that of a selection, and begins anew with each. The selection of the published recipe is not
        evaluated again: the verdicts have its result.
        """
        from pipeline.manifest import endings

        with self._opened(recipes) as con:
            counts, numbered = [part.count for part in self.parts], [self._numbered(con, each) for each in recipes]
            stored = {
                each: verdicts.losers(self._verdict_files(self.parts), recipe)
                for recipe, each in zip(recipes, numbered, strict=True)
                if recipe.endings and self.is_published(recipe)
            }
            last = endings.OverRows(con, self._pool(progress), stored)
            found = funnel.compare(con, self._rows, counts, numbered, last)
        return found.in_words_of(recipes)

    def is_published(self, recipe: Recipe) -> bool:
        """Whether its verdicts are those of this recipe."""
        return without_why(recipe) == self.document.inputs.recipe

    @cached_property
    def _quantiles(self) -> dict[tuple[str, str], str]:
        """Of its rows, which do not change: what `quantiles.with_numbers` has found so far."""
        return {}

    def _numbered(self, con: duckdb.DuckDBPyConnection, recipe: Recipe) -> Recipe:
        return replace(recipe, filters=quantiles.with_numbers(con, recipe.filters, self._quantiles))

    def _pool(self, progress: StepProgress) -> "Pool":
        from pipeline.manifest.endings import Pool

        counts = [part.count for part in self.parts]
        return Pool(self.storage, self._rows, counts, self.document.inputs.neighbours or {}, self.stages, progress)

    def select(self, recipe: Recipe | None = None, progress: StepProgress = silent_step) -> pa.Table:
        """The column `uid` of the pairs that a recipe keeps, in ledger order. The default is the published recipe.

        If the recipe may keep a pair more than once, the column `copies`, uint16, has how many times. `progress` is
        that of a selection.
        """
        repeats = (recipe or self.document.inputs.recipe).repeats
        columns = ["uid", "copies"] if repeats else ["uid"]
        if recipe is None or (recipe.endings and self.is_published(recipe)):
            with self.connection() as con:
                return con.sql(f"SELECT {', '.join(columns)} FROM rows WHERE kept").to_arrow_table()
        if recipe.endings:
            decided = self.verdicts(recipe, progress)
            return decided.filter(decided["kept"]).select(columns)
        passes = " AND ".join(["ok", *(f"f{i}" for i in range(len(recipe.filters)))])
        with self._opened([recipe]) as con:
            evaluated = predicates.evaluation_query(self._rows, self._numbered(con, recipe).filters)
            return con.sql(f"SELECT uid FROM ({evaluated}) WHERE {passes}").to_arrow_table()

    def verdicts(self, recipe: Recipe, progress: StepProgress = silent_step) -> pa.Table:
        """`uid`, `kept`, `dropped_by` and `copies` of every downloaded pair under the recipe, in ledger order.

        `progress` is that of a selection.
        """
        from pipeline.manifest import deciding

        with self._opened([recipe]) as con:
            found = pa.concat_tables(deciding.evaluate(con, self._pool(progress), self._numbered(con, recipe)))
            con.from_arrow(found).create("verdicts")
            copies = "copies" if recipe.repeats else "kept::USMALLINT AS copies"
            listed = Reasons.of(recipe).listed(f"{verdicts.REJECTED} | {verdicts.UNKNOWN}")
            return con.sql(
                f"SELECT uid, kept, {listed} AS dropped_by, {copies} FROM "
                f"(SELECT uid, status FROM {duck.parquet(self._rows)}) POSITIONAL JOIN verdicts WHERE status = 'ok'"
            ).to_arrow_table()

    @contextlib.contextmanager
    def _opened(self, recipes: Sequence[Recipe]) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the view `rows`. Checks first that every recipe fits. Raises RecipeError."""
        for recipe in recipes:
            self.check(*recipe.filters)
            self.check_last(recipe)
        with self._explained(), self.storage.scratch() as scratch, duck.connect(scratch) as con:
            predicates.view_parts(con, self._rows)
            with predicates.attribute_errors(
                con, self._rows, [each for recipe in recipes for each in in_sequence(recipe.filters)]
            ):
                yield con

    @contextlib.contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A new DuckDB connection with the view `rows`: every column, and the verdict (see `view`)."""
        with self._explained(), self.storage.scratch() as scratch, duck.connect(scratch) as con:
            con.execute(f"CREATE VIEW rows AS {self.view()}")
            yield con

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """A file that DuckDB misses is explained, if the manifest was removed meanwhile."""
        try:
            yield
        except duckdb.IOException:
            check_not_removed(self.storage, self.id)
            raise

    def view(self) -> str:
        """A SELECT of all rows in ledger order with `kept`, `dropped_by`, `unknown` and `copies`.

        `dropped_by` names every filter that a downloaded pair does not pass, `unknown` those of them without an answer.
        `copies` is how many times a pair is kept: 0, 1, and more only for a recipe that repeats.
        """
        stored = verdicts.select(self._verdict_files(self.parts), self.document.inputs.recipe)
        return (
            f"SELECT r.*, v.kept, {self.reasons.listed('v.rejected | v.unknown')} AS dropped_by, "
            f"{self.reasons.listed('v.unknown')} AS unknown, v.copies\n"
            f"FROM {duck.parquet(self._rows)} r\n"
            f"POSITIONAL JOIN ({stored}) v"
        )

    def sides(self, parts: Sequence[Part]) -> str:
        """A SELECT over some of its parts: uid, `side` (kept, dropped, failed or quarantined), and `bits`.

        A bit of `bits` is a filter that a downloaded pair does not pass; `reasons` names the bits.
        """
        if not parts:
            return "SELECT NULL::VARCHAR AS uid, NULL::VARCHAR AS side, NULL::UBIGINT AS bits WHERE false"
        rows = duck.parquet(self.storage.fetch_all(part.rows for part in parts))
        stored = verdicts.select(self._verdict_files(parts), self.document.inputs.recipe)
        return (
            "SELECT uid, CASE WHEN kept THEN 'kept' WHEN status = 'ok' THEN 'dropped' ELSE status END AS side, "
            "rejected | unknown AS bits\n"
            f"FROM (SELECT uid, status FROM {rows}) r\n"
            f"POSITIONAL JOIN ({stored}) v"
        )
