"""A published manifest in Python: counts, funnels, tables, embeddings, pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.core import Recipe
from pipeline.errors import RecipeError, StorageError, WinnowError
from pipeline.export.content import About, Content
from pipeline.export.export import Exported, write
from pipeline.export.formats import FORMATS
from pipeline.manifest import apart
from pipeline.manifest.columns import check_known
from pipeline.manifest.document import Counts
from pipeline.manifest.embeddings import Embeddings
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest as Published
from pipeline.progress import Progress, silent
from pipeline.query import sandbox
from pipeline.query.named import resolve
from pipeline.review import diff
from pipeline.review.diff import Difference
from pipeline.takedown.writing import writing
from winnow.funnels import Funnel
from winnow.samples import Sample
from winnow.sources import Source
from winnow.tables import Form, as_form


@dataclass(frozen=True)
class Manifest:
    """One published manifest of a source. It never changes: `publish` returns another one. Make one with `open`.

    A recipe is given as a `Recipe`, or by its name; None means the published one. Tables are `pyarrow.Table`, or with
    `form` a `pandas.DataFrame` or `polars.DataFrame`.
    """

    origin: Source
    published: Published

    @classmethod
    def open(
        cls,
        source: str | PathLike[str] | Source,
        id: str | None = None,  # noqa: A002
        root: str | PathLike[str] = "data",
    ) -> Self:
        """The newest manifest of a source, or the one whose id begins with `id`; "-2" is the one before the newest.

        Raises SourceError, and StorageError where nothing is published or no manifest has such an id.
        """
        opened = Source.open(source, root)
        return cls(opened, Published.open(opened.storage, id))

    @property
    def id(self) -> str:
        """32 hex digits: a digest of everything that decides which rows are kept."""
        return self.published.id

    @property
    def source(self) -> str:
        """The name of its source."""
        return self.published.source

    @property
    def counts(self) -> Counts:
        """Rows by outcome: input = repeated + kept + dropped + failed + quarantined."""
        return self.published.counts

    @property
    def recipe(self) -> Recipe:
        """The published recipe."""
        return self.published.recipe

    @property
    def columns(self) -> pa.Schema:
        """The columns that SQL and filters can use, and their types."""
        return self.published.columns

    def funnel(self, recipe: str | Recipe | None = None) -> Funnel:
        """The effect of each filter of a recipe on this manifest's pairs. Nothing is scored again.

        Raises RecipeError for SQL that does not bind, or an unknown name.
        """
        return self.compare([self._recipe(recipe)])[0]

    def compare(self, recipes: Sequence[str | Recipe]) -> list[Funnel]:
        """The funnels of several recipes, from one pass over the columns that they name.

        Raises RecipeError as `funnel`, and for one recipe that is not in a list.
        """
        if isinstance(recipes, str | Recipe):
            raise RecipeError("recipes is a list: Manifest.funnel takes one recipe")
        chosen = [self._recipe(each) for each in recipes]
        found = apart.compare(self.published.storage, self.id, chosen)
        return [Funnel(found.pool, each) for each in found.funnels]

    def select(
        self, recipe: str | Recipe | None = None, columns: Sequence[str] = ("uid",), form: Form = "arrow"
    ) -> Any:
        """The pairs that a recipe keeps, a row each, in ledger order, with these columns of `rows`.

        If the recipe may keep a pair more than once, the last column is `copies`: how often it keeps it. Raises
        RecipeError, and QueryError for an unknown column.
        """
        check_known(self.published, columns)
        names = list(columns)
        chosen = self.published.select(None if recipe is None else self._recipe(recipe))
        if names == ["uid"]:
            return as_form(chosen, form)
        wanted = dict.fromkeys(["uid", *names])
        keys = chosen["uid"].combine_chunks()
        parts = (pq.read_table(path, columns=list(wanted)) for path in self.published.row_files())
        kept = pa.concat_tables(part.filter(pc.is_in(part["uid"], keys)) for part in parts)
        found = kept.select(names)
        if "copies" in chosen.column_names:
            found = found.append_column("copies", chosen["copies"].take(pc.index_in(kept["uid"], keys)))
        return as_form(found, form)

    def sql(self, query: str, form: Form = "arrow", deadline: float = sandbox.DEADLINE) -> Any:
        """The answer to one SELECT over this manifest's rows; "@NAME" is a query of `winnow sql --list`.

        The views are those of `winnow sql`. The query runs in a process that can write nothing. Raises QueryError,
        also after `deadline` seconds.
        """
        storage = self.published.storage
        return as_form(sandbox.run(resolve(query), [storage], deadline=deadline, manifest=self.id), form)

    def diff(self, other: "str | Self | None" = None, examples: int = 5) -> Difference:
        """What changed from another manifest of the source to this one: rows that changed sides, and why.

        `other` is a manifest or the beginning of its id; by default the one that was published before this one.
        `examples` rows of each move are listed. Raises StorageError if there is no such manifest.
        """
        before = other.published if isinstance(other, Manifest) else self._before(other)
        return diff.between(before, self.published, examples)

    def embeddings(self, scorer: str = "clip", uids: Any = None) -> Embeddings:
        """The stored embeddings of a scorer, aligned with `uids` (an Arrow column, or a list), else with all rows.

        Raises ModelError for a scorer without embeddings, and StorageError for an unknown uid.
        """
        if uids is None:
            uids = pa.concat_tables(pq.read_table(path, columns=["uid"]) for path in self.published.row_files())["uid"]
        chunked = uids if isinstance(uids, pa.ChunkedArray) else pa.chunked_array([pa.array(uids, pa.string())])
        return self.published.embeddings(scorer, chunked.combine_chunks())

    def export(
        self,
        to: str | PathLike[str],
        format: str = "webdataset",  # noqa: A002
        recipe: str | Recipe | None = None,
        progress: Progress = silent,
    ) -> Exported:
        """Write the pairs that a recipe keeps into a new folder, in a format of `winnow export`.

        The folder appears when it is complete, and an equal one is left as it is. Raises StorageError for a folder that
        holds anything else, RecipeError, and ModelError for format="embeddings" without embeddings.
        """
        if format not in FORMATS:
            raise WinnowError(f"there is no format {format!r}: take one of {', '.join(FORMATS)}")
        described = self.origin.described
        about = About(described.title, described.license, described.homepage)
        chosen = None if recipe is None else self._recipe(recipe)
        return write(Content(self.published, format, chosen, about=about), Path(to), progress)

    def publish(self, recipe: str | Recipe) -> Self:
        """Publish the newest manifest's rows under another recipe. Nothing is downloaded or scored.

        Returns the manifest of that recipe, which is the newest one now. Raises RecipeError for a recipe that does not
        fit, BusyError beside another run of the source.
        """
        storage = self.published.storage
        with writing(storage, self.origin.described):
            made = apart.republish(storage, self._recipe(recipe))
        return type(self).open(self.origin, made.id)

    def sample(
        self, pairs: int = 100, where: str = "status = 'ok'", seed: int = 0, show_unsafe: bool = False
    ) -> Sample:
        """Random downloaded pairs with their pictures, for which `where`, a condition in SQL, is true.

        The same seed gives the same pairs. A notebook shows unsafe pictures veiled, unless `show_unsafe`. Raises
        QueryError for a condition that does not bind.
        """
        query = (
            f"SELECT * FROM rows WHERE status = 'ok' AND ({where}) ORDER BY hash(concat(uid, '{int(seed)}')), uid "
            f"LIMIT {int(pairs)}"
        )
        return Sample(self.published, self.sql(query).drop_columns(["source"]), show_unsafe)

    def _recipe(self, recipe: str | Recipe | None) -> Recipe:
        if isinstance(recipe, Recipe):
            return recipe
        return self.origin.recipe(recipe) if recipe else self.recipe

    def _before(self, other: str | None) -> Published:
        storage = self.published.storage
        if other is not None:
            return Published.open(storage, other)
        parents = {each.id: each.parent for each in commits(storage)}
        parent = parents.get(self.id)
        if parent is None:
            raise StorageError(f"manifest {self.id[:12]} is the first of {self.source}: name another one")
        return Published.open(storage, parent)

    def __repr__(self) -> str:
        counts = self.counts
        return f"Manifest({self.source!r}, {self.id[:12]!r}, {counts.kept:,} of {counts.pool:,} pairs kept)"
