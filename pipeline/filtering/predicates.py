"""DuckDB as winnow uses it: a connection of its own for each piece of work, and filters bound before anything runs."""

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

    Raises RecipeError, in one line, for SQL that is not one boolean expression over `rows`, that DuckDB cannot bind,
    or that could answer otherwise tomorrow (random(), now(), a sample).
    """
    _bind(tuple(filters), columns)


DEADLINE = 3600.0
"""Seconds that the filters of a recipe may take on all rows."""

MOST_RESTS = 16
"""Filters of a recipe that may ask for `{rest}`: a funnel leaves out each filter in turn, and every later one of these
is another question then."""


@lru_cache(maxsize=64)  # a funnel and the selection after it ask the same
def _bind(filters: tuple[Filter, ...], columns: pa.Schema) -> None:
    asking = [each.name for each in filters if REST in each.sql]
    if len(asking) > MOST_RESTS:
        raise RecipeError(
            f"filter {asking[MOST_RESTS]!r}: {len(asking)} filters ask for {REST}, and at most {MOST_RESTS} can: "
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


def bind_order(name: str, sql: str, columns: pa.Schema) -> None:
    """Check that the SQL of `name` is one expression over the columns of `rows`, by whose value rows can be ordered.

    Raises RecipeError.
    """
    try:
        bind([Filter(name, f"(\n{sql}\n) IS NULL")], columns)
    except RecipeError as error:
        raise RecipeError(str(error).replace(f"filter {name!r}", f"{name}.best_by", 1)) from None


def _one_expression(sql: str) -> syntax.Node:
    """The SQL, parsed. It must parse bare and in brackets: "1) OR (1" does only in them, "true FROM rows" only bare."""
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
    """Refuse what reads anything but rows, and what is not known to depend on them alone. Raises ValueError."""
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


def evaluation_query(
    parts: Iterable[Path],
    filters: Sequence[Filter],
    also: Mapping[str, str] | None = None,
    rests: Sequence[tuple[str, str]] = (),
) -> str:
    """A SELECT over all rows of the parts, in order: uid, file_index, file_row_number, ok, what filter i says as f<i>,
    and the SQL of `also` by name, which may refer to the `rests` of a sequence.

    `rows` in a filter's own subqueries are all rows of the parts, whatever their status and whatever other filters say.
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
    """Raise RecipeError with the name of the filter that fails on a row: a cast, a division, an overflow.

    Also raises it after `deadline` seconds, when what runs on the connection is stopped.
    """
    clock = threading.Timer(deadline, con.interrupt)
    clock.daemon = True
    clock.start()
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.InterruptException:
        if not clock.finished.is_set():
            raise
        raise RecipeError(f"the filters were stopped after {deadline:g} s: a join of rows with themselves?") from None
    except duckdb.Error:
        for each in in_sequence(filters):
            try:
                con.execute(f"SELECT count(*) FILTER (f0) FROM ({evaluation_query(parts, [each])})").fetchall()
            except duckdb.Error as error:
                raise RecipeError(f"filter {each.name!r} fails on a row: {_plain(error, [])}") from None
        raise
    finally:
        clock.cancel()
