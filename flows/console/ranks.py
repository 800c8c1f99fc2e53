"""Ranks of retrieval: Rank@k and median ranks of both directions, with intervals and multiples of chance."""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.console.layout import Column, Table

Directions = Sequence[Mapping[str, Any]]
"""What `training.measures.ranking.summarize` returns."""


def tables(rows: Sequence[tuple[str, Directions]], heading: str) -> list[Table]:
    """A table for each direction, with a row for each name."""
    return [_table([(name, directions[at]) for name, directions in rows], heading) for at in range(2)]


def _table(rows: Sequence[tuple[str, Mapping[str, Any]]], heading: str) -> Table:
    first = rows[0][1]
    ranks = (Column(f"Rank@{each['k']}") for each in first["recalls"])
    always = ", where every rank is 1" if first["candidates"] == 1 else ""
    title = f"{first['says'].capitalize()}: {first['queries']:,} queries, a gallery of {first['candidates']:,}{always}"
    table = Table((Column(heading, "name"), *ranks, Column("x chance at 1"), Column("median rank")), title)
    for name, direction in rows:
        shares = (_interval(each, ".3f") for each in direction["recalls"])
        times = f"{direction['recalls'][0]['times_chance']:,.1f}"
        table.add(name, *shares, times, _interval(direction["median"], ".4g"))
    chance = (f"{each['chance']:.3f}" for each in first["recalls"])
    table.add("chance", *chance, "1.0", f"{first['median']['chance']:,.0f}", style="dim")
    return table


def _interval(figure: Mapping[str, float], form: str) -> str:
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"
