"""A manifest's rows in memory, and what any recipe would do to them: counts in milliseconds, for somebody who drags.

DuckDB says what each filter says, so that a count is the one that publishing the recipe would give. Its answers are
kept by the filter's SQL: while one threshold moves, all others stand, and the rest is numpy on one byte a pair.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.core import DISTINCT, Distinct, Filter, Recipe, in_sequence
from pipeline.errors import QueryError, RecipeError
from pipeline.filtering import distinct, predicates, thresholds
from pipeline.filtering.funnel import Step, ending
from pipeline.filtering.thresholds import Comparison, Threshold
from pipeline.manifest.columns import score_columns
from pipeline.manifest.manifest import Manifest
from pipeline.pages import charts
from pipeline.pages.charts import Axis
from pipeline.store import duck

Pairs = npt.NDArray[np.bool_]
"""Which downloaded pairs, by their place among them."""

DEADLINE = 30.0
"""Seconds after which a filter is stopped."""

REMEMBERED = 64
"""Filters whose answers are kept: a recipe's 63 at most, and one that moves. A byte a pair each."""

_NONE = np.uint8(255)


@dataclass(frozen=True)
class Verdict:
    """What one filter says of each downloaded pair: 1 yes, 0 no, -1 no answer; and how many of them."""

    said: npt.NDArray[np.int8]
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
    """The picture that each downloaded pair shows, whether that is known, whether any other may be its neighbour; and
    the pictures at both ends of each edge."""

    pictures: npt.NDArray[np.uint64]
    known: Pairs
    crowded: Pairs
    low: npt.NDArray[np.uint64]
    high: npt.NDArray[np.uint64]


