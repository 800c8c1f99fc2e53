"""The perceptual hash of a picture."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def phash(picture: bytes) -> int:
    """The 64 bits of the DCT-based perceptual hash of an encoded picture, upright. Raises what Pillow does."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(picture)) as image:
        return phash_of(ImageOps.exif_transpose(image).convert("RGB"))


def phash_of(image: "Image.Image") -> int:
    """The same of an upright RGB picture."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)
