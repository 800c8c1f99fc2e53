"""A manifest's rows in memory: every column but text, which stays in the files and is read when a page shows it.

A pair is known by its place among the downloaded pairs; a set of pairs is a mask over the places.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import QueryError
from pipeline.filtering import predicates
from pipeline.manifest.columns import score_columns
from pipeline.manifest.manifest import Manifest
from pipeline.pages import charts
from pipeline.store import duck

Pairs = npt.NDArray[np.bool_]
"""A set of downloaded pairs: bool [pool]."""

Places = npt.NDArray[np.int64]
"""Places of downloaded pairs, in an order."""

DEADLINE = 30.0
"""Seconds after which a query is stopped."""


class Rows:
    """The rows of a manifest. `axes` has an axis for each column with a histogram."""

    def __init__(self, manifest: Manifest, scratch: Path, deadline: float = DEADLINE) -> None:
        """Read the manifest. What does not fit into half of the memory goes to `scratch`."""
        self.manifest, self.scratch, self._deadline = manifest, scratch, deadline
        files = manifest.storage.fetch_all(part.rows for part in manifest.parts)
        self._con = duck.connect(scratch)
        predicates.view_parts(self._con, files)
        self._con.execute("ALTER VIEW rows RENAME TO whole")
        self._con.execute(f"CREATE TABLE rows AS SELECT {', '.join(self._columns_in_memory())} FROM whole")
        self._con.execute(f"SET allowed_paths = {duck.file_list(files)}")
        self._con.execute("SET enable_external_access = false")
        self._con.execute("SET lock_configuration = true")
        ok = self._con.sql("SELECT status = 'ok' AS ok FROM rows").to_arrow_table()["ok"].to_numpy()
        self._numbers = np.flatnonzero(ok)
        """The row number of each downloaded pair."""
        axes = (charts.axis(self._con, field) for field in charts.histogram_fields(manifest))
        self.axes = [axis for axis in axes if axis is not None]
        self.matching = lru_cache(8)(self._matching)
        self.values = lru_cache(4)(self._read_values)
        self._order = lru_cache(2)(self._shuffled)

    @property
    def pool(self) -> int:
        """The number of downloaded pairs."""
        return len(self._numbers)

    def all(self) -> Pairs:
        """All downloaded pairs."""
        return np.ones(self.pool, bool)

    def query(self, sql: str) -> pa.Table:
        """The answer of SQL over `rows`. Where it needs text columns, it reads the files."""
        with self.cursor() as con:
            try:
                return con.sql(sql).to_arrow_table()
            except duckdb.BinderException:
                return con.sql(f"WITH rows AS (FROM whole) {sql}").to_arrow_table()

    def column(self, expression: str) -> pa.ChunkedArray:
        """The values of an SQL expression, one a downloaded pair."""
        return self.query(f"SELECT {expression} AS value FROM rows")["value"].take(self._numbers)

    def columns(self, expressions: Sequence[str]) -> list[npt.NDArray[np.int8]]:
        """The values of SQL expressions without NULL, one a downloaded pair, in one pass."""
        named = ", ".join(f"{sql} AS value_{number}" for number, sql in enumerate(expressions))
        table = self.query(f"SELECT {named} FROM rows WHERE status = 'ok'")
        return [column.to_numpy() for column in table.columns]

    def add(self, name: str, values: pa.Array) -> None:
        """Add a column of numbers, one a downloaded pair, and its axis. It is in memory only."""
        place = np.full(sum(part.count for part in self.manifest.parts), -1)
        place[self._numbers] = np.arange(self.pool)
        with self.cursor() as con:
            con.register("added", pa.table({name: values.take(pa.array(place, mask=place < 0))}))
            con.execute(
                f'CREATE OR REPLACE TABLE rows AS SELECT rows.*, added."{name}" FROM rows POSITIONAL JOIN added'
            )
            axis = charts.axis(con, pa.field(name, values.type))
        self.axes = [*self.axes, *([axis] if axis else [])]

    def places(self, numbers: npt.NDArray[np.int64]) -> Places:
        """The places of these row numbers, in their order, less those of pairs that were not downloaded."""
        place = np.full(sum(part.count for part in self.manifest.parts), -1)
        place[self._numbers] = np.arange(self.pool)
        places: Places = place[numbers]
        return places[places >= 0]

    def nearest(self, pairs: Pairs, column: str, value: float, count: int) -> Places:
        """The places of the `count` pairs around `value`, half of them on each side of it, in rising order."""
        values = self.values(column)
        places = np.flatnonzero(pairs & np.isfinite(values))
        places = places[np.argsort(values[places], kind="stable")]
        at = int(np.searchsorted(values[places], value))
        return places[max(0, at - count // 2) : at + count // 2]

    def sample(self, pairs: Pairs, seed: int, start: int, count: int) -> Places:
        """The places of `count` pairs in a random order, from number `start` on. The same seed, the same order."""
        order = self._order(seed)
        places: Places = order[pairs[order]][start : start + count]
        return places

    def read(self, places: Sequence[int], columns: Sequence[str] = ("url", "caption", "shard", "member")) -> pa.Table:
        """These columns of the pairs at these places, in their order, from the files."""
        numbers = [int(self._numbers[place]) for place in places]
        parts, start = [], 0
        for part in self.manifest.parts:
            inside = [number - start for number in numbers if start <= number < start + part.count]
            if inside:
                parts.append((self.manifest.storage.fetch(part.rows), start, inside))
            start += part.count
        names = ", ".join(f'"{name}"' for name in columns)
        selects = [
            f"SELECT {start} + file_row_number AS __number, {names} FROM {duck.parquet([path], 'file_row_number')} "
            f"WHERE file_row_number IN ({', '.join(map(str, inside))})"
            for path, start, inside in parts
        ]
        if not selects:
            return pa.schema([self.manifest.columns.field(name) for name in columns]).empty_table()
        with self.cursor() as con:
            found = con.sql(" UNION ALL ".join(selects)).to_arrow_table()
        at = {number: index for index, number in enumerate(found["__number"].to_pylist())}
        return found.drop_columns("__number").take([at[number] for number in numbers])

    def find(self, pairs: pa.Table) -> Places:
        """The places of the pairs of a table with the columns url and caption, in rising order. Others are left out."""
        with self.cursor() as con:
            con.register("sought", pairs)
            numbers = con.sql(
                "SELECT number FROM (SELECT url, caption, row_number() OVER () - 1 AS number FROM whole) "
                "SEMI JOIN sought USING (url, caption)"
            ).to_arrow_table()["number"]
        return np.sort(self.places(numbers.to_numpy()))

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one query. Raises QueryError at the deadline."""
        with self._con.cursor() as con:
            clock = threading.Timer(self._deadline, con.interrupt)
            clock.start()
            try:
                yield con
            except duckdb.InterruptException:
                raise QueryError(f"stopped after {self._deadline:g} s: this is too slow for a live page") from None
            finally:
                clock.cancel()

    def close(self) -> None:
        """Free the memory."""
        self._con.close()

    def _columns_in_memory(self) -> list[str]:
        """Numbers, booleans and scores. Captions, URLs and other text columns are not among them."""
        kept = score_columns(self.manifest) | {"status"}
        fields = self.manifest.columns
        return [f'"{each.name}"' for each in fields if each.name in kept or pa.types.is_primitive(each.type)]

    def _matching(self, text: str) -> Pairs:
        """The pairs with the text in their caption or URL, regardless of case."""
        with self.cursor() as con:
            found = con.sql(
                "SELECT contains(lower(caption), lower($text)) OR contains(lower(url), lower($text)) AS found "
                "FROM whole",
                params={"text": text},
            ).to_arrow_table()["found"]
        matching: Pairs = found.to_numpy().astype(bool)[self._numbers]
        return matching

    def _read_values(self, column: str) -> npt.NDArray[np.float64]:
        values: npt.NDArray[np.float64] = self.column(f"coalesce(\"{column}\"::DOUBLE, 'nan'::DOUBLE)").to_numpy()
        return values

    def _shuffled(self, seed: int) -> Places:
        return np.random.default_rng(seed).permutation(self.pool)
