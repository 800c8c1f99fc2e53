"""The pixels of encoded pictures, and of their augmented versions."""

import hashlib
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from training.augment.picture_policies import Pixels, augment, seed


def decode_versions(picture: bytes, policy: str, views: int) -> Iterator[Pixels]:
    """The pixels of an encoded picture, and of its augmented `views`."""
    plain = _pixels(picture)
    yield plain
    sha256 = hashlib.sha256(picture).hexdigest()
    for number in range(1, views + 1):
        yield augment(plain, policy, seed(sha256, number))


def decode_version(picture: bytes, policy: str, number: int) -> Pixels:
    """The pixels of one version: of the picture itself, which is number 0, or of an augmented view, as above."""
    plain = _pixels(picture)
    if not number:
        return plain
    return augment(plain, policy, seed(hashlib.sha256(picture).hexdigest(), number))


def _pixels(picture: bytes) -> Pixels:
    with Image.open(io.BytesIO(picture)) as image:
        pixels: Pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        return pixels
