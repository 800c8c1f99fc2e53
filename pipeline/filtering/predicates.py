"""Filters in DuckDB: they are checked and bound before any query runs, and evaluated over the parts of a manifest."""

import contextlib
import difflib
import re
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import duckdb
import pyarrow as pa

from filters.core import REST, Filter
from pipeline.errors import RecipeError
from pipeline.filtering import constants, syntax
from pipeline.filtering.functions import STEADY, VALUES
from pipeline.filtering.sequence import in_sequence, with_rests
from pipeline.store.duck import SETTINGS, identifier, parquet


def bind(filters: Iterable[Filter], columns: pa.Schema) -> None:
    """Check every filter against the columns of `rows`, without reading a row.

    Raises RecipeError, with a message of one line, for SQL that is not one boolean expression over `rows`, that DuckDB
    cannot bind, or that is not deterministic (random(), now(), a sample).
    """
    _bind(tuple(filters), columns)


DEADLINE = 3600.0
"""The maximum time in seconds for the filters of a recipe on all rows."""

MOST_RESTS = 16
"""The maximum number of filters with `{rest}` in a recipe. A funnel omits each filter in turn, and then every later one
of these is another predicate."""


@lru_cache(maxsize=64)  # a funnel and the selection after it bind the same filters
def _bind(filters: tuple[Filter, ...], columns: pa.Schema) -> None:
    with_rest = [each.name for each in filters if REST in each.sql]
    if len(with_rest) > MOST_RESTS:
        raise RecipeError(
            f"filter {with_rest[MOST_RESTS]!r}: {len(with_rest)} filters use {REST}, and at most {MOST_RESTS} can: "
            "take quantiles of all rows in the others"
        )
    with duckdb.connect(":memory:", config=SETTINGS) as con:
        none = pa.Table.from_batches([], columns)  # columns.empty_table() would import pandas
        con.from_arrow(none).create("rows")
        con.execute("SET enable_external_access = false")
        described = con.execute("DESCRIBE rows").fetchall()
        names_and_types = [(identifier(name), kind) for name, kind, *_ in described]
        for each, sequenced in zip(filters, in_sequence(filters), strict=True):
            try:
                _check(_one_expression(each.sql.replace(REST, "true")), columns.names)
                constants.check(each.sql.replace(REST, "true"), names_and_types)
                _bind_one(con, each.sql.replace(REST, "true"))
                if sequenced.sql != each.sql:
                    _bind_one(con, sequenced.shared, with_rests(sequenced.rests))
            except (ValueError, duckdb.Error) as error:
                raise RecipeError(f"filter {each.name!r}: {_plain(error, columns.names)}") from None


def bind_order(key: str, sql: str, columns: pa.Schema) -> None:
    """Check that SQL is one expression over the columns of `rows` that can order rows.

    `key` is its place in a source file. Raises RecipeError.
    """
    _bind_value(key, f"(\n{sql}\n) IS NULL", columns)


def bind_number(key: str, sql: str, columns: pa.Schema) -> None:
    """As `bind_order`, for an expression that must be a number."""
    bind_order(key, sql, columns)
    try:
        _bind_value(key, f"abs(\n{sql}\n) IS NULL", columns)
    except RecipeError:
        raise RecipeError(f"{key}: this is not a number: {' '.join(sql.split())[:100]}") from None


def _bind_value(key: str, sql: str, columns: pa.Schema) -> None:
    try:
        bind([Filter("value", sql)], columns)
    except RecipeError as error:
        raise RecipeError(str(error).replace("filter 'value'", key, 1)) from None


def _one_expression(sql: str) -> syntax.Node:
    """The parsed SQL.

    It must parse both with and without brackets: "1) OR (1" needs them, "true FROM rows" forbids them.
    """
    for text in (f"SELECT {sql}\n", f"SELECT (\n{sql}\n)"):
        try:
            statements = syntax.parse(text)["statements"]
        except ValueError as error:
            raise ValueError(f"this is no SQL expression: {error}") from None
        if len(statements) != 1 or len(statements[0]["node"].get("select_list", [])) != 1:
            raise ValueError("this is not one SQL expression")
    expression: syntax.Node = statements[0]["node"]["select_list"][0]
    return expression


