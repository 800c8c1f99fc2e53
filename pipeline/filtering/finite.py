"""Rewrites SQL so that every computed NaN or infinity becomes NULL.

In DuckDB NaN is the largest number, so `0 / 0 > 1` is true. With its setting `ieee_floating_point_ops = false`, the
root of a negative number is an error, and one row would end a run. So the syntax tree is rewritten: an expression that
can compute NaN or infinity is wrapped in one that gives NULL instead. SQL without such an expression is unchanged.
"""

import copy
from functools import lru_cache
from typing import Any

import duckdb

from filters.core import REST
from pipeline.filtering import syntax
from pipeline.filtering.functions import NONFINITE
from pipeline.filtering.syntax import Node

_PLACE = '"winnow rest"'
_GUARD = (
    "SELECT list_transform([operand], lambda v: CASE WHEN typeof(v) IN ('DOUBLE', 'FLOAT') "
    "AND NOT isfinite(TRY_CAST(v AS DOUBLE)) THEN NULL ELSE v END)[1]"
)
"""The operand occurs only once, for any type. A CASE over it would double the SQL with every level of nesting."""

_CHAINED = ("+", "-", "*", "add", "subtract", "multiply")
"""Operators with a non-finite result for a non-finite argument. Only the outermost of a chain is wrapped."""

_FLOATS = ("DOUBLE", "FLOAT", "REAL", "FLOAT4", "FLOAT8")


@lru_cache(maxsize=1024)
def finite(sql: str) -> str:
    """The expression, with NULL for computed NaN and infinity; unchanged if it computes no floats or does not parse.

    The expression may contain `{rest}`.
    """
    try:
        tree = syntax.parse(f"SELECT (\n{sql}\n)".replace(REST, _PLACE))
        with syntax.deep():
            guarded = _guarded(tree)
        if guarded == tree:
            return sql
        return syntax.unparse(guarded).removeprefix("SELECT ").replace(_PLACE, REST)
    except (ValueError, duckdb.Error):
        return sql


def finite_select(sql: str) -> str:
    """As `finite`, for a whole SELECT. Its columns keep the names that DuckDB gives them."""
    try:
        tree = syntax.parse(sql)
        with syntax.deep():
            guarded = _guarded(tree)
            if guarded == tree:
                return sql
            _name_columns(tree, guarded)
        return syntax.unparse(guarded)
    except (ValueError, duckdb.Error):
        return sql


def _name_columns(tree: Any, guarded: Any) -> None:
    """Restore the names of rewritten columns in every SELECT."""
    # Both trees have the same SELECTs in the same order, because rewriting only wraps expressions.
    for before, after in zip(_selects(tree), _selects(guarded), strict=True):
        for old, new in zip(before["select_list"], after["select_list"], strict=True):
            if old != new and not old.get("alias"):
                new["alias"] = syntax.name_of(old)


def _selects(tree: Any) -> list[Node]:
    return [node for node in syntax.nodes(tree) if node.get("type") == "SELECT_NODE"]


def _guarded(tree: Any, chained: bool = False) -> Any:
    if isinstance(tree, list):
        return [_guarded(each, chained) for each in tree]
    if not isinstance(tree, dict):
        return tree
    if "class" not in tree:
        return {key: _guarded(value, chained) for key, value in tree.items()}
    inner = {key: _guarded(value, tree.get("function_name") in _CHAINED) for key, value in tree.items()}
    return _guard(inner) if _computes(tree, chained) else inner


def _computes(node: Node, chained: bool) -> bool:
    """Whether the expression can be NaN or infinite for finite arguments."""
    if node["class"] == "CAST":
        return node["type_expr"].get("type_name", "").upper() in _FLOATS and not _number(node["child"])
    name = str(node.get("function_name", "")).lower()
    if node["class"] not in ("FUNCTION", "WINDOW") or name not in NONFINITE:
        return False
    return name not in _CHAINED or (not chained and len(node.get("arguments", ())) == 2)


def _number(node: Node) -> bool:
    return node["class"] == "CONSTANT" and node.get("literal", {}).get("kind") in ("INTEGER", "DECIMAL", "FLOAT")


def _guard(node: Node) -> Node:
    guard = copy.deepcopy(_template())
    guard["alias"], node["alias"] = node.get("alias", ""), ""
    values = guard["children"][0]["arguments"][0]["expression"]["arguments"]
    values[0]["expression"] = node
    return guard


@lru_cache(maxsize=1)
def _template() -> Node:
    node: Node = syntax.parse(_GUARD)["statements"][0]["node"]["select_list"][0]
    return node