class Rows:
    """The columns that filters are made of, in memory; captions, URLs and other words stay in their files."""

    def __init__(self, manifest: Manifest, scratch: Path, deadline: float = DEADLINE) -> None:
        """Read the manifest. What does not fit into half of the memory goes to `scratch`."""
        self.manifest, self._deadline = manifest, deadline
        files = [manifest.storage.fetch(part.rows) for part in manifest.parts]
        self._con = duck.connect(scratch)
        predicates.view_parts(self._con, files)
        self._con.execute("ALTER VIEW rows RENAME TO whole")
        self._con.execute(f"CREATE TABLE rows AS SELECT {', '.join(self._narrow())} FROM whole")
        self._con.execute(f"SET allowed_paths = {duck.file_list(files)}")
        self._con.execute("SET enable_external_access = false")
        self._con.execute("SET lock_configuration = true")
        ok = self._con.sql("SELECT status = 'ok' AS ok FROM rows").to_arrow_table()["ok"].to_numpy()
        self._places = np.flatnonzero(ok)
        """The row of each downloaded pair."""
        self.axes = [each for field in charts.numbers(manifest) if (each := charts.axis(self._con, field)) is not None]
        self._bins = np.stack([self._binned(axis) for axis in self.axes]) if self.axes else np.empty((0, self.pool))
        none, every = np.zeros(self.pool, bool), np.ones(self.pool, bool)
        self._known = [(none, 0 * (totals := self._totals())), (every, totals)]
        """Pairs whose histograms are known: none, all, and those that were asked for last."""
        self._lock = threading.Lock()
        self._verdict = lru_cache(REMEMBERED)(self._judged)
        self._lines = lru_cache(REMEMBERED)(self._drawn)
        self.matching = lru_cache(8)(self._matching)
        self._values = lru_cache(4)(self._read_values)
        self._near = lru_cache(4)(self._read_near)
        self._best = lru_cache(4)(self._read_best)
        self._order = lru_cache(2)(self._shuffled)

    @property
    def pool(self) -> int:
        """Downloaded pairs."""
        return len(self._places)

    def kept(self, recipe: Recipe) -> Pairs:
        """The pairs that a recipe keeps. Raises RecipeError for one that does not bind, or fails on a row."""
        kept = np.ones(self.pool, bool)
        for said in self.verdicts(recipe):
            kept &= said.said == 1
        return self._stay(kept, recipe.distinct)[0] if recipe.distinct else kept

    def verdicts(self, recipe: Recipe) -> list[Verdict]:
        """What each filter says, as the recipe means it. Raises RecipeError, as `kept` does."""
        return [self._blamed(each) for each in in_sequence(recipe.filters)]

    def funnel(self, recipe: Recipe) -> list[Step]:
        """What `Manifest.funnel` says. Raises RecipeError, as `kept` does."""
        whole = int(np.count_nonzero(self.kept(recipe)))
        sequence, steps = np.ones(self.pool, bool), []
        for each, said in zip(recipe.filters, self.verdicts(recipe), strict=True):
            sequence &= said.said == 1
            left = int(np.count_nonzero(sequence))
            steps.append(self._step(each, said.passes, said.unknown, left, self._costs(recipe, each.name, whole)))
        if recipe.distinct:
            alone, unknown = self._stay(np.ones(self.pool, bool), recipe.distinct)
            costs = self._costs(recipe, DISTINCT, whole)
            steps.append(self._step(ending(recipe.distinct), int(np.count_nonzero(alone)), unknown, whole, costs))
        return steps

    def _step(self, each: Filter, passes: int, unknown: int, left: int, costs: int) -> Step:
        fails = self.pool - passes - unknown
        return Step(each.name, each.sql, each.why, passes, fails, unknown, sequence=left, costs=costs)

    def _costs(self, recipe: Recipe, reason: str, whole: int) -> int:
        return int(np.count_nonzero(self.kept(recipe.without(reason)))) - whole

    def _stay(self, pairs: Pairs, last: Distinct) -> tuple[Pairs, int]:
        """Those of the pairs that no better one shows nearly the picture of, and of how many nobody knows it."""
        order, near = self._best(last), self._near(last.of, last.radius)
        asked = order[(pairs & near.crowded)[order]]
        stay = pairs & near.known
        stay[asked[distinct.beaten(near.pictures[asked], near.low, near.high)]] = False
        return stay, int(np.count_nonzero(pairs & ~near.known))

    def sides(self, this: Pairs, other: Pairs) -> Sides:
        """How many pairs which of two recipes keeps."""
        both, one, two = (int(np.count_nonzero(each)) for each in (this & other, this, other))
        return Sides(both, one - both, two - both, self.pool - one - two + both)

    def histograms(self, kept: Pairs) -> Mapping[str, Sequence[int]]:
        """By column, how many kept pairs are in each bin of its axis.

        Counts from the nearest set of pairs whose counts are known: a slider that moves a little flips few.
        """
        with self._lock:
            near, counts = min(self._known, key=lambda each: np.count_nonzero(each[0] ^ kept))
            changed = np.flatnonzero(near ^ kept)
            gained = kept[changed]
            counts = counts + self._counted(changed[gained]) - self._counted(changed[~gained])
            self._known = [*self._known[:2], (kept, counts)]
        return {axis.column: row[: axis.bins].tolist() for axis, row in zip(self.axes, counts, strict=True)}

    def totals(self) -> Mapping[str, Sequence[int]]:
        """By column, how many downloaded pairs are in each bin of its axis."""
        return self.histograms(np.ones(self.pool, bool))

    def lines(self, recipe: Recipe) -> list[Threshold]:
        """Where the filters draw lines on the columns that have an axis."""
        return [replace(line, filter=each.name) for each in recipe.filters for line in self._lines(each.sql)]

    def nearest(self, pairs: Pairs, column: str, value: float, count: int) -> npt.NDArray[np.int64]:
        """The places of the pairs whose value is nearest to `value`, half of them on each side of it, rising."""
        values = self._values(column)
        places = np.flatnonzero(pairs & np.isfinite(values))
        places = places[np.argsort(values[places], kind="stable")]
        at = int(np.searchsorted(values[places], value))
        return places[max(0, at - count // 2) : at + count // 2]

    def sample(self, pairs: Pairs, seed: int, start: int, count: int) -> npt.NDArray[np.int64]:
        """The places of `count` pairs from a blind order, the same for the same seed, from number `start` on."""
        order = self._order(seed)
        found: npt.NDArray[np.int64] = order[pairs[order]][start : start + count]
        return found

    def read(self, places: Sequence[int], columns: Sequence[str] = ("url", "caption", "shard", "member")) -> pa.Table:
        """These columns of these pairs, in their order."""
        wanted = [int(self._places[place]) for place in places]
        parts, start = [], 0
        for part in self.manifest.parts:
            here = [row - start for row in wanted if start <= row < start + part.count]
            if here:
                parts.append((self.manifest.storage.fetch(part.rows), start, here))
            start += part.count
        names = ", ".join(f'"{name}"' for name in columns)
        selects = [
            f"SELECT {start} + file_row_number AS __place, {names} FROM {duck.parquet([path], 'file_row_number')} "
            f"WHERE file_row_number IN ({', '.join(map(str, here))})"
            for path, start, here in parts
        ]
        if not selects:
            return pa.schema([self.manifest.columns.field(name) for name in columns]).empty_table()
        with self._cursor() as con:
            found = con.sql(" UNION ALL ".join(selects)).to_arrow_table()
        at = {row: number for number, row in enumerate(found["__place"].to_pylist())}
        return found.drop_columns("__place").take([at[row] for row in wanted])

    def find(self, pairs: pa.Table) -> npt.NDArray[np.int64]:
        """The places of the pairs of a table with the columns url and caption; those that are not here are left out."""
        with self._cursor() as con:
            con.register("sought", pairs)
            rows = con.sql(
                "SELECT place FROM (SELECT url, caption, row_number() OVER () - 1 AS place FROM whole) "
                "SEMI JOIN sought USING (url, caption)"
            ).to_arrow_table()["place"]
        places: npt.NDArray[np.int64] = np.flatnonzero(np.isin(self._places, rows.to_numpy()))
        return places

    def close(self) -> None:
        """Give the memory back."""
        self._con.close()

    def _narrow(self) -> list[str]:
        """All but words: those of captions and addresses, and those that travel along. Scores may be words."""
        kept = score_columns(self.manifest) | {"status"}

        def worded(field: pa.Field) -> bool:
            return field.name not in kept and not pa.types.is_primitive(field.type)

        return [f'"{field.name}"' for field in self.manifest.columns if not worded(field)]

    def _judged(self, sql: str) -> Verdict:
        moved = Comparison.of(sql) or Comparison.of_quantile(sql)
        if moved is None or moved.column not in {axis.column for axis in self.axes}:  # else there is nothing to check
            self.manifest.check(Filter("typed", sql))
        found = self._ask(f"SELECT coalesce((\n{sql}\n)::TINYINT, -1::TINYINT) AS said FROM rows")
        all_said = found["said"].to_numpy()[self._places]
        return Verdict(all_said, int(np.count_nonzero(all_said == 1)), int(np.count_nonzero(all_said == -1)))

    def _blamed(self, each: Filter) -> Verdict:
        try:
            return self._verdict(each.sql)
        except RecipeError as error:
            raise RecipeError(str(error).replace("'typed'", repr(each.name), 1)) from None
        except duckdb.Error as error:
            raise RecipeError(f"filter {each.name!r} fails on a row: {str(error).splitlines()[0]}") from None

    def _read_near(self, of: str, radius: float) -> Near:
        among = distinct.among(of, self.manifest.neighbours)
        edges = pa.table({name: pa.array([], pa.uint64()) for name in ("low", "high")})
        if among.edges:
            edges = pq.read_table(self.manifest.storage.fetch(among.edges))
            edges = edges.filter(pc.less_equal(edges["distance"], radius))
        column = self._ask(f'SELECT "{among.pictures}" AS picture FROM rows')["picture"].take(self._places)
        known = column.is_valid().to_numpy()
        pictures, low, high = distinct.pictured(column.fill_null("" if pa.types.is_string(column.type) else 0), edges)
        several, times = np.unique(pictures[known], return_counts=True)
        crowded = np.isin(pictures, np.concatenate([low, high, several[times > 1]])) & known
        return Near(pictures, known, crowded, low, high)

    def _read_best(self, last: Distinct) -> npt.NDArray[np.int64]:
        """The places of the pairs from the best to the worst."""
        self.manifest.check_end(last)
        numbered = f"SELECT (\n{last.best_by}\n) AS best, uid, row_number() OVER () - 1 AS number FROM rows"
        ordered = f"SELECT number FROM ({numbered}) ORDER BY best DESC NULLS LAST, uid"
        try:
            rows = self._ask(ordered)["number"].to_numpy()
        except duckdb.Error as error:
            raise RecipeError(f"{DISTINCT}: best_by fails on a row: {str(error).splitlines()[0]}") from None
        place = np.full(sum(part.count for part in self.manifest.parts), -1)
        place[self._places] = np.arange(self.pool)
        places: npt.NDArray[np.int64] = place[rows]
        return places[places >= 0]

    def _ask(self, sql: str) -> pa.Table:
        """Of `rows` in memory, or where the SQL is about words, of those in the files."""
        with self._cursor() as con:
            try:
                return con.sql(sql).to_arrow_table()
            except duckdb.BinderException:
                return con.sql(f"WITH rows AS (FROM whole) {sql}").to_arrow_table()

    def _drawn(self, sql: str) -> Sequence[Threshold]:
        with self._cursor() as con:
            return thresholds.drawn(con, Recipe("typed", (Filter("typed", sql),)), [axis.column for axis in self.axes])

    def _matching(self, text: str) -> Pairs:
        """The pairs with the text in their caption or URL, in upper or lower case."""
        with self._cursor() as con:
            found = con.sql(
                "SELECT contains(lower(caption), lower($text)) OR contains(lower(url), lower($text)) AS found "
                "FROM whole",
                params={"text": text},
            ).to_arrow_table()["found"]
        matching: Pairs = found.to_numpy().astype(bool)[self._places]
        return matching

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """For one question, which is stopped at the deadline."""
        with self._con.cursor() as con:
            clock = threading.Timer(self._deadline, con.interrupt)
            clock.start()
            try:
                yield con
            except duckdb.InterruptException:
                raise QueryError(f"stopped after {self._deadline:g} s: this takes too long to watch it live") from None
            finally:
                clock.cancel()

    def _read_values(self, column: str) -> npt.NDArray[np.float64]:
        with self._cursor() as con:
            found = con.sql(f"SELECT coalesce(\"{column}\"::DOUBLE, 'nan'::DOUBLE) AS value FROM rows").to_arrow_table()
        values: npt.NDArray[np.float64] = found["value"].to_numpy()[self._places]
        return values

    def _shuffled(self, seed: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng(seed).permutation(self.pool)

    def _binned(self, axis: Axis) -> npt.NDArray[np.uint8]:
        found = self._con.sql(f"SELECT coalesce({axis.bin}, {_NONE})::UTINYINT AS bin FROM rows").to_arrow_table()
        binned: npt.NDArray[np.uint8] = found["bin"].to_numpy()[self._places]
        return binned

    def _totals(self) -> npt.NDArray[np.int64]:
        return self._counted(slice(None))

    def _counted(self, places: Any) -> npt.NDArray[np.int64]:
        """A row for each axis: how many of these pairs are in each bin."""
        counted = [np.bincount(bins[places], minlength=charts.BINS)[: charts.BINS] for bins in self._bins]
        return np.stack(counted) if counted else np.empty((0, charts.BINS), np.int64)
