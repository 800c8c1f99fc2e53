"""Grey pictures of more than 8 bits, as 8 bits. Imports Pillow and nothing of winnow.

16 bits lose their lower 8, as the colours of a 16-bit RGB picture do: black stays 0 and white 65,535 becomes 255.
What has no such scale (32-bit integers, 16 bits with a sign, floating point) is spread from its smallest value to its
largest, and is black if it has one value only.
"""

from typing import cast

from PIL import Image, ImageMath

_BITS, _PHOTOMETRIC, _SAMPLES = 258, 262, 339
"""Tags of TIFF: bits of a value, whether 0 is white, and how a value is stored."""

_WHITE_IS_ZERO, _UNSIGNED = 0, 1


def is_deep(image: Image.Image) -> bool:
    """Whether values have more than 8 bits: the modes I;16 (all byte orders), I and F."""
    return image.mode.startswith(("I", "F"))


def shallow(image: Image.Image) -> Image.Image:
    """L, or LA where one value is transparent. Raises ValueError for a value that is NaN or infinite."""
    grey = _eight_bits(image)
    if _tag(image, _PHOTOMETRIC, default=1) == _WHITE_IS_ZERO:
        grey = grey.point(lambda value: 255 - value)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        opaque = ImageMath.lambda_eval(lambda at: (at["values"] != clear) * 255, values=image.convert("I"))
        grey.putalpha(opaque.convert("L"))
    return grey


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales PGM to 16 bits
        bits = 12 if _tag(image, _BITS, default=16) == 12 else 16
        return image.convert("I").point(lambda value: value * (256 / 2**bits)).convert("L")
    if image.mode == "F":
        finite = ImageMath.lambda_eval(lambda at: at["values"] - at["values"] == 0, values=image)
        if finite.getextrema()[0] == 0:
            raise ValueError("a value is NaN or infinite")
    elif _tag(image, _SAMPLES, default=0) == _UNSIGNED:  # Pillow reads them with a sign: the upper half as negative
        image = ImageMath.lambda_eval(lambda at: at["values"] ^ -(2**31), values=image)
    low, high = cast(tuple[float, float], image.getextrema())
    gain = 255 / ((high - low) or 1)
    return image.point(lambda value: value * gain + (0.5 - low * gain)).convert("L")


def _tag(image: Image.Image, number: int, default: int) -> int:
    """A tag of a TIFF, the first value of it; the default for a picture without."""
    value = getattr(image, "tag_v2", {}).get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)
