"""Filters on the picture. Pixel columns are made by a scorer named `pixels`, the aesthetic one by `aesthetic`."""

from filters.core import Filter

large = Filter(
    "large", "least(width, height) >= 200", why="DataComp's basic filter: the shorter side has at least 200 px"
)
shaped = Filter(
    "shaped",
    "greatest(width, height) <= 3 * least(width, height)",
    why="banners and strips are rarely pictures of something",
)
sharp = Filter("sharp", "pixels_sharpness >= 50", why="a blurred picture shows too little of what its caption names")


def aesthetic(least: float) -> Filter:
    """LAION's aesthetic score, about 1 to 10, at least `least` (LAION-Aesthetics v2 used 4.5 to 6.5)."""
    return Filter("aesthetic", f"aesthetic_score >= {least}", why=f"the aesthetic score is at least {least:g}")
