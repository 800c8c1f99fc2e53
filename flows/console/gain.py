"""The console's view of a gain: scores by arm and learner, the differences, and what each filter adds."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

KINDS = {True: "augmented", False: "plain"}
"""What a row's `augmented` is called; a string stands for itself."""

SPREAD = len(" (.000)")
"""Characters that a standard deviation takes behind a mean."""


def table(gain: Mapping[str, Any]) -> Group:
    """The compared score by arm and learner, and sentences: what made a difference, and what each filter adds.

    `gain` is what `training.studies.gain.measure` returns.
    """
    says, filters = gain["metrics"][0][1], gain["filters"]
    first = [each for learner in gain["learners"] for each in learner["differences"] if each["first"]]
    lines = [Text(f"Differences in {says}; {gain['interval']}", "italic"), *map(_sentence, first)]
    if gain["versions"]:
        lines.append(Text(gain["versions"]["says"]))
    lines.append(Text(f"What each filter adds; {filters['interval']}", "italic"))
    lines += map(_sentence, filters["differences"])
    lines += [Text(each["sentence"], "dim") for each in filters["same"]]
    return Group(_scores(gain), *lines)


def _scores(gain: Mapping[str, Any]) -> Table:
    learners, (main, says), baseline = gain["learners"], gain["metrics"][0], gain["baseline"]
    title = f"{says[:1].upper()}{says[1:]} (sd) on {gain['test']['says']}, {gain['budget']['seeds']} seeds"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("arm", "pictures"):
        table.add_column(name, no_wrap=True)
    for name in ("pairs", *(learner["name"] for learner in learners)):
        table.add_column(name, justify="right", no_wrap=True)
    for rows in zip(*(learner["rows"] for learner in learners), strict=True):
        first = rows[0]
        kind = KINDS.get(first["augmented"], first["augmented"])
        scores = [_score(row[f"{main}_mean"], row[f"{main}_sd"]) for row in rows]
        table.add_row(first["arm"], kind, f"{first['pairs_mean']:.0f}", *scores)
    score = f"{baseline[main]:.3f}{'':{SPREAD}}"
    table.add_row(baseline["says"], "", "", *[score for _ in learners], style="dim")
    return table


def _score(mean: float, deviation: float) -> str:
    """Three decimals each. A deviation below 1 is written without its zero: 0.812 (.013)."""
    return f"{mean:.3f} ({f'{deviation:.3f}'.removeprefix('0')})"


def _sentence(difference: Mapping[str, Any]) -> Text:
    """Dim where the interval includes 0."""
    return Text(difference["sentence"], "" if difference["clear"] else "dim")
