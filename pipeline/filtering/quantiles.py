"""Quantiles of a column over all rows, as numbers: every query on the same rows has the same ones."""

from collections.abc import Sequence
from dataclasses import replace

import duckdb

from filters.core import REST, Filter
from pipeline.filtering.thresholds import Comparison
from pipeline.store.duck import identifier, literal


def with_numbers(
    con: duckdb.DuckDBPyConnection, filters: Sequence[Filter], known: dict[tuple[str, str], str]
) -> tuple[Filter, ...]:
    """The filters, where one that compares a column with a quantile of itself over all rows compares it with a number.

    `con` has the view `rows`. `known` keeps the numbers, by column and quantile, for the next filters.
    """
    return tuple(_with_number(con, each, known) for each in filters)


def _with_number(con: duckdb.DuckDBPyConnection, each: Filter, known: dict[tuple[str, str], str]) -> Filter:
    comparison = Comparison.of_quantile(each.sql)
    if comparison is None or REST in each.sql:
        return each
    column, quantile = identifier(comparison.column), comparison.number
    if (column, quantile) not in known:
        found = f"quantile_cont({column}, {quantile})"
        ((value, kind),) = con.execute(f"SELECT {found}, typeof({found}) FROM rows").fetchall()
        known[column, quantile] = "NULL" if value is None else f"{literal(str(value))}::{kind}"
    return replace(each, sql=f"{column} {comparison.operator} {known[column, quantile]}")
