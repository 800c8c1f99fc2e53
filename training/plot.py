"""The gain as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def forest(gain: Mapping[str, Any], path: Path) -> None:
    """Each difference with its interval, as SVG or PNG by the file's ending. The same gain gives the same SVG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(reversed(gain["differences"]))
    with rc_context({"svg.hashsalt": "winnow", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 0.45 * len(shown) + 1.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for at, each in enumerate(shown):
            colour = "#888888" if not each["clear"] else "#1b7837" if each["difference"] > 0 else "#b2182b"
            axes.plot([each["low"], each["high"]], [at, at], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(each["difference"], at, "o", color=colour)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(shown)), [each["name"] for each in shown])
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.set_xlabel(f"difference in macro-F1, with its {gain['interval'].partition(',')[0]} interval")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
