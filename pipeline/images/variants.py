"""What a picture may look like once somebody has copied it: the versions whose perceptual hashes are looked for, too.

The hash itself bears another size, compression, blur, brightness, tint, or a line of text. It does not bear a mirror, a
crop, a frame, or a rotation; but there are only so many of these, and a test set is small beside a pool.
"""

from collections.abc import Iterator

from PIL import Image, ImageOps

VERSION = 1
"""Raised whenever the same picture would get other versions."""

SIDE = 64
"""Pixels of the longer side at which versions are made: the hash looks at 32."""

CROPS = (0.0, 0.05, 0.1)
"""Of width and height, cut off the left and the top; what is left is 0.9 of either."""

TURNS = (-3.0, 3.0)
"""Degrees."""

BORDERS = (0, 128, 255)
"""Grey levels of a border that is 0.05 of the shorter side wide."""

FRAMES = ((0.08, 0.03, 0.02), (0.11, 0.05, 0.03))
"""Of the height: a bar above, one below, and the sides, as of a window on a screen."""

GROUNDS = (40, 235)
"""Grey levels of such a window, dark and light."""


def versions(image: Image.Image) -> Iterator[Image.Image]:
    """The picture itself first, then the others, small and grey; then all of them mirrored. Always as many."""
    yield image
    grey = image.convert("L")
    grey.thumbnail((SIDE, SIDE))
    yield from _versions(grey)
    mirrored = ImageOps.mirror(grey)
    yield mirrored
    yield from _versions(mirrored)


def _versions(grey: Image.Image) -> Iterator[Image.Image]:
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
