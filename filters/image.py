"""Filters on the picture. They read the columns of scorers with the name of their kind, or of their set of prompts."""

from filters import best
from filters.core import Filter


def size(least: int) -> Filter:
    """Minimum length of the shorter side of the picture as it was downloaded, in pixels."""
    return Filter(
        "large", f"width >= {least} AND height >= {least}", why=f"the shorter side has at least {least} pixels"
    )


def aspect(most: float) -> Filter:
    """Maximum ratio of the longer to the shorter side, 1 or more."""
    return Filter(
        "shaped",
        f"width <= {most:g} * height AND height <= {most:g} * width",
        why=f"a picture more than {most:g} times as long as wide is usually a banner or a strip",
    )


large = size(200)
shaped = aspect(3)
weighty = Filter("weighty", "bytes >= 5000", why="LAION's rule: a file of less than 5 KB is an icon or a placeholder")


def brightness(least: float, most: float) -> Filter:
    """Range of the mean luma, 0 to 255. No photograph of 1,900 ordinary ones was under 11 or over 215."""
    return Filter(
        "lit",
        f"pixels_brightness BETWEEN {least} AND {most}",
        why=f"the picture is neither nearly black nor nearly white: its mean luma is {least:g} to {most:g} of 255",
    )


def contrast(least: float) -> Filter:
    """Minimum standard deviation of the luma, 0 to 127.5. Ordinary photographs have 15 to 105."""
    return Filter(
        "contrasted",
        f"pixels_contrast >= {least}",
        why=f"the picture has contrast: the standard deviation of its luma is at least {least:g}",
    )


def entropy(least: float) -> Filter:
    """Minimum entropy of the luma's histogram, in bits, 0 to 8.

    Ordinary photographs have 5 to 8, charts and logos less.
    """
    return Filter(
        "detailed",
        f"pixels_entropy >= {least}",
        why=f"the picture is not blank or a chart: its grey levels have an entropy of at least {least:g} bits",
    )


def colour(least: float) -> Filter:
    """Minimum colourfulness by Hasler & Suesstrunk: 0 is grey, 15 slight, 33 moderate.

    It drops black-and-white pictures.
    """
    return Filter(
        "coloured",
        f"pixels_colourfulness >= {least}",
        why=f"the picture shows colours that its caption may name: its colourfulness is at least {least:g}",
    )


def sharpness(least: float) -> Filter:
    """Minimum variance of the Laplacian at 224 px. It is also low for sharp pictures of smooth things: calibrate it."""
    return Filter(
        "sharp",
        f"pixels_sharpness >= {least}",
        why=f"the picture is not blurred: its sharpness is at least {least:g}",
    )


def blockiness(most: float) -> Filter:
    """Maximum ratio of luma steps on JPEG's grid to steps elsewhere; about 1 without blocks.

    Stored at full size, uploads of a JPEG quality up to 12 have about 1.8 or more, and those above 80 up to 1.5. Stored
    smaller, both have less.
    """
    return Filter(
        "unblocky",
        f"pixels_blockiness <= {most}",
        why=f"JPEG blocks are not visible: luma steps at their borders are at most {most:g} times those elsewhere",
    )


def border(most: float) -> Filter:
    """Maximum share of the area in plain bands along the edges. It is high for product photographs on white."""
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


def faces(most: int) -> Filter:
    """Maximum number of faces, by a faces scorer named `faces`."""
    return Filter("few-faces", f"faces_count <= {most}", why=f"the picture shows at most {most} faces")


def largest_face(most: float) -> Filter:
    """Maximum share of the picture that its largest face takes, 0 to 1, by a faces scorer named `faces`."""
    why = f"no face takes more than {most:.0%} of the picture"
    return Filter("no-portrait", f"faces_largest <= {most}", why=why)


def text_area(most: float) -> Filter:
    """Maximum share of the picture that boxes around text cover, 0 to 1, by a text scorer named `text`."""
    return Filter("little-text", f"text_area <= {most}", why=f"text covers at most {most:.0%} of the picture")


def text_lines(most: int) -> Filter:
    """Maximum number of lines of text, by a text scorer named `text`. A texture may look like one line."""
    return Filter("few-lines", f"text_boxes <= {most}", why=f"at most {most} lines of text stand in the picture")


faceless = Filter("faceless", "faces_count = 0", why="the picture shows no face that the detector is sure of")


def aesthetic(least: float) -> Filter:
    """Minimum of LAION's aesthetic score, about 1 to 10. LAION-Aesthetics v2 used 4.5 to 6.5."""
    return Filter("aesthetic", f"aesthetic_score >= {least}", why=f"the aesthetic score is at least {least:g}")


def most_aesthetic(share: float) -> Filter:
    """The best `share` (0 to 1) of all scored pairs by LAION's aesthetic score."""
    why = f"the picture is among the best {share:.0%} of the pool by aesthetic score"
    return best.of_pool("most-aesthetic", "aesthetic_score", share, why)


def most_aesthetic_of_rest(share: float) -> Filter:
    """The best `share` (0 to 1) by aesthetic score of the pairs that pass the filters before this one."""
    why = f"the picture is among the best {share:.0%} by aesthetic score of the pairs that pass the earlier filters"
    return best.of_rest("most-aesthetic-of-rest", "aesthetic_score", share, why)


def watermark(most: float) -> Filter:
    """Maximum probability of the prompts "watermark" against ordinary ones, by a prompts scorer named `watermark`.

    Calibrate the threshold.
    """
    return Filter(
        "unmarked",
        f"watermark_probability <= {most}",
        why=f"a watermark or overlay has a probability of at most {most:g}",
    )


def screenshot(most: float) -> Filter:
    """Maximum probability of the prompts "screenshot" against ordinary ones, by a prompts scorer named `screenshot`.

    Calibrate the threshold.
    """
    return Filter(
        "depicting",
        f"screenshot_probability <= {most}",
        why=f"a screenshot or scanned text has a probability of at most {most:g}",
    )


def logo(most: float) -> Filter:
    """Maximum probability of the prompts "logo" against ordinary ones, by a prompts scorer named `logo`.

    Calibrate the threshold.
    """
    return Filter("no-logo", f"logo_probability <= {most}", why=f"a logo or icon has a probability of at most {most:g}")
