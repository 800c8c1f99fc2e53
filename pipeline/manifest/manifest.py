"""A source's published rows: what was kept and why, what another recipe would keep, and SQL over all of it.

A manifest is a JSON document that lists parts: the wide rows of about a hundred shards, and a small aligned file with
their verdicts. It is committed by one object, `log/<n>.json`; whoever reads sees it whole or not at all.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.core import DISTINCT, Distinct, Filter, Recipe
from pipeline.errors import RecipeError, StorageError
from pipeline.filtering import distinct, funnel, predicates
from pipeline.filtering.distinct import Losers, Neighbours
from pipeline.filtering.funnel import Comparison, Step
from pipeline.filtering.sequence import in_sequence
from pipeline.ledger.blocklist import FOLDER as FORGOTTEN
from pipeline.store import duck
from pipeline.store.storage import Storage


@dataclass(frozen=True)
class Counts:
    """Where every row of the source's list went: input = repeated + kept + dropped + failed + quarantined.

    `unscored` rows are those of `dropped` for which some filter had no answer. Raises StorageError if a row is missing.
    """

    input: int
    repeated: int
    kept: int
    dropped: int
    unscored: int
    failed: int
    quarantined: int

    def __post_init__(self) -> None:
        told = self.repeated + self.kept + self.dropped + self.failed + self.quarantined
        if told != self.input or not 0 <= self.unscored <= self.dropped:
            raise StorageError(f"{self.input} rows came in and {told} are accounted for ({asdict(self)}); report this")

    @property
    def pool(self) -> int:
        """Downloaded pairs: what the filters chose from."""
        return self.kept + self.dropped


@dataclass(frozen=True)
class Part:
    """Storage keys of a rows object and its aligned verdicts, and how many rows each has."""

    rows: str
    verdicts: str
    count: int


@dataclass(frozen=True)
class Commit:
    """An entry of the log: a manifest became the newest one. `time` is UTC, ISO 8601."""

    number: int
    id: str
    parent: str | None
    time: str


def log(storage: Storage) -> list[Commit]:
    """What was published, oldest first."""
    return [Commit(int(Path(key).stem), **json.loads(storage.fetch(key).read_bytes())) for key in storage.keys("log")]


@dataclass(frozen=True)
class Manifest:
    """One published manifest. `document` is what the id was hashed over."""

    storage: Storage
    id: str
    document: Mapping[str, Any]

    @classmethod
    def open(cls, storage: Storage, id: str | None = None) -> Self:  # noqa: A002
        """The newest manifest, or the one whose id begins with `id`; "-2" is the one before the newest, and so on.

        Raises StorageError unless there is just one.
        """
        known = [commit.id for commit in log(storage)]
        if not known:
            raise StorageError(f"nothing is published in {storage.root} yet: run `winnow curate` first")
        if id is not None and re.fullmatch(r"-[1-9]\d*", id):
            if int(id[1:]) > len(known):
                raise StorageError(f"there is no manifest {id}: only {len(known)} were published so far")
            id = known[int(id)]  # noqa: A001
        found = known[-1:] if id is None else sorted({each for each in known if each.startswith(id)})
        if len(found) != 1:
            some = ", ".join(each[:12] for each in found or known[-5:])
            raise StorageError(f"{len(found)} manifests begin with {id!r}; choose one of {some}")
        return cls(storage, found[0], json.loads(storage.fetch(f"manifests/{found[0]}.json").read_bytes()))

    @property
    def counts(self) -> Counts:
        """Where every row went."""
        return Counts(**self.document["counts"])

    @property
    def parts(self) -> list[Part]:
        """The data, in ledger order."""
        rows = zip(self.document["rows"], self.document["verdicts"], strict=True)
        return [Part(row["key"], verdicts, row["count"]) for row, verdicts in rows]

    @cached_property
    def card(self) -> Mapping[str, Any]:
        """What is known about how it was made, and not part of its id: versions, timings, score ranges, reasons."""
        card: dict[str, Any] = json.loads(self.storage.fetch(f"manifests/{self.id}.card.json").read_bytes())
        return card

    @property
    def recipe(self) -> Recipe:
        """The recipe that was published."""
        recipe = self.document["recipe"]
        why = self.card["why"]
        return Recipe(
            recipe["name"],
            tuple(Filter(row["name"], row["sql"], why.get(row["name"], "")) for row in recipe["filters"]),
            Distinct(**recipe["distinct"]) if "distinct" in recipe else None,
        )

    @property
    def neighbours(self) -> Mapping[str, Neighbours]:
        """Where the edges between near-duplicates lie, by the scorer that looked for them.

        Raises StorageError for a manifest in which they stand otherwise.
        """
        try:
            return {name: Neighbours(**each) for name, each in self.document.get("neighbours", {}).items()}
        except TypeError:
            raise StorageError(f"manifest {self.id} is of an older winnow: `winnow curate` publishes it anew") from None

    def check_end(self, last: Distinct | None) -> None:
        """Check what a recipe ends in. Raises RecipeError."""
        distinct.check(last, {name: each.radius for name, each in self.neighbours.items()}, self.columns)

    @cached_property
    def columns(self) -> pa.Schema:
        """The columns that a filter can use."""
        return pq.read_schema(self._rows[0]).remove_metadata()

    @property
    def complete(self) -> bool:
        """Whether all its rows are there. Those of an older manifest go when pairs of it are taken down."""
        return all(self.storage.done(part.rows) for part in self.parts)

    @cached_property
    def _rows(self) -> list[Path]:
        if not self.complete and self.storage.keys(FORGOTTEN):
            raise StorageError(
                f"manifest {self.id[:12]} is no longer complete: pairs of it were taken down by `winnow forget`; take "
                "a newer one, or run `winnow curate` if this is the newest"
            )
        return [self.storage.fetch(part.rows) for part in self.parts]

    def files(self) -> list[Path]:
        """All files that its rows and verdicts are in."""
        return [*self._rows, *(self.storage.fetch(part.verdicts) for part in self.parts)]

    def check(self, *filters: Filter) -> None:
        """Bind filters against the columns. Raises RecipeError."""
        predicates.bind(filters, self.columns)

    def fits(self, recipe: Recipe) -> bool:
        """Whether all that the recipe asks for is there."""
        try:
            self.check(*recipe.filters)
            self.check_end(recipe.distinct)
        except RecipeError:
            return False
        return True

    def funnel(self, recipe: Recipe) -> list[Step]:
        """What each filter of any recipe does to this manifest's pairs."""
        return self.compare([recipe]).funnels[0].steps

    def compare(self, recipes: Sequence[Recipe]) -> Comparison:
        """What any recipes do to this manifest's pairs, side by side, in one pass over the columns they name."""
        with self._opened(recipes) as con:
            counts = [part.count for part in self.parts]
            return funnel.compare(con, self._rows, counts, recipes, lambda recipe: self._losers(con, recipe))

    def _losers(self, con: duckdb.DuckDBPyConnection, recipe: Recipe) -> Losers:
        assert recipe.distinct
        counts, among = [part.count for part in self.parts], distinct.among(recipe.distinct.of, self.neighbours)
        return distinct.losers(con, self.storage, self._rows, counts, recipe.filters, recipe.distinct, among)

    def select(self, recipe: Recipe | None = None) -> pa.Table:
        """The column `uid` of what the recipe keeps, in ledger order; without a recipe, of what was published."""
        if recipe is None:
            with self.connection() as con:
                return con.sql("SELECT uid FROM rows WHERE kept").to_arrow_table()
        passes = " AND ".join(["ok", *(f"f{i}" for i in range(len(recipe.filters)))])
        with self._opened([recipe]) as con:
            judged = predicates.judged(self._rows, recipe.filters)
            wanted = "uid, file_index, file_row_number" if recipe.distinct else "uid"
            kept = con.sql(f"SELECT {wanted} FROM ({judged}) WHERE {passes}").to_arrow_table()
            if recipe.distinct:
                lost = self._losers(con, recipe)
                places = distinct.places(kept, [part.count for part in self.parts])
                kept = kept.filter(np.isin(places, np.concatenate([lost.repeated, lost.unknown]), invert=True))
            return kept.select(["uid"])

    def verdicts(self, recipe: Recipe) -> pa.Table:
        """`uid`, `kept` and `dropped_by` of every downloaded pair, in ledger order, as the recipe would have it."""
        chosen = self.select(recipe)
        failed = ", ".join(
            f"CASE WHEN f{i} IS NOT TRUE THEN {duck.literal(each.name)} END" for i, each in enumerate(recipe.filters)
        )
        with self._opened([recipe]) as con:
            con.from_arrow(chosen).create("chosen")
            return con.sql(
                "SELECT j.uid, c.uid IS NOT NULL AS kept, CASE WHEN c.uid IS NULL AND len(no) = 0 "
                f"THEN [{duck.literal(DISTINCT)}] ELSE no END AS dropped_by FROM (SELECT *, "
                f"list_filter([{failed}]::VARCHAR[], lambda name: name IS NOT NULL) AS no "
                f"FROM ({predicates.judged(self._rows, recipe.filters)}) WHERE ok) j "
                "LEFT JOIN chosen c USING (uid) ORDER BY file_index, file_row_number"
            ).to_arrow_table()

    @contextlib.contextmanager
    def _opened(self, recipes: Sequence[Recipe]) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the view `rows`, once every recipe is known to fit. Raises RecipeError."""
        for recipe in recipes:
            self.check(*recipe.filters)
            self.check_end(recipe.distinct)
        with self.storage.scratch() as scratch, duck.connect(scratch) as con:
            predicates.view_parts(con, self._rows)
            with predicates.blaming(
                con, self._rows, [each for recipe in recipes for each in in_sequence(recipe.filters)]
            ):
                yield con

    @contextlib.contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection of its own with the view `rows`: every column, and the verdict (see `view`)."""
        with self.storage.scratch() as scratch, duck.connect(scratch) as con:
            con.execute(f"CREATE VIEW rows AS {self.view()}")
            yield con

    def view(self) -> str:
        """A SELECT of all rows in ledger order with `kept`, `dropped_by` and `unknown`.

        `dropped_by` names every filter that a downloaded pair did not pass, `unknown` those of them that had no answer.
        """
        verdicts = duck.parquet(self.storage.fetch(part.verdicts) for part in self.parts)
        return (
            f"SELECT r.*, v.kept, {self.reasons('v.dropped_by | v.unknown')} AS dropped_by, "
            f"{self.reasons('v.unknown')} AS unknown\n"
            f"FROM {duck.parquet(self._rows)} r\n"
            f"POSITIONAL JOIN {verdicts} v"
        )

    def sides(self, parts: Sequence[Part]) -> str:
        """A SELECT over some of its parts: uid, `side` (kept, dropped, failed or quarantined), and `bits`.

        A bit stands for a filter that a downloaded pair did not pass; `reasons` names it.
        """
        if not parts:
            return "SELECT NULL::VARCHAR AS uid, NULL::VARCHAR AS side, NULL::UBIGINT AS bits WHERE false"
        rows, verdicts = (
            duck.parquet(map(self.storage.fetch, keys))
            for keys in ([part.rows for part in parts], [part.verdicts for part in parts])
        )
        return (
            "SELECT uid, CASE WHEN kept THEN 'kept' WHEN status = 'ok' THEN 'dropped' ELSE status END AS side, "
            "dropped_by | unknown AS bits\n"
            f"FROM (SELECT uid, status FROM {rows}) r\n"
            f"POSITIONAL JOIN {verdicts} v"
        )

    def reasons(self, bits: str) -> str:
        """SQL for the list of the filters whose bit is set, in the recipe's order."""
        recipe = self.document["recipe"]
        names = [*(row["name"] for row in recipe["filters"]), *([DISTINCT] if "distinct" in recipe else [])]
        each = ", ".join(
            f"CASE WHEN ({bits}) & {1 << i}::UBIGINT <> 0 THEN {duck.literal(name)} END" for i, name in enumerate(names)
        )
        return f"list_filter([{each}]::VARCHAR[], lambda name: name IS NOT NULL)"
