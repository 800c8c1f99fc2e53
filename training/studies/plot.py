"""The gain as a picture, and encoders side by side."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def forest(gain: Mapping[str, Any], path: Path) -> None:
    """A panel for each learner and one for the filters, on one scale: every difference with its interval.

    SVG or PNG, by the file's ending. The same gain gives the same SVG.
    """
    groups = [(each["name"], each["differences"]) for each in gain["learners"]]
    filters = gain["filters"]
    if filters["differences"]:
        groups.append((f"{filters['learner']}: what each filter adds", filters["differences"]))
    heights = [len(differences) for _, differences in groups]
    with _drawn(path, (8, 0.32 * sum(heights) + 0.5 * len(heights) + 0.6)) as figure:
        panels = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, differences) in zip(panels, groups, strict=True):
            _panel(axes, title, differences)
        panels[-1].set_xlabel(_scale(gain))


def pareto(found: Mapping[str, Any], path: Path) -> None:
    """The score of each encoder, with its interval, against the time that it takes a picture; the front as a line.

    Encoders with random weights are hollow and say so. SVG or PNG, by the file's ending.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    main, says = found["metrics"][0]
    rows = [(1000 / row["encoder_images_per_second"], row) for row in found["encoders"] if "error" not in row]
    with _drawn(path, (8, 5)) as figure:
        axes = figure.subplots()
        front = sorted((cost, row["score"]) for cost, row in rows if row["front"])
        axes.step([cost for cost, _ in front], [f1 for _, f1 in front], where="post", color="#1b7837", linewidth=1)
        middle = sorted(cost for cost, _ in rows)[(len(rows) - 1) // 2]
        for cost, row in rows:
            random = row["weights"]["from"] == "RANDOM"
            colour = "#b2182b" if random else "#1b7837" if row["front"] else "#888888"
            axes.plot([cost, cost], [row["low"], row["high"]], color=colour, linewidth=1)
            axes.plot(cost, row["score"], "o", color=colour, markerfacecolor="white" if random else colour)
            left = cost > middle  # where there is room
            axes.annotate(
                f"{'RANDOM WEIGHTS ' if random else ''}{row['encoder']}",
                (cost, row["score"]), (-5 if left else 5, 5), ha="right" if left else "left",
                textcoords="offset points", fontsize="small", color=colour,
            )  # fmt: skip
        axes.axhline(found["baseline"][main], color="black", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"milliseconds a picture, the encoder alone ({found['device']})")
        axes.set_ylabel(f"{says} of a linear probe, with its 95% interval")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)


@contextmanager
def _drawn(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """A figure, in inches, that is saved at the end; the same drawing gives the same SVG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "winnow", "svg.fonttype": "none"}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _scale(gain: Mapping[str, Any]) -> str:
    levels = {each["level"] for group in (*gain["learners"], gain["filters"]) for each in group["differences"]}
    wider = f"; of filters {max(levels):.1%}" if len(levels) > 1 else ""
    return f"difference in {gain['metrics'][0][1]}, with its {min(levels):.0%} interval{wider}"


def _panel(axes: Any, title: str, differences: Sequence[Mapping[str, Any]]) -> None:
    shown = list(reversed(differences))
    for at, each in enumerate(shown):
        colour = "#888888" if not each["clear"] else "#1b7837" if each["difference"] > 0 else "#b2182b"
        axes.plot([each["low"], each["high"]], [at, at], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(each["difference"], at, "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    axes.set_yticks(range(len(shown)), [each["name"] for each in shown])
    axes.set_ylim(-0.7, len(shown) - 0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
