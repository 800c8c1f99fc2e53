"""Faults of pictures: each is a function from a picture to a worse one.

Pictures are RGB, uint8 [height, width, 3]. The strength varies with the generator, from hardly visible to ruined, so no
threshold separates all of them from good pictures.
"""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from textwrap import wrap

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.scenes.rendering import Picture

_SIGNS = ("STOCK PHOTO", "© imagebank", "PREVIEW", "SAMPLE", "pixdepot", "for approval", "© 2016 toyfoto", "COPYRIGHT")


def blurred(picture: Picture, random: np.random.Generator) -> Picture:
    """Out of focus, or one time in three shaken: a streak of 5 to 13 pixels."""
    if random.random() < 2 / 3:
        return _pixels(cv2.GaussianBlur(picture, (0, 0), float(random.uniform(1.0, 3.5))))
    length = int(random.integers(5, 14))
    streak = np.zeros((length, length), np.float32)
    streak[length // 2] = 1
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), float(random.uniform(0, 180)), 1)
    shake = cv2.warpAffine(streak, turn, (length, length))
    return _pixels(cv2.filter2D(picture, -1, shake / shake.sum()))


def washed_out(picture: Picture, random: np.random.Generator) -> Picture:
    """Half the contrast at most: overexposed towards white, or flat and grey behind a haze."""
    contrast = random.uniform(0.15, 0.5)
    haze = 255 if random.random() < 0.5 else random.uniform(130, 220)
    return _pixels(haze + (picture.astype(np.float32) - haze) * contrast)


def watermarked(picture: Picture, random: np.random.Generator) -> Picture:
    """A stock photograph's mark all over it: slanting text, half transparent, with a thin shadow."""
    height, width = picture.shape[:2]
    size = float(random.uniform(11, 19))
    font = ImageFont.load_default(size)
    sign = _SIGNS[int(random.integers(len(_SIGNS)))]
    sheet = Image.new("LA", (2 * width, 2 * height))
    pen = ImageDraw.Draw(sheet)
    long, high = pen.textlength(sign, font) + random.uniform(8, 24), size * random.uniform(1.6, 2.6)
    opaque = int(255 * random.uniform(0.35, 0.75))
    for row in range(int(2 * height / high) + 1):
        for column in range(-1, int(2 * width / long) + 1):
            at = (column + (row % 2) / 2) * long, row * high
            pen.text((at[0] + 1, at[1] + 1), sign, (0, opaque // 2), font)
            pen.text(at, sign, (255, opaque), font)
    turned = sheet.rotate(float(random.uniform(15, 45)), Image.Resampling.BICUBIC)
    mark = turned.crop((width // 2, height // 2, width // 2 + width, height // 2 + height))
    marked = Image.fromarray(picture).convert("RGBA")
    marked.alpha_composite(mark.convert("RGBA"))
    return np.asarray(marked.convert("RGB"))


def over_compressed(picture: Picture, random: np.random.Generator) -> Picture:
    """Saved as a JPEG of quality 3 to 12: blocks, and rings round the edges."""
    return recompressed(picture, int(random.integers(3, 13)))


def near_duplicate(picture: Picture, random: np.random.Generator) -> Picture:
    """The same photograph on another site: trimmed by up to 3 % a side, made smaller or larger, a little brighter."""
    height, width = picture.shape[:2]
    top, bottom, left, right = (round(float(share) * width) for share in random.uniform(0, 0.03, 4))
    trimmed = picture[top : height - bottom, left : width - right]
    side = round(width * random.uniform(0.85, 1.3))
    scaled = cv2.resize(trimmed, (side, side), interpolation=cv2.INTER_AREA if side < width else cv2.INTER_CUBIC)
    bright = _pixels(scaled.astype(np.float32) * random.uniform(0.9, 1.12) + random.uniform(-8, 8))
    return recompressed(bright, int(random.integers(60, 90)))


def re_encoded(picture: Picture, random: np.random.Generator) -> Picture:
    """Compressed once more, as by a site that recompresses uploads: the same size, and hardly visible."""
    return recompressed(picture, int(random.integers(60, 81)))


def recompressed(picture: Picture, quality: int) -> Picture:
    """The picture after a JPEG of that quality."""
    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def written(picture: Picture, caption: str, random: np.random.Generator) -> Picture:
    """The caption, written on a plain card that hides a third of the picture to all of it."""
    height, width = picture.shape[:2]
    size = float(random.uniform(11, 14))
    lines = wrap(caption, int(2 * (width - 8) / size))
    least = len(lines) * 1.3 * size
    tall = round(min(height, max(least, height * float(random.uniform(0.33, 1.1)))))
    top = 0 if random.random() < 0.5 else height - tall
    paper, ink = ((244, 242, 236), (20, 20, 20)) if random.random() < 0.5 else ((30, 32, 40), (240, 240, 240))
    card = Image.fromarray(picture)
    pen = ImageDraw.Draw(card)
    pen.rectangle((0, top, width, top + tall), paper)
    pen.multiline_text(
        (width / 2, top + tall / 2), "\n".join(lines), ink, ImageFont.load_default(size), "mm", 1, "center"
    )
    return np.asarray(card)


def _pixels(values: np.typing.NDArray[np.generic]) -> Picture:
    picture: Picture = np.clip(values, 0, 255).astype(np.uint8)
    return picture


DEGRADING: Sequence[str] = ("blurred", "washed_out", "watermarked", "over_compressed")
"""The faults that damage a picture."""

APPLIED: Mapping[str, Callable[[Picture, np.random.Generator], Picture]] = {
    function.__name__: function
    for function in (blurred, washed_out, watermarked, over_compressed, near_duplicate, re_encoded)
}
"""By name."""
