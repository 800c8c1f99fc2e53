"""What a typed SELECT may contain, by its syntax tree: the views, and functions that read nothing else."""

from collections.abc import Set

import duckdb

from pipeline.errors import QueryError
from pipeline.filtering import syntax
from pipeline.filtering.functions import STEADY, words

VIEWS = words("rows kept dropped failed manifests trials history trained_on")
"""The tables that a query can name (`pipeline.manifest.views`)."""

_EVERY = '"tables"'
"""What SHOW TABLES reads."""

_FUNCTIONS = STEADY | words(
    """
    ago approx_quantile approx_top_k current_date current_localtime current_localtimestamp error gen_random_uuid
    get_current_time get_current_timestamp json_each json_tree lttb map_to_pg_oid now random reservoir_quantile sleep_ms
    today transaction_timestamp uuid uuidv4 uuidv7 version
    """
)
"""Filters may not ask for the time or for chance; a query may. What describes DuckDB or the machine is left out."""

_TABLE_FUNCTIONS = words("generate_series json_each json_tree range repeat unnest")


def check(sql: str) -> Set[str]:
    """Check that the SQL is one SELECT over the views, and give the views that it names; all of them for SHOW TABLES.

    Nothing of it is bound or run. Raises QueryError, in one line. A kind of node, a function or a table that is not
    known to only read the views is refused.
    """
    _check_one_select(sql)
    try:
        tree = syntax.parse(sql)["statements"]
        syntax.check_kinds(tree)
        tables = set(syntax.tables(tree, VIEWS))
        for name in sorted(tables):
            if name != _EVERY:
                raise QueryError(f"there is no table {name!r} here: there is {', '.join(sorted(VIEWS))}")
        for name in syntax.table_functions(tree):
            if name not in _TABLE_FUNCTIONS:
                raise QueryError(f"{name}() cannot be read from here: only {', '.join(sorted(VIEWS))} can")
        for name in syntax.calls(tree):
            if name not in _FUNCTIONS:
                raise QueryError(f"the function {name} cannot be used here")
        if _EVERY in tables:
            return VIEWS
        return {name for node in syntax.nodes(tree) if (name := str(node.get("table_name", "")).lower()) in VIEWS}
    except ValueError as error:
        raise QueryError(str(error)) from None


def _check_one_select(sql: str) -> None:
    kinds = [statement.type.name for statement in duckdb.extract_statements(sql)]
    if not kinds:
        raise QueryError("only one SELECT can be run here, and there is no statement")
    if len(kinds) > 1:
        raise QueryError(f"only one SELECT can be run here, and there are {len(kinds)} statements")
    if kinds != ["SELECT"]:
        raise QueryError(f"only one SELECT can be run here, and this is {kinds[0]}")
