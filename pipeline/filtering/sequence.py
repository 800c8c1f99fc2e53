"""The filters of a recipe as DuckDB takes them, one after the other: `{rest}` is what the ones before leave."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from filters.core import REST, Filter
from pipeline.filtering.finite import finite


@dataclass(frozen=True)
class Sequenced(Filter):
    """A filter in its place: `sql` stands for itself. `shared` says the same in a SELECT that begins with `rests`.

    `rests` are names and SELECTs of the uids that earlier filters leave, each over the ones before it.
    """

    shared: str = ""
    rests: tuple[tuple[str, str], ...] = ()


def in_sequence(filters: Sequence[Filter]) -> tuple[Sequenced, ...]:
    """The filters with `{rest}` written out, and NULL for what is not finite (`pipeline.filtering.finite`).

    A first filter with `{rest}` repeats what the filters before it say. From the second on, each refers to a SELECT of
    its own, so that the SQL grows with the number of filters: written out, every filter would hold all before it twice.
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
    """The WITH of a SELECT over filters that share these."""
    named: Mapping[str, str] = dict(rests)
    definitions = ",\n".join(f"{name} AS MATERIALIZED ({select})" for name, select in named.items())
    return f"WITH {definitions}\n" if definitions else ""
