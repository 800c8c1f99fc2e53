"""Filters on the picture. Each scorer is expected under the name of its kind, prompts under the name of their set."""

from filters import best
from filters.core import Filter


def size(least: int) -> Filter:
    """The shorter side of the picture as it was fetched, in pixels."""
    return Filter(
        "large", f"width >= {least} AND height >= {least}", why=f"the shorter side has at least {least} pixels"
    )


def aspect(most: float) -> Filter:
    """The longer side by the shorter one, 1 and more."""
    return Filter(
        "shaped",
        f"width <= {most:g} * height AND height <= {most:g} * width",
        why=f"banners and strips, more than {most:g} times as long as wide, are rarely pictures of something",
    )


large = size(200)
shaped = aspect(3)
weighty = Filter("weighty", "bytes >= 5000", why="LAION's rule: a file of less than 5 KB is an icon or a placeholder")


def brightness(least: float, most: float) -> Filter:
    """Mean luma, 0 to 255. Of 1,900 ordinary photographs none was under 11 or over 215."""
    return Filter(
        "lit",
        f"pixels_brightness BETWEEN {least} AND {most}",
        why=f"the picture is neither nearly black nor nearly white: its mean luma is {least:g} to {most:g} of 255",
    )


def contrast(least: float) -> Filter:
    """Standard deviation of the luma, 0 to 127.5; ordinary photographs have 15 to 105."""
    return Filter(
        "contrasted",
        f"pixels_contrast >= {least}",
        why=f"things stand out from their ground: the luma's deviation is at least {least:g}",
    )


def entropy(least: float) -> Filter:
    """Of the luma's histogram, in bits, 0 to 8; ordinary photographs have 5 to 8, charts and logos less."""
    return Filter(
        "detailed",
        f"pixels_entropy >= {least}",
        why=f"the picture is no blank or chart: its grey levels have an entropy of at least {least:g} bits",
    )


def colour(least: float) -> Filter:
    """Hasler & Suesstrunk's colourfulness: 0 is grey, 15 slight, 33 moderate. Black-and-white is dropped as well."""
    return Filter(
        "coloured",
        f"pixels_colourfulness >= {least}",
        why=f"the picture shows colours that its caption may name: its colourfulness is at least {least:g}",
    )


def sharpness(least: float) -> Filter:
    """Variance of the Laplacian at 224 px. Sharp pictures of smooth things are low as well: calibrate it."""
    return Filter(
        "sharp",
        f"pixels_sharpness >= {least}",
        why=f"a blurred picture shows too little of what its caption names; its sharpness is at least {least:g}",
    )


def blockiness(most: float) -> Filter:
    """Luma steps on JPEG's grid against steps elsewhere, about 1 without blocks. Stored at full size, uploads of a JPEG
    quality up to 12 have about 1.8 and more, those above 80 up to 1.5; stored smaller, both have less."""
    return Filter(
        "unblocky",
        f"pixels_blockiness <= {most}",
        why=f"the upload was not compressed until its blocks show: their borders stand out at most {most:g} times",
    )


def border(most: float) -> Filter:
    """Share of the area in plain bands along the edges; product photographs on white have a lot of it."""
    return Filter(
        "unframed",
        f"pixels_border <= {most}",
        why=f"at most {most:.0%} of the picture is a plain border or letterbox",
    )


lit = brightness(20, 235)
contrasted = contrast(10)
detailed = entropy(4)
coloured = colour(5)
sharp = sharpness(50)
unblocky = blockiness(1.6)
unframed = border(0.4)


def aesthetic(least: float) -> Filter:
    """LAION's aesthetic score, about 1 to 10, at least `least` (LAION-Aesthetics v2 used 4.5 to 6.5)."""
    return Filter("aesthetic", f"aesthetic_score >= {least}", why=f"the aesthetic score is at least {least:g}")


def most_aesthetic(share: float) -> Filter:
    """The best `share` (0 to 1) of all scored pairs by LAION's aesthetic score."""
    why = f"the picture is among the best {share:.0%} of the pool by aesthetic score"
    return best.of_pool("most-aesthetic", "aesthetic_score", share, why)


def most_aesthetic_of_rest(share: float) -> Filter:
    """The best `share` (0 to 1) by aesthetic score of the pairs that pass the filters before this one."""
    why = f"the picture is among the best {share:.0%} by aesthetic score of what the filters before leave"
    return best.of_rest("most-aesthetic-of-rest", "aesthetic_score", share, why)


def watermark(most: float) -> Filter:
    """Probability of the prompts "watermark" against ordinary ones, by a prompts scorer of that name; calibrate it."""
    return Filter(
        "unmarked",
        f"watermark_probability <= {most}",
        why=f"a watermark or overlay has a probability of at most {most:g}",
    )


def screenshot(most: float) -> Filter:
    """Probability of the prompts "screenshot" against ordinary ones, by a prompts scorer of that name; calibrate it."""
    return Filter(
        "depicting",
        f"screenshot_probability <= {most}",
        why=f"a screenshot or scanned text has a probability of at most {most:g}",
    )


def logo(most: float) -> Filter:
    """Probability of the prompts "logo" against ordinary ones, by a prompts scorer of that name; calibrate it."""
    return Filter("no-logo", f"logo_probability <= {most}", why=f"a logo or icon has a probability of at most {most:g}")
