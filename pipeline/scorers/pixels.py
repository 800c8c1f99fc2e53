"""What the pixels say without a model: brightness, sharpness, a perceptual hash."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.score import Batch, Columns, Scorer, Spec

VERSION = 1
"""Raised whenever the same picture would get another value."""

SIDE = 224
"""Sharpness is measured at this shorter side, up- or downscaled, because it depends on the size."""

LONGEST = 4 * SIDE
"""A strip longer than this is squashed to it."""


class PixelsSpec(Spec):
    """Brightness, sharpness and a perceptual hash. Width and height are the download's."""

    looks_at_pictures: ClassVar[bool] = True
    kind: Literal["pixels"]

    def columns(self) -> Mapping[str, pa.DataType]:
        """brightness: mean luma, 0 to 255; sharpness: variance of the Laplacian, at 224 px; phash: 64 bits of a DCT."""
        return {"brightness": pa.float32(), "sharpness": pa.float32(), "phash": pa.uint64()}

    def identity(self) -> Mapping[str, Any]:
        """Versions of what decodes and computes."""
        packages = ("pillow", "opencv-python-headless", "imagehash")
        return {"version": VERSION, **{package: version(package) for package in packages}}

    def load(self) -> Scorer:
        """Nothing heavy."""
        return Pixels()


class Pixels:
    """Measures in the decode pool; `score` only collects."""

    embedding_dim = None

    def prepare(self, image: Image.Image) -> tuple[float, float, int]:
        """Brightness, sharpness, phash."""
        import cv2
        import imagehash

        luma = np.asarray(image.convert("L"))
        height, width = luma.shape
        scale = SIDE / min(height, width)
        size = (min(round(width * scale), LONGEST), min(round(height * scale), LONGEST))
        scaled = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        sharpness = float(cv2.Laplacian(scaled, cv2.CV_64F).var())
        return float(luma.mean()), sharpness, int(str(imagehash.phash(image)), 16)

    def score(self, batch: Batch) -> Columns:
        """The three columns of `PixelsSpec`."""
        brightness, sharpness, phash = zip(*batch.images, strict=True)
        return {
            "brightness": np.array(brightness, np.float32),
            "sharpness": np.array(sharpness, np.float32),
            "phash": np.array(phash, np.uint64),
        }
