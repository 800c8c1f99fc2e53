"""NaN and infinity are no answers: SQL in which every computed float that is not finite is NULL.

DuckDB takes NaN for the largest number, so `0 / 0 > 1` is true. Its setting `ieee_floating_point_ops = false` gives an
error for the root of a negative number, which would end a run for one row. So the syntax tree is rewritten: what can
compute NaN or infinity is wrapped in an expression that gives NULL instead. SQL without such a function stays as it is.
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
"""The operand stands here once, whatever its type: a CASE over it would double the SQL with every level."""

_CHAINED = ("+", "-", "*", "add", "subtract", "multiply")
"""What is not finite stays so through these: the outermost of them is enough."""

_FLOATS = ("DOUBLE", "FLOAT", "REAL", "FLOAT4", "FLOAT8")


@lru_cache(maxsize=1024)
def finite(sql: str) -> str:
    """The expression, with NULL for computed NaN and infinity; unchanged if it computes no floats or does not parse.

    `{rest}` may stand in it.
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
    """Whether the expression can be NaN or infinite although all that it is made of is finite."""
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
