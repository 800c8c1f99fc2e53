"""What the pixels say without a model: brightness, sharpness, a perceptual hash."""

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa

from pipeline.score import Scorer, Spec

VERSION = 1


class PixelsSpec(Spec):
    """Brightness, sharpness and a perceptual hash. Width and height are the download's."""

    kind: Literal["pixels"]

    def columns(self) -> Mapping[str, pa.DataType]:
        """brightness: mean luma, 0 to 255; sharpness: variance of the Laplacian; phash: 64 bits."""
        return {"brightness": pa.float32(), "sharpness": pa.float32(), "phash": pa.uint64()}

    def identity(self) -> Mapping[str, Any]:
        """Versions of what computes them."""
        raise NotImplementedError

    def load(self) -> Scorer:
        """Nothing heavy."""
        raise NotImplementedError
