"""Checks SQL for costly constants, as in `len(repeat('x', 2000000000)) > 0`.

DuckDB computes such constants while it binds SQL, before any deadline applies. It also does not count the memory of
texts that a function builds for a row, as in `repeat(caption, 1000000)`. So SQL with such a constant or function is
first executed on a few rows in a process with limits. SQL that passes is safe to run.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import duckdb

from filters.core import REST
from pipeline.errors import RecipeError
from pipeline.filtering import syntax
from pipeline.filtering.functions import words
from pipeline.process.calls import Limits, ProcessError, call
from pipeline.store.duck import SETTINGS

SECONDS = 10
"""Seconds of processor time, so that the result does not depend on the load of the machine."""

MEMORY = 2 << 30
PATIENCE = 120.0
"""Seconds of wall-clock time."""

_CHEAP = words(
    """
    + - * / // % || abs cast concat count_star floor isfinite list_apply list_filter list_transform list_value lower pi
    round row struct_pack to_days to_hours to_microseconds to_milliseconds to_minutes to_months to_seconds to_weeks
    to_years trim trunc typeof upper
    """
)
"""Functions that need little time and memory for constants as long as the SQL itself."""


_GROWING = words(
    "array_resize bar equi_width_bins format generate_series list_resize lpad printf range repeat rpad to_base"
)
"""Functions with an argument that sets the size of the result."""

_SAMPLE = 2048
_VALUES = {"VARCHAR": "repeat('abcdefghi ', 20)", "BOOLEAN": "true", "DOUBLE": "1.0", "FLOAT": "1.0"} | dict.fromkeys(
    ("TINYINT", "UTINYINT", "SMALLINT", "USMALLINT", "INTEGER", "UINTEGER", "BIGINT", "UBIGINT"), "100"
)
"""Values of the test rows by type. Other types have NULL."""


def check(sql: str, columns: Sequence[tuple[str, str]]) -> None:
    """Execute a costly expression over `rows` with these columns (name, SQL type) in a process with limits.

    Other expressions are not executed. Raises RecipeError if that takes too much time or memory. Other errors are
    reported when the SQL is bound.
    """
    names = {name.strip('"').lower() for name, _ in columns}
    costly = [syntax.name_of(node) for node in _costly(syntax.parse(f"SELECT (\n{sql}\n)"), names)]
    if not costly:
        return
    try:
        limits = Limits(deadline=PATIENCE, memory=MEMORY, processor=SECONDS)
        call("pipeline.filtering.constants:attempt", [*costly, sql], columns, limits=limits)
    except (TimeoutError, MemoryError, ProcessError):
        raise RecipeError(f"it takes more than {SECONDS} s or {MEMORY >> 30} GB to compute for a few rows") from None


def is_plain(sql: str) -> bool:
    """Whether an expression calls cheap functions only and has no subquery: a row costs little, whatever is in it."""
    if REST in sql:
        return False
    try:
        nodes = list(syntax.nodes(syntax.parse(f"SELECT (\n{sql}\n)")))
    except ValueError:  # it is refused when it is bound
        return True
    called = {str(node.get("function_name")).lower() for node in nodes if node.get("class") == "FUNCTION"}
    return called <= _CHEAP and not any(node.get("class") == "SUBQUERY" for node in nodes)


def attempt(expressions: Sequence[str], columns: Sequence[tuple[str, str]]) -> None:
    """In the process: compute each expression for a row of NULL, then for a vector of rows."""
    values = ", ".join(_VALUES.get(kind, "NULL") for _, kind in columns)
    with duckdb.connect(":memory:", config=SETTINGS | {"memory_limit": "1GB", "threads": "1"}) as con:
        con.execute("SET enable_external_access = false")
        con.execute(f"CREATE TABLE rows ({', '.join(f'{name} {kind}' for name, kind in columns)})")
        for fill in ("INSERT INTO rows DEFAULT VALUES", f"INSERT INTO rows SELECT {values} FROM range({_SAMPLE})"):
            con.execute(fill)
            for expression in expressions:
                _compute(con, expression)


def _compute(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        con.execute(f"SELECT max(hash((\n{sql}\n))) FROM rows").fetchall()
    except (duckdb.ProgrammingError, duckdb.DataError):  # it does not bind, or fails on a value
        return
    except duckdb.Error as error:
        raise MemoryError(str(error).splitlines()[0]) from None


def _costly(tree: Any, columns: Collection[str]) -> Iterator[syntax.Node]:
    """Functions that may be slow or have a large result, and that read no column of a row or enlarge a column."""
    for node in syntax.nodes(tree):
        name = str(node.get("function_name")).lower()
        if node.get("class") != "FUNCTION" or name in _CHEAP:
            continue
        if name in _GROWING or not any(_varies(inner, columns) for inner in syntax.nodes(node)):
            yield node


def _varies(node: syntax.Node, columns: Collection[str]) -> bool:
    names = [str(name).lower() for name in node.get("column_names", ())]
    return node.get("class") in ("SUBQUERY", "STAR") or any(name in columns for name in names)
