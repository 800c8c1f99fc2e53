"""The libraries that decode stored pictures, by the name that a source file gives: `decoder = "pillow-simd"`.

Each gives Pillow pictures of the very same pixels (all of them decode with libjpeg-turbo, none of them scaled); what
differs is who resizes them, which is most of the work, and by how little (at most 2 of 256 levels). They only see JPEGs
that winnow wrote. What strangers sent is decoded by Pillow, in a process of its own, whatever stands here.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import SourceError

Name = Literal["pillow", "pillow-simd", "torchvision"]

Pixels = npt.NDArray[np.uint8]
"""[height, width, 3]."""

Resize = Callable[[tuple[int, int], Image.Resampling], Pixels]
"""To (width, height)."""

_RESAMPLED = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
"""What every library does as Pillow does it."""


class Picture(Image.Image):
    """A picture of Pillow's, except that another library resizes it."""

    by: Resize

    def resize(
        self,
        size: tuple[int, int] | list[int] | npt.NDArray[Any],
        resample: int | None = None,
        box: tuple[float, float, float, float] | None = None,
        reducing_gap: float | None = None,
    ) -> Image.Image:
        """As Pillow's. Other resamplings and parts of a picture are left to Pillow."""
        if resample not in _RESAMPLED or box is not None:
            return super().resize(size, resample, box, reducing_gap)
        width, height = size
        return Image.fromarray(self.by((int(width), int(height)), Image.Resampling(resample)))


def get(name: Name) -> Callable[[bytes], Image.Image]:
    """From a stored JPEG to an RGB picture; any exception means that it is broken. Raises SourceError, as `made_by`."""
    made_by(name)
    return {"pillow": _pillow, "pillow-simd": _simd, "torchvision": _torchvision}[name]


def drawn(name: Name) -> Callable[[Pixels], Image.Image]:
    """From pixels to a picture that this library resizes, as one that it decoded. Raises SourceError, as `made_by`."""
    made_by(name)
    made: dict[str, Callable[[Pixels], Image.Image]] = {
        "pillow": Image.fromarray,
        "pillow-simd": _drawn_simd,
        "torchvision": _drawn_torchvision,
    }
    return made[name]


def made_by(name: Name) -> Mapping[str, str]:
    """The name and the version, for a stage's key. Raises SourceError for a library that is not installed here."""
    if name != "pillow-simd":
        return {"name": name, "version": version(name)}
    try:
        return {"name": name, "version": import_module("pillow_simd").__version__}
    except ImportError:
        raise SourceError("decoder = 'pillow-simd' is not installed here: run `make simd`, or take 'pillow'") from None


def _pillow(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=["JPEG"]) as stored:
        return stored.convert("RGB")


def _simd(content: bytes) -> Image.Image:
    simd: Any = import_module("pillow_simd.Image")  # a fork of Pillow's that `make simd` puts beside it
    with simd.open(io.BytesIO(content), formats=["JPEG"]) as stored:
        decoded = stored.convert("RGB")
    return _picture(np.asarray(decoded), partial(_resized_simd, decoded))


def _drawn_simd(pixels: Pixels) -> Image.Image:
    simd: Any = import_module("pillow_simd.Image")
    return _picture(pixels, partial(_resized_simd, simd.fromarray(pixels)))


def _resized_simd(picture: Any, size: tuple[int, int], resample: Image.Resampling) -> Pixels:
    return np.asarray(picture.resize(size, int(resample)))


def _torchvision(content: bytes) -> Image.Image:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    decoded = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return _picture(_pixels(decoded), partial(_resized_torchvision, decoded))


def _drawn_torchvision(pixels: Pixels) -> Image.Image:
    import torch

    return _picture(pixels, partial(_resized_torchvision, torch.from_numpy(pixels.copy()).permute(2, 0, 1)))


def _resized_torchvision(picture: Any, size: tuple[int, int], resample: Image.Resampling) -> Pixels:
    from torchvision.transforms.v2.functional import InterpolationMode, resize

    return _pixels(resize(picture, [size[1], size[0]], InterpolationMode(resample.name.lower()), antialias=True))


def _pixels(picture: Any) -> Pixels:
    pixels: Pixels = picture.permute(1, 2, 0).contiguous().numpy()
    return pixels


def _picture(pixels: Pixels, by: Resize) -> Image.Image:
    picture: Any = Image.fromarray(pixels)
    picture.__class__ = Picture  # Pillow makes pictures of one class only
    picture.by = by
    decoded: Image.Image = picture
    return decoded
