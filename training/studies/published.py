"""Figures that studies published, beside ours: `docs/published.toml`."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).parent.parent.parent / "docs" / "published.toml"


class Figure(NamedTuple):
    """A published figure: what it is a figure of, where it stands, on what data, and what was run here instead.

    `metric` is the key of a score where ours can be put beside it, with `tower`, a part of the name of the image tower.
    """

    study: str
    where: str
    of: str
    value: float
    unit: str
    data: str
    instead: str
    metric: str | None = None
    tower: str | None = None


class Beside(NamedTuple):
    """A published figure, the name of what is compared with it, our value with its interval, and a sentence.

    `data` says on what either was measured. It is the same for all figures of a table.
    """

    figure: Figure
    name: str
    value: float
    low: float
    high: float
    sentence: str
    data: str


def read(path: Path = FILE) -> tuple[Figure, ...]:
    """All figures of the file. Raises TypeError for a key that is missing or unknown."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(Figure(**each) for each in table["figure"])


def beside(figures: Sequence[Figure], rows: Sequence[Mapping[str, Any]]) -> Iterator[Beside]:
    """Each figure beside the best of the rows with its tower and metric.

    A row has a name, the name of its image tower (`image`), a score, and `metrics` by key, each with value, low, high.
    """
    for figure in figures:
        fitting = [
            row for row in rows if figure.tower and figure.tower in row["image"] and figure.metric in row["metrics"]
        ]
        if fitting:
            row = max(fitting, key=lambda row: float(row["score"]))
            ours = row["metrics"][figure.metric]
            data = f"{figure.study}: {figure.data}; here {figure.instead}. The two cannot be compared as they stand."
            sentence = _sentence(figure, row["name"], ours)
            yield Beside(figure, row["name"], ours["value"], ours["low"], ours["high"], sentence, data)


def _sentence(figure: Figure, name: str, ours: Mapping[str, float]) -> str:
    if ours["low"] <= figure.value <= ours["high"]:
        place = "agrees with"
    else:
        place = "is above" if ours["value"] > figure.value else "is below"
    return f"{figure.of}, {figure.where}: {figure.value:g}. {name} {place} it."
