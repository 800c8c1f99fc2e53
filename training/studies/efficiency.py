"""The most efficient encoder that still performs, and the Pareto front of scores and costs."""

from collections.abc import Mapping, Sequence
from typing import Any

RULE = "the fewest FLOPs for a picture among those whose mean score is within the interval of the best one's"
"""The rule of `most_efficient`, for a person."""


def most_efficient(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The cheapest of the rows that perform: those whose mean `score` is `low` of the best row or more.

    The best row has the highest `score`. Cheap is by `flops`, then by `parameters`; at equal costs the better score.
    A row without FLOPs does not count. None if there is no row.
    """
    counted = [row for row in rows if row["flops"] is not None]
    if not counted:
        return None
    best = max(counted, key=lambda row: row["score"])
    performing = [row for row in counted if row["score"] >= best["low"]]
    return min(performing, key=lambda row: (row["flops"], row["parameters"], -row["score"]))


def front(rows: Sequence[Mapping[str, Any]], cost: str = "flops") -> list[str]:
    """The names of the rows that no other row beats in score at the same cost or less, from the cheapest on."""
    names, reached = [], float("-inf")
    for row in sorted((row for row in rows if row[cost] is not None), key=lambda row: (row[cost], -row["score"])):
        if row["score"] > reached:
            names.append(row["name"])
            reached = row["score"]
    return names
