"""Colours of any ICC profile, as sRGB. Imports Pillow and nothing of winnow.

The rendering intent is perceptual. Profiles of matrices, such as Display P3 and Adobe RGB, have one table for all
intents: colours outside sRGB are clipped. A profile that is broken, too large, of another kind of picture, or absurd is
ignored, and the picture's values are taken as they are.
"""

from functools import lru_cache
from io import BytesIO
from itertools import product
from typing import Any

from PIL import Image, ImageCms

MAX_BYTES = 4 << 20
"""Of a profile. Those of printing presses have up to 3 MB."""

_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""The colour spaces of profiles, and the modes of their pictures."""

_WHITE: dict[str, Any] = {"RGB": (255, 255, 255), "L": 255, "CMYK": (0, 0, 0, 0)}
_BLACK: dict[str, Any] = {"RGB": (0, 0, 0), "L": 0, "CMYK": (0, 0, 0, 255)}
_CLASSES = ("scnr", "mntr", "prtr", "spac")
"""Input, display, output, colour space. Others, such as links between two devices, describe no picture."""

_CONTRAST = 64
"""Levels by which white is lighter than black in every profile of sense."""

_GRID = (0, 13, 51, 102, 153, 204, 255)
_NEAR = 2
"""Levels by which colours of the grid may move in a profile that is taken for sRGB, and changes nothing."""

_INTENT = ImageCms.Intent.PERCEPTUAL
_Transform = ImageCms.ImageCmsTransform


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """RGB or RGBA of a picture of 8 bits in any mode, which this profile describes; anything but bytes is ignored."""
    clear = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    plain = image.convert(image.mode[:-1]) if clear else image
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_BYTES:
        plain = _converted(plain, profile)
    plain = plain.convert("RGB")
    if clear:
        plain.putalpha(clear)
    return plain


def _converted(image: Image.Image, profile: bytes) -> Image.Image:
    """The picture in sRGB; as it is where the profile does not fit it or changes nothing."""
    mode, transform = _transform(profile)
    if image.mode == "L" and mode == "RGB":
        image = image.convert("RGB")
    return transform.apply(image) if transform and image.mode == mode else image


@lru_cache(maxsize=8)
def _transform(profile: bytes) -> tuple[str, _Transform | None]:
    """The mode that a profile is for, and what to do; None for nothing. Most pictures of a host share a profile."""
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = _MODES.get(opened.profile.xcolor_space, "")
        if not mode or opened.profile.device_class not in _CLASSES:
            return "", None
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB", _INTENT)
        return mode, transform if _has_sense(transform, mode) and not _is_srgb(transform, mode) else None
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "", None


def _has_sense(transform: _Transform, mode: str) -> bool:
    """Whether white is lighter than black."""
    ends = Image.new(mode, (2, 1), _BLACK[mode])
    ends.paste(_WHITE[mode], (1, 0, 2, 1))
    black, white = transform.apply(ends).convert("L").tobytes()
    return white - black >= _CONTRAST


def _is_srgb(transform: _Transform, mode: str) -> bool:
    """Whether every colour of a grid stays what it is."""
    if mode == "CMYK":
        return False
    if mode == "L":
        image = Image.frombytes("L", (len(_GRID), 1), bytes(_GRID))
    else:
        image = Image.frombytes(
            "RGB", (len(_GRID) ** 3, 1), bytes(level for colour in product(_GRID, repeat=3) for level in colour)
        )
    before, after = image.convert("RGB").tobytes(), transform.apply(image).tobytes()
    return max(abs(one - other) for one, other in zip(before, after, strict=True)) <= _NEAR
