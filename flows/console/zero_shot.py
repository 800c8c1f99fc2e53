"""Zero-shot classification: scores by set of templates, pictures found by names, and what is confused."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from flows.console import ranks
from flows.console.layout import Column, Paragraph, Table

HEADINGS = {"top1": "top-1", "top5": "top-5", "per_class": "mean of classes", "f1_macro": "macro-F1"}

CONFUSED = 5
"""Confusions that are printed, of the first set of templates."""


def table(found: Mapping[str, Any]) -> Group:
    """All figures. `found` is the JSON of `training.studies.zero_shot.evaluate`."""
    if "sets" not in found:
        rows = [(found["model"], found["captions"]["directions"])]
        return Group(*ranks.tables(rows, "model"), Text(f"Intervals: {found['interval']}", "italic"))
    return Group(*_parts(found))


def _parts(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    title = f"{found['model']}: {found['test']['says']}, {found['names']:,} names"
    scores = Table((Column("templates", "name"), *map(Column, HEADINGS.values())), title)
    for each in found["sets"]:
        scores.add(each["templates"], *(_interval(each["scores"][name]) for name in HEADINGS))
    scores.add("most frequent classes", *(f"{found['majority'][name]:.3f}" for name in HEADINGS), style="dim")
    yield scores
    yield Text(f"Intervals: {found['interval']}", "italic")
    yield Text()
    yield _by_name(found)
    first = found["sets"][0]
    if first["confusions"]:
        yield Text()
        yield Text(f"Most confused, templates {first['templates']}", "bold")
    for each in first["confusions"][:CONFUSED]:
        yield Paragraph(f"{each['true']}: {each['count']:,} pictures are nearest to {each['given']}")


def _by_name(found: Mapping[str, Any]) -> Table:
    first = found["sets"][0]["by_name"]
    names = list(first["chance"])
    title = f"Pictures by name: {first['queries']:,} names, a gallery of {found['test']['pictures']:,}"
    made = Table(
        (Column("templates", "name"), *(Column(f"Rank@{name[1:]}") for name in names), Column("median")), title
    )
    for each in found["sets"]:
        own = each["by_name"]
        made.add(each["templates"], *(f"{own[name]:.3f}" for name in names), f"{own['median']:,.0f}")
    made.add("chance", *(f"{first['chance'][name]:.3f}" for name in names), "", style="dim")
    return made


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
