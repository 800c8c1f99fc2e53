"""Makes an unsafe picture unrecognisable for a page: eight pixels of its longer side are left."""

import io

from PIL import Image, ImageDraw

LEFT = 8
"""Pixels of the longer side that are left."""

WORD = "unsafe"


def veiled(jpeg: bytes) -> bytes:
    """A JPEG of the same size, with the mean colours of `LEFT` squares along its longer side and a word on it."""
    data = io.BytesIO()
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        size = image.size
        small = image.convert("RGB").resize(_reduced(*size), Image.Resampling.BOX)
    veil = small.resize(size, Image.Resampling.BICUBIC)
    letter = max(10, min(size) // 8)
    ImageDraw.Draw(veil).text(
        (size[0] / 2, size[1] / 2), WORD, "white", anchor="mm", font_size=letter, stroke_width=2, stroke_fill="black"
    )
    veil.save(data, "JPEG", quality=80)
    return data.getvalue()


def _reduced(width: int, height: int) -> tuple[int, int]:
    scale = LEFT / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))
