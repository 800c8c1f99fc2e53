"""DuckDB as winnow uses it: a connection of its own for each piece of work, and filters bound before anything runs."""

import contextlib
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from filters.core import Filter, in_sequence
from pipeline.errors import RecipeError
from pipeline.store.duck import SETTINGS, parquet

_CLOCKS = {"current_timestamp", "current_time", "localtime", "localtimestamp"}
"""Functions that SQL writes like columns, besides those that DuckDB lists."""


def bind(filters: Iterable[Filter], columns: pa.Schema) -> None:
    """Check every filter against the columns of `rows`, without reading a row.

    Raises RecipeError, in one line, for SQL that is not one boolean expression over `rows`, that DuckDB cannot bind,
    or that could answer otherwise tomorrow (random(), now(), a sample).
    """
    _bind(tuple(filters), columns)


@lru_cache(maxsize=64)  # a funnel and the selection after it ask the same
def _bind(filters: tuple[Filter, ...], columns: pa.Schema) -> None:
    with duckdb.connect(":memory:", config=SETTINGS) as con:
        none = pa.Table.from_batches([], columns)  # columns.empty_table() would import pandas
        con.from_arrow(none).create("rows")
        con.execute("SET enable_external_access = false")
        unsteady = con.execute("SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'")
        names = {name for (name,) in unsteady.fetchall()}
        for each in in_sequence(filters):
            try:
                _look_through(_one_expression(con, each.sql), names, (names | _CLOCKS) - set(columns.names))
                _bind_one(con, each.sql)
            except (ValueError, duckdb.Error) as error:
                raise RecipeError(f"filter {each.name!r}: {_plain(error, columns.names)}") from None


def bind_order(name: str, sql: str, columns: pa.Schema) -> None:
    """Check that the SQL of `name` is one expression over the columns of `rows`, by whose value rows can be ordered.

    Raises RecipeError.
    """
    try:
        bind([Filter(name, f"(\n{sql}\n) IS NULL")], columns)
    except RecipeError as error:
        raise RecipeError(str(error).replace(f"filter {name!r}", f"{name}.best_by", 1)) from None


def _one_expression(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """The SQL, parsed. It must parse bare and in brackets: "1) OR (1" does only in them, "true FROM rows" only bare."""
    for text in (f"SELECT {sql}\n", f"SELECT (\n{sql}\n)"):
        row = con.execute("SELECT json_serialize_sql($text)", {"text": text}).fetchone()
        parsed: dict[str, Any] = json.loads(row[0]) if row else {}
        if parsed.get("error"):
            raise ValueError(f"this is no SQL expression: {parsed['error_message']}")
        if len(parsed["statements"]) != 1 or len(parsed["statements"][0]["node"].get("select_list", [])) != 1:
            raise ValueError("this is not one SQL expression")
    expression: dict[str, Any] = parsed["statements"][0]["node"]["select_list"][0]
    return expression


def _look_through(expression: dict[str, Any], unsteady: set[str], clocks: set[str]) -> None:
    tables = {node["table_name"] for node in _nodes(expression) if node.get("type") == "BASE_TABLE"}
    own = {entry["key"] for node in _nodes(expression) if "cte_map" in node for entry in node["cte_map"]["map"]}
    for name in sorted(tables - own - {"rows"}):
        raise ValueError(f"there is no table {name!r}; the pairs are in rows")
    for node in _nodes(expression):
        if node.get("type") == "TABLE_FUNCTION":
            raise ValueError("a filter reads rows and nothing else")
        if node.get("sample"):
            raise ValueError("a sample differs each time")
        called, column = str(node.get("function_name")).lower(), "".join(node.get("column_names", ())).lower()
        if called in unsteady or column in clocks:
            raise ValueError(f"{column or called} differs each time")


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _bind_one(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    described = con.execute(f"DESCRIBE SELECT (\n{sql}\n) FROM rows WHERE (\n{sql}\n)").fetchall()
    if len(described) != 1:
        raise ValueError("this is more than one SQL expression")
    if described[0][1] != "BOOLEAN":
        raise ValueError(f"this gives {described[0][1]}, not BOOLEAN; compare it with something")


def _plain(error: Exception, columns: list[str]) -> str:
    """The first line of the message, and the nearest column if one is missing."""
    text = str(error).splitlines()[0].rstrip("!")
    missing = re.search(r'column (?:named )?"(\w+)"', text)
    close = difflib.get_close_matches(missing[1].lower(), columns, n=1, cutoff=0.4) if missing else []
    if missing:
        text = f"there is no column {missing[1]!r}"
    return f"{text}; did you mean {close[0]!r}?" if close else text


def view_parts(con: duckdb.DuckDBPyConnection, parts: Iterable[Path]) -> None:
    """Make the view `rows` of the parts, one after the other."""
    con.execute(f"CREATE VIEW rows AS FROM {parquet(parts)}")


def judged(parts: Iterable[Path], filters: Sequence[Filter], also: Mapping[str, str] | None = None) -> str:
    """A SELECT over all rows of the parts, in order: uid, file_index, file_row_number, ok, what filter i says as f<i>,
    and the SQL of `also` by name.

    `rows` in a filter's own subqueries are all rows of the parts, whatever their status and whatever other filters say.
    """
    expressions = {f"f{number}": each.sql for number, each in enumerate(in_sequence(filters))} | dict(also or {})
    verdicts = "".join(f",\n(\n{sql}\n) AS {name}" for name, sql in expressions.items())
    return (
        f"SELECT rows.uid, file_index, file_row_number, status = 'ok' AS ok{verdicts}\n"
        f"FROM {parquet(parts, 'file_row_number')} AS rows"
    )


@contextlib.contextmanager
def blaming(con: duckdb.DuckDBPyConnection, parts: Sequence[Path], filters: Sequence[Filter]) -> Iterator[None]:
    """Raise RecipeError with the name of the filter that fails on a row: a cast, a division, an overflow."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error:
        for each in in_sequence(filters):
            try:
                con.execute(f"SELECT count(*) FILTER (f0) FROM ({judged(parts, [each])})").fetchall()
            except duckdb.Error as error:
                raise RecipeError(f"filter {each.name!r} fails on a row: {_plain(error, [])}") from None
        raise
