"""SQL as a tree of DuckDB's own parser, and the tables and functions that the SQL uses.

Kinds of nodes that are not listed here are refused. So additions to SELECT in a later version of DuckDB are refused
until they are reviewed.
"""

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import duckdb

from pipeline.filtering.functions import words
from pipeline.store.duck import SETTINGS

Node = dict[str, Any]
"""A node of a parsed statement: an expression has a `class`, everything else a `type`."""

_EXPRESSIONS = words(
    "BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT DEFAULT FUNCTION LAMBDA LAMBDA_REF OPERATOR "
    "POSITIONAL_REFERENCE STAR SUBQUERY TYPE WINDOW"
)
_QUERIES = words("SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE CTE_NODE")
_TABLES = words("BASE_TABLE EMPTY EXPRESSION_LIST JOIN PIVOT SHOW_REF SUBQUERY TABLE_FUNCTION")
_MODIFIERS = words("DISTINCT_MODIFIER LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER ORDER_MODIFIER")
_ORDERS = words("ORDER_DEFAULT DEFAULT ASCENDING DESCENDING INVALID")
_KINDS = _QUERIES | _TABLES | _MODIFIERS | _ORDERS

_DEPTH = 20_000
"""The maximum depth of a tree."""

_LISTS = words("aggregate array_aggr array_aggregate list_aggr list_aggregate")
"""Functions whose second argument names an aggregate that they call."""


@lru_cache(maxsize=1)
def _parser() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:", config=SETTINGS | {"threads": "1"})
    con.execute("SET enable_external_access = false")
    return con


def parse(sql: str) -> Node:
    """The statements of `sql`, each a SELECT. Raises ValueError, with a message of one line, for anything else."""
    with deep():
        parsed: Node = json.loads(_serialized(sql))
    if parsed.get("error"):
        raise ValueError(str(parsed["error_message"]).splitlines()[0])
    return parsed


@lru_cache(maxsize=256)  # every check of a filter parses it
def _serialized(sql: str) -> str:
    with _parser().cursor() as con:
        row = con.execute("SELECT json_serialize_sql($text)", {"text": sql}).fetchone()
    return str(row[0]) if row else "{}"


def unparse(parsed: Mapping[str, Any]) -> str:
    """The SQL of a tree that `parse` returned."""
    with deep():
        tree = json.dumps(parsed)
    with _parser().cursor() as con:
        row = con.execute("SELECT json_deserialize_sql($tree::JSON)", {"tree": tree}).fetchone()
    return str(row[0]) if row else ""


def name_of(expression: Node) -> str:
    """The name that DuckDB gives a column without one: its SQL."""
    tree = parse("SELECT 1")
    tree["statements"][0]["node"]["select_list"] = [expression]
    return unparse(tree).removeprefix("SELECT ")


@contextmanager
def deep() -> Iterator[None]:
    """Raise Python's recursion limit for trees. DuckDB allows 1,000 nested expressions, each of several levels.

    Raises ValueError for a deeper tree.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _DEPTH))
    try:
        yield
    except RecursionError:
        raise ValueError("this is nested too deeply") from None
    finally:
        sys.setrecursionlimit(before)


def nodes(tree: Any) -> Iterator[Node]:
    """Every node of a tree, the outer ones first."""
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += reversed(each.values())
        elif isinstance(each, list):
            waiting += reversed(each)


def check_kinds(tree: Any) -> None:
    """Refuse every kind of node that is not known to be read-only. Raises ValueError."""
    for node in nodes(tree):
        kind = node.get("type")
        known = node["class"] in _EXPRESSIONS if "class" in node else not isinstance(kind, str) or kind in _KINDS
        if not known:
            name = str(node.get("class", kind)).removesuffix("_QUERY_NODE").removesuffix("_NODE").replace("_", " ")
            raise ValueError(f"only a SELECT can be run here, and this has {name}")


def calls(tree: Any) -> Iterator[str]:
    """The name of every called function, in lower case, including aggregates that list functions call."""
    for node in nodes(tree):
        if "function_name" not in node:
            continue
        name = str(node["function_name"]).lower()
        path = node.get("qualified_name", {}).get("path") or [name]
        yield name if name == str(path[-1]).lower() else f"{name} as {path[-1]}"
        arguments = [each.get("expression", each) for each in node.get("arguments", node.get("children")) or ()]
        if name in _LISTS and len(arguments) > 1:
            yield _constant(arguments[1]) or "an aggregate by a computed name"
        if name == "age" and len(arguments) == 1:
            yield "age(date) of now"


def table_functions(tree: Any) -> Iterator[str]:
    """The name of every table function, in lower case."""
    for node in nodes(tree):
        if node.get("type") == "TABLE_FUNCTION":
            yield str(node.get("function", {}).get("function_name", "")).lower()


def _constant(node: Node) -> str | None:
    literal = node.get("literal", node.get("value"))
    if node.get("class") != "CONSTANT" or not isinstance(literal, dict):
        return None
    text = literal.get("text", literal.get("value"))
    return text.lower() if isinstance(text, str) else None


def tables(tree: Any, known: Collection[str]) -> Iterator[str]:
    """The name of every table that is neither `known` nor defined by a WITH in scope, in lower case.

    A WITH is in scope for the ones after it and for its query. A recursive WITH is also in scope for itself.
    """
    waiting: list[tuple[Any, frozenset[str]]] = [(tree, frozenset(known))]
    while waiting:
        each, scope = waiting.pop()
        if isinstance(each, list):
            waiting += ((inner, scope) for inner in each)
        if not isinstance(each, dict):
            continue
        ctes: list[Node] = (each.get("cte_map") or {}).get("map") or []
        for entry in ctes:
            own = frozenset([entry["key"].lower()])
            recursive = entry["value"].get("query_node", {}).get("type") == "RECURSIVE_CTE_NODE"
            waiting.append((entry["value"], scope | own if recursive else scope))
            scope |= own
        if each.get("type") in ("BASE_TABLE", "SHOW_REF") and each.get("table_name"):
            path = [str(part).lower() for part in each["qualified_name"]["path"]]
            if path[-1] not in scope or path[:-1] not in ([], ["main"], ["memory", "main"]):
                yield ".".join(path)
        waiting += ((inner, scope) for key, inner in each.items() if key != "cte_map")


@lru_cache(maxsize=256)
def exists(name: str) -> bool:
    """Whether DuckDB has a function of this name."""
    with _parser().cursor() as con:
        found = con.execute(
            "SELECT 1 FROM duckdb_functions() WHERE lower(function_name) = $name LIMIT 1", {"name": name}
        )
        return bool(found.fetchall())
