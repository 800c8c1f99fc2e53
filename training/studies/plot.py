"""The gain as a picture, and encoders side by side."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

GREEN, RED, GREY = "#1b7837", "#b2182b", "#888888"


def forest(gain: Mapping[str, Any], path: Path) -> None:
    """Every difference with its interval: a panel for each learner and one for the filters, on one scale.

    SVG or PNG, by the suffix of `path`. The same gain gives the same SVG.
    """
    groups = [(each["name"], each["differences"]) for each in gain["learners"]]
    filters = gain["filters"]
    if filters["differences"]:
        groups.append((f"{filters['learner']}: what each filter adds", filters["differences"]))
    heights = [len(differences) for _, differences in groups]
    with figure(path, (8, 0.32 * sum(heights) + 0.5 * len(heights) + 0.6)) as drawing:
        panels = drawing.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, differences) in zip(panels, groups, strict=True):
            _panel(axes, title, differences)
        panels[-1].set_xlabel(_scale(gain))


def pareto(comparison: Mapping[str, Any], path: Path) -> None:
    """The score of each encoder, with its interval, against its time for a picture; the Pareto front as a line.

    Encoders with random weights are hollow and labelled. SVG or PNG, by the suffix of `path`.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    main, says = comparison["metrics"][0]
    rows = [(1000 / row["encoder_images_per_second"], row) for row in comparison["encoders"] if "error" not in row]
    with figure(path, (8, 5)) as drawing:
        axes = drawing.subplots()
        front = sorted((cost, row["score"]) for cost, row in rows if row["front"])
        axes.step([cost for cost, _ in front], [f1 for _, f1 in front], where="post", color=GREEN, linewidth=1)
        middle = sorted(cost for cost, _ in rows)[(len(rows) - 1) // 2]
        for cost, row in rows:
            random, colour = row["weights"]["from"] == "RANDOM", _colour(row)
            axes.plot([cost, cost], [row["low"], row["high"]], color=colour, linewidth=1)
            axes.plot(cost, row["score"], "o", color=colour, markerfacecolor="white" if random else colour)
            left = cost > middle  # where there is room
            axes.annotate(
                f"{'RANDOM WEIGHTS ' if random else ''}{row['encoder']}",
                (cost, row["score"]), (-5 if left else 5, 5), ha="right" if left else "left",
                textcoords="offset points", fontsize="small", color=colour,
            )  # fmt: skip
        axes.axhline(comparison["baseline"][main], color="black", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"milliseconds a picture, the encoder alone ({comparison['device']})")
        axes.set_ylabel(f"{says} of a linear probe, with its 95% interval")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)


@contextmanager
def figure(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """A figure of a `size` in inches, which is saved at the end; the same content gives the same SVG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "winnow", "svg.fonttype": "none"}):
        drawing = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(drawing)
        yield drawing
        drawing.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _colour(row: Mapping[str, Any]) -> str:
    """The colour of an encoder."""
    if row["weights"]["from"] == "RANDOM":
        return RED
    return GREEN if row["front"] else GREY


def _scale(gain: Mapping[str, Any]) -> str:
    levels = {each["level"] for group in (*gain["learners"], gain["filters"]) for each in group["differences"]}
    wider = f"; of filters {max(levels):.1%}" if len(levels) > 1 else ""
    return f"difference in {gain['metrics'][0][1]}, with its {min(levels):.0%} interval{wider}"


def _panel(axes: Any, title: str, differences: Sequence[Mapping[str, Any]]) -> None:
    shown = list(reversed(differences))
    for at, each in enumerate(shown):
        colour = GREY
        if each["clear"]:
            colour = GREEN if each["difference"] > 0 else RED
        axes.plot([each["low"], each["high"]], [at, at], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(each["difference"], at, "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    axes.set_yticks(range(len(shown)), [each["name"] for each in shown])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
