"""The libraries that decode stored pictures, by the name in a source file: `decoder = "pillow-simd"`.

Each returns Pillow pictures with the same pixels: all decode with libjpeg-turbo at full size. They differ in the
library that resizes, which is most of the work; results differ by at most 2 of 256 levels. They only read JPEGs that
winnow wrote. Files from the web are always decoded by Pillow, in `pipeline.images.decode_process`.
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

_SHARED_FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
"""The resampling filters that all libraries share."""


class Picture(Image.Image):
    """A Pillow picture that another library resizes."""

    by: Resize

    def resize(
        self,
        size: tuple[int, int] | list[int] | npt.NDArray[Any],
        resample: int | None = None,
        box: tuple[float, float, float, float] | None = None,
        reducing_gap: float | None = None,
    ) -> Image.Image:
        """As Pillow's `resize`. Pillow itself does other resampling filters and boxes."""
        if resample not in _SHARED_FILTERS or box is not None:
            return super().resize(size, resample, box, reducing_gap)
        width, height = size
        return Image.fromarray(self.by((int(width), int(height)), Image.Resampling(resample)))


def decoder(name: Name) -> Callable[[bytes], Image.Image]:
    """A function from a stored JPEG to an RGB picture; any exception of it means a broken file. Raises SourceError."""
    identity(name)
    return {"pillow": _pillow, "pillow-simd": _simd, "torchvision": _torchvision}[name]


def from_pixels(name: Name) -> Callable[[Pixels], Image.Image]:
    """A function from RGB pixels to a picture that this library resizes. Raises SourceError."""
    identity(name)
    functions: dict[str, Callable[[Pixels], Image.Image]] = {
        "pillow": Image.fromarray,
        "pillow-simd": _simd_from_pixels,
        "torchvision": _torchvision_from_pixels,
    }
    return functions[name]


def identity(name: Name) -> Mapping[str, str]:
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
    simd: Any = import_module("pillow_simd.Image")  # a fork of Pillow, which `make simd` installs beside it
    with simd.open(io.BytesIO(content), formats=["JPEG"]) as stored:
        decoded = stored.convert("RGB")
    return _picture(np.asarray(decoded), partial(_resize_simd, decoded))


def _simd_from_pixels(pixels: Pixels) -> Image.Image:
    simd: Any = import_module("pillow_simd.Image")
    return _picture(pixels, partial(_resize_simd, simd.fromarray(pixels)))


def _resize_simd(picture: Any, size: tuple[int, int], resample: Image.Resampling) -> Pixels:
    return np.asarray(picture.resize(size, int(resample)))


def _torchvision(content: bytes) -> Image.Image:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    decoded = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return _picture(_pixels(decoded), partial(_resize_torchvision, decoded))


def _torchvision_from_pixels(pixels: Pixels) -> Image.Image:
    import torch

    return _picture(pixels, partial(_resize_torchvision, torch.from_numpy(pixels.copy()).permute(2, 0, 1)))


def _resize_torchvision(picture: Any, size: tuple[int, int], resample: Image.Resampling) -> Pixels:
    from torchvision.transforms.v2.functional import InterpolationMode, resize

    return _pixels(resize(picture, [size[1], size[0]], InterpolationMode(resample.name.lower()), antialias=True))


def _pixels(picture: Any) -> Pixels:
    pixels: Pixels = picture.permute(1, 2, 0).contiguous().numpy()
    return pixels


def _picture(pixels: Pixels, by: Resize) -> Image.Image:
    picture: Any = Image.fromarray(pixels)
    picture.__class__ = Picture  # Pillow creates pictures of one class only
    picture.by = by
    decoded: Image.Image = picture
    return decoded
