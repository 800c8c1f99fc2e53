"""The perceptual hash of a picture: 64 bits of a DCT (imagehash's phash). Similar pictures differ in few bits."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def phash(image: "Image.Image") -> int:
    """The 64 bits of a decoded picture, upright, in RGB or grey."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)


def phash_of_file(content: bytes) -> int:
    """The 64 bits of an encoded picture, turned upright first. Raises what Pillow raises."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content)) as image:
        return phash(ImageOps.exif_transpose(image).convert("RGB"))
