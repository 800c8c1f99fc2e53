"""Constants that DuckDB computes while it binds SQL, before any deadline, as in `len(repeat('x', 2000000000)) > 0`.

SQL that has such a constant is bound once in a process with limits. What passes there is cheap enough to be bound
anywhere.
"""

from collections.abc import Collection, Sequence
from typing import Any

import duckdb

from pipeline.errors import RecipeError
from pipeline.filtering import syntax
from pipeline.filtering.functions import words
from pipeline.process.calls import ProcessError, call
from pipeline.store.duck import SETTINGS

SECONDS = 10.0
MEMORY = 2 << 30

_CHEAP = words(
    "+ - * / // % || abs cast concat count_star floor lower list_value round row struct_pack to_days to_hours "
    "to_microseconds to_milliseconds to_minutes to_months to_seconds to_weeks to_years trim trunc upper pi"
)
"""Of constants as long as the SQL itself, these take no time and no memory."""


def check(sql: str, columns: Sequence[tuple[str, str]]) -> None:
    """Bind the expression over `rows` with these columns (name, SQL type) in a process, if it has costly constants.

    Raises RecipeError where that takes too long or too much memory; what else is wrong is left to the next to bind it.
    """
    if not _costly(syntax.parse(f"SELECT (\n{sql}\n)"), {name.strip('"').lower() for name, _ in columns}):
        return
    try:
        call("pipeline.filtering.constants:bind", sql, columns, deadline=SECONDS, memory=MEMORY)
    except (TimeoutError, MemoryError, ProcessError):
        raise RecipeError(f"its constants take more than {SECONDS:g} s or {MEMORY >> 30} GB to compute") from None


def bind(sql: str, columns: Sequence[tuple[str, str]]) -> None:
    """In the process."""
    with duckdb.connect(":memory:", config=SETTINGS | {"memory_limit": "1GB", "threads": "1"}) as con:
        con.execute("SET enable_external_access = false")
        con.execute(f"CREATE TABLE rows ({', '.join(f'{name} {kind}' for name, kind in columns)})")
        con.execute("INSERT INTO rows DEFAULT VALUES")  # a constant that fails while binding is computed for each row
        try:
            con.execute(f"SELECT (\n{sql}\n) FROM rows").fetchall()
        except (duckdb.ProgrammingError, duckdb.DataError):  # it does not bind, or fails on a value
            return
        except duckdb.Error as error:
            raise MemoryError(str(error).splitlines()[0]) from None


def _costly(tree: Any, columns: Collection[str]) -> bool:
    """Whether a function that may take long or give much is called without any column of a row."""
    return any(
        node.get("class") == "FUNCTION"
        and str(node.get("function_name")).lower() not in _CHEAP
        and not any(_varies(inner, columns) for inner in syntax.nodes(node))
        for node in syntax.nodes(tree)
    )


def _varies(node: syntax.Node, columns: Collection[str]) -> bool:
    names = [str(name).lower() for name in node.get("column_names", ())]
    return node.get("class") in ("SUBQUERY", "STAR") or any(name in columns for name in names)
