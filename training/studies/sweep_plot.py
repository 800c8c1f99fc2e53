"""A sweep as a picture: the score of every cell with its interval, and encoders by score and cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.studies.plot import GREEN, GREY, figure

COLOURS = ("#1b7837", "#762a83", "#b35806", "#2166ac", "#b2182b", "#555555", "#01665e", "#8c510a")


def scores(found: Mapping[str, Any], path: Path) -> None:
    """Mean recall against the key with the most numbers, a line for each combination of the others.

    Without a key of numbers, cells stand below each other. SVG or PNG, by the suffix of `path`. `found` is what
    `training.studies.sweep.run` returns. The same gives the same SVG.
    """
    along = _axis(found)
    cells = found["cells"]
    with figure(path, (8, 5) if along else (8, 0.4 * len(cells) + 1.2)) as drawing:
        axes = drawing.subplots()
        if along:
            _lines(axes, cells, along)
            axes.axhline(found["chance"], color="black", linewidth=0.8, linestyle=":")
            axes.set_ylabel(_says(found))
        else:
            _below_each_other(axes, cells)
            axes.axvline(found["chance"], color="black", linewidth=0.8, linestyle=":")
            axes.set_xlabel(_says(found))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)


def trade_off(efficient: Mapping[str, Any], score: str, path: Path) -> None:
    """The score of each encoder, with its interval, against its FLOPs; the front as a line, the choice filled."""
    from matplotlib.ticker import LogLocator, NullFormatter

    rows = [row for row in efficient["rows"] if row["flops"]]
    with figure(path, (8, 5)) as drawing:
        axes = drawing.subplots()
        front = [row for name in efficient["front"] for row in rows if row["name"] == name]
        axes.step(
            [row["flops"] / 1e9 for row in front],
            [row["score"] for row in front],
            where="post",
            color=GREEN,
            linewidth=1,
        )
        for row in rows:
            colour = GREEN if row["name"] in efficient["front"] else GREY
            x = row["flops"] / 1e9
            axes.plot([x, x], [row["low"], row["high"]], color=colour, linewidth=1)
            filled = colour if row["name"] == efficient["best"] else "white"
            axes.plot(x, row["score"], "o", color=colour, markerfacecolor=filled)
            axes.annotate(
                row["name"], (x, row["score"]), (5, 5), textcoords="offset points", fontsize="small", color=colour
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("GFLOP a picture")
        axes.set_ylabel(f"{score}, with its 95% interval")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)


def _says(found: Mapping[str, Any]) -> str:
    gallery = found["gallery"]
    return f"{found['score']} of {gallery['pictures']:,} pictures, with its 95% interval"


def _axis(found: Mapping[str, Any]) -> str | None:
    """The key with the most numbers, two or more."""
    counts = {}
    for name in found["keys"]:
        values = {each["values"][name] for each in found["cells"]}
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            counts[name] = len(values)
    best = max(counts, key=lambda name: counts[name], default=None)
    return best if best and counts[best] > 1 else None


def _lines(axes: Any, cells: Sequence[Mapping[str, Any]], along: str) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    series: dict[str, list[Mapping[str, Any]]] = {}
    for each in cells:
        rest = ", ".join(f"{value}" for name, value in each["values"].items() if name != along)
        series.setdefault(rest, []).append(each)
    numbers = sorted({each["values"][along] for each in cells})
    for number, (name, own) in enumerate(series.items()):
        own = sorted(own, key=lambda each: each["values"][along])
        shift = 1 + 0.02 * (number - (len(series) - 1) / 2)  # so that intervals do not hide each other
        x = [each["values"][along] * shift for each in own]
        y = [each["score"] for each in own]
        spread = [
            [each["score"] - each["low"] for each in own],
            [each["high"] - each["score"] for each in own],
        ]
        axes.errorbar(x, y, spread, marker="o", capsize=2, color=COLOURS[number % len(COLOURS)], label=name or None)
    if numbers[0] > 0:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axes.set_xlabel(along)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize="small")


def _below_each_other(axes: Any, cells: Sequence[Mapping[str, Any]]) -> None:
    for at, each in enumerate(reversed(cells)):
        axes.plot([each["low"], each["high"]], [at, at], color=GREY, linewidth=2, solid_capstyle="butt")
        axes.plot(each["score"], at, "o", color=GREEN)
    axes.set_yticks(range(len(cells)), [each["name"] for each in reversed(cells)])
