"""Faces in the stored picture: how many, and how large."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field

from pipeline.images import face_detector
from pipeline.images.face_detector import Boxes, FaceDetector
from pipeline.scorers.spec import Batch, Columns, Scorer, Spec

VERSION = 1


class FacesSpec(Spec):
    """Finds faces with CenterFace (`pipeline.images.face_detector`)."""

    looks_at_pictures: ClassVar[bool] = True
    kind: Literal["faces"]
    threshold: float = Field(0.5, ge=0.1, lt=1, description="the least confidence in a face")

    def columns(self) -> Mapping[str, pa.DataType]:
        """count: faces. largest: the area of the largest face's box as a share of the picture's, 0 to 1.
        area: the share of the picture that the boxes cover together, 0 to 1.
        """
        return {"count": pa.int32(), "largest": pa.float32(), "area": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """Version, threshold, and the detector with the digest of its weights. Raises ModelError without the extra."""
        detector = face_detector.identity(f"the scorer {self.kind}")
        return {"version": VERSION, "threshold": self.threshold, "detector": detector}

    def load(self) -> Scorer:
        """The scorer with its network. Raises ModelError without the extra."""
        return Faces(FaceDetector(self.threshold))


class Faces:
    """Detects in the decode pool, with one thread for each picture."""

    embedding_dim = None

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector

    def prepare(self, image: Image.Image) -> tuple[int, float, float]:
        """The columns of one picture."""
        boxes = self._detector.find(image)
        width, height = image.size
        areas = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1)
        return len(boxes), float(areas.max(initial=0)) / (width * height), covered(boxes, width, height)

    def score(self, batch: Batch) -> Columns:
        """The columns of `FacesSpec`."""
        counts, largest, areas = zip(*batch.images, strict=True)
        return {
            "count": np.array(counts, np.int32),
            "largest": np.array(largest, np.float32),
            "area": np.array(areas, np.float32),
        }


def covered(boxes: Boxes, width: int, height: int) -> float:
    """The share of a picture's pixels that lie in a box."""
    inside = np.zeros((height, width), np.bool_)
    for left, top, right, bottom in np.round(boxes[:, :4]).astype(int):
        inside[top:bottom, left:right] = True
    return float(inside.mean())
