"""The numbers in a recipe's SQL: the filter, the column, and the threshold."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import duckdb

from filters.core import Filter, Recipe

_OPERATOR = r"(<=|>=|<|>)"
_NUMBER = r"(-?\d+(?:\.\d*)?(?:[eE]-?\d+)?)"
_WHOLE = re.compile(rf'\s*"?([A-Za-z_]\w*)"?\s*{_OPERATOR}\s*{_NUMBER}\s*')
_QUANTILE = re.compile(
    rf'\s*"?([A-Za-z_]\w*)"?\s*{_OPERATOR}\s*'
    rf"\(\s*SELECT\s+quantile_cont\(\s*([A-Za-z_]\w*)\s*,\s*{_NUMBER}\s*\)\s+FROM\s+rows(?:\s+WHERE\s+\{{rest\}})?\s*\)\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Threshold:
    """A filter that compares one column with one number."""

    filter: str
    column: str
    value: float


@dataclass(frozen=True)
class Comparison:
    """The whole SQL of a filter: a column, one of < <= > >=, and a number.

    `before` and `after` are the text around it.
    """

    column: str
    operator: str
    number: str
    before: str
    after: str = ""

    @classmethod
    def of(cls, sql: str) -> Self | None:
        """The comparison of a column with a number; None for any other SQL."""
        match = _WHOLE.fullmatch(sql)
        return cls(match[1], match[2], match[3], sql[: match.start(3)].lstrip()) if match else None

    @classmethod
    def of_quantile(cls, sql: str) -> Self | None:
        """A column compared with a quantile of itself, over all rows or the rest: the number is the quantile."""
        match = _QUANTILE.fullmatch(sql)
        if match is None or match[1] != match[3]:
            return None
        return cls(match[1], match[2], match[4], sql[: match.start(4)].lstrip(), sql[match.end(4) :].rstrip())

    @property
    def keeps_high(self) -> bool:
        """Whether low values are dropped."""
        return self.operator.startswith(">")

    def at(self, number: str) -> str:
        """The same SQL with another number."""
        return self.before + number + self.after


def find(con: duckdb.DuckDBPyConnection, recipe: Recipe, columns: Iterable[str]) -> list[Threshold]:
    """The recipe's comparisons of a column with a number, as `column >= number`, or with a quantile of the column."""
    found = []
    for each in recipe.filters:
        for column in columns:
            found += [Threshold(each.name, column, value) for value in _values(con, each, column)]
    return found


def _values(con: duckdb.DuckDBPyConnection, each: Filter, column: str) -> list[float]:
    if column not in each.sql:  # of dozens of columns a filter names one or two, and each has patterns of its own
        return []
    plain = rf'(?<![\w.])"?{re.escape(column)}"?\s*{_OPERATOR}\s*'
    numbers = re.findall(plain + _NUMBER + r"(?![\w.]|\s*[-+*/%])", each.sql)
    quantile = rf"\(\s*SELECT\s+quantile_cont\(\s*{re.escape(column)}\s*,\s*{_NUMBER}\s*\)\s+FROM\s+rows\s*\)"
    values = [float(number) for _, number in numbers]
    for _, share in re.findall(plain + quantile, each.sql, re.IGNORECASE):
        row = con.execute(f'SELECT quantile_cont("{column}", {float(share)}) FROM rows').fetchall()[0]
        values += [float(row[0])] if row[0] is not None else []
    return values
