"""The gain as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def forest(gain: Mapping[str, Any], path: Path) -> None:
    """A panel for each learner and one for the filters, on one scale: every difference with its interval.

    SVG or PNG, by the file's ending. The same gain gives the same SVG.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = [(each["name"], each["differences"]) for each in gain["learners"]]
    filters = gain["filters"]
    if filters["differences"]:
        groups.append((f"{filters['learner']}: what each filter adds", filters["differences"]))
    heights = [len(differences) for _, differences in groups]
    with rc_context({"svg.hashsalt": "winnow", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 0.32 * sum(heights) + 0.5 * len(heights) + 0.6), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, differences) in zip(panels, groups, strict=True):
            _panel(axes, title, differences)
        panels[-1].set_xlabel(_scale(gain))
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _scale(gain: Mapping[str, Any]) -> str:
    levels = {each["level"] for group in (*gain["learners"], gain["filters"]) for each in group["differences"]}
    wider = f"; of filters {max(levels):.1%}" if len(levels) > 1 else ""
    return f"difference in macro-F1, with its {min(levels):.0%} interval{wider}"


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
