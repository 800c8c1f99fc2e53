"""What a model sees of relations, by kind."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from flows.console.layout import Column, Paragraph, Table


def table(found: Mapping[str, Any], sentence: str) -> Group:
    """The figures. `found` is the JSON of `training.studies.composition.measure`."""
    columns = ("accuracy", "text alone", "a guess", "all of a group", "guessed")
    made = Table((Column("kind", "name"), *map(Column, columns)), f"{found['model']}: {found['pictures']:,} pictures")
    for each in found["kinds"]:
        made.add(
            each["name"],
            _interval(each["accuracy"]),
            f"{each['blind']:.3f}",
            f"{each['chance']:.3f}",
            _interval(each["group"]),
            f"{each['group_chance']:.3f}",
        )
    notes = [Paragraph(found["protocol"])] if found["protocol"] else []
    interval = Text("Intervals: 95%, a bootstrap over draws; a tie is wrong", "italic")
    return Group(made, interval, *notes, Text(), Paragraph(sentence))


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