def _check(expression: syntax.Node, columns: Collection[str]) -> None:
    """Refuse SQL that reads anything but rows, or that is not known to depend on them only. Raises ValueError."""
    for name in sorted(syntax.tables(expression, {"rows"})):
        raise ValueError(f"there is no table {name!r}; the pairs are in rows")
    for node in syntax.nodes(expression):
        if node.get("type") in ("TABLE_FUNCTION", "SHOW_REF"):
            raise ValueError("a filter reads rows and nothing else")
        if node.get("class") == "PARAMETER":
            raise ValueError("a filter has no parameters")
        if node.get("sample"):
            raise ValueError("a sample differs each time")
        column = "".join(node.get("column_names", ())).lower()
        if column in VALUES - {name.lower() for name in columns}:
            raise ValueError(
                f"{column} is not a property of the pair: it differs each time, or from machine to machine"
            )
    for name in syntax.calls(expression):
        if name not in STEADY and (not name.isidentifier() or syntax.exists(name)):
            raise ValueError(
                f"{name} is not known to depend on the pair alone: a filter that differs each time is refused"
            )
    syntax.check_kinds(expression)


def _bind_one(con: duckdb.DuckDBPyConnection, sql: str, rests: str = "") -> None:
    described = con.execute(f"DESCRIBE {rests}SELECT (\n{sql}\n) FROM rows WHERE (\n{sql}\n)").fetchall()
    if len(described) != 1:
        raise ValueError("this is more than one SQL expression")
    if described[0][1] != "BOOLEAN":
        raise ValueError(f"this gives {described[0][1]}, not BOOLEAN; compare it with something")


def _plain(error: Exception, columns: list[str]) -> str:
    """The first line of the message, with the most similar column name if a column is missing."""
    text = str(error).splitlines()[0].rstrip("!")
    missing = re.search(r'column (?:named )?"(\w+)"', text)
    close = difflib.get_close_matches(missing[1].lower(), columns, n=1) if missing else []
    if missing:
        text = f"there is no column {missing[1]!r}"
    return f"{text}; did you mean {close[0]!r}?" if close else text


def view_parts(con: duckdb.DuckDBPyConnection, parts: Iterable[Path]) -> None:
    """Create the view `rows` over the parts, in order."""
    con.execute(f"CREATE VIEW rows AS FROM {parquet(parts)}")


def evaluation_query(
    parts: Iterable[Path],
    filters: Sequence[Filter],
    also: Mapping[str, str] | None = None,
    rests: Sequence[tuple[str, str]] = (),
) -> str:
    """A SELECT that evaluates filters on all rows of the parts, in order.

    Its columns are uid, file_index, file_row_number, ok, the answer of filter i as f<i>, and the SQL of `also` by name,
    which may refer to the `rests` of a sequence. In a filter's own subqueries, `rows` has all rows of the parts,
    regardless of their status and of other filters.
    """
    sequenced = in_sequence(filters)
    expressions = {f"f{number}": each.shared for number, each in enumerate(sequenced)} | dict(also or {})
    rests = [*rests, *(rest for each in sequenced for rest in each.rests)]
    verdicts = "".join(f",\n(\n{sql}\n) AS {name}" for name, sql in expressions.items())
    return (
        f"{with_rests(rests)}SELECT rows.uid, file_index, file_row_number, status = 'ok' AS ok{verdicts}\n"
        f"FROM {parquet(parts, 'file_row_number')} AS rows"
    )


@contextlib.contextmanager
def attribute_errors(
    con: duckdb.DuckDBPyConnection, parts: Sequence[Path], filters: Sequence[Filter], deadline: float = DEADLINE
) -> Iterator[None]:
    """Raise RecipeError with the name of the filter that fails on a row, for example by a cast or an overflow.

    After `deadline` seconds it interrupts the query on the connection, and raises RecipeError, too.
    """
    clock = threading.Timer(deadline, con.interrupt)
    clock.daemon = True
    clock.start()
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise RecipeError(f"the filters need more memory than there is ({_plain(error, [])[:100]})") from None
    except duckdb.InterruptException:
        if not clock.finished.is_set():
            raise
        raise RecipeError(f"the filters were stopped after {deadline:g} s: a join of rows with themselves?") from None
    except duckdb.IOException:
        raise  # a file, not a filter
    except duckdb.Error:
        for each in in_sequence(filters):
            try:
                con.execute(f"SELECT count(*) FILTER (f0) FROM ({evaluation_query(parts, [each])})").fetchall()
            except duckdb.Error as error:
                raise RecipeError(f"filter {each.name!r} fails on a row: {_plain(error, [])}") from None
        raise
    finally:
        clock.cancel()
