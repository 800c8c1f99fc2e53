"""Bytes from the web into a clean JPEG: one frame, upright, sRGB, on white, no larger than the limits allow.

Nothing here bounds memory or time: `pipeline.images.decode_process` does. Of winnow's modules only small ones are
imported, so that such a process starts in a tenth of a second.
"""

import contextlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TypeAlias

from PIL import AvifImagePlugin, Image, PngImagePlugin

from pipeline.images import colours, grey
from pipeline.images.limits import Limits
from pipeline.images.plain_jpeg import is_plain

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF", "ICO", "PPM")
"""The formats that are decoded. No EPS (it starts Ghostscript), no JPEG 2000, none that browsers never showed."""

MAX_SIDE = 65_500
"""px of a JPEG, as libjpeg writes it."""

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_NOISE = bytes(number * 97 % 251 for number in range(1, 200))

_TRANSPOSE = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation -> PIL.Image.Transpose. From 5 on, width and height change places."""

Hide: TypeAlias = Callable[[Image.Image], Image.Image]
"""Makes a part of a picture unrecognisable. Returns the same object if there is nothing to hide."""


@dataclass(frozen=True)
class Picture:
    """`jpeg` is RGB without metadata, and empty if the original is; width and height are the original's, upright."""

    jpeg: bytes
    width: int
    height: int


def prepare(limits: Limits) -> None:
    """Set up Pillow for the whole process: its formats, one thread, pixels that it reads at most, no warnings."""
    Image.init()  # before the time of the first picture starts
    PngImagePlugin.PngStream = _PngChunks  # type: ignore[misc]
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = limits.max_pixels // 2  # Pillow raises at twice this, on reading the header
    warnings.simplefilter("ignore")


def decode(data: bytes, limits: Limits, hide: Hide) -> Picture:
    """The picture, also of a JPEG that lacks its end marker and no pixel, as browsers show it.

    Raises DecompressionBombError for too many pixels, and for what is no picture any error that Pillow has.
    """
    try:
        return _picture(data, limits, hide)
    except OSError:
        if not data.startswith(_JPEG_START) or data.endswith(b"\xff") or _last_marker(data) != _JPEG_SCAN:
            raise
        limits = replace(limits, keep_plain=False)  # it is made of other bytes
        ended, other = (_picture(data + tail + _JPEG_END, limits, hide) for tail in (b"", _NOISE))
        if ended != other:  # what follows is read as pixels: some are missing
            raise
        return ended


def _last_marker(data: bytes) -> bytes:
    """The last marker of a JPEG but those within a scan."""
    markers: list[bytes] = re.findall(rb"\xff[^\x00\xd0-\xd7\xff]", data)
    return markers[-1] if markers else b""


def _picture(data: bytes, limits: Limits, hide: Hide) -> Picture:
    """The first frame, upright, on white, no larger than the limits allow, without what is to be hidden."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        size = load(image, limits)
        plain_file = limits.keep_plain and image.format == "JPEG" and size == (width, height) and is_plain(data)
        if plain_file and hide(image) is image:
            return Picture(b"", width, height)
        plain = resize(_eight_bits(image), size, limits)
        plain = colours.to_srgb(plain, image.info.get("icc_profile"))
        if plain.mode == "RGBA":
            plain = Image.alpha_composite(Image.new("RGBA", size, "white"), plain).convert("RGB")
        turn = _orientation(image)
    if turn in _TRANSPOSE:
        plain = plain.transpose(Image.Transpose(_TRANSPOSE[turn]))
        if turn >= 5:
            width, height = height, width
    plain = hide(plain)
    plain.info = {}  # else the comment would be written
    return Picture(encode(plain, limits), width, height)


def load(image: Image.Image, limits: Limits) -> tuple[int, int]:
    """Decode, a JPEG at about twice the size that is needed. Returns the width and height to store."""
    width, height = image.size
    scale = min(1.0, limits.image_size / min(width, height), MAX_SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image.draft(None, (2 * size[0], 2 * size[1]))
    image.load()
    return size


def resize(image: Image.Image, size: tuple[int, int], limits: Limits) -> Image.Image:
    """The picture at this size."""
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling[limits.resample.upper()], reducing_gap=3)


def encode(image: Image.Image, limits: Limits) -> bytes:
    """The JPEG that is stored."""
    encoded = BytesIO()
    image.save(encoded, "JPEG", quality=limits.quality)
    return encoded.getvalue()


def _eight_bits(image: Image.Image) -> Image.Image:
    """L, RGB or CMYK, or RGBA where something is transparent."""
    if grey.is_deep(image):
        image = grey.shallow(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - a picture with broken metadata is still a picture
        return 1


class _PngChunks(PngImagePlugin.PngStream):
    """Of a PNG whose colour profile is broken or unpacks to megabytes: the picture is read without the profile."""

    def chunk_iCCP(self, pos: int, length: int) -> bytes:  # noqa: N802 - Pillow calls it by the name of the chunk
        """The bytes of the chunk; none, which fit no checksum, if the profile cannot be read."""
        with contextlib.suppress(ValueError, IndexError):
            return super().chunk_iCCP(pos, length)
        return b""

    def crc(self, cid: bytes, data: bytes) -> None:
        """Check a chunk. Raises SyntaxError for a wrong checksum of another chunk than the profile's."""
        try:
            super().crc(cid, data)
        except SyntaxError:
            if cid != b"iCCP":
                raise
            self.im_info.pop("icc_profile", None)
