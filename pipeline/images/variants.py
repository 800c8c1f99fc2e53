"""Common changes of a copied picture, whose perceptual hashes are searched for as well.

The hash hardly changes with size, compression, blur, brightness, tint, or a line of text. It does change when a picture
is mirrored, cropped, framed, or rotated. These variants are few, and a test set is small compared with a pool.
"""

from collections.abc import Iterator

from PIL import Image, ImageOps

VERSION = 1

SIDE = 64
"""Pixels of the longer side of a variant. The hash uses 32."""

CROPS = (0.0, 0.05, 0.1)
"""Shares of width and height that are cut off at the left and the top. 0.9 of each side remains."""

TURNS = (-3.0, 3.0)
"""Degrees."""

BORDERS = (0, 128, 255)
"""Grey levels of a border. Its width is 0.05 of the shorter side."""

FRAMES = ((0.08, 0.03, 0.02), (0.11, 0.05, 0.03))
"""Widths above, below and at the sides of a frame like a window on a screen, as shares of the height."""

GROUNDS = (40, 235)
"""Grey levels of such a frame, dark and light."""


def variants(image: Image.Image) -> Iterator[Image.Image]:
    """The picture itself, its variants, small and grey, then all of them mirrored. The number is always the same."""
    yield image
    grey = image.convert("L")
    grey.thumbnail((SIDE, SIDE))
    yield from _changes(grey)
    mirrored = ImageOps.mirror(grey)
    yield mirrored
    yield from _changes(mirrored)


def _changes(grey: Image.Image) -> Iterator[Image.Image]:
    width, height = grey.size
    for left in CROPS:
        for top in CROPS:
            yield grey.crop(
                (round(left * width), round(top * height), round((left + 0.9) * width), round((top + 0.9) * height))
            )
    for degrees in TURNS:
        yield grey.rotate(degrees, Image.Resampling.BICUBIC)
    for level in BORDERS:
        yield ImageOps.expand(grey, max(round(0.05 * min(grey.size)), 1), level)
    for level in GROUNDS:
        for above, below, beside in FRAMES:
            yield ImageOps.expand(
                grey,
                (round(beside * height), round(above * height), round(beside * height), round(below * height)),
                level,
            )
