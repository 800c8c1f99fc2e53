"""Constants that DuckDB computes while it binds SQL, before any deadline, as in `len(repeat('x', 2000000000)) > 0`.

Nor does DuckDB count the memory of the texts that a function makes of a row, as in `repeat(caption, 1000000)`. SQL with
such a constant or function is tried once on a few rows in a process with limits. What passes there can run anywhere.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import duckdb

from pipeline.errors import RecipeError
from pipeline.filtering import syntax
from pipeline.filtering.functions import words
from pipeline.process.calls import Limits, ProcessError, call
from pipeline.store.duck import SETTINGS

SECONDS = 10
"""Seconds of processor time: how busy the machine is decides nothing."""

MEMORY = 2 << 30
PATIENCE = 120.0
"""Seconds by the clock."""

_CHEAP = words(
    """
    + - * / // % || abs cast concat count_star floor isfinite list_apply list_filter list_transform list_value lower pi
    round row struct_pack to_days to_hours to_microseconds to_milliseconds to_minutes to_months to_seconds to_weeks
    to_years trim trunc typeof upper
    """
)
"""Of constants as long as the SQL itself, these take no time and no memory."""


_GROWING = words(
    "array_resize bar equi_width_bins format generate_series list_resize lpad printf range repeat rpad to_base"
)
"""Functions whose result is as large as an argument says."""

_SAMPLE = 2048
_VALUES = {"VARCHAR": "repeat('abcdefghi ', 20)", "BOOLEAN": "true", "DOUBLE": "1.0", "FLOAT": "1.0"} | dict.fromkeys(
    ("TINYINT", "UTINYINT", "SMALLINT", "USMALLINT", "INTEGER", "UINTEGER", "BIGINT", "UBIGINT"), "100"
)
"""Values of the rows that SQL is tried on, by type; NULL for others."""


def check(sql: str, columns: Sequence[tuple[str, str]]) -> None:
    """Try the expression over `rows` with these columns (name, SQL type) in a process, if it may be costly.

    Raises RecipeError where that takes too long or too much memory; what else is wrong is left to the next to bind it.
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
    """Functions that may take long or give much, and are called without any column of a row, or grow one."""
    for node in syntax.nodes(tree):
        name = str(node.get("function_name")).lower()
        if node.get("class") != "FUNCTION" or name in _CHEAP:
            continue
        if name in _GROWING or not any(_varies(inner, columns) for inner in syntax.nodes(node)):
            yield node


def _varies(node: syntax.Node, columns: Collection[str]) -> bool:
    names = [str(name).lower() for name in node.get("column_names", ())]
    return node.get("class") in ("SUBQUERY", "STAR") or any(name in columns for name in names)
