"""The gain as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def forest(gain: Mapping[str, Any], path: Path) -> None:
    """A panel for each learner, on one scale: every difference with its interval. The same gain gives the same SVG.

    SVG or PNG, by the file's ending.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    learners = gain["learners"]
    heights = [len(each["differences"]) for each in learners]
    with rc_context({"svg.hashsalt": "winnow", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 0.32 * sum(heights) + 0.5 * len(heights) + 0.6), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, learner in zip(panels, learners, strict=True):
            _panel(axes, learner["name"], learner["differences"])
        panels[-1].set_xlabel(f"difference in macro-F1, with its {gain['interval'].partition(',')[0]} interval")
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


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
