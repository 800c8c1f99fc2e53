"""The filters of a recipe in sequence, as SQL for DuckDB: `{rest}` is the rows that pass the earlier filters."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from filters.core import REST, Filter
from pipeline.filtering.finite import finite


@dataclass(frozen=True)
class Sequenced(Filter):
    """A filter in its place. `sql` is complete. `shared` is equivalent in a SELECT that begins with `rests`.

    `rests` has names and SELECTs of the uids that pass the earlier filters. Each may refer to the ones before it.
    """

    shared: str = ""
    rests: tuple[tuple[str, str], ...] = ()


def in_sequence(filters: Sequence[Filter]) -> tuple[Sequenced, ...]:
    """The filters with `{rest}` replaced, and NULL for non-finite values (`pipeline.filtering.finite`).

    The first filter with `{rest}` repeats the SQL of the filters before it. From the second on, each refers to a named
    SELECT, so that the SQL grows linearly: without names, every filter would contain all earlier ones twice.
    """
    found: list[Sequenced] = []
    rests: list[tuple[str, str]] = []
    passing = ["status = 'ok'"]
    nested = False
    for each in filters:
        if isinstance(each, Sequenced):
            found.append(each)
            continue
        sql = shared = finite(each.sql)
        if REST in sql:
            if nested:
                select = f"SELECT uid FROM rows WHERE {' AND '.join(passing)}"
                name = f"rest_{hashlib.sha256(select.encode()).hexdigest()[:16]}"
                rests.append((name, select))
                passing = [f"uid IN (FROM {name})"]
                whole = f"uid IN ({with_rests(rests)} FROM {name})"
            else:
                whole = " AND ".join(passing)
            nested = True
            sql, shared = (sql.replace(REST, f"({rest})") for rest in (whole, " AND ".join(passing)))
        found.append(Sequenced(each.name, sql, each.why, shared, tuple(rests)))
        passing.append(f"(\n{shared}\n)")
    return tuple(found)


def with_rests(rests: Sequence[tuple[str, str]]) -> str:
    """The WITH clause of a SELECT over filters that share these rests."""
    named: Mapping[str, str] = dict(rests)
    definitions = ",\n".join(f"{name} AS MATERIALIZED ({select})" for name, select in named.items())
    return f"WITH {definitions}\n" if definitions else ""
